"""Every state, verb and legal transition of upgrades and steps: the first page to read.

Three kinds of table stand here and nothing else decides:

* ``UPGRADE_STATES``, ``STEP_STATES`` and the other names, each with a sentence;
* ``VERBS``: what an operator may ask in which state, and where it leads;
* ``OWNER_MOVES`` and ``STEP_MOVES``: what the owning conductor may change.

A request is answered in one of three ways: it moves the upgrade, it is already so
(``ALREADY``), or it is illegal (``None``, an HTTP 409 at the edge).
"""

import dataclasses

# -- upgrades ----------------------------------------------------------------------------------

UPGRADE_STATES = {
    'planning': 'a conductor discovers the cluster and makes the plan',
    'draft': 'the plan is ready to be looked at; nothing was touched',
    'running': 'steps are dispatched, in the direction the upgrade has',
    'stopping': 'nothing new is dispatched; attempts in flight end, then `next` takes effect',
    'paused': 'nothing is in flight; an operator or a gate holds the upgrade',
    'blocked': 'nothing new is dispatched until a person decides; `blocked_reason` says why',
    'succeeded': 'the plan was carried out',
    'cancelled': 'stopped before the end; healthy hosts are back in service',
    'rolled_back': 'every step down to the rollback floor was undone',
}
TERMINAL = frozenset({'succeeded', 'cancelled', 'rolled_back'})
#: states in which a conductor has something to do for the upgrade
OWNED = frozenset({'planning', 'running', 'stopping', 'blocked'})
#: states in which outcomes of attempts are still recorded
RECORDING = frozenset({'running', 'stopping', 'blocked', 'paused'})

#: forward: the plan; back: undo steps; release: put healthy hosts back into service
DIRECTIONS = frozenset({'forward', 'back', 'release'})
#: what an upgrade becomes once nothing is in flight; running with next=paused: once the
#: hosts in progress are done
NEXTS = frozenset({'paused', 'cancelled', 'back'})

BLOCKED_REASONS = {
    'step_failed': 'a step failed or its outcome is unknown',
    'breaker': 'too many hosts failed in a row',
    'drift': 'the cloud is no longer the one that was planned for',
    'state_loss': 'the database forgot what engines remember',
    'stuck': 'nothing is ready, in flight or waiting for a time',
}


@dataclasses.dataclass(frozen=True)
class Move:
    """Where a verb leads: the new state and, with it, what follows."""

    state: str
    next: str | None = None
    direction: str | None = None  # None: keep


#: the request is already fulfilled: 202 and nothing changes
ALREADY = Move('')

_STOP_TO_PAUSE = Move('stopping', next='paused')
_STOP_TO_CANCEL = Move('stopping', next='cancelled')
_STOP_TO_BACK = Move('stopping', next='back')

#: verb -> state, or (state, next) where next decides -> what happens; absent: 409
VERBS: dict[str, dict[str | tuple[str, str], Move]] = {
    'start': {'draft': Move('running', direction='forward')},
    'pause': {
        'running': _STOP_TO_PAUSE,
        ('running', 'paused'): _STOP_TO_PAUSE,
        ('stopping', 'paused'): ALREADY,
        'paused': ALREADY,
        'blocked': Move('blocked', next='paused'),
        ('blocked', 'paused'): ALREADY,
    },
    'resume': {
        'running': ALREADY,
        ('running', 'paused'): Move('running'),
        ('stopping', 'paused'): Move('running'),
        'paused': Move('running'),
        # only when no step is failed or unknown and the reason is acknowledged
        'blocked': Move('running'),
        ('blocked', 'paused'): Move('running'),
    },
    'cancel': {
        'planning': Move('cancelled'),
        'draft': Move('cancelled'),
        'running': _STOP_TO_CANCEL,
        ('stopping', 'paused'): _STOP_TO_CANCEL,
        ('stopping', 'cancelled'): ALREADY,
        'paused': _STOP_TO_CANCEL,
        'blocked': _STOP_TO_CANCEL,
        ('blocked', 'paused'): _STOP_TO_CANCEL,
        'cancelled': ALREADY,
    },
    # refused as well where a point of no return was passed
    'rollback': {
        'running': _STOP_TO_BACK,
        ('stopping', 'paused'): _STOP_TO_BACK,
        ('stopping', 'back'): ALREADY,
        'paused': _STOP_TO_BACK,
        'blocked': _STOP_TO_BACK,
    },
    'approve': {'paused': Move('running')},
    # only at rest, with every host whole
    'replan': {
        'draft': Move('planning'),
        'paused': Move('planning'),
        'blocked': Move('planning'),
    },
    # verbs on one step of the upgrade; they leave its state alone
    'retry': {'running': ALREADY, 'paused': ALREADY, 'blocked': ALREADY},
    'skip': {'running': ALREADY, 'paused': ALREADY, 'blocked': ALREADY},
    'resolve': {'running': ALREADY, 'paused': ALREADY, 'blocked': ALREADY},
    'delete': {
        'draft': ALREADY,
        'succeeded': ALREADY,
        'cancelled': ALREADY,
        'rolled_back': ALREADY,
    },
}
STEP_VERBS = frozenset({'retry', 'skip', 'resolve'})

#: (verb, its option) -> what differs from the verb's row above
VARIANTS: dict[tuple[str, str], dict[str | tuple[str, str], Move]] = {
    # first the hosts in progress are brought to their end
    ('pause', 'host'): {
        'running': Move('running', next='paused'),
        ('running', 'paused'): ALREADY,
    },
    # what may be interrupted is interrupted
    ('cancel', 'now'): {('stopping', 'cancelled'): _STOP_TO_CANCEL},
}

#: (verb, direction) pairs that differ from the tables above
_BY_DIRECTION: dict[tuple[str, str], Move | None] = {
    ('cancel', 'release'): ALREADY,
    ('cancel', 'back'): None,
    ('rollback', 'back'): ALREADY,
    ('replan', 'back'): None,
    ('replan', 'release'): None,
}


def decide(
    verb: str, state: str, next_: str | None, direction: str, option: str | None = None
) -> Move | None:
    """Say what `verb` does to an upgrade: a Move, ALREADY, or None when it is illegal."""
    if state in ('running', 'stopping', 'paused', 'blocked'):
        if (verb, direction) in _BY_DIRECTION:
            return _BY_DIRECTION[verb, direction]
    table = {**VERBS[verb], **VARIANTS.get((verb, option or ''), {})}
    return table.get((state, next_ or ''), table.get(state))


def allowed(state: str, next_: str | None, direction: str) -> list[str]:
    """List the verbs that would not be refused now, for the body of a 409."""
    return sorted(verb for verb in VERBS if decide(verb, state, next_, direction))


#: what the owning conductor may do, each with its reason
OWNER_MOVES = frozenset(
    {
        ('planning', 'draft'),  # the plan is stored
        ('planning', 'paused'),  # a new plan for the rest is stored, or none can be made
        ('planning', 'cancelled'),  # no plan can be made; nothing was touched
        ('running', 'paused'),  # a gate waits for a person
        ('running', 'blocked'),  # see BLOCKED_REASONS
        ('running', 'stopping'),  # next=paused and no host is in progress any more
        ('running', 'succeeded'),  # direction forward is complete
        ('running', 'cancelled'),  # direction release is complete
        ('running', 'rolled_back'),  # direction back is complete
        ('stopping', 'paused'),  # next=paused and nothing in flight
        ('stopping', 'running'),  # next=cancelled or back: the release or undo steps
        ('stopping', 'cancelled'),  # next=cancelled and nothing to put back
        ('stopping', 'rolled_back'),  # next=back and nothing to undo
        ('blocked', 'running'),  # retry, skip or resolve left no blocker
        ('blocked', 'stopping'),  # the same, and a pause was asked for meanwhile
    }
)

# -- steps -------------------------------------------------------------------------------------

STEP_STATES = {
    'pending': 'not begun, or given back; waits for its parents and the budget',
    'dispatched': 'an order is out; the engine has not said that it runs',
    'running': 'its engine, or the conductor for a cloud step, works on it',
    'succeeded': 'it really ended well',
    'failed': 'it ended, and not well',
    'unknown': 'nobody can say whether it ended; a person decides',
    'skipped': 'a person said to go on without it',
    'cancelled': 'it will not be done in this upgrade',
}
STEP_DONE = frozenset({'succeeded', 'skipped'})
STEP_ENDED = frozenset({'succeeded', 'skipped', 'cancelled'})
STEP_IN_FLIGHT = frozenset({'dispatched', 'running'})
STEP_STUCK = frozenset({'failed', 'unknown'})

STEP_MOVES = frozenset(
    {
        ('pending', 'dispatched'),  # order written, inside the budget
        ('pending', 'running'),  # a cloud step or gate: the owner itself works
        ('pending', 'succeeded'),  # a gate that nothing holds
        ('dispatched', 'running'),  # accepted by the engine
        ('dispatched', 'succeeded'),
        ('dispatched', 'failed'),
        ('dispatched', 'unknown'),
        ('dispatched', 'pending'),  # revoked, or refused before anything ran
        ('running', 'succeeded'),
        ('running', 'failed'),
        ('running', 'unknown'),
        ('running', 'pending'),  # interruptible step stopped with its progress kept
        ('succeeded', 'pending'),  # a drained host was found in use again
        ('failed', 'pending'),  # idempotent and attempts left, or an operator's retry
        ('unknown', 'pending'),  # the same, after check() or with the risk acknowledged
        ('unknown', 'succeeded'),  # check() proves the goal, or a person says so
        ('failed', 'succeeded'),  # a person says that it did end well
        ('unknown', 'failed'),  # a person says that it did not
        ('failed', 'skipped'),
        ('unknown', 'skipped'),
        ('pending', 'skipped'),
        ('dispatched', 'skipped'),  # its host is lost for ever
        ('running', 'skipped'),
        ('pending', 'cancelled'),
    }
)


def legal_step(old: str, new: str) -> bool:
    """Tell whether a step may go from `old` to `new`."""
    return (old, new) in STEP_MOVES


# -- agents ------------------------------------------------------------------------------------

AGENT_STATES = {
    'pending': 'asked to be enrolled; an administrator must approve it',
    'active': 'trusted with orders for its own host',
    'revoked': 'nothing it says is believed any more',
}
