"""What an operator should hear of while a run goes on, though nothing has failed (M10).

Nothing is decided here: a step that does not begin, or that says nothing, or that takes too
long, stays what it is. Times are ms by the database's clock.
"""

from collections.abc import Iterable, Mapping, Set
import dataclasses
from typing import Any

from upgrade_service.conductor import board as boards
from upgrade_service.conductor import ready

Row = dict[str, Any]
Key = tuple[str, int]  #: (step, attempt)

NOT_STARTED, SILENT = 60_000, 90_000
#: reasons of an engine to refuse that stay until somebody does something on its host
HELD_BACK = frozenset({'clock_skew', 'inhibited', 'journal'})

#: code -> what an operator can do
HINTS = {
    'not_started': 'look at upgrade-service-engine on the host, and at the message bus; the '
    'order is sent again and again',
    'held_back': 'put right what its engine names; the order is sent again by itself',
    'no_progress': 'look at the host; the step goes on if its processes do',
    'overdue': 'it must not be ended half-way, so nothing ends it: look at its processes on the '
    'host; if they will never end, end them there, then retry or skip the step',
    'engine_lost': 'look at upgrade-service-engine on the host, and at the message bus; its steps '
    'wait for it',
    'service_lost': 'look at the service on the host; no other host is taken out of service '
    'beyond what the policy allows',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarm:
    """One thing to look at."""

    code: str
    message: str
    host: str | None = None
    service: str | None = None
    step: int | None = None  #: its number
    step_id: str | None = None
    attempt: int | None = None

    @property
    def key(self) -> tuple[str, str | None, int | None]:
        """What makes it the same alarm as before."""
        return self.code, self.host, self.step

    def row(self) -> Row:
        """Return it as it is stored."""
        return {**dataclasses.asdict(self), 'hint': HINTS[self.code]}


class Ear:
    """What engines said of the steps in flight, as far as alarms need it."""

    def __init__(self) -> None:
        self._heard: dict[Key, int] = {}
        self._waits: dict[Key, int] = {}
        self._late: set[Key] = set()
        self._refused: dict[Key, str] = {}

    def hear(self, items: Iterable[Mapping[str, Any]], now: int) -> None:
        """Take in the items of reports."""
        for item in items:
            key = item['step'], item['attempt']
            self._heard[key] = now
            if (item.get('progress') or {}).get('overdue'):
                self._late.add(key)
            if item['what'] == 'refused':
                self._refused[key] = f'{item.get("reason")}: {item.get("message") or ""}'
            else:
                self._refused.pop(key, None)

    def alarms(self, board: boards.Board, now: int) -> list[Alarm]:
        """List what is to be looked at now."""
        flying = [n for n in board.in_flight() if n.what.where == 'host']
        alive = {(n.id, n.attempt) for n in flying}
        for known in (self._heard, self._waits, self._refused):
            for key in known.keys() - alive:
                del known[key]
        self._late &= alive
        at_work = {n.executor for n in flying if n.state == 'running'}
        found = [a for n in flying if (a := self._of_step(n, now, at_work)) is not None]
        return [*found, *lost_engines(board, now), *lost_services(board, now)]

    def _of_step(self, node: boards.Node, now: int, at_work: Set[str | None]) -> Alarm | None:
        key = node.id, node.attempt
        if node.state == 'dispatched':
            return self._of_order(node, now, at_work)
        # what a past owner heard is not known: count from the first look
        since = self._heard.setdefault(key, now)
        if key in self._late:
            return _of(node, 'overdue', 'it takes longer than it may')
        elif now - since > SILENT:
            return _of(node, 'no_progress', 'its engine says nothing of it any more')
        return None

    def _of_order(self, node: boards.Node, now: int, at_work: Set[str | None]) -> Alarm | None:
        key = node.id, node.attempt
        refused = self._refused.get(key, '')
        if refused.partition(':')[0] in HELD_BACK:
            return _of(node, 'held_back', f'its engine does not take it: {refused}')
        if node.executor in at_work:
            self._waits[key] = now  # it comes after what its engine does now
        if now - self._waits.setdefault(key, node.started_at or now) > NOT_STARTED:
            why = f' ({refused})' if refused else ''
            return _of(node, 'not_started', f'its engine has not begun it{why}')
        return None


def _of(node: boards.Node, code: str, said: str) -> Alarm:
    where = f' on {node.host}' if node.host else ''
    return Alarm(
        code=code,
        message=f'step {node.ord} ({node.kind}{where}): {said}'[:500],
        host=node.host,
        step=node.ord,
        step_id=node.id,
        attempt=node.attempt,
    )


def lost_engines(board: boards.Board, now: int) -> list[Alarm]:
    """Name the engines that a step could begin on if they were there."""
    waiting = {n.host: n for n in board.ready(now) if n.executor in board.absent}
    return [
        Alarm(
            code='engine_lost',
            host=host,
            message=f'the engine that does step {n.ord} ({n.kind} on {host}) is not heard of',
        )
        for host, n in waiting.items()
    ]


def lost_services(board: boards.Board, now: int) -> list[Alarm]:
    """Name the hosts of the plan with a service that went down by itself."""
    waiting = {n.host for n in board.ready(now) if ready.unsound(board, n)}
    return [
        Alarm(
            code='service_lost',
            host=host,
            service=binary,
            message=f'{binary} on {host} went down; the host counts as out of service',
        )
        for host, binary in sorted(board.down.items())
        if not board.ours(host) or host in waiting
    ]


def waits(board: boards.Board, now: int) -> str:
    """Say what the next steps wait for that will pass by itself, or ''."""
    found = [*lost_engines(board, now), *lost_services(board, now)]
    return '; '.join(a.message for a in found[:3])
