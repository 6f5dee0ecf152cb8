"""The nouns of the service as frozen data: inventory, policy, plan.

Everything here is a value: no I/O, no clock, no database. Discovery makes an
:class:`Inventory`, the planner turns it with a :class:`Policy` into a :class:`Plan`,
the broker carries the plan's :class:`Step` rows out.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Render JSON data in the one form that digests are taken over."""
    return json.dumps(value, sort_keys=True, separators=(',', ':'), default=str)


def digest(value: Any) -> str:
    """Return the sha256 (hex) of JSON data."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


# -- what is: the inventory --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """One binary of a project on one host."""

    project: str  #: deliverable: 'nova', 'placement'
    binary: str  #: 'nova-compute'
    host: str
    az: str | None = None
    state: str = 'unknown'  #: 'up', 'down', 'unknown' (nobody can tell)
    status: str = 'enabled'  #: 'enabled' or 'disabled'
    disabled_reason: str | None = None
    forced_down: bool = False
    version: str | None = None  #: installed version, '33.0.2'
    release: str | None = None  #: '2026.1'
    how: str | None = None  #: 'venv', 'package', 'simulated'
    unit: str | None = None  #: systemd unit that runs it
    source: str = 'cloud'  #: 'cloud', 'engine' or 'both': who knows of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """A machine of the cloud."""

    name: str
    roles: frozenset[str] = frozenset()  #: of 'control', 'compute', 'volume', 'network'
    az: str | None = None
    agent: str | None = None  #: id of the engine enrolled for it
    agent_state: str | None = None  #: 'up', 'down' (no heartbeat), or None: no engine
    facts_age: float | None = None  #: seconds since the engine's facts were taken
    strategies: frozenset[str] = frozenset()  #: strategies its engine offers
    #: strategy -> id of the engine of a deployment host that carries the host's steps out
    executors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    instances: int = 0
    volumes: int = 0
    routers: int = 0  #: routers and DHCP networks served by agents on it
    vcpus: int = 0  #: capacity for instances, allocation ratio applied
    ram_mb: int = 0
    disk_gb: int | None = None  #: None: nobody counts disk here (shared storage, or unknown)
    pcpus: int = 0  #: CPUs for servers with dedicated ones
    hypervisor_version: int | None = None
    traits: frozenset[str] = frozenset()  #: placement's, of its resource provider
    #: metadata of its aggregates: key -> values
    aggregates: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    #: what its engine says of backups, disks and members of quorums: {backup, disks, members}
    readiness: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A tenant's instance, as far as moving it matters."""

    id: str
    name: str
    host: str
    state: str  #: nova's status: 'ACTIVE', 'ERROR' …
    vcpus: int = 1
    ram_mb: int = 512
    disk_gb: int = 0  #: on the host's own disk: none for a server that boots from a volume
    pcpus: int = 0  #: of its vCPUs, those that are dedicated; they are not in `vcpus`
    az: str | None = None
    group: str | None = None  #: server group id
    group_policy: str | None = None  #: 'anti-affinity', 'affinity', 'soft-anti-affinity' …
    group_max: int = 1  #: members of an anti-affinity group that one host may hold
    tenant: str | None = None  #: keystone project that owns it
    #: what its flavor asks of a host: the extra specs that a scheduler reads
    specs: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Something an operator should know of, found by discovery or a check."""

    code: str  #: stable: 'engine_missing'
    severity: str  #: 'blocking' or 'warning'
    message: str
    host: str | None = None
    service: str | None = None
    hint: str = ''
    acceptable: bool = False  #: `start --accept CODE` may pass it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inventory:
    """Snapshot of one cluster."""

    cluster: str
    taken_at: int  #: ms since the epoch, database clock
    hosts: Mapping[str, Host]
    services: Sequence[Service] = ()
    servers: Sequence[Server] = ()
    problems: Sequence[Problem] = ()
    endpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: project -> URL

    def of_host(self, host: str) -> list[Service]:
        """Return the services of a host."""
        return [s for s in self.services if s.host == host]

    def of_project(self, project: str) -> list[Service]:
        """Return the services of a project."""
        return [s for s in self.services if s.project == project]

    def fingerprint(self) -> str:
        """Digest of what a plan depends on: hosts, services, versions; not who holds servers."""
        return digest(
            [
                sorted(self.hosts),
                sorted((s.host, s.binary, s.version or '', s.forced_down) for s in self.services),
            ]
        )


# -- what is wanted: request and policy --------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which part of the cloud an upgrade touches; None means all, empty means none."""

    hosts: tuple[str, ...] | None = None
    azs: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None


#: defaults of every policy key; the JSON schema in `POLICY_SCHEMA` says what is legal
POLICY_DEFAULTS: dict[str, Any] = {
    'max_unavailable': 1,
    'per_az': None,
    'canary': {'hosts': 1, 'soak_seconds': 0},
    'drain': {
        'mode': 'balanced',
        'instances': 'live',
        'on_stuck': 'abort',
        'on_immovable': 'block',
        'no_progress_seconds': 300,
        'settle_seconds': 5,
        'parallel': 1,
        'incoming': 2,
        'total': 64,
        'mib_per_second': 1126,
    },
    'failure': {'max_consecutive': 2, 'max_percent': 10},
    'gates': ['finish'],
    'backup': {'database': True, 'verify': True},
    'rehearse': {'database': False, 'config': True},
    'tidy': {'archive': False, 'purge_days': None},
    'skip_projects': [],
    'commits': {},
}

_SECONDS = {'type': 'integer', 'minimum': 0, 'maximum': 86400}
_AMOUNT = {
    'anyOf': [
        {'type': 'integer', 'minimum': 1, 'maximum': 20000},
        {'type': 'string', 'pattern': '^([1-9]|[1-9][0-9]|100)%$'},
    ]
}
POLICY_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        'max_unavailable': _AMOUNT,
        'per_az': {'anyOf': [{'type': 'null'}, _AMOUNT]},
        'canary': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {
                'hosts': {'type': 'integer', 'minimum': 0, 'maximum': 1000},
                'soak_seconds': _SECONDS,
            },
        },
        'drain': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {
                'mode': {'enum': ['min-migrations', 'balanced']},
                'instances': {'enum': ['live', 'none']},
                'on_stuck': {'enum': ['abort', 'force_complete', 'leave']},
                'on_immovable': {'enum': ['block', 'skip']},
                'no_progress_seconds': _SECONDS,
                'settle_seconds': _SECONDS,
                'parallel': {'type': 'integer', 'minimum': 1, 'maximum': 100},
                'incoming': {'type': 'integer', 'minimum': 1, 'maximum': 100},
                'total': {'type': 'integer', 'minimum': 1, 'maximum': 10000},
                'mib_per_second': {'type': 'integer', 'minimum': 1, 'maximum': 1000000},
            },
        },
        'failure': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {
                'max_consecutive': {'type': 'integer', 'minimum': 1, 'maximum': 1000},
                'max_percent': {'type': 'integer', 'minimum': 1, 'maximum': 100},
            },
        },
        'gates': {
            'type': 'array',
            'uniqueItems': True,
            'items': {'enum': ['prepare', 'control_plane', 'canary', 'data_plane', 'finish']},
        },
        'backup': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {'database': {'type': 'boolean'}, 'verify': {'type': 'boolean'}},
        },
        'rehearse': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {'database': {'type': 'boolean'}, 'config': {'type': 'boolean'}},
        },
        'tidy': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {
                'archive': {'type': 'boolean'},
                'purge_days': {'type': ['integer', 'null'], 'minimum': 1, 'maximum': 36500},
            },
        },
        'skip_projects': {'type': 'array', 'uniqueItems': True, 'items': {'type': 'string'}},
        'commits': {
            'type': 'object',
            'maxProperties': 64,
            'additionalProperties': {
                'type': 'string',
                'pattern': r'^[0-9a-f]{40}\Z',
                'description': 'a full commit, 40 hexadecimal digits',
            },
        },
    },
}


# -- what to do: kinds, steps, plans -----------------------------------------------------------

#: stages in the order they are carried out; they meet at gate steps
STAGES = ('check', 'prepare', 'control_plane', 'canary', 'data_plane', 'finish', 'verify')


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is true of every step of a kind, whatever strategy carries it out."""

    where: str  #: 'host' (an engine), 'cloud' (the owning conductor) or 'gate'
    title: str  #: for people
    idempotent: bool = True  #: may be tried again without asking anyone
    disruptive: bool = False  #: takes its host or a service of it out of service
    interruptible: bool = False  #: can stop half-way with its progress kept
    ponr: bool = False  #: a point of no return once it has succeeded
    undo: bool = False  #: a strategy can undo it
    skippable: bool = False  #: an operator may go on without it
    timeout: int = 600  #: seconds from start to close
    estimate: int = 5  #: seconds, when nothing better is known


KINDS: dict[str, Kind] = {
    'check_host': Kind('host', 'check the host', skippable=True, timeout=120, estimate=1),
    'prefetch': Kind(
        'host', 'install the new version beside the old and prove it', timeout=3600, estimate=40
    ),
    'upgrade_check': Kind(
        'host', "ask the new code's own upgrade check", skippable=True, timeout=900, estimate=8
    ),
    'rehearse_config': Kind(
        'host',
        'hold its configuration against the options of the new version',
        skippable=True,
        timeout=900,
        estimate=5,
    ),
    'backup_database': Kind(
        'host', 'dump the databases', skippable=True, timeout=14400, estimate=10
    ),
    'verify_backup': Kind(
        'host', 'restore the dump once, to prove it', skippable=True, timeout=14400, estimate=10
    ),
    'rehearse_database': Kind(
        'host', 'upgrade a copy of the databases', skippable=True, timeout=14400, estimate=40
    ),
    'db_expand': Kind(
        'host', 'extend the schema; old code keeps working', timeout=14400, estimate=8
    ),
    'db_migrate': Kind(
        'host', 'migrate data the new code needs before it starts', timeout=14400, estimate=5
    ),
    'db_contract': Kind(
        'host', 'remove what only old code used', ponr=True, timeout=14400, estimate=5
    ),
    'online_migrations': Kind(
        'host', 'rewrite rows to the new form', ponr=True, timeout=86400, estimate=10
    ),
    'db_archive': Kind(
        'host', 'move deleted rows out of the way', ponr=True, timeout=86400, estimate=10
    ),
    'db_purge': Kind('host', 'drop deleted rows', ponr=True, timeout=86400, estimate=10),
    'check_records': Kind(
        'host', 'see that all records of its services agree', timeout=600, estimate=2
    ),
    'check_versions': Kind('cloud', 'see that no old code runs any more', timeout=600, estimate=5),
    'stop_service': Kind(
        'host',
        'stop the services until all of them are upgraded',
        disruptive=True,
        undo=True,
        timeout=900,
        estimate=5,
    ),
    'upgrade_service': Kind(
        'host',
        'switch to the new version and restart',
        disruptive=True,
        undo=True,
        timeout=1800,
        estimate=20,
    ),
    'upgrade_packages': Kind(
        'host',
        'replace the packages of its projects; services go on until they are restarted',
        idempotent=False,
        disruptive=True,
        undo=True,
        timeout=3600,
        estimate=60,
    ),
    'restart_service': Kind(
        'host',
        'restart so that version pins are dropped',
        disruptive=True,
        ponr=True,
        timeout=900,
        estimate=10,
    ),
    'reset_records': Kind(
        'host', 'let services of the old release register again', timeout=600, estimate=5
    ),
    'verify_host': Kind('host', 'read back what runs', timeout=300, estimate=2),
    'check_cloud': Kind('cloud', 'compare the cloud with the plan', timeout=300, estimate=3),
    'disable_host': Kind(
        'cloud', 'keep the scheduler away', disruptive=True, undo=True, timeout=120, estimate=1
    ),
    'drain_host': Kind(
        'cloud',
        'move the instances away',
        disruptive=True,
        interruptible=True,
        timeout=86400,
        estimate=30,
    ),
    'verify_service': Kind(
        'cloud', 'look at the service from outside', skippable=True, timeout=600, estimate=5
    ),
    'enable_host': Kind('cloud', 'let the scheduler use it again', timeout=120, estimate=1),
    'probe_cloud': Kind(
        'cloud', 'ask every API for a real answer', skippable=True, timeout=300, estimate=3
    ),
    'gate': Kind('gate', 'wait for everything before it', estimate=0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A node of a plan. `parents` are the `ord` numbers of steps it waits for."""

    ord: int
    stage: str
    kind: str
    host: str | None = None  #: what it changes
    project: str | None = None
    service: str | None = None  #: binaries, comma separated, for people
    strategy: str | None = None  #: host steps only
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parents: tuple[int, ...] = ()
    ponr: bool = False
    estimate: int = 0  #: seconds
    direction: str = 'forward'  #: 'back': a step of the way back, run only after `rollback`
    undo_of: int | None = None  #: the step without which there is nothing to do here

    @property
    def what(self) -> Kind:
        """The facts of its kind."""
        return KINDS[self.kind]

    @property
    def disruptive(self) -> bool:
        """Whether it takes something out of service."""
        return self.what.disruptive


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The immutable graph of steps of one upgrade."""

    from_release: str
    to_release: str
    steps: tuple[Step, ...]
    fingerprint: str  #: of the inventory it was made for
    moves: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: server id -> last host
    problems: tuple[Problem, ...] = ()
    undo: tuple[Step, ...] = ()  #: the way back, numbered after the steps

    def digest(self) -> str:
        """Digest of the steps and the way back, in a form that survives the database."""
        return digest([dataclasses.asdict(s) for s in (*self.steps, *self.undo)])
