"""Look at the whole protocol within larger bounds, and at every mutant; print what was found.

The last line is "N passed, N failed, N skipped".
"""

import sys

from upgrade_service.tests.model import explore, mutants


def main() -> int:
    """Return 0 if the protocol holds and every mutant is caught."""
    failed = passed = states = 0
    for rules in (*mutants.SMALL, *mutants.LARGE):
        found = explore.explore(rules)
        states += found.states
        good = found.exhausted and not found.broken
        passed, failed = passed + good, failed + (not good)
        name = f'{rules.plan}, {"once" if rules.once else "again"}, {tuple(rules.bounds)}'
        print(f'{"ok" if good else "FAILED"} {name}: {found}', flush=True)
    print(f'{states:,} states of the protocol as it is')
    for mutant in (*mutants.MUTANTS, *mutants.DEFENCE):
        found = explore.explore(mutant.rules)
        good = found.broken.startswith(f'{mutant.breaks}:') if mutant.breaks else not found.broken
        passed, failed = passed + good, failed + (not good)
        print(f'{"ok" if good else "FAILED"} without a guard: {mutant.what}: {found}', flush=True)
    print(f'{passed} passed, {failed} failed, 0 skipped')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
