"""The one state behind all simulated APIs: hosts with units, service records, servers.

There is one lock and no thread. Whatever takes time (a restart, a migration) is a timer
in a heap; each request first lets the timers run that have come due (:meth:`Cloud.turn`),
so with a clock of one's own the cloud is deterministic. Durations are divided by `speed`.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import datetime
import heapq
import itertools
import random
import threading
import time
from typing import Any
import uuid

from upgrade_service.simulator import spec as specs

_SPACE = uuid.UUID('6f1f5d0a-8a35-4d0c-9a70-3a1b6f7d1c55')

_MIGRATION = ('server', 'source', 'dest')
#: kinds of faults -> what they may be narrowed to
FAULTS: dict[str, tuple[str, ...]] = {
    'api_down': ('project',),  #: the API answers 503
    'service_down': ('host', 'binary'),  #: runs, but its API calls it down
    'unit_fails': ('host', 'binary', 'version'),  #: does not come up: state `failed`
    'action_fails': ('host', 'project', 'action'),  #: `switch` or what `run` is asked for: 500
    'migration_fails': _MIGRATION,  #: ends `failed` half-way, the server stays
    'migration_sticks': _MIGRATION,  #: copies no more, until aborted or forced
    'migration_lies': _MIGRATION,  #: ends `completed`, but the server has not moved
    'migration_breaks': _MIGRATION,  #: ends `error`, and the server goes to ERROR
}


def identity(kind: str, name: str) -> str:
    """Return the UUID of a thing; the same in every run."""
    return str(uuid.uuid5(_SPACE, f'{kind}/{name}'))


class Refused(Exception):
    """A call that the API answers with an error; `code` names the reason for tests."""

    def __init__(self, status: int, message: str, code: str = '') -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or str(status)


@dataclasses.dataclass
class Unit:
    """One systemd unit of a host, running (perhaps) at the version it was started with."""

    binary: str
    project: str
    host: str
    version: str
    state: str = 'active'  #: active, inactive, activating
    since: float = 0.0
    turn: int = 0  #: counts starts and stops; a timer of an earlier turn is void

    @property
    def name(self) -> str:
        """Its name for systemd."""
        return f'{self.binary}.service'


@dataclasses.dataclass
class Record:
    """What an API (nova, neutron or cinder) keeps of a service or agent."""

    id: str
    number: int
    project: str
    binary: str
    host: str  #: as the API names it: 'ctl1@lvm' for a back end
    node: str
    zone: str
    disabled: bool = False
    reason: str | None = None
    forced_down: bool = False
    holds: set[str] = dataclasses.field(default_factory=set)  #: routers or networks


@dataclasses.dataclass
class Node:
    """A host."""

    spec: specs.HostSpec
    installed: dict[str, str]
    units: dict[str, Unit]
    os: dict[str, str]
    boot_id: str
    hypervisor_version: int
    powered: bool = True
    servers: set[str] = dataclasses.field(default_factory=set)
    consumers: set[str] = dataclasses.field(default_factory=set)
    used: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])
    moving: list[int] = dataclasses.field(default_factory=list)  #: migrations under way
    waiting: list[int] = dataclasses.field(default_factory=list)  #: queued migrations

    @property
    def name(self) -> str:
        """Its host name."""
        return self.spec.name

    @property
    def hypervisor_id(self) -> str:
        """UUID of its compute node, which is its resource provider's too."""
        return identity('node', self.name)


@dataclasses.dataclass
class Server:
    """A tenant's instance."""

    id: str
    number: int
    name: str
    host: str | None
    flavor: str
    status: str
    created: float
    updated: float
    project: str = 'demo'
    pinned_az: str | None = None
    group: str | None = None
    task: str | None = None  #: 'migrating', 'spawning', 'deleting' or None
    fault: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the log: a `call` somebody made or an `event` that followed."""

    at: float  #: the cloud's clock
    kind: str
    what: str
    details: dict[str, Any]


class Cloud:
    """All state. Take :meth:`turn` around every look at it and every change."""

    def __init__(
        self,
        spec: specs.Spec,
        clock: Callable[[], float] = time.monotonic,
        speed: float = 1.0,
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.speed = speed
        self.dice = random.Random(spec.seed)
        self.log: list[Entry] = []
        self.faults: list[dict[str, Any]] = []
        self.nodes: dict[str, Node] = {}
        self.records: dict[str, Record] = {}
        self.servers: dict[str, Server] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.allocations: dict[str, tuple[str, tuple[int, int, int]]] = {}
        self.migrations: dict[int, Any] = {}
        self.migrations_of: dict[str, list[int]] = {}
        self.open_migrations: set[int] = set()
        self.volumes: dict[str, dict[str, Any]] = {}
        self.attached: dict[str, list[str]] = {}  #: server -> volumes
        self.routers: dict[str, str] = {}
        self.networks: dict[str, str] = {}
        self.extra_services: dict[str, str] = {}  #: more for the catalog: type -> name
        self.extra_endpoints: dict[str, str] = {}  #: type -> URL
        self._lock = threading.RLock()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count(1)
        self._start = clock()
        self._epoch = time.time()
        self._populate()
        self._index()

    # -- time -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock, after everything that is due has happened."""
        with self._lock:
            while self._timers and self._timers[0][0] <= self.clock():
                heapq.heappop(self._timers)[2]()
            yield

    def later(self, seconds: float, action: Callable[[], None]) -> float:
        """Do `action` after so many simulated seconds; return when, on the clock."""
        when = self.clock() + seconds / self.speed
        heapq.heappush(self._timers, (when, next(self._count), action))
        return when

    def next_due(self) -> float | None:
        """Return when the next timer is due, or None; a virtual clock jumps there."""
        with self._lock:
            return self._timers[0][0] if self._timers else None

    def stamp(self, at: float | None = None) -> str:
        """Render a time of the clock (default: now) as the APIs do, UTC."""
        seconds = self._epoch + (self.clock() if at is None else at) - self._start
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return when.strftime('%Y-%m-%dT%H:%M:%S.%f')

    def number(self) -> int:
        """Return the next number."""
        return next(self._count)

    def note(self, kind: str, what: str, **details: Any) -> None:
        """Append to the log."""
        self.log.append(Entry(self.clock(), kind, what, details))

    # -- building -------------------------------------------------------------------------

    def _populate(self) -> None:
        for host in self.spec.hosts:
            self._add_node(host)
        for name, policy in self.spec.groups.items():
            self.groups[identity('group', name)] = {
                'id': identity('group', name),
                'name': name,
                'policy': policy,
                'members': [],
            }
        names = {guest.name: self._add_server(guest).id for guest in self.spec.servers}
        for volume in self.spec.volumes:
            self._add_volume(volume, names)
        for router, place in self.spec.routers.items():
            self._hold(self.routers, identity('router', router), router, place, 'l3')
        for network, place in self.spec.networks.items():
            self._hold(self.networks, identity('network', network), network, place, 'dhcp')

    def _add_node(self, host: specs.HostSpec) -> None:
        binaries: dict[str, list[str]] = {}
        for role in host.roles:
            for project, names in specs.BINARIES[role].items():
                binaries.setdefault(project, []).extend(names)
        release = specs.VERSIONS[self.spec.release]
        installed = {project: host.versions.get(project, release[project]) for project in binaries}
        node = self.nodes[host.name] = Node(
            spec=host,
            installed=installed,
            units={
                binary: Unit(binary, project, host.name, installed[project], since=self._start)
                for project, names in binaries.items()
                for binary in dict.fromkeys(names)
            },
            os={'id': 'debian', 'version': '12', 'kernel': '6.1.0-40-amd64'},
            boot_id=identity('boot', f'{host.name}/0'),
            hypervisor_version=host.hypervisor_version,
        )
        for unit in node.units.values():
            self._add_record(node, unit)

    def _add_record(self, node: Node, unit: Unit) -> None:
        """Give a unit its record where its project's API keeps one."""
        if unit.binary.endswith('-api') or unit.project in ('keystone', 'placement', 'glance'):
            return
        if unit.project == 'neutron' and not unit.binary.endswith('-agent'):
            return
        zone = 'internal' if unit.project == 'nova' else 'nova'
        if unit.binary == 'nova-compute':
            zone = node.spec.az or 'nova'
        key = identity('record', f'{node.name}/{unit.binary}')
        self.records[key] = Record(
            id=key,
            number=self.number(),
            project=unit.project,
            binary=unit.binary,
            host=f'{node.name}@lvm' if unit.binary == 'cinder-volume' else node.name,
            node=node.name,
            zone=zone,
        )

    def _add_server(self, guest: specs.ServerSpec) -> Server:
        node = self.nodes[guest.host]
        server = Server(
            id=identity('server', guest.name),
            number=self.number(),
            name=guest.name,
            host=guest.host,
            flavor=guest.flavor,
            status=guest.status,
            created=self._start,
            updated=self._start,
            pinned_az=node.spec.az if guest.pinned else None,
            group=identity('group', guest.group) if guest.group else None,
        )
        self.servers[server.id] = server
        if server.group:
            self.groups[server.group]['members'].append(server.id)
        node.servers.add(server.id)
        self.allocate(server.id, guest.host, specs.FLAVORS[guest.flavor])
        return server

    def _add_volume(self, volume: specs.VolumeSpec, servers: dict[str, str]) -> None:
        key = identity('volume', volume.name)
        self.volumes[key] = {
            'id': key,
            'name': volume.name,
            'size': volume.size_gb,
            'host': volume.host,
            'server': servers.get(volume.server) if volume.server else None,
            'created': self._start,
        }
        if volume.server:
            self.attached.setdefault(servers[volume.server], []).append(key)

    def _hold(self, table: dict[str, str], key: str, name: str, host: str, kind: str) -> None:
        table[key] = name
        self.records[identity('record', f'{host}/neutron-{kind}-agent')].holds.add(key)

    def _index(self) -> None:
        """Tables that never change after the start, so that requests need not search."""
        self.of_project: dict[str, list[Record]] = {}
        self.of_host: dict[str, list[Record]] = {}
        for record in self.records.values():
            self.of_project.setdefault(record.project, []).append(record)
            self.of_host.setdefault(record.node, []).append(record)
        self.compute_nodes = [n for n in self.nodes.values() if 'nova-compute' in n.units]
        self.by_hypervisor = {n.hypervisor_id: n for n in self.compute_nodes}
        self.position = {n.hypervisor_id: i for i, n in enumerate(self.compute_nodes)}
        self.api_units: dict[str, list[Unit]] = {}
        for node in self.nodes.values():
            for unit in node.units.values():
                if unit.binary.endswith('-api'):
                    self.api_units.setdefault(unit.project, []).append(unit)

    # -- looking --------------------------------------------------------------------------

    def record(self, host: str, binary: str) -> Record | None:
        """Find a service's record by its machine and binary."""
        return self.records.get(identity('record', f'{host}/{binary}'))

    def unit_of(self, record: Record) -> Unit:
        """Return the unit whose life sign the record keeps."""
        return self.nodes[record.node].units[record.binary]

    def up(self, record: Record) -> bool:
        """Whether the API calls the service up."""
        return (
            self.unit_of(record).state == 'active'
            and not record.forced_down
            and not self.fault('service_down', host=record.node, binary=record.binary)
        )

    def api_up(self, project: str) -> bool:
        """Whether any API process of the project answers; a balancer hides the others."""
        if self.fault('api_down', project=project):
            return False
        return any(unit.state == 'active' for unit in self.api_units.get(project, ()))

    def node(self, name: str) -> Node:
        """Find a host; 404 if there is none."""
        if name not in self.nodes:
            raise Refused(404, f'Host {name} could not be found.', 'HostNotFound')
        return self.nodes[name]

    # -- faults ---------------------------------------------------------------------------

    def inject(
        self, kind: str, *, seconds: float | None = None, count: int | None = None, **match: Any
    ) -> dict[str, Any]:
        """Add a fault; it ends after `seconds` (of simulated time) or `count` hits.

        `FAULTS` says which kinds there are and what each may be narrowed to; what is
        left out matches everything. 400 for anything else.
        """
        if kind not in FAULTS or set(match) - set(FAULTS[kind]):
            raise Refused(400, f'There is no fault {kind} of {sorted(match)}')
        fault: dict[str, Any] = {'kind': kind, 'count': count, 'match': match}
        self.faults.append(fault)
        self.note('event', 'fault', fault=kind, **match)
        if seconds is not None:
            self.later(seconds, lambda: self.clear(fault))
        return fault

    def clear(self, fault: dict[str, Any] | None = None) -> None:
        """End a fault that has not ended yet, or all of them."""
        self.faults[:] = [f for f in self.faults if fault is not None and f is not fault]

    def fault(self, kind: str, **about: Any) -> bool:
        """Whether a fault of that kind matches; uses up one of its hits."""
        for fault in self.faults:
            match = fault['match']
            if fault['kind'] != kind or any(about.get(k) != v for k, v in match.items()):
                continue
            if fault['count'] is not None:
                fault['count'] -= 1
                if not fault['count']:
                    self.clear(fault)
            return True
        return False

    # -- placement ------------------------------------------------------------------------

    def allocate(self, consumer: str, host: str, amounts: Iterable[int]) -> None:
        """Give a consumer its resources on a host; what it had elsewhere is released."""
        self.release(consumer)
        vcpus, ram, disk = amounts
        self.allocations[consumer] = (host, (vcpus, ram, disk))
        node = self.nodes[host]
        node.consumers.add(consumer)
        node.used = [have + more for have, more in zip(node.used, (vcpus, ram, disk), strict=True)]

    def release(self, consumer: str) -> None:
        """Give back what a consumer has."""
        if consumer in self.allocations:
            host, amounts = self.allocations.pop(consumer)
            node = self.nodes[host]
            node.consumers.discard(consumer)
            node.used = [have - less for have, less in zip(node.used, amounts, strict=True)]

    def capacity(self, node: Node) -> tuple[int, int, int]:
        """Return vcpus, ram_mb and disk_gb with the allocation ratios applied."""
        return (
            int(node.spec.vcpus * self.spec.cpu_ratio),
            int(node.spec.ram_mb * self.spec.ram_ratio),
            node.spec.disk_gb,
        )
