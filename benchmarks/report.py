"""Figures beside their goals, as text."""

import dataclasses
import operator

_TESTS = {'<=': operator.le, '>=': operator.ge}


@dataclasses.dataclass
class Table:
    """Collects the figures of one benchmark."""

    title: str
    rows: list[tuple[str, bool]] = dataclasses.field(default_factory=list)

    def row(self, what: str, figure: float, test: str, goal: float, digits: int = 2) -> None:
        """Add a figure and what it should be."""
        good = bool(_TESTS[test](round(figure, digits + 1), goal))
        mark = 'ok    ' if good else 'MISSED'
        self.rows.append((f'{mark} {what}: {figure:.{digits}f} (goal {test} {goal:g})', good))

    def show(self) -> int:
        """Print all; return how many goals were missed."""
        print(self.title)
        for text, _ in self.rows:
            print(f'  {text}')
        passed = sum(good for _, good in self.rows)
        print(f'{passed} passed, {len(self.rows) - passed} failed, 0 skipped')
        return len(self.rows) - passed
