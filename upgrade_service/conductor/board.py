"""The owner's picture of one plan: the immutable steps, and where each stands now.

The plan of a revision never changes, so it is read once; states follow from the rows
that changed. What is ready and which hosts are out of service is kept up to date with
each change instead of being computed again from all steps.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
import dataclasses
from typing import Any

from upgrade_service import model, states

Row = dict[str, Any]


@dataclasses.dataclass(kw_only=True, eq=False)
class Node:
    """A step: what it is, and where it stands (the fields from `state` on change)."""

    id: str
    ord: int
    stage: str
    kind: str
    direction: str
    undo_of: str | None
    host: str | None
    executor: str | None
    project: str | None
    strategy: str | None
    params: Mapping[str, Any]
    ponr: bool
    parents: tuple[str, ...] = ()
    children: list[str] = dataclasses.field(default_factory=list)
    state: str = 'pending'
    attempt: int = 0
    not_before: int | None = None
    progress: Row | None = None
    error: str | None = None
    final: bool = False
    started_at: int | None = None
    finished_at: int | None = None

    @property
    def what(self) -> model.Kind:
        """The facts of its kind."""
        return model.KINDS[self.kind]

    @property
    def in_flight(self) -> bool:
        """Whether someone works on it now."""
        return self.state in states.STEP_IN_FLIGHT

    @property
    def stuck(self) -> bool:
        """Whether a person, or an automatic retry, must deal with it."""
        return self.state in states.STEP_STUCK


_STATIC = (
    'id',
    'ord',
    'stage',
    'kind',
    'direction',
    'undo_of',
    'host',
    'executor',
    'project',
    'strategy',
    'params',
    'ponr',
)
_LIVE = (
    'state',
    'attempt',
    'not_before',
    'progress',
    'error',
    'final',
    'started_at',
    'finished_at',
)


def _shared(nodes: Iterable[Node]) -> set[str]:
    """Return the executors with steps of more than one host."""
    hosts: dict[str, set[str | None]] = defaultdict(set)
    for node in nodes:
        if node.executor and node.what.where == 'host':
            hosts[node.executor].add(node.host)
    return {executor for executor, names in hosts.items() if len(names) > 1}


class Board:
    """All steps of one revision of a plan."""

    def __init__(
        self,
        rows: Iterable[Row],
        edges: Mapping[str, list[str]],
        azs: Mapping[str, str | None] | None = None,
    ) -> None:
        self.azs = dict(azs or {})
        #: states in which a step keeps nobody waiting: on the way back there are steps that
        #: have nothing to undo
        self.done = states.STEP_DONE
        #: ids of engines that are not heard of, and host -> service of it that is down
        self.absent: Set[str] = frozenset()
        self.down: Mapping[str, str] = {}
        #: of the owner
        self.epoch = 0
        self.nodes: dict[str, Node] = {}
        for row in sorted(rows, key=lambda r: r['ord']):
            node = Node(
                **{k: row[k] for k in (*_STATIC, *_LIVE)}, parents=tuple(edges.get(row['id'], ()))
            )
            self.nodes[node.id] = node
            if node.direction == 'back':
                self.done = states.STEP_ENDED
        self.missing: dict[str, int] = {}
        self.by_state: dict[str, set[str]] = defaultdict(set)
        self._of_host: dict[str, list[Node]] = defaultdict(list)
        self._frontier: set[str] = set()
        self._facts: dict[str, Row] = {}
        for node in self.nodes.values():
            self._index(node)
        self._hosts = [
            h for h, nodes in self._of_host.items() if any(n.what.disruptive for n in nodes)
        ]
        #: engines that carry out the steps of several hosts
        self.shared = _shared(self.nodes.values())

    def _index(self, node: Node) -> None:
        for parent in node.parents:
            self.nodes[parent].children.append(node.id)
        undone = (p for p in node.parents if self.nodes[p].state not in self.done)
        self.missing[node.id] = sum(1 for _ in undone)
        self.by_state[node.state].add(node.id)
        self._watch(node.id)
        if node.host:
            self._of_host[node.host].append(node)

    def _watch(self, ident: str) -> None:
        waits = self.nodes[ident].state == 'pending' and not self.missing[ident]
        (self._frontier.add if waits else self._frontier.discard)(ident)

    def apply(self, ident: str, **live: Any) -> None:
        """Take over what changed of a step: any of state, attempt, not_before …"""
        node = self.nodes[ident]
        old, new = node.state, live.get('state', node.state)
        for key, value in live.items():
            setattr(node, key, value)
        self._facts.pop(node.host or '', None)
        if old == new:
            return
        self.by_state[old].discard(ident)
        self.by_state[new].add(ident)
        self._watch(ident)
        delta = (new not in self.done) - (old not in self.done)
        if delta:
            for child in node.children:
                self.missing[child] += delta
                self._watch(child)

    def refresh(self, rows: Iterable[Row]) -> None:
        """Take over rows that someone else changed."""
        for row in rows:
            if row['id'] in self.nodes:
                self.apply(row['id'], **{k: row[k] for k in _LIVE})

    def in_state(self, *names: str) -> list[Node]:
        """Return the steps in some states, in the order of the plan."""
        found = [self.nodes[i] for name in names for i in self.by_state[name]]
        return sorted(found, key=lambda n: n.ord)

    def ready(self, now: int) -> list[Node]:
        """Return pending steps whose parents are done and whose time has come."""
        found = (self.nodes[i] for i in self._frontier)
        return sorted((n for n in found if (n.not_before or 0) <= now), key=lambda n: n.ord)

    def timers(self) -> list[int]:
        """Return the times (ms) that steps in the frontier or soaking gates wait for."""
        nodes = [self.nodes[i] for i in self._frontier] + self.in_state('running')
        return [n.not_before for n in nodes if n.not_before]

    def in_flight(self) -> list[Node]:
        """Return the steps that someone works on."""
        return self.in_state(*states.STEP_IN_FLIGHT)

    def stuck(self) -> list[Node]:
        """Return the failed and unknown steps."""
        return self.in_state(*states.STEP_STUCK)

    def of_host(self, host: str) -> list[Node]:
        """Return the steps that change a host."""
        return self._of_host[host]

    def hosts(self) -> list[str]:
        """Return the hosts that something disruptive is planned for."""
        return self._hosts

    def disabled(self, host: str) -> bool:
        """Whether we keep the scheduler away from a host now."""
        kinds = {
            n.kind: n for n in self._of_host[host] if n.kind in ('disable_host', 'enable_host')
        }
        off, on = kinds.get('disable_host'), kinds.get('enable_host')
        if off is None or (off.state == 'pending' and not off.attempt):
            return False
        if off.state == 'cancelled' and off.direction == 'forward':
            return False
        # on the way back: cancelled because the plan never enabled it again
        return on is None or on.state not in self.done

    def _fact(self, host: str) -> Row:
        """Return {out, done, held} of a host; computed again only when a step of it changed."""
        if host not in self._facts:
            nodes = self._of_host[host]
            work = [n for n in nodes if n.what.disruptive]
            stuck = any(n.stuck for n in work)
            self._facts[host] = {
                'out': self.disabled(host) or stuck or any(n.in_flight for n in work),
                'done': all(
                    n.state in states.STEP_ENDED
                    for n in nodes
                    if n.what.disruptive or n.kind == 'enable_host'
                ),
                'held': any(n.stuck for n in nodes),
            }
        return self._facts[host]

    def in_progress(self) -> set[str]:
        """Return the hosts that are out of service and on their way."""
        facts = ((h, self._fact(h)) for h in self._hosts)
        return {h for h, fact in facts if fact['out'] and not fact['held']}

    def hosts_out(self) -> set[str]:
        """Return the hosts that are, or may be, out of service now: by us, or by themselves."""
        return {h for h in self._hosts if self.ours(h) or h in self.down}

    def ours(self, host: str) -> bool:
        """Whether a host is, or may be, out of service because of us now."""
        return bool(self._fact(host)['out'])

    def tally(self) -> Row:
        """Count hosts: {total, done, held}; held: a step of it failed or is unknown."""
        facts = [self._fact(h) for h in self._hosts]
        return {
            'total': len(facts),
            'done': sum(f['done'] for f in facts),
            'held': sum(f['held'] for f in facts),
        }
