"""What an upgrade becomes when nothing in it goes on by itself: pure functions."""

from collections.abc import Collection, Mapping
from typing import Any

from upgrade_service.conductor import board as boards
from upgrade_service.conductor import ready
from upgrade_service.db import api as db

Row = dict[str, Any]


def failures_settled(board: boards.Board) -> bool:
    """Whether steps are failed or unknown and none of them will be tried again."""
    stuck = board.stuck()
    return bool(stuck) and not any(ready.retries(n) for n in stuck)


def at_rest(
    board: boards.Board, held: boards.Node | None, direction: str
) -> db.UpgradeMove | None:
    """Say how a plan that is at rest goes on: done, blocked, at a gate; None: it is not clear."""
    if failures_settled(board):
        node = board.stuck()[0]
        where = f' on {node.host}' if node.host else ''
        why = f'step {node.ord} ({node.kind}{where}): {node.error or node.state}'
        return blocked('step_failed', why)
    if board.stuck():
        return None
    if not board.in_state('pending'):
        return ended(board, 'rolled_back' if direction == 'back' else 'succeeded')
    if held is not None:
        return at_gate(held)
    return None


def tripped(board: boards.Board, policy: Mapping[str, Any]) -> db.UpgradeMove | None:
    """Block when too many hosts have failed."""
    why = ready.breaker(board, policy) if failures_settled(board) else None
    return blocked('breaker', why) if why else None


def ended(board: boards.Board, state: str) -> db.UpgradeMove:
    """End the upgrade; hosts that we keep disabled are named."""
    held = sorted(h for h in board.hosts() if board.disabled(h))
    said = {
        'succeeded': 'every step is done',
        'cancelled': 'cancelled',
        'rolled_back': 'all that was changed is undone',
    }[state]
    if held:
        said += f'; still disabled: {", ".join(held)}'
    values: Row = {'message': said, 'next': None, 'intent': {}}
    return db.UpgradeMove(state=state, event=state, detail={'held_hosts': held}, values=values)


def going_back(
    back: boards.Board, chosen: Collection[str], counters: Mapping[str, Any]
) -> db.UpgradeMove:
    """Turn round; from now on the steps of the way back are counted."""
    values = {
        'next': None,
        'direction': 'back',
        'intent': {},
        'counters': {
            **counters,
            'steps': {'pending': len(chosen)},
            'total': len(chosen),
            'hosts': back.tally(),
        },
    }
    detail = {'steps': len(chosen)}
    return db.UpgradeMove(state='running', event='going_back', detail=detail, values=values)


def blocked(reason: str, why: str) -> db.UpgradeMove:
    """Hold everything until a person decides."""
    values = {'blocked_reason': reason, 'message': why}
    detail = {'reason': reason, 'why': why}
    return db.UpgradeMove(state='blocked', event='blocked', detail=detail, values=values)


def at_gate(node: boards.Node) -> db.UpgradeMove:
    """Wait for a person's approval."""
    gate = node.params['gate']
    values = {'gate': gate, 'message': f'waits for approval of gate {gate}'}
    return db.UpgradeMove(
        state='paused', event='gate_reached', detail={'gate': gate}, values=values
    )
