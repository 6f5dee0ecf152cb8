"""The rule by which an engine takes an order or refuses it: pure, and the same for all.

The signature, the audience and the form were checked before; this is about what the
engine remembers (its journal), what its clock says, and what its own settings allow.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from upgrade_service.engine import journal

#: every reason to refuse, with a sentence for people
REASONS = {
    'expired': 'the order is too old',
    'clock_skew': "the clocks of this host and of the conductors' database differ too much, "
    'or the order was long under way',
    'stale_epoch': 'a later owner of the upgrade has spoken already',
    'epoch_regressed': 'this engine has seen a higher epoch of the upgrade',
    'stale_attempt': 'this engine knows a later attempt of the step',
    'busy': 'another step runs on this host',
    'inhibited': 'the file `inhibit` in the state directory forbids new steps',
    'not_allowed': 'the settings of this host do not allow it',
    'project_data_mismatch': 'this engine has other project data than the conductor',
    'journal': 'the journal cannot be written',
    'bad_params': 'the parameters are not legal',
    'not_understood': 'the order says something that this version of the engine does not know',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Situation:
    """What an engine is in when an order arrives."""

    now: int  #: ms
    skew: int  #: ms that the clocks may differ
    digest: str  #: of the project data
    inhibited: bool = False
    busy: bool = False  #: no step more fits on this host now


def timely(message: Mapping[str, Any], situation: Situation) -> str | None:
    """Return why a message does not count at this time, or None."""
    if message['nbf'] > situation.now + situation.skew:
        return 'clock_skew'
    if message['exp'] < situation.now:
        return 'expired'
    return None


def outlived(order: Mapping[str, Any], known: journal.Journal) -> str | None:
    """Return why an order is not of the present owner of its upgrade, or None."""
    epoch, shown_at = known.epochs.get(order['upgrade'], (0, 0))
    if order['epoch'] >= epoch:
        return None
    # signed after the higher epoch was shown: the database went back, not the message
    return 'epoch_regressed' if order['nbf'] > shown_at else 'stale_epoch'


def judge_order(
    order: Mapping[str, Any], known: journal.Journal, situation: Situation
) -> str | None:
    """Return why nothing of an order can be taken, or None."""
    # a clock that is ahead looks like an order that took long: neither is taken
    if situation.now - order['nbf'] > situation.skew:
        return 'clock_skew'
    why = timely(order, situation)
    if why:
        return why
    if past := outlived(order, known):
        return past
    if order['nbf'] < known.floor:
        return 'expired'
    if order['digest'] != situation.digest:
        return 'project_data_mismatch'
    if situation.inhibited:
        return 'inhibited'
    return 'busy' if situation.busy else None


def judge_step(step: Mapping[str, Any], known: journal.Journal) -> str | None:
    """Return why an attempt that the journal does not hold cannot be taken, or None."""
    highest = known.highest.get(step['step'], 0)
    if step['attempt'] <= highest:
        return 'stale_attempt'
    last = known.attempts.get((step['step'], highest))
    return 'busy' if last is not None and last.open else None
