"""Clouds to plan for, drawn from a seed: the setting that every schedule is compared in.

Two zones, six flavours, 5 % of the servers in anti-affinity groups, 1 % that cannot be
live-migrated, no empty host. A migration takes 10 s and 1.2 x its memory at 1.1 GiB/s;
each host sends one and takes in two at a time, the cloud 64.
"""

import dataclasses
import random

from upgrade_service import model
from upgrade_service.conductor import planner
from upgrade_service.conductor.planner import request as requests
from upgrade_service.projects import loader, policy, releases
from upgrade_service.strategies import base

PROJECTS = loader.load_projects()
RELEASES = releases.load()
#: seconds that a host is out beside its drain: upgraded and verified
UPGRADE = 600.0
#: name -> (vCPUs, GiB of memory, weight)
FLAVOURS = {
    'tiny': (1, 2, 25),
    'small': (1, 4, 25),
    'medium': (2, 8, 22),
    'large': (4, 16, 16),
    'xlarge': (8, 32, 8),
    'huge': (16, 64, 4),
}
RAM_GIB, VCPUS = 384, 384


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What is drawn."""

    hosts: int = 1000
    zones: int = 2
    share: float = 0.75  #: of the memory of a host, on average
    spread: float = 0.3  #: loads of hosts vary by so much around it
    apart: float = 0.05  #: of the servers are in anti-affinity groups
    fixed: float = 0.01  #: of the servers cannot be live-migrated
    spares: int = 0  #: empty hosts of each zone
    seed: int = 1


class Plain:
    """A strategy's planning half that upgrades and verifies, no more."""

    kinds = frozenset({'upgrade_service', 'verify_host'})
    steps = base.UpgradeStrategy.steps


def seconds(server: model.Server) -> float:
    """Return how long a live migration takes."""
    return 10 + 1.2 * server.ram_mb / 1024 / 1.1


def draw(shape: Shape) -> model.Inventory:
    """Draw a cloud."""
    dice = random.Random(shape.seed)  # noqa: S311
    hosts: dict[str, model.Host] = {}
    servers: list[model.Server] = []
    names, weights = list(FLAVOURS), [w for *_, w in FLAVOURS.values()]
    groups = [0] * shape.zones
    for number in range(shape.hosts + shape.spares * shape.zones):
        zone = number % shape.zones
        name = f'cmp{number:05}'
        hosts[name] = _host(name, f'az{zone + 1}')
        if number >= shape.hosts:
            continue
        part = shape.share + dice.uniform(-shape.spread, shape.spread)
        room = int(min(0.97, part) * RAM_GIB)
        here: set[str] = set()
        tastes = [weight * dice.uniform(0.1, 2) for weight in weights]
        while room >= 2:
            flavour = dice.choices(names, tastes)[0]
            vcpus, ram, _ = FLAVOURS[flavour]
            if ram > room:
                break
            room -= ram
            group = None
            if dice.random() < shape.apart:
                groups[zone] += 1
                group = f'g{zone}-{groups[zone] // 3}'
                group = None if group in here else group
                here.add(group or '')
            servers.append(
                model.Server(
                    id=f's{len(servers):06}',
                    name=f's{len(servers):06}',
                    host=name,
                    state='SHUTOFF' if dice.random() < shape.fixed else 'ACTIVE',
                    vcpus=vcpus,
                    ram_mb=ram * 1024,
                    az=f'az{zone + 1}',
                    group=group,
                    group_policy='anti-affinity' if group else None,
                )
            )
    return model.Inventory(
        cluster='drawn',
        taken_at=0,
        hosts=hosts,
        services=[_compute(host) for host in hosts.values()],
        servers=servers,
    )


def _host(name: str, az: str) -> model.Host:
    return model.Host(
        name=name,
        roles=frozenset({'compute'}),
        az=az,
        agent=f'agent-{name}',
        agent_state='up',
        facts_age=5.0,
        strategies=frozenset({'source'}),
        vcpus=VCPUS,
        ram_mb=RAM_GIB * 1024,
    )


def _compute(host: model.Host) -> model.Service:
    return model.Service(
        project='nova',
        binary='nova-compute',
        host=host.name,
        az=host.az,
        state='up',
        version=RELEASES.latest('nova', '2026.1'),
        release='2026.1',
    )


def request(mode: str, out: int | str = '5%', **drain: object) -> requests.Request:
    """Ask for an upgrade of everything, so many hosts out at once."""
    wanted = {
        'max_unavailable': out,
        'canary': {'hosts': 0},
        'drain': {'mode': mode, 'on_immovable': 'skip', **drain},
    }
    return requests.Request(
        from_release='2026.1', to_release='2026.2', policy=policy.merge_policy(wanted)
    )


def plan(inventory: model.Inventory, wanted: requests.Request) -> model.Plan:
    """Let the product plan."""
    return planner.make_plan(inventory, wanted, PROJECTS, RELEASES, {'source': Plain()})
