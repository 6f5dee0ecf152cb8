"""What a simulated cloud is made of when it starts: plain frozen data.

`default_spec` builds the usual one; everything in it can be had bigger, so that the same
code makes fifteen hosts for a test and several thousand for a benchmark.
"""

from collections.abc import Mapping
import dataclasses
import random

#: versions of the projects by release
VERSIONS: dict[str, dict[str, str]] = {
    '2026.1': {
        'keystone': '29.0.2',
        'placement': '15.0.0',
        'glance': '32.0.0',
        'nova': '33.0.2',
        'neutron': '28.0.1',
        'cinder': '28.0.0',
    },
    '2026.2': {
        'keystone': '30.0.0',
        'placement': '16.0.0',
        'glance': '33.0.0',
        'nova': '34.0.0',
        'neutron': '29.0.0',
        'cinder': '29.0.0',
    },
}

#: binaries that run on a host because of its roles
BINARIES: dict[str, dict[str, tuple[str, ...]]] = {
    'control': {
        'keystone': ('keystone-api',),
        'placement': ('placement-api',),
        'glance': ('glance-api',),
        'nova': ('nova-api', 'nova-conductor', 'nova-scheduler'),
        'neutron': ('neutron-api', 'neutron-rpc-server', 'neutron-periodic-workers'),
        'cinder': ('cinder-api', 'cinder-scheduler'),
    },
    'network': {
        'neutron': (
            'neutron-openvswitch-agent',
            'neutron-l3-agent',
            'neutron-dhcp-agent',
            'neutron-metadata-agent',
        ),
    },
    'volume': {'cinder': ('cinder-volume',)},
    'compute': {'nova': ('nova-compute',), 'neutron': ('neutron-openvswitch-agent',)},
}

#: name -> (vcpus, ram_mb, disk_gb)
FLAVORS: dict[str, tuple[int, int, int]] = {
    'm1.tiny': (1, 512, 1),
    'm1.small': (1, 2048, 20),
    'm1.medium': (2, 4096, 40),
    'm1.large': (4, 8192, 80),
}

#: name -> (password, roles)
USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    'admin': ('simulated', ('admin', 'manager', 'member', 'reader')),
    'upgrade': ('simulated', ('admin', 'service')),
    'operator': ('simulated', ('upgrade_operator', 'upgrade_reader', 'member', 'reader')),
    'watcher': ('simulated', ('upgrade_reader', 'reader')),
    'tenant': ('simulated', ('member', 'reader')),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A machine. `versions` overrides the release's version of single projects."""

    name: str
    roles: tuple[str, ...]
    az: str | None = None
    vcpus: int = 32
    ram_mb: int = 131072
    disk_gb: int = 2000
    hypervisor_version: int = 9000000  #: as libvirt counts: 9.0.0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """A tenant's instance. Pinned: its owner asked for the availability zone it is in."""

    name: str
    host: str
    flavor: str = 'm1.small'
    status: str = 'ACTIVE'
    pinned: bool = True
    group: str | None = None  #: name of a server group


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumeSpec:
    """A volume on a back end of cinder, `host@backend#pool`, perhaps attached."""

    name: str
    host: str
    size_gb: int = 1
    server: str | None = None  #: name of the server it is attached to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long things take, in seconds before the simulator's speed divides them."""

    migration: tuple[float, float] = (2.0, 3.0)  #: shortest, longest
    restart: float = 1.0  #: a unit from its start to being up
    boot: float = 20.0
    build: float = 0.5  #: a server from accepted to ACTIVE
    run: float = 0.2  #: any other action on a host


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole cloud."""

    hosts: tuple[HostSpec, ...]
    servers: tuple[ServerSpec, ...] = ()
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: name -> policy
    volumes: tuple[VolumeSpec, ...] = ()
    routers: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: name -> host
    networks: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: name -> DHCP host
    release: str = '2026.1'
    region: str = 'RegionOne'
    timing: Timing = dataclasses.field(default_factory=Timing)
    cpu_ratio: float = 4.0
    ram_ratio: float = 1.0
    max_migrations: int = 1  #: outgoing at once per host, as nova's default
    users: Mapping[str, tuple[str, tuple[str, ...]]] = dataclasses.field(
        default_factory=lambda: dict(USERS)
    )
    seed: int = 1


def default_spec(
    *,
    controllers: int = 3,
    computes: int = 12,
    servers: int = 60,
    azs: int = 2,
    spare: int = 1,
    volumes: int = 6,
    routers: int = 3,
    groups: int = 2,
    release: str = '2026.1',
    timing: Timing | None = None,
    seed: int = 1,
) -> Spec:
    """Build ctl1…, cmp1… with computes shared out over az1… in order.

    Servers are spread over all computes but the last `spare`; each of the `groups`
    (anti-affinity) takes three of them. L3 and DHCP agents and cinder-volume are on the
    controllers, so that nothing but instances has to leave a compute.
    """
    dice = random.Random(seed)
    control = [f'ctl{n}' for n in range(1, controllers + 1)]
    machines = [_controller(name, name == 'ctl1') for name in control]
    machines += [
        HostSpec(name=f'cmp{n + 1}', roles=('compute',), az=f'az{n * azs // computes + 1}')
        for n in range(computes)
    ]
    used = max(1, computes - spare)
    guests = tuple(
        ServerSpec(
            name=f'server-{n + 1}',
            host=f'cmp{n % used + 1}',
            flavor=dice.choice(['m1.tiny', 'm1.small', 'm1.small', 'm1.medium', 'm1.large']),
            pinned=n % 3 != 2,
            group=f'group-{n // 3 + 1}' if n < 3 * groups and used >= 3 else None,
        )
        for n in range(servers)
    )
    return Spec(
        hosts=tuple(machines),
        servers=guests,
        groups={f'group-{n + 1}': 'anti-affinity' for n in range(groups)},
        volumes=tuple(
            VolumeSpec(
                name=f'volume-{n + 1}',
                host='ctl1@lvm#lvm',
                server=f'server-{n + 1}' if n % 2 and n < servers else None,
            )
            for n in range(volumes)
        ),
        routers={f'router-{n + 1}': control[n % controllers] for n in range(routers)},
        networks={'private': control[0], 'public': control[-1]},
        release=release,
        timing=timing or Timing(),
        seed=seed,
    )


def _controller(name: str, volume: bool) -> HostSpec:
    roles = ('control', 'network', 'volume') if volume else ('control', 'network')
    return HostSpec(name=name, roles=roles, vcpus=16, ram_mb=65536)
