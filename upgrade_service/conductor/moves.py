"""The transitions a broker makes by itself, each applied to the board and returned as a move.

The board runs ahead of the rows by one turn; if the turn cannot be committed, the board
is read again.
"""

from typing import Any

from upgrade_service import states
from upgrade_service.conductor import board as boards
from upgrade_service.conductor import ready
from upgrade_service.db import api as db


def _move(
    board: boards.Board, node: boards.Node, new: str, event: str, **more: Any
) -> db.StepMove:
    made = db.StepMove(
        step=node.id, old=node.state, new=new, attempt=node.attempt, event=event, **more
    )
    live: dict[str, Any] = {'state': new, 'not_before': more.get('not_before')}
    if more.get('begins'):
        live.update(attempt=node.attempt + 1, error=None, started_at=None)
    board.apply(node.id, **live)
    return made


def begin(
    board: boards.Board, node: boards.Node, state: str, not_before: int | None = None
) -> db.StepMove:
    """Begin a new attempt: `dispatched` to an engine, or `running` here."""
    event = 'dispatched' if state == 'dispatched' else 'started'
    return _move(
        board, node, state, event, begins=True, agent=node.executor, not_before=not_before
    )


def pass_gate(board: boards.Board, node: boards.Node) -> db.StepMove:
    """Let a gate be passed."""
    return _move(board, node, 'succeeded', 'gate_passed')


def give_back(board: boards.Board, node: boards.Node) -> db.StepMove:
    """Take a soaking gate back because the upgrade stops."""
    return _move(board, node, 'pending', 'interrupted')


def drop(board: boards.Board, node: boards.Node) -> db.StepMove:
    """Say that a step will not be done any more."""
    return _move(board, node, 'cancelled', 'cancelled')


def drain_anew(board: boards.Board, node: boards.Node, wrong: str) -> db.StepMove:
    """Send a host that is in use again back to being disabled and drained."""
    return _move(board, node, 'pending', 'in_use_again', detail={'why': wrong})


def retry_failed(board: boards.Board, now: int) -> list[db.StepMove]:
    """Give back what failed and may be tried again, each time after a longer wait."""
    moves = []
    for node in board.stuck():
        if ready.retries(node):
            later = now + ready.RETRY_MS * node.attempt
            move = _move(board, node, 'pending', 'auto_retry', not_before=later, error=node.error)
            moves.append(move)
    return moves


def whole(board: boards.Board) -> tuple[list[boards.Node], list[boards.Node]]:
    """Split the dispatched steps: what can be ordered again, and what must be taken back.

    Of a chain whose beginning was given back the rest may not have been: without it, it must
    never be ordered.
    """
    good: list[boards.Node] = []
    orphans: list[boards.Node] = []
    for node in board.in_state('dispatched'):
        parents = [board.nodes[p] for p in node.parents]
        kept = all(p.in_flight or p.state in states.STEP_DONE for p in parents)
        (good if kept and not any(p in orphans for p in parents) else orphans).append(node)
    return good, orphans


class Gates:
    """What became of the gates in a turn."""

    def __init__(self) -> None:
        self.passed = 0
        self.held: boards.Node | None = None
        self.moves: list[db.StepMove] = []


def gates(board: boards.Board, approvals: list[str], now: int) -> Gates:
    """Pass every ready gate that nothing holds; passing one may make others ready."""
    found = Gates()
    for node in board.in_state('running'):
        if node.kind == 'gate' and (node.not_before or 0) <= now:
            found.passed += 1
            found.moves.append(pass_gate(board, node))
    more = True
    while more:
        more = False
        for node in [n for n in board.ready(now) if n.kind == 'gate']:
            if ready.gate_waits_for_person(node, approvals):
                found.held = found.held or node
            elif ready.soak_ms(node):
                found.moves.append(begin(board, node, 'running', now + ready.soak_ms(node)))
            else:
                found.passed += 1
                found.moves.append(pass_gate(board, node))
                more = True
    return found
