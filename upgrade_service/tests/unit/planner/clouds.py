"""Clouds to plan for: read from the YAML of tests/golden, or drawn from a seed."""

from collections.abc import Mapping
import pathlib
import random
import tempfile
from typing import Any

import yaml

from upgrade_service import model
from upgrade_service.conductor import planner
from upgrade_service.projects import loader, policy, releases
from upgrade_service.strategies import base

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden'
PROJECTS = loader.load_projects()
RELEASES = releases.load()

CONTROL: dict[str, tuple[str, ...]] = {
    'keystone': ('keystone-api',),
    'placement': ('placement-api',),
    'glance': ('glance-api',),
    'nova': ('nova-api', 'nova-conductor', 'nova-scheduler'),
    'neutron': ('neutron-api', 'neutron-periodic-workers', 'neutron-rpc-server'),
    'cinder': ('cinder-api', 'cinder-scheduler', 'cinder-volume'),
}
COMPUTE: dict[str, tuple[str, ...]] = {
    'nova': ('nova-compute',),
    'neutron': ('neutron-openvswitch-agent',),
}
NETWORK: dict[str, tuple[str, ...]] = {
    'neutron': ('neutron-openvswitch-agent', 'neutron-l3-agent', 'neutron-dhcp-agent'),
}
ROLES = {
    'control': CONTROL,
    'compute': COMPUTE,
    'network': NETWORK,
}


class PlainStrategy:
    """The planning half of any strategy: the contract's own default."""

    kinds = frozenset(model.KINDS)
    steps = base.UpgradeStrategy.steps


class PackageStrategy(PlainStrategy):
    """The planning half of a strategy that changes the projects of a host together."""

    unit_of_change = 'host'


STRATEGIES = {
    'source': PlainStrategy(),
    'package': PackageStrategy(),
    'host': PackageStrategy(),
}


def host_services(name: str, spec: Mapping[str, Any]) -> list[model.Service]:
    """Return the services of a host, by its roles and by name; `versions` overrides some."""
    found = {}
    for runs in (*(ROLES[role] for role in spec.get('roles', ())), spec.get('runs', {})):
        for project, binaries in runs.items():
            release = spec.get('release', '2026.1')
            version = spec.get('versions', {}).get(project, RELEASES.latest(project, release))
            known = RELEASES.of_version(project, version or '')
            for binary in binaries:
                found[binary] = model.Service(
                    project=project,
                    binary=binary,
                    host=name,
                    az=spec.get('az'),
                    version=version,
                    release=known.id if known else None,
                    **{'state': 'up'} | spec.get('services', {}).get(binary, {}),
                )
    return list(found.values())


def make_inventory(cloud: Mapping[str, Any]) -> model.Inventory:
    """Return the inventory of a cloud given as plain data."""
    hosts, services = {}, []
    for name, spec in cloud['hosts'].items():
        roles = frozenset(spec.get('roles', ()))
        capacity = {'vcpus': 8, 'ram_mb': 16384} if 'compute' in roles else {}
        hosts[name] = model.Host(
            name=name,
            roles=roles,
            az=spec.get('az'),
            agent=f'agent-{name}',
            **(
                {'agent_state': 'up', 'facts_age': 5.0, 'strategies': frozenset(STRATEGIES)}
                | capacity
                | spec.get('facts', {})
            ),
        )
        services += host_services(name, spec)
    servers = [
        model.Server(**({'name': s['id'], 'state': 'ACTIVE'} | s))
        for s in cloud.get('servers', ())
    ]
    problems = [model.Problem(**p) for p in cloud.get('problems', ())]
    return model.Inventory(
        cluster='test',
        taken_at=0,
        hosts=hosts,
        services=services,
        servers=servers,
        problems=problems,
    )


def make_request(cloud: Mapping[str, Any]) -> planner.Request:
    """Return the request of a cloud given as plain data."""
    selection = {k: tuple(v) for k, v in cloud.get('selection', {}).items()}
    return planner.Request(
        from_release=cloud.get('from', '2026.1'),
        to_release=cloud.get('to', '2026.2'),
        upgrade_id='test',
        strategy=cloud.get('strategy', 'source'),
        type=cloud.get('type', 'service'),
        policy=policy.merge_policy(cloud.get('policy')),
        selection=model.Selection(**selection),
    )


def make_plan(cloud: Mapping[str, Any]) -> tuple[model.Plan, model.Inventory, planner.Request]:
    """Plan for a cloud given as plain data."""
    inventory, request = make_inventory(cloud), make_request(cloud)
    plan = planner.make_plan(inventory, request, projects_of(cloud), RELEASES, STRATEGIES)
    return plan, inventory, request


def projects_of(cloud: Mapping[str, Any]) -> loader.Projects:
    """Return the project data, with the files of projects.d that a cloud has."""
    if 'projects.d' not in cloud:
        return PROJECTS
    with tempfile.TemporaryDirectory() as directory:
        for name, data in cloud['projects.d'].items():
            text = yaml.safe_dump({'project': name} | data)
            (pathlib.Path(directory) / f'{name}.yaml').write_text(text)
        return loader.load_projects(directory)


def load(name: str) -> dict[str, Any]:
    """Read a cloud of tests/golden."""
    cloud: dict[str, Any] = yaml.safe_load((GOLDEN / f'{name}.yaml').read_text())
    return cloud


def draw(seed: int) -> dict[str, Any]:
    """Draw a cloud: 2 to 24 computes in up to 3 zones, loaded from almost empty to full."""
    dice = random.Random(seed)  # noqa: S311
    zones = dice.sample(['az1', 'az2', 'az3'], dice.randint(1, 3))
    hosts: dict[str, Any] = {
        f'ctl{n}': {'roles': ['control']} for n in range(1, dice.randint(2, 4))
    }
    if dice.random() < 0.2:
        hosts['ctl1'] = {'roles': ['control', 'compute'], 'az': zones[0]}
    if dice.random() < 0.3:
        hosts['net1'] = {'roles': ['network'], 'facts': {'routers': 3}}
    share = dice.uniform(0.05, 0.95)
    servers: list[dict[str, Any]] = []
    for n in range(dice.randint(2, 24)):
        name, room = f'cmp{n:02}', 16384
        facts: dict[str, Any] = {'vcpus': 32}
        if dice.random() < 0.2:
            facts['hypervisor_version'] = dice.choice([7002000, 8000000])
        hosts[name] = {
            'roles': ['compute', 'network'] if dice.random() < 0.2 else ['compute'],
            'az': dice.choice(zones),
            'facts': facts,
        }
        if dice.random() < 0.1:
            hosts[name]['release'] = '2026.2'
        if dice.random() < 0.05:
            hosts[name]['services'] = {'nova-compute': {'status': 'disabled'}}
        while room > 16384 * (1 - share):
            server = draw_server(dice, name, len(servers))
            room -= server['ram_mb']
            if room >= 0:
                servers.append(server)
    chosen = {
        'max_unavailable': dice.choice([1, 2, 5, '20%']),
        'canary': {'hosts': dice.randint(0, 2), 'soak_seconds': dice.choice([0, 60])},
        'drain': {'on_immovable': dice.choice(['block', 'skip'])},
    }
    return {'hosts': hosts, 'servers': servers, 'policy': chosen}


def draw_server(dice: random.Random, host: str, number: int) -> dict[str, Any]:
    """Draw a server: some are bound to a group, a few cannot be moved."""
    server: dict[str, Any] = {
        'id': f's{number}',
        'host': host,
        'vcpus': dice.choice([1, 1, 2]),
        'ram_mb': dice.choice([512, 1024, 2048, 4096]),
        'state': dice.choices(['ACTIVE', 'PAUSED', 'SHUTOFF', 'ERROR'], [94, 3, 2, 1])[0],
    }
    if dice.random() < 0.15:
        server |= {'group': f'g{dice.randint(1, 4)}', 'group_policy': 'anti-affinity'}
    return server
