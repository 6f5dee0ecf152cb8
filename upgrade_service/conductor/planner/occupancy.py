"""The rules on instances: where each of them is, at every moment, whatever order is taken.

A host has two times: until its own drain has ended, and after. Somebody who arrives is
counted in both, unless the plan makes the arrival wait for the drain; so what is counted
is never less than what can be there, in any order that the edges and the budget allow.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses

from upgrade_service import model
from upgrade_service.conductor.planner import constraints
from upgrade_service.conductor.planner import paper as papers

#: problems with which the plan itself says that somebody stays
_STAYS = ('immovable_servers', 'no_capacity')
_GONE = frozenset({'DELETED', 'SOFT_DELETED', 'SHELVED_OFFLOADED'})


@dataclasses.dataclass
class Visit:
    """A server that comes to a host by the drain of another."""

    server: model.Server
    drain: model.Step  #: the drain that brings it
    leaves: bool  #: moves on when the host itself is drained


class Occupancy:
    """Who is on each host, read from the moves of the drains."""

    def __init__(self, paper: papers.Paper) -> None:
        self.paper = paper
        self._known: dict[tuple[int, int], bool] = {}
        self.servers = {server.id: server for server in paper.inventory.servers}
        self.home: dict[str, list[model.Server]] = {}
        for server in paper.inventory.servers:
            self.home.setdefault(server.host, []).append(server)
        drains = sorted(paper.of('drain_host'), key=lambda s: paper.position[s.ord])
        self.drains = {s.host or '': s for s in drains}
        self.visits: dict[str, list[Visit]] = {}
        for step in self.drains.values():
            for server, target in step.params.get('moves', {}).items():
                if server in self.servers:
                    leaves = server in self.moves(target)
                    self.visits.setdefault(target, []).append(
                        Visit(self.servers[server], step, leaves)
                    )

    def moves(self, host: str) -> Mapping[str, str]:
        """Return the moves of a host's drain."""
        drain = self.drains.get(host)
        return drain.params.get('moves', {}) if drain else {}

    def times(self, host: str) -> Iterator[list[model.Server]]:
        """Yield who may be on a host together: until its drain has ended, and after."""
        home, visits = self.home.get(host, []), self.visits.get(host, [])
        yield home + [v.server for v in visits if not self.arrives_later(host, v.drain)]
        yield (
            [s for s in home if s.id not in self.moves(host)]
            + [v.server for v in visits if not v.leaves]
        )

    def arrives_later(self, host: str, drain: model.Step) -> bool:
        """Tell whether a drain waits for the one of `host`."""
        own = self.drains.get(host)
        if own is None:
            return False
        pair = own.ord, drain.ord
        if pair not in self._known:  # asked for each server, true of the drain
            self._known[pair] = self.paper.before(*pair)
        return self._known[pair]


class Emptied(constraints.Constraint):
    """Everybody on a host is moved by its drain, or the plan names who stays."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        for host, drain in people.drains.items():
            guests = {
                v.server.id
                for v in people.visits.get(host, ())
                if not people.arrives_later(host, v.drain)
            }
            here = guests | {s.id for s in people.home.get(host, ()) if s.state not in _GONE}
            left = here - people.moves(host).keys()
            if left and not paper.named(host, *_STAYS):
                yield f'{constraints.said(drain)} leaves {sorted(left)[:3]} on {host}'
            strangers = people.moves(host).keys() - here
            if strangers:
                yield f'{constraints.said(drain)} moves {sorted(strangers)[:3]}, not on {host}'


class MovedOnce(constraints.Constraint):
    """A server moves once; twice only if it had to shelter on a host not upgraded yet."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        moved = Counter(server for host in people.drains for server in people.moves(host))
        sheltered = {
            v.server.id
            for host, visits in people.visits.items()
            for v in visits
            if host in people.drains and not people.arrives_later(host, v.drain)
        }
        for server, times in moved.items():
            if times > 2 or (times == 2 and server not in sheltered):
                yield f'server {server} moves {times} times'
        ends = {
            server: target
            for host in people.drains
            for server, target in people.moves(host).items()
        }
        for server in ends.keys() | paper.plan.moves.keys():
            if ends.get(server) != paper.plan.moves.get(server):
                yield f'server {server} ends on {ends.get(server)}, which the plan does not say'


class MovedWell(constraints.Constraint):
    """A target is of the same zone, takes servers in, is no older, and not out meanwhile."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        compute = {s.host: s for s in paper.inventory.services if s.binary == 'nova-compute'}
        for source, drain in people.drains.items():
            for target in dict.fromkeys(people.moves(source).values()):
                why = self._unfit(paper, compute.get(target), source, target) or (
                    self._out(paper, drain, target)
                )
                if why:
                    yield f'{constraints.said(drain)} moves servers to {target}, which {why}'
            for server in people.moves(source).keys() & people.servers.keys():
                if people.servers[server].state not in ('ACTIVE', 'PAUSED'):
                    yield f'server {server} is {people.servers[server].state}: nova refuses'

    @staticmethod
    def _unfit(
        paper: papers.Paper, service: model.Service | None, source: str, target: str
    ) -> str | None:
        here, there = paper.inventory.hosts.get(source), paper.inventory.hosts.get(target)
        if here is None or there is None or service is None or source == target:
            return 'is no other compute host'
        if here.az != there.az:
            return 'is in another zone'
        if service.state == 'down' or service.forced_down or service.status != 'enabled':
            return 'takes nobody in'
        known = here.hypervisor_version is not None and there.hypervisor_version is not None
        if known and (there.hypervisor_version or 0) < (here.hypervisor_version or 0):
            return 'has an older hypervisor'
        return None

    @staticmethod
    def _out(paper: papers.Paper, drain: model.Step, target: str) -> str | None:
        window = paper.window.get(target)
        if window is None:
            return None
        first, last = window.get('disable_host'), window.get('enable_host')
        back = last is not None and paper.before(last.ord, drain.ord)
        yet = first is not None and paper.before(drain.ord, first.ord)
        return None if back or yet else 'may be out at that time'


class Roomy(constraints.Constraint):
    """No host ever holds more than its capacity, if it did not before."""

    #: what is counted, and its name
    SIZES = (('vcpus', 'vCPUs'), ('pcpus', 'dedicated CPUs'), ('ram_mb', 'MB'), ('disk_gb', 'GB'))

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        for host in people.visits:
            room = paper.inventory.hosts.get(host, model.Host(name=host))
            home = people.home.get(host, ())
            for crowd in people.times(host):
                for size, named in self.SIZES:
                    has = getattr(room, size)
                    needs, before = self._sum(crowd, size), self._sum(home, size)
                    if has is not None and needs > max(has, before):
                        yield f'{host} may have to hold {needs} {named}, and has {has}'

    @staticmethod
    def _sum(servers: Iterable[model.Server], size: str) -> int:
        return sum(getattr(server, size) for server in servers)


class Apart(constraints.Constraint):
    """Servers of an anti-affinity group are never on one host, if they were not before."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        for host in people.visits:
            before = self._crowded(people.home.get(host, ()))
            for crowd in people.times(host):
                for group in self._crowded(crowd) - before:
                    yield f'servers of the anti-affinity group {group} may meet on {host}'

    @staticmethod
    def _crowded(servers: Sequence[model.Server] | Iterable[model.Server]) -> set[str]:
        bound = [s for s in servers if s.group and s.group_policy == 'anti-affinity']
        members = Counter(s.group for s in bound)
        return {s.group for s in bound if s.group and members[s.group] > s.group_max}


class Wanted(constraints.Constraint):
    """A host has what a flavor asks for, and is for the tenant: traits and aggregates."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        seen: set[tuple[str, object, object]] = set()
        for source in people.drains:
            for name, target in people.moves(source).items():
                server, host = people.servers.get(name), paper.inventory.hosts.get(target)
                if server is None or host is None:
                    continue
                if (target, server.specs, server.tenant) in seen:
                    continue
                seen.add((target, server.specs, server.tenant))
                for why in self._missing(server, host):
                    yield f'server {name} goes to {target}, {why}'

    @staticmethod
    def _missing(server: model.Server, host: model.Host) -> Iterator[str]:
        for key, value in server.specs:
            scope, _, name = key.partition(':')
            if scope == 'trait' and (name in host.traits) is not (value == 'required'):
                yield f'where {name} is not as {value} as it asks'
            if scope == 'aggregate_instance_extra_specs':
                offered = host.aggregates.get(name, frozenset())
                asked = [word for word in value.split() if word not in ('<or>', 's==')]
                if not offered.intersection(asked):
                    yield f'which is in no aggregate with {name}={value}'
        for key, values in host.aggregates.items():
            allowed = {tenant for value in values for tenant in value.split(',')}
            if key.startswith('filter_tenant_id') and server.tenant not in allowed:
                yield 'which is for other tenants'
            if key.startswith('trait:') and values == {'required'}:
                if (key, 'required') not in server.specs:
                    yield f'which is kept for servers that ask for {key[6:]}'


class Bound(constraints.Constraint):
    """Nobody is moved who hangs on a device of the host."""

    DEVICES = ('pci_passthrough:', 'resources:VGPU', 'accel:', 'hw:pmem', 'hw:mem_encryption')

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        people = Occupancy(paper)
        for source in people.drains:
            for name in people.moves(source):
                server = people.servers.get(name)
                if server and any(key.startswith(self.DEVICES) for key, _ in server.specs):
                    yield f'server {name} hangs on a device of {source} and is moved'


SERVERS: tuple[constraints.Constraint, ...] = (
    Emptied(),
    MovedOnce(),
    MovedWell(),
    Roomy(),
    Apart(),
    Wanted(),
    Bound(),
)
