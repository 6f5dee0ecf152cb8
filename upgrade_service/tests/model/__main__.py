"""Look at the whole protocol within larger bounds, and at every mutant; print what was found.

With --steps N, rules of made-up histories too (:mod:`machine`). The last line is
"N passed, N failed, N skipped".
"""

import argparse
import sys
import traceback

import hypothesis
from hypothesis import stateful

from upgrade_service.tests.model import explore, machine, mutants


def histories(steps: int) -> bool:
    """Make up histories until they have so many steps; return whether all of them are good."""
    ground = machine.Ground()

    class Here(machine.Machine):
        pass

    Here.ground = ground
    rules = hypothesis.settings(
        max_examples=50,
        stateful_step_count=60,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        while Here.steps_taken < steps:
            stateful.run_state_machine_as_test(Here, settings=rules)
    except Exception:
        traceback.print_exc()
        return False
    finally:
        ground.cleanup.close()
        print(f'{Here.steps_taken:,} steps of histories with real rows and journals', flush=True)
    return True


def main() -> int:
    """Return 0 if the protocol holds and every mutant is caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=0, help='of made-up histories')
    asked = parser.parse_args()
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
    if asked.steps:
        good = histories(asked.steps)
        passed, failed = passed + good, failed + (not good)
    print(f'{passed} passed, {failed} failed, 0 skipped')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
