"""A made-up time in which a plan of the product is carried out, and its peers' ways.

The product's plan is executed, step by step, from its steps and edges alone: a host is
taken out when its `disable_host` step is ready and the budget allows, in the order of the
plan; each server goes where the plan says. A peer decides at each moment for itself.
"""

from collections.abc import Callable, Mapping
import dataclasses
import heapq
import itertools
import random

from benchmarks import clouds
from upgrade_service import model

#: migrations at once: sent by a host, taken in by a host, in the whole cloud
OUTGOING, INCOMING, TOTAL = 1, 2, 64
Length = Callable[[str, float], float]  #: (what, seconds expected) -> seconds it takes


@dataclasses.dataclass
class Result:
    """What became of a way to go through the cloud."""

    seconds: float
    migrations: int
    most: int  #: of one server
    done: int  #: hosts
    broken: list[str] = dataclasses.field(default_factory=list)  #: rules that did not hold

    def per_server(self, movable: int) -> float:
        """Return migrations / servers."""
        return self.migrations / movable


def exact(what: str, seconds: float) -> float:
    """Let everything take as long as expected."""
    return seconds


class Cloud:
    """Where the servers are, and the rules of nova that are checked at each move."""

    def __init__(self, inventory: model.Inventory) -> None:
        self.hosts = inventory.hosts
        self.server = {s.id: s for s in inventory.servers}
        self.place = {s.id: s.host for s in inventory.servers}
        self.ram = {name: host.ram_mb for name, host in inventory.hosts.items()}
        self.vcpus = {name: host.vcpus for name, host in inventory.hosts.items()}
        self.group: dict[tuple[str, str], int] = {}
        self.moved: dict[str, int] = {}
        for server in inventory.servers:
            self.sit(server, server.host)

    def sit(self, server: model.Server, host: str, sign: int = 1) -> None:
        """Count a server in on a host, or out."""
        self.ram[host] -= sign * server.ram_mb
        self.vcpus[host] -= sign * server.vcpus
        if server.group:
            key = host, server.group
            self.group[key] = self.group.get(key, 0) + sign

    def fits(self, server: model.Server, host: str) -> bool:
        """Tell whether nova would let a server on a host."""
        return (
            self.hosts[host].az == self.hosts[self.place[server.id]].az
            and self.ram[host] >= server.ram_mb
            and self.vcpus[host] >= server.vcpus
            and not (server.group and self.group.get((host, server.group), 0))
        )

    def movable(self, host: str, here: Mapping[str, set[str]]) -> list[str]:
        """Return the servers on a host that can be moved."""
        return [i for i in here.get(host, ()) if self.server[i].state == 'ACTIVE']


def bound(inventory: model.Inventory, out: int) -> tuple[float, int]:
    """Return the lower bound of the makespan, and how many servers can be moved."""
    own = drains(inventory)
    each = [seconds + clouds.UPGRADE for seconds in own]
    lower = max(sum(each) / out, max(each), sum(own) / TOTAL + clouds.UPGRADE)
    return lower, sum(s.state == 'ACTIVE' for s in inventory.servers)


class Roll:
    """Takes hosts out and moves their servers, in a made-up time; subclasses decide."""

    def __init__(self, inventory: model.Inventory, out: int, length: Length = exact) -> None:
        self.cloud, self.out, self.length = Cloud(inventory), out, length
        self.now = 0.0
        self.away: set[str] = set()  #: hosts that are out
        self.done: set[str] = set()
        self.sending: dict[str, int] = dict.fromkeys(inventory.hosts, 0)
        self.taking: dict[str, int] = dict.fromkeys(inventory.hosts, 0)
        self.moving = 0
        self.broken: list[str] = []
        self.here: dict[str, set[str]] = {}
        for server in inventory.servers:
            self.here.setdefault(server.host, set()).add(server.id)
        self._draining: dict[str, list[str]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    # -- what a way to roll decides ------------------------------------------------------------

    def choose(self) -> str | None:
        """Return the host to take out next, or None."""
        raise NotImplementedError

    def queue(self, host: str) -> list[str]:
        """Return the servers to move away, in order."""
        return self.cloud.movable(host, self.here)

    def target(self, server: model.Server) -> str | None:
        """Return where a server goes now, or None: wait."""
        raise NotImplementedError

    # -- the machine ---------------------------------------------------------------------------

    def run(self) -> Result:
        """Roll through the cloud until nothing goes on."""
        self._begin()
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._begin()
        moved = self.cloud.moved
        return Result(
            seconds=self.now,
            migrations=sum(moved.values()),
            most=max(moved.values(), default=0),
            done=len(self.done),
            broken=self.broken,
        )

    def _begin(self) -> None:
        while len(self.away) < self.out and (host := self.choose()) is not None:
            self.away.add(host)
            self._draining[host] = self.queue(host)
        for host in list(self._draining):
            self._send(host)

    def _send(self, host: str) -> None:
        left = self._draining[host]
        for name in list(left):
            if self.sending[host] >= OUTGOING or self.moving >= TOTAL:
                return
            server = self.cloud.server[name]
            to = self.target(server)
            if to is not None and self.taking[to] < INCOMING:
                left.remove(name)
                self._migrate(server, host, to)
        if not left and not self.sending[host]:
            del self._draining[host]
            self.emptied(host)
            self._after(self.length(host, clouds.UPGRADE), lambda: self._back(host))

    def _migrate(self, server: model.Server, host: str, to: str) -> None:
        if not self.cloud.fits(server, to):
            self.broken.append(f'{server.id} does not fit on {to}')
        if to in self.away:
            self.broken.append(f'{to} is out while {server.id} comes')
        self.cloud.sit(server, to)
        self.sending[host] += 1
        self.taking[to] += 1
        self.moving += 1

        def arrive() -> None:
            self.cloud.sit(server, host, -1)
            self.cloud.place[server.id] = to
            self.cloud.moved[server.id] = self.cloud.moved.get(server.id, 0) + 1
            self.here[host].discard(server.id)
            self.here.setdefault(to, set()).add(server.id)
            self.sending[host] -= 1
            self.taking[to] -= 1
            self.moving -= 1

        self._after(self.length(server.id, clouds.seconds(server)), arrive)

    def _back(self, host: str) -> None:
        self.away.discard(host)
        self.done.add(host)
        self.enabled(host)

    def emptied(self, host: str) -> None:
        """A host's drain has ended."""

    def enabled(self, host: str) -> None:
        """A host is back."""

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), happen))


class Planned(Roll):
    """Carries out a plan of the product."""

    def __init__(
        self, plan: model.Plan, inventory: model.Inventory, out: int, length: Length = exact
    ) -> None:
        super().__init__(inventory, out, length)
        steps = {s.ord: s for s in plan.steps}
        self._moves = {
            s.host or '': s.params['moves'] for s in plan.steps if s.kind == 'drain_host'
        }
        self._waits: dict[str, int] = {}
        self._ready: list[tuple[int, str]] = []
        self._children: dict[tuple[str, str], list[str]] = {}
        self._ord = {s.host or '': s.ord for s in plan.steps if s.kind == 'disable_host'}
        for host, number in self._ord.items():
            parents = [steps[p] for p in steps[number].parents]
            parents = [p for p in parents if p.kind in ('enable_host', 'drain_host')]
            self._waits[host] = len(parents)
            for parent in parents:
                key = parent.kind, parent.host or ''
                self._children.setdefault(key, []).append(host)
            if not parents:
                heapq.heappush(self._ready, (number, host))

    def choose(self) -> str | None:
        """Take the first host of the plan whose step is ready."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def queue(self, host: str) -> list[str]:
        """Take the plan's order."""
        return list(self._moves[host])

    def target(self, server: model.Server) -> str | None:
        """Go where the plan says."""
        target: str = self._moves[self.cloud.place[server.id]][server.id]
        return target

    def enabled(self, host: str) -> None:
        """Let those go that waited for the host to be back."""
        self._release('enable_host', host)

    def emptied(self, host: str) -> None:
        """Let those go whose guests have come."""
        self._release('drain_host', host)

    def _release(self, kind: str, host: str) -> None:
        for child in self._children.get((kind, host), ()):
            self._waits[child] -= 1
            if not self._waits[child]:
                heapq.heappush(self._ready, (self._ord[child], child))


class Weigher(Roll):
    """Random order, so many at once; nova's scheduler sends servers where most memory is free."""

    def __init__(self, inventory: model.Inventory, out: int, seed: int) -> None:
        super().__init__(inventory, out)
        self._order = list(inventory.hosts)
        random.Random(seed).shuffle(self._order)  # noqa: S311
        self._zone: dict[str | None, list[str]] = {}
        for name, host in inventory.hosts.items():
            self._zone.setdefault(host.az, []).append(name)

    def choose(self) -> str | None:
        """Take the next of a random order."""
        return self._order.pop() if self._order else None

    def target(self, server: model.Server) -> str | None:
        """Choose as nova's RAMWeigher does, among hosts that are enabled."""
        cloud = self.cloud
        here = cloud.place[server.id]
        free = [h for h in self._zone[cloud.hosts[here].az] if h != here and h not in self.away]
        free.sort(key=cloud.ram.__getitem__, reverse=True)
        fit = (h for h in free if self.taking[h] < INCOMING and cloud.fits(server, h))
        return next(fit, None)


def drains(inventory: model.Inventory) -> list[float]:
    """Return how long each host's own servers take to move."""
    found = dict.fromkeys(inventory.hosts, 0.0)
    for server in inventory.servers:
        if server.state == 'ACTIVE':
            found[server.host] += clouds.seconds(server) / OUTGOING
    return list(found.values())


def batches(inventory: model.Inventory, out: int, seed: int) -> float:
    """Return how long `serial: K` takes at least, in a random order; room is no matter.

    A batch begins when the slowest of the one before is back; with `out` 1: one by one.
    """
    order = drains(inventory)
    random.Random(seed).shuffle(order)  # noqa: S311
    parts = [order[at : at + out] for at in range(0, len(order), out)]
    return sum(max(part) + clouds.UPGRADE for part in parts)
