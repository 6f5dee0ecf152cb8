"""What may happen next: pure functions of the board, the policy and the time.

Nothing here reads a clock or a row; the broker carries out what is decided.
"""

from collections import Counter
from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from upgrade_service import states
from upgrade_service.conductor import board as boards

#: most steps that ride in one order: an order must stay well below a message's limit
MAX_CHAIN = 16
#: most hosts in one run of a deployment host's engine, for the same reason
MAX_TOGETHER = 64
MAX_ATTEMPTS = 3
RETRY_MS = 2000


def allowance(amount: int | str, total: int) -> int:
    """Turn '5%' or a number into how many hosts may be out at once, at least one."""
    if isinstance(amount, str):
        return max(1, math.floor(total * int(amount.rstrip('%')) / 100))
    return amount


class Budget:
    """How many more hosts may go out of service, in all and in each AZ."""

    def __init__(self, board: boards.Board, policy: Mapping[str, Any]) -> None:
        hosts = board.hosts()
        self._board = board
        self._out = board.hosts_out()
        self._all = allowance(policy['max_unavailable'], len(hosts))
        per_az = policy.get('per_az')
        totals = Counter(board.azs.get(h) for h in hosts)
        self._az = {az: allowance(per_az, n) for az, n in totals.items()} if per_az else {}

    def take(self, host: str) -> bool:
        """Take a host out if that is allowed; True as well if it is out already."""
        if host in self._out:
            return True
        az = self._board.azs.get(host)
        in_az = sum(self._board.azs.get(h) == az for h in self._out)
        if len(self._out) >= self._all or in_az >= self._az.get(az, self._all):
            return False
        self._out.add(host)
        return True


@dataclasses.dataclass(frozen=True)
class Picks:
    """What to begin now: chains of host steps (one order each) and cloud steps.

    The steps of a chain are consecutive ones of one host, or, where an engine does the
    steps of other hosts, the same step for several.
    """

    chains: list[list[boards.Node]]
    cloud: list[boards.Node]


def pick(
    board: boards.Board,
    policy: Mapping[str, Any],
    now: int,
    max_dispatched: int,
    only: set[str] | None = None,
    hosts: set[str] | None = None,
) -> Picks:
    """Choose the ready steps to begin, inside every budget; gates are not begun here.

    :param only: ids to choose from (a release after a cancel), or None for all.
    :param hosts: hosts to choose from (a pause that lets them end first), or None for all.
    """
    budget = Budget(board, policy)
    orders = _Orders(board, budget, now, max_dispatched)
    cloud = []
    for node in board.ready(now) if only is None else _released(board, only, now):
        if hosts is not None and node.host not in hosts:
            continue
        if node.what.where == 'host':
            orders.add(node)
        elif node.what.where == 'cloud' and not unsound(board, node) and _may_go(node, budget):
            cloud.append(node)
    return Picks(orders.chains, cloud)


def unsound(board: boards.Board, node: boards.Node) -> bool:
    """Whether a host would be emptied while a service of it is down: nothing could leave it."""
    return node.kind in ('disable_host', 'drain_host') and node.host in board.down


def _may_go(node: boards.Node, budget: Budget) -> bool:
    return not node.what.disruptive or budget.take(_host(node))


class _Orders:
    """The orders of one turn, as they come together."""

    def __init__(self, board: boards.Board, budget: Budget, now: int, max_dispatched: int) -> None:
        flying = [n for n in board.in_flight() if n.what.where == 'host']
        self._board, self._budget, self._now = board, budget, now
        self._room = max_dispatched - len(flying)
        self._busy = {n.host for n in flying}
        self._at_work = {n.executor for n in flying}
        self._runs: dict[str, list[boards.Node]] = {}  #: by executors of several hosts
        self.chains: list[list[boards.Node]] = []

    def add(self, node: boards.Node) -> None:
        """Take a ready step in, if its host and its engine are free and the budget allows it."""
        if not node.executor or node.host in self._busy or self._room <= 0:
            return
        if node.executor in self._board.absent:
            return  # it becomes ready again when its engine is heard of
        run = self._runs.get(node.executor)
        if (run is None and node.executor in self._at_work) or (run and not _alike(node, run)):
            return
        if not _may_go(node, self._budget):
            return
        if run is not None:
            chain = [node]
            run.append(node)
        elif node.executor in self._board.shared:
            chain = self._runs[node.executor] = [node]
            self.chains.append(chain)
        else:
            chain = _chain(self._board, node, self._now, self._budget)
            self.chains.append(chain)
        self._busy.add(node.host)
        self._at_work.add(node.executor)
        self._room -= len(chain)


def _alike(node: boards.Node, run: list[boards.Node]) -> bool:
    """Whether a step may join a run for several hosts: it differs in its host only."""
    first = run[0]
    return len(run) < MAX_TOGETHER and all(
        getattr(node, field) == getattr(first, field)
        for field in ('kind', 'strategy', 'project', 'params', 'direction')
    )


def _released(board: boards.Board, only: set[str], now: int) -> list[boards.Node]:
    found = [board.nodes[i] for i in only]
    return [n for n in found if n.state == 'pending' and (n.not_before or 0) <= now]


def _host(node: boards.Node) -> str:
    return node.host or ''


def _chain(board: boards.Board, first: boards.Node, now: int, budget: Budget) -> list[boards.Node]:
    """Follow `first` by the steps that need nothing but the ones before them here."""
    chain, inside = [first], {first.id}
    while len(chain) < MAX_CHAIN:
        nxt = next(
            (
                n
                for n in _followers(board, chain[-1])
                if _rides(n, first, now) and _satisfied(board, n, inside)
            ),
            None,
        )
        if nxt is None or (nxt.what.disruptive and not budget.take(_host(nxt))):
            break
        chain.append(nxt)
        inside.add(nxt.id)
    return chain


def _followers(board: boards.Board, node: boards.Node) -> list[boards.Node]:
    return sorted((board.nodes[c] for c in node.children), key=lambda n: n.ord)


def _rides(node: boards.Node, first: boards.Node, now: int) -> bool:
    return (
        node.what.where == 'host'
        and node.state == 'pending'
        and node.executor == first.executor
        and node.host == first.host
        and (node.not_before or 0) <= now
    )


def _satisfied(board: boards.Board, node: boards.Node, inside: set[str]) -> bool:
    return all(p in inside or board.nodes[p].state in board.done for p in node.parents)


def may_abort(node: boards.Node) -> bool:
    """Whether a running step may be interrupted: never in the middle of a change to a host.

    Database migrations and package transactions besides are never ended by the engine,
    whoever asks: their jobs say so.
    """
    return node.state == 'running' and node.what.where == 'host' and not node.what.disruptive


# -- gates -------------------------------------------------------------------------------------


def gate_waits_for_person(node: boards.Node, approvals: list[str]) -> bool:
    """Whether a ready gate needs an approval that nobody has given."""
    return bool(node.params.get('person')) and node.params.get('gate') not in approvals


def soak_ms(node: boards.Node) -> int:
    """How long a gate lets what was done so far prove itself."""
    return int(node.params.get('soak_seconds') or 0) * 1000


# -- failures ----------------------------------------------------------------------------------


def retries(node: boards.Node) -> bool:
    """Whether a failed step may be tried again without asking anyone."""
    return (
        node.state == 'failed'
        and node.what.idempotent
        and not node.final
        and node.attempt < MAX_ATTEMPTS
    )


def breaker(board: boards.Board, policy: Mapping[str, Any]) -> str | None:
    """Say why nothing new may start after these failures, or None.

    Two rules: so many hosts failed one after the other, or too great a part of them all.
    """
    rules, hosts = policy['failure'], board.hosts()
    failed = {n.host: n.finished_at or 0 for n in board.stuck() if n.host in set(hosts)}
    good = [n.finished_at or 0 for n in board.in_state('succeeded') if n.kind == 'enable_host']
    since = max(good, default=0)
    row = sum(at > since for at in failed.values())
    if row >= max(2, rules['max_consecutive']):
        return f'{row} hosts failed one after the other'
    if len(failed) > max(1, len(hosts) * rules['max_percent'] / 100):
        return f'{len(failed)} of {len(hosts)} hosts failed'
    return None


# -- the way back to service after a cancel ----------------------------------------------------


def release(board: boards.Board) -> set[str]:
    """Return the enable steps of hosts that we disabled and that are whole.

    A host is whole if what disrupts it was never begun or has all succeeded; a host
    upgraded by half stays disabled and is reported.
    """
    found = set()
    for host in board.hosts():
        if not board.disabled(host):
            continue
        work = [n for n in board.of_host(host) if n.kind in ('upgrade_service', 'restart_service')]
        done = sum(n.state in states.STEP_DONE for n in work)
        begun = any(n.attempt for n in work)
        if not begun or done == len(work):
            found |= {
                n.id
                for n in board.of_host(host)
                if n.kind == 'enable_host' and n.state == 'pending'
            }
    return found


# -- the way back ------------------------------------------------------------------------------


def to_undo(board: boards.Board, back: boards.Board, to: int) -> set[str]:
    """Return the steps of the way back that there is a reason for.

    `board`: the plan as far as it was carried out; `to`: number of the last step that is
    kept, 0: none is. A host is brought back whole, even if only its end is beyond `to`.
    """
    numbers = ((n.undo_of, _undo_number(board, n)) for n in back.nodes.values() if n.undo_of)
    begun = {origin: number for origin, number in numbers if number is not None}
    beyond = {i for i, number in begun.items() if not to or number > to}
    units = {_unit(n) for n in back.nodes.values() if n.undo_of in beyond}
    chosen = [n for n in back.nodes.values() if n.undo_of in begun and _unit(n) in units]
    if not chosen:
        return set()
    projects = {n.project for n in chosen}
    others = [
        n
        for n in back.nodes.values()
        if n.undo_of is None and (n.project is None or n.project in projects)
    ]
    return {n.id for n in (*chosen, *others)}


def _undo_number(board: boards.Board, node: boards.Node) -> int | None:
    """Return the number of the step that a step undoes; None: that was never begun."""
    origin = board.nodes.get(node.undo_of or '')
    if origin is None:  # of an earlier revision of the plan, kept because it was begun
        return 0 if node.state == 'pending' else None
    return origin.ord if origin.attempt else None


def _unit(node: boards.Node) -> tuple[str, str | None, str | None]:
    """Return what is undone together: a compute host, a project on a control host."""
    by_project = node.stage in ('control_plane', 'verify')
    return (node.stage, node.host, node.project if by_project else None)
