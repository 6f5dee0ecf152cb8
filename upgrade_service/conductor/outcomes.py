"""What engines and cloud steps say, turned into moves: a table and pure functions.

An outcome is a fact whoever owns the upgrade now, but it counts only for the attempt it
is about. Anything may arrive twice, late or in another order than it was sent.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
from typing import Any

from oslo_log import log

from upgrade_service import states
from upgrade_service.conductor import board as boards
from upgrade_service.db import api as db

LOG = log.getLogger(__name__)
Row = dict[str, Any]
#: more output than this is not kept of one attempt
MAX_OUTPUT = 256 * 1024

#: an engine's reasons to refuse that pass by themselves: the order is sent again
PASSING = frozenset({'busy', 'inhibited', 'expired', 'clock_skew', 'journal'})
#: reasons that say the database forgot what the engine remembers
FORGOTTEN = frozenset({'stale_attempt', 'epoch_regressed'})
#: the order came from an owner before this one, late; this one's own is on its way
OUTRUN = frozenset({'stale_epoch'})


@dataclasses.dataclass
class Taken:
    """What a batch of items comes to."""

    moves: dict[str, db.StepMove] = dataclasses.field(default_factory=dict)
    acks: list[tuple[str, tuple[str, int]]] = dataclasses.field(default_factory=list)
    late: list[Row] = dataclasses.field(default_factory=list)
    blocked: tuple[str, str] | None = None
    #: what engines know beyond the rows: attempts by step, and the highest epoch
    lost: dict[str, int] = dataclasses.field(default_factory=dict)
    lost_epoch: int = 0

    def loss(self, step: str, attempt: int, epoch: int, why: str) -> None:
        """Note that the database forgot what an engine remembers."""
        self.blocked = ('state_loss', why)
        self.lost[step] = max(attempt, self.lost.get(step, 0))
        self.lost_epoch = max(epoch, self.lost_epoch)


def take(board: boards.Board, items: Iterable[Row], now: int) -> Taken:
    """Apply items to the board and return the moves that make the rows follow."""
    taken = Taken()
    for item in items:
        node = board.nodes.get(item['step'])
        read = _READERS.get(item['what'])
        if node is None:
            _ack(taken, item)
        elif read is None:
            # of a later version: not guessed at, and not acknowledged either
            LOG.warning('an engine says %.32s of step %s', item['what'], node.ord)
        elif _may_say(node, item):
            read(board, node, item, taken, now)
        else:
            LOG.warning('engine %s may not speak of step %s', item.get('agent'), node.ord)
    return taken


def _may_say(node: boards.Node, item: Row) -> bool:
    """Whether who says it is who does the step: its engine, or this conductor itself."""
    wanted = node.executor if node.what.where == 'host' else None
    return item.get('agent') == wanted


#: what must be there, and what may be: field -> type
_ITEM = {'upgrade': str, 'step': str, 'attempt': int, 'what': str}
_ITEM_TOO = {'outcome': dict, 'current': dict}
_OUTCOME = {'result': str}
_OUTCOME_TOO = {'rc': int, 'error': str, 'output': str, 'data': dict}
_CURRENT_TOO = {'attempt': int, 'epoch': int}
MOST = 2**31 - 1


def legible(item: Any) -> bool:
    """Whether an item of a report has the form that can be read: it comes from outside."""
    if not _formed(item, _ITEM, _ITEM_TOO) or not 0 < item['attempt'] <= MOST:
        return False
    if item['what'] == 'outcome' and not _formed(item.get('outcome'), _OUTCOME, _OUTCOME_TOO):
        return False
    return _formed(item.get('current') or {}, {}, _CURRENT_TOO)


def _formed(value: Any, needed: Mapping[str, type], allowed: Mapping[str, type]) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(k), t) for k, t in needed.items())
        and all(value.get(k) is None or isinstance(value[k], t) for k, t in allowed.items())
    )


def _text(value: Any) -> str:
    """Return what was printed, without the one character that databases do not take."""
    return str(value or '').replace('\0', '')


def _ack(taken: Taken, item: Row) -> None:
    if item.get('agent'):
        taken.acks.append((item['agent'], (item['step'], item['attempt'])))


def _current(node: boards.Node, item: Row) -> bool:
    return node.in_flight and node.attempt == item['attempt']


def _move(
    board: boards.Board,
    node: boards.Node,
    taken: Taken,
    now: int,
    new: str,
    event: str,
    **more: Any,
) -> None:
    """Note a move; one that follows another of the same turn takes its place."""
    before = taken.moves.get(node.id)
    taken.moves[node.id] = db.StepMove(
        step=node.id,
        old=before.old if before else node.state,
        new=new,
        attempt=node.attempt,
        event=event,
        **more,
    )
    ended = new in states.STEP_ENDED or new in states.STEP_STUCK
    board.apply(
        node.id,
        state=new,
        error=more.get('error'),
        final=more.get('final', False),
        not_before=None,
        finished_at=now if ended else node.finished_at,
    )


def _begun(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    if _current(node, item) and node.state == 'dispatched':
        _move(board, node, taken, now, 'running', 'accepted')


def _outcome(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    said = item['outcome']
    if item['attempt'] > node.attempt:
        why = f'an engine knows attempt {item["attempt"]}, the database only {node.attempt}'
        taken.loss(node.id, item['attempt'], 0, f'step {node.ord}: {why}')
        return
    _ack(taken, item)
    if not _current(node, item):
        if item['attempt'] < node.attempt:
            taken.late.append({k: v for k, v in item.items() if k != 'output'})
        return
    result = said['result'] if said['result'] in ('succeeded', 'failed') else 'unknown'
    data = dict(said.get('data') or {})
    detail = {
        'rc': said.get('rc'),
        'data': data,
        'by': item.get('agent'),
        'started_at': item.get('started_at'),
        'finished_at': item.get('finished_at'),
    }
    error = None if result == 'succeeded' else _text(said.get('error')) or 'no reason was given'
    if error:
        detail['error'] = error
    _move(
        board,
        node,
        taken,
        now,
        result,
        result,
        error=error,
        detail=detail,
        final=bool(data.get('final')),
        output=_text(said.get('output'))[-MAX_OUTPUT:],
    )
    if data.get('blocked_reason') in states.BLOCKED_REASONS:
        taken.blocked = (data['blocked_reason'], error or '')


def _interrupted(
    board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int
) -> None:
    """Nobody knows how far it came: try again if that is harmless, else ask a person."""
    _ack(taken, item)
    if not _current(node, item):
        return
    cause = 'the host restarted' if item.get('boot_changed') else 'the engine lost sight of it'
    new = 'failed' if node.what.idempotent else 'unknown'
    _move(
        board,
        node,
        taken,
        now,
        new,
        'interrupted',
        error=f'interrupted: {cause}',
        detail={'boot_changed': item.get('boot_changed')},
    )


def _lost(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    if node.state == 'running':
        _interrupted(board, node, item, taken, now)


def _refused(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    reason, current = str(item.get('reason')), item.get('current') or {}
    if not _current(node, item) or node.state != 'dispatched':
        return
    if reason in OUTRUN:
        return
    if reason in PASSING:
        LOG.warning('engine of %s does not take step %s yet: %s', node.host, node.ord, reason)
    elif reason in FORGOTTEN:
        attempt, epoch = current.get('attempt') or 0, current.get('epoch') or 0
        # a refusal of what a past owner said late names an epoch that is not beyond ours
        if attempt > node.attempt or epoch > board.epoch:
            why = f'it knows more than the database: {current}'
            refused = f'the engine of {node.host} refuses step {node.ord} ({reason})'
            taken.loss(node.id, attempt, epoch, f'{refused}: {why}')
    else:
        _ack(taken, item)
        error = f'the engine of {node.host} refuses: {reason} {_text(item.get("message"))}'
        _move(
            board,
            node,
            taken,
            now,
            'failed',
            'refused',
            error=error.strip(),
            final=True,
            detail={'reason': reason},
        )


def _revoked(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    if _current(node, item) and node.state == 'dispatched':
        _ack(taken, item)
        _move(board, node, taken, now, 'pending', 'revoked')


def _stopped(board: boards.Board, node: boards.Node, item: Row, taken: Taken, now: int) -> None:
    """A cloud step stopped at a safe point because it was asked to."""
    if _current(node, item):
        _move(board, node, taken, now, 'pending', 'interrupted')


_READERS: dict[str, Callable[[boards.Board, boards.Node, Row, Taken, int], None]] = {
    'accepted': _begun,
    'running': _begun,
    'progress': _begun,
    'outcome': _outcome,
    'interrupted': _interrupted,
    'not_running': _lost,
    'refused': _refused,
    'revoked': _revoked,
    'stopped': _stopped,
}
