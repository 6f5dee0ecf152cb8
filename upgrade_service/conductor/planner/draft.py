"""A plan in the making: numbers the steps and lets the stages meet at gates.

A stage begins with the first step that is added to it; its gate then waits for every
loose end of the stage before. So edges stay linear in the number of hosts, and a stage
without steps leaves no trace.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from upgrade_service import model


class Draft:
    """Collects steps, stage by stage."""

    def __init__(
        self,
        policy: Mapping[str, Any],
        strategy: str,
        direction: str = 'forward',
        first: int = 1,
    ) -> None:
        self.steps: list[model.Step] = []
        self._direction, self._first = direction, first
        self._policy = policy
        self._strategy = strategy
        self._stage = ''
        self._wanted = ''
        self._gate: tuple[int, ...] = ()
        self._loose: dict[int, None] = {}

    def begin(self, stage: str) -> None:
        """Let the steps that follow belong to a stage."""
        self._wanted = stage

    def add(
        self,
        kind: str,
        *,
        after: Iterable[int | None] = (),
        host: str | None = None,
        project: str | None = None,
        binaries: Iterable[str] = (),
        params: Mapping[str, Any] | None = None,
        ponr: bool | None = None,
        estimate: int | None = None,
        undo_of: int | None = None,
    ) -> int:
        """Append a step and return its number.

        What it comes after in earlier stages is behind the gate already; with nothing else
        to wait for, it follows the gate.
        """
        if self._stage != self._wanted:
            self._open()
        here = {n for n in after if n is not None and self.of(n).stage == self._stage}
        parents = tuple(sorted(here)) or self._gate
        return self._append(
            kind,
            parents,
            host=host,
            project=project,
            service=','.join(binaries) or None,
            params=params or {},
            ponr=ponr,
            estimate=estimate,
            undo_of=undo_of,
        )

    def of(self, number: int) -> model.Step:
        """Return the step of a number."""
        return self.steps[number - self._first]

    def _open(self) -> None:
        if self.steps:
            person = self._wanted in self._policy['gates']
            soak = self._policy['canary']['soak_seconds'] if self._stage == 'canary' else 0
            params = {'gate': self._wanted, 'person': person, 'soak_seconds': soak}
            self._gate = (self._append('gate', tuple(self._loose), params=params, estimate=soak),)
            self._loose = {}
        self._stage = self._wanted

    def _append(
        self,
        kind: str,
        parents: tuple[int, ...],
        *,
        params: Mapping[str, Any],
        host: str | None = None,
        project: str | None = None,
        service: str | None = None,
        ponr: bool | None = None,
        estimate: int | None = None,
        undo_of: int | None = None,
    ) -> int:
        facts = model.KINDS[kind]
        step = model.Step(
            ord=len(self.steps) + self._first,
            stage=self._stage,
            kind=kind,
            host=host,
            project=project,
            service=service,
            strategy=self._strategy if facts.where == 'host' else None,
            params=params,
            parents=parents,
            ponr=facts.ponr if ponr is None else ponr,
            estimate=facts.estimate if estimate is None else estimate,
            direction=self._direction,
            undo_of=undo_of,
        )
        for parent in parents:
            self._loose.pop(parent, None)
        self._loose[step.ord] = None
        self.steps.append(step)
        return step.ord
