"""Where every instance goes while its host is upgraded.

The hosts of a zone are drained one after the other, the least loaded first, each onto
hosts that are upgraded already; so an instance moves once. The first hosts of a zone
find no upgraded one: they are its *seeds*, and their instances shelter on hosts that are
drained later (the last ones), and so move twice at most.

A host is a target only after its own drain: what it then holds is what was assigned to
it, whatever the order in time, so the room can be counted here once and for all.
"""

from collections.abc import Collection, Iterable, Sequence
import dataclasses

from upgrade_service import model
from upgrade_service.conductor.planner import seats

#: states in which nova live-migrates a server
MOVABLE = frozenset({'ACTIVE', 'PAUSED'})
#: nothing of theirs runs or will: they stay without a word
GONE = frozenset({'DELETED', 'SOFT_DELETED', 'SHELVED_OFFLOADED'})
#: servers named in one problem; of the rest the number is given
_NAMED = 5


@dataclasses.dataclass
class Drain:
    """The drain of one host."""

    host: str
    depth: int = 1  #: hosts that go one after the other, itself included
    moves: dict[str, str] = dataclasses.field(default_factory=dict)  #: server id -> target
    leave: list[str] = dataclasses.field(default_factory=list)  #: servers that stay
    waits_enabled: set[str] = dataclasses.field(default_factory=set)  #: targets still to upgrade
    waits_drained: set[str] = dataclasses.field(default_factory=set)  #: seeds it shelters


@dataclasses.dataclass
class Drains:
    """The drains of a plan, in an order that they can be carried out in."""

    order: list[Drain] = dataclasses.field(default_factory=list)
    problems: list[model.Problem] = dataclasses.field(default_factory=list)

    def last_hosts(self) -> dict[str, str]:
        """Return where each server that moves ends up."""
        return {server: target for drain in self.order for server, target in drain.moves.items()}


def plan_drains(
    inventory: model.Inventory,
    hosts: Iterable[str],
    upgraded: Collection[str],
    on_immovable: str,
    spread: bool,
) -> Drains:
    """Plan the drains of `hosts`, zone by zone; what cannot be moved becomes a problem.

    `upgraded`: hosts at the target already. `spread`: fill targets evenly instead of early.
    """
    zones: dict[str | None, list[str]] = {}
    for host in hosts:
        zones.setdefault(inventory.hosts[host].az, []).append(host)
    people = _People(inventory)
    result = Drains()
    for az in sorted(zones, key=lambda name: name or ''):
        zone = _Zone(people, zones[az], on_immovable, spread)
        zone.offer(_outsiders(people, az, set(zones[az])), set(upgraded))
        result.order.extend(zone.plan())
        result.problems.extend(zone.problems)
    # who waits for nobody comes first, and of those the emptiest: the canaries are taken here
    result.order.sort(key=lambda drain: (drain.depth, len(drain.moves)))
    return result


class _People:
    """Who lives where, and which hosts take anybody in."""

    def __init__(self, inventory: model.Inventory) -> None:
        self.hosts = inventory.hosts
        self._compute = {s.host: s for s in inventory.services if s.binary == 'nova-compute'}
        self._servers: dict[str, list[model.Server]] = {}
        self._together: dict[str, int] = {}
        for server in inventory.servers:
            self._servers.setdefault(server.host, []).append(server)
            if server.group and server.group_policy == seats.TOGETHER:
                self._together[server.group] = self._together.get(server.group, 0) + 1

    def of(self, host: str) -> list[model.Server]:
        """Return the servers of a host."""
        return self._servers.get(host, [])

    def welcomes(self, host: str) -> bool:
        """Tell whether nova would send a server to a host (once it is up again)."""
        service = self._compute.get(host)
        return (
            service is not None
            and service.state != 'down'
            and not service.forced_down
            and service.status == 'enabled'
        )

    def why_immovable(self, server: model.Server) -> str | None:
        """Say why a server cannot be live-migrated, if so."""
        if server.state not in MOVABLE:
            return f'is {server.state}'
        if self._together.get(server.group or '', 0) > 1:
            return f'must stay with its affinity group {server.group}'
        return None

    def seat(self, host: str, guests: Iterable[model.Server], index: int = 0) -> seats.Seat:
        """Return the room that guests leave on a host."""
        return seats.seat_of(self.hosts[host], guests, index)


def _outsiders(people: _People, az: str | None, planned: set[str]) -> list[str]:
    return [
        name
        for name, host in sorted(people.hosts.items())
        if host.az == az and name not in planned and people.welcomes(name)
    ]


class _Zone:
    """One availability zone, drained host by host."""

    def __init__(
        self, people: _People, hosts: Sequence[str], on_immovable: str, spread: bool
    ) -> None:
        self._people = people
        self._on_immovable = on_immovable
        self._order = sorted(hosts, key=self._load)
        self._drains = {host: Drain(host) for host in self._order}
        self._guests = {host: list(people.of(host)) for host in hosts}  # shelters included
        self._sheltered: set[str] = set()  # servers that moved once and have to move again
        self._pool = seats.Pool(spread)
        self._shelters: dict[str, seats.Seat] = {}  # room on hosts that are not upgraded
        self.problems: list[model.Problem] = []

    def _load(self, host: str) -> tuple[int, int, str]:
        servers = self._people.of(host)
        return sum(s.ram_mb for s in servers), len(servers), host

    def offer(self, outsiders: Iterable[str], upgraded: set[str]) -> None:
        """Count the room of hosts outside the plan, and of those that are drained last."""
        for name in outsiders:
            seat = self._people.seat(name, self._people.of(name))
            if name in upgraded:
                self._pool.add(seat)
            else:
                self._shelters[name] = seat
        for name in reversed(self._order):
            if self._people.welcomes(name):
                self._shelters[name] = self._people.seat(name, self._people.of(name))

    def plan(self) -> list[Drain]:
        """Drain every host of the zone, in order."""
        for index, host in enumerate(self._order):
            self._shelters.pop(host, None)
            drain = self._drains[host]
            left = self._empty(drain)
            waits = drain.waits_enabled | drain.waits_drained
            drain.depth = 1 + max((self._drains[name].depth for name in waits), default=0)
            if self._people.welcomes(host):
                seat = self._people.seat(host, left, index + 1)
                seat.depth = drain.depth
                self._pool.add(seat)
        return [self._drains[host] for host in self._order]

    def _empty(self, drain: Drain) -> list[model.Server]:
        """Find a place for every guest of a host, the largest first; return who stays."""
        guests = sorted(self._guests[drain.host], key=lambda s: (-s.ram_mb, -s.vcpus, s.id))
        bound = {s.id: why for s in guests if (why := self._people.why_immovable(s))}
        homeless = [s for s in guests if s.id not in bound and not self._place(drain, s)]
        left = [s for s in guests if s.id in bound or s in homeless]
        drain.leave = [s.id for s in left]
        named = [f'{s.name} {bound[s.id]}' for s in left if s.id in bound and s.state not in GONE]
        if named:
            self.problems.append(self._immovable(drain.host, named))
        if homeless:
            self.problems.append(self._no_room(drain.host, homeless))
        return left

    def _place(self, drain: Drain, server: model.Server) -> bool:
        hypervisor = self._people.hosts[drain.host].hypervisor_version
        seat = self._pool.pick(server, hypervisor)
        if seat is not None:
            if seat.host in self._drains:
                drain.waits_enabled.add(seat.host)
        elif server.id not in self._sheltered:
            seat = seats.first_fit(self._shelters.values(), server, hypervisor)
            if seat is not None and seat.host in self._drains:
                self._guests[seat.host].append(server)
                self._sheltered.add(server.id)
                self._drains[seat.host].waits_drained.add(drain.host)
        if seat is not None:
            drain.moves[server.id] = seat.host
        return seat is not None

    def _immovable(self, host: str, named: Sequence[str]) -> model.Problem:
        more = f' and {len(named) - _NAMED} more' if len(named) > _NAMED else ''
        return model.Problem(
            code='immovable_servers',
            severity='blocking' if self._on_immovable == 'block' else 'warning',
            host=host,
            message=f'{host} cannot be emptied: {"; ".join(named[:_NAMED])}{more}',
            hint='start or delete them, or set the policy drain.on_immovable to skip: they then '
            'stay on the host during its upgrade',
        )

    def _no_room(self, host: str, homeless: Sequence[model.Server]) -> model.Problem:
        vcpus, ram = sum(s.vcpus for s in homeless), sum(s.ram_mb for s in homeless)
        zone = self._people.hosts[host].az or 'its zone'
        return model.Problem(
            code='no_capacity',
            severity='blocking',
            host=host,
            message=f'{len(homeless)} servers of {host} ({vcpus} vCPUs, {ram} MB) find no room '
            f'on other hosts of {zone} that nova would accept',
            hint=f'free {vcpus} vCPUs and {ram} MB on hosts of {zone}, add or enable a host '
            'there, or set the policy drain.instances to none',
        )
