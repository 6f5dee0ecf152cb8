"""P9 to P12: migrations and makespan, the product's plans beside nova's weigher and batches.

Usage: python -m benchmarks.migrations [SEED ...]
"""

import statistics
import sys

from benchmarks import clouds, report, roll

#: share of memory in use -> the most that is allowed, of the lower bound, for each mode
GOALS = {
    'min-migrations': (
        dict.fromkeys((0.60, 0.75, 0.90), 1.001),
        {0.60: 1.12, 0.75: 1.15, 0.90: 1.30},
    ),
    'balanced': ({0.60: 1.010, 0.75: 1.010, 0.90: 1.015}, {0.60: 1.05, 0.75: 1.05, 0.90: 1.08}),
}
OUT = 50


def main(seeds: list[int]) -> int:
    """Print the figures beside their goals; return how many were missed."""
    table = report.Table('P9-P11 migrations (1,000 hosts, 5 % out at once)')
    for share in (0.60, 0.75, 0.90):
        found = [_one(share, seed) for seed in seeds]
        for mode, (moves, spans) in GOALS.items():
            runs = [f[mode] for f in found]
            name = f'{mode} at {share:.0%}'
            per = max(r[0] for r in runs)
            table.row(f'{name}: migrations per server, worst', per, '<=', moves[share], 4)
            span = statistics.median(r[1] for r in runs)
            table.row(f'{name}: makespan / bound, median', span, '<=', spans[share], 3)
            table.row(f'{name}: most moves of one server', max(r[2] for r in runs), '<=', 2, 0)
        weigher, balanced = [f['weigher'] for f in found], [f['balanced'] for f in found]
        excess = statistics.median(
            (w[0] - 1) / (b[0] - 1) for w, b in zip(weigher, balanced, strict=True)
        )
        table.row(f'at {share:.0%}: excess migrations, nova / balanced', excess, '>=', 10, 1)
        longer = statistics.median(b[1] / w[1] for w, b in zip(weigher, balanced, strict=True))
        table.row(f'at {share:.0%}: makespan, balanced / nova', longer, '<=', 1.0, 3)
        serial = statistics.median(f['batches'][1] / f['balanced'][1] for f in found)
        table.row(f'at {share:.0%}: makespan, serial batches / balanced', serial, '>=', 1.3, 2)
        alone = statistics.median(f['alone'][1] / f['balanced'][1] for f in found)
        table.row(f'at {share:.0%}: makespan, one by one / balanced', alone, '>=', 45, 1)
    _spare(table, seeds[0])
    _many(table, seeds[0])
    return table.show()


def _one(share: float, seed: int) -> dict[str, tuple[float, float, int]]:
    inventory = clouds.draw(clouds.Shape(share=share, seed=seed))
    lower, movable = roll.bound(inventory, OUT)
    found: dict[str, tuple[float, float, int]] = {}

    def note(name: str, result: roll.Result) -> None:
        if result.broken or result.done < len(inventory.hosts):
            raise AssertionError(f'{name}: {result.done} done; {result.broken[:3]}')
        found[name] = result.migrations / movable, result.seconds / lower, result.most

    for mode in GOALS:
        plan = clouds.plan(inventory, clouds.request(mode))
        note(mode, roll.Planned(plan, inventory, OUT).run())
    note('weigher', roll.Weigher(inventory, OUT, seed).run())
    found['batches'] = 1.0, roll.batches(inventory, OUT, seed) / lower, 1
    found['alone'] = 1.0, roll.batches(inventory, 1, seed) / lower, 1
    return found


def _spare(table: report.Table, seed: int) -> None:
    inventory = clouds.draw(clouds.Shape(share=0.75, seed=seed, spares=1))
    _, movable = roll.bound(inventory, OUT)
    plan = clouds.plan(inventory, clouds.request('min-migrations'))
    result = roll.Planned(plan, inventory, OUT).run()
    table.row(
        'a spare in each zone: migrations per server', result.migrations / movable, '<=', 1.0, 4
    )
    table.row('a spare in each zone: most moves of one server', result.most, '<=', 1, 0)


def _many(table: report.Table, seed: int) -> None:
    inventory = clouds.draw(clouds.Shape(share=0.75, seed=seed))
    lower, movable = roll.bound(inventory, 200)
    plan = clouds.plan(inventory, clouds.request('balanced', '20%'))
    result = roll.Planned(plan, inventory, 200).run()
    table.row('P12 20 % out at 75%: makespan / bound', result.seconds / lower, '<=', 1.12, 3)
    table.row(
        'P12 20 % out at 75%: migrations per server', result.migrations / movable, '<=', 1.05, 4
    )


if __name__ == '__main__':
    sys.exit(main([int(a) for a in sys.argv[1:]] or [1, 2, 3, 4, 5]))
