"""The guards of the protocol, and what goes wrong without each of them."""

from typing import NamedTuple

from upgrade_service.tests.model import protocol


class Mutant(NamedTuple):
    """Guards taken away, where that shows, and the invariant that breaks."""

    what: str
    rules: protocol.Rules
    breaks: str


def _without(
    *guards: str, plan: str = 'chain', once: bool = True, **bounds: int
) -> protocol.Rules:
    small = {'epochs': 1, 'kills': 0, 'reboots': 0, 'verbs': 0, **bounds}
    return protocol.Rules(plan, once, frozenset(guards), protocol.Bounds(**small))


MUTANTS = (
    Mutant('a dispatch does not check the state', _without('state', verbs=1), 'I8'),
    Mutant('a time-out makes a new attempt', _without('answer', plan='hosts'), 'I7'),
    Mutant('an engine does not remember attempts', _without('remember'), 'I7'),
    Mutant('the journal is lost with the process', _without('journal', 'lock', kills=1), 'I7'),
    Mutant('nobody sees that a step still runs', _without('lock', once=False, kills=1), 'I1'),
    Mutant('an outcome counts for any attempt', _without('match'), 'I3'),
    Mutant('a step does not wait for its parents', _without('parents', plan='hosts'), 'I2'),
    Mutant('neither epochs nor rows are compared', _without('epoch', 'compare', epochs=2), 'I3'),
    Mutant('two threads of an owner, rows not compared', _without('alone', 'compare'), 'I3'),
    Mutant('a chain goes on after a step that was cut off', _without('failure', kills=1), 'I2'),
    Mutant('what was given back is begun', _without('revoked', 'forbid', verbs=2), 'I7'),
    Mutant('a revocation is not written down', _without('promise', verbs=2), 'I7'),
    Mutant('an engine begins again by itself', _without('rest', 'lock', kills=1), 'I7'),
    Mutant('a shim may come too late', _without('forbid', 'lock', kills=1), 'I1'),
    Mutant('a rest of an order is taken', _without('prefix', verbs=1), 'I2'),
    Mutant('an order is repeated without its beginning', _without('whole', verbs=2), 'I2'),
)
#: one guard that stands before another: without it nothing breaks yet
DEFENCE = (
    Mutant('epochs are not compared', _without('epoch', epochs=2, verbs=1), ''),
    Mutant('rows are not compared', _without('compare', epochs=2, verbs=1), ''),
    Mutant('engines ignore epochs', _without('seen', epochs=2, verbs=1), ''),
    Mutant('what was given back is begun', _without('revoked', verbs=2), ''),
)

#: the protocol as it is: (plan, once, epochs, kills, reboots, verbs)
_SMALL = (
    ('chain', True, 1, 1, 1, 1),
    ('chain', False, 1, 1, 1, 1),
    ('chain', True, 2, 0, 0, 2),
    ('hosts', True, 2, 0, 0, 2),
    ('hosts', False, 1, 1, 1, 2),
    ('budget', True, 1, 1, 1, 2),
)
_LARGE = (
    ('chain', True, 2, 1, 0, 1),
    ('chain', True, 1, 1, 1, 3),
    ('chain', False, 1, 2, 1, 2),
    ('hosts', True, 2, 1, 1, 1),
    ('hosts', False, 2, 1, 1, 1),
    ('budget', False, 2, 1, 1, 1),
)


def _whole(table: tuple[tuple[str, bool, int, int, int, int], ...]) -> tuple[protocol.Rules, ...]:
    return tuple(
        _without(plan=plan, once=once, epochs=epochs, kills=kills, reboots=reboots, verbs=verbs)
        for plan, once, epochs, kills, reboots, verbs in table
    )


SMALL, LARGE = _whole(_SMALL), _whole(_LARGE)
