"""What can be done to a host: switch a project's version, start and stop units, boot.

A unit that starts is `activating` for a while, and only then up, at the version installed
when it started; so between a switch and its restart a host runs old code from a new tree,
as a real one does.
"""

import functools
from typing import Any

from upgrade_service.simulator import migrations
from upgrade_service.simulator.cloud import Cloud, Node, Refused, Unit, identity


def facts(cloud: Cloud, node: Node) -> dict[str, Any]:
    """Return what an agent on the host would find there."""
    projects: dict[str, Any] = {
        project: {
            'version': version,
            'how': 'simulated',
            'path': f'/opt/stack/{project}-{version}',
            'services': [],
        }
        for project, version in node.installed.items()
    }
    for unit in node.units.values():
        projects[unit.project]['services'].append(
            {
                'binary': unit.binary,
                'unit': unit.name,
                'state': unit.state,
                'version': unit.version if unit.state == 'active' else None,
            }
        )
    return {
        'host': node.name,
        'roles': list(node.spec.roles),
        'az': node.spec.az,
        'powered': node.powered,
        'boot_id': node.boot_id,
        'hypervisor_version': node.hypervisor_version,
        'os': dict(node.os),
        'projects': projects,
    }


def switch(cloud: Cloud, node: Node, project: str, version: str, restart: bool = True) -> None:
    """Put another version of a project in place and, by default, restart its units."""
    _reachable(node)
    _has(node, project)
    _may_fail(cloud, node, project, 'switch')
    before = node.installed[project]
    node.installed[project] = version
    cloud.note('call', 'switch', host=node.name, project=project, version=version, before=before)
    if restart:
        for unit in node.units.values():
            if unit.project == project:
                _stop(cloud, unit)
                _start(cloud, unit)


def run(cloud: Cloud, node: Node, project: str, kind: str) -> None:
    """Take note of any other action on a project (`prefetch`, `db_expand` …)."""
    _reachable(node)
    _has(node, project)
    _may_fail(cloud, node, project, kind)
    cloud.note('call', 'run', host=node.name, project=project, action=kind)


def control_unit(cloud: Cloud, node: Node, binary: str, verb: str) -> None:
    """Start, stop or restart a unit, named with or without `.service`."""
    _reachable(node)
    unit = node.units.get(binary.removesuffix('.service'))
    if unit is None:
        raise Refused(404, f'Unit {binary} not found on {node.name}.', 'UnitNotFound')
    if verb not in ('start', 'stop', 'restart'):
        raise Refused(400, f'Unknown verb {verb}.', 'UnknownVerb')
    cloud.note('call', f'unit {verb}', host=node.name, binary=unit.binary)
    if verb in ('stop', 'restart'):
        _stop(cloud, unit)
    if verb in ('start', 'restart') and unit.state in ('inactive', 'failed'):
        _start(cloud, unit)


def boot(
    cloud: Cloud,
    node: Node,
    os: dict[str, str] | None = None,
    hypervisor_version: int | None = None,
) -> None:
    """Reboot; whatever ran there stops, and its servers stay SHUTOFF.

    That is nova's `resume_guests_state_on_host_boot = false`, the default.
    """
    cloud.note('call', 'boot', host=node.name, servers=len(node.servers))
    power_off(cloud, node)
    node.os.update(os or {})
    node.hypervisor_version = hypervisor_version or node.hypervisor_version
    node.boot_id = identity('boot', f'{node.name}/{cloud.number()}')
    cloud.later(cloud.spec.timing.boot, lambda: power_on(cloud, node))


def power_off(cloud: Cloud, node: Node) -> None:
    """Take the host away at once."""
    node.powered = False
    for unit in node.units.values():
        _stop(cloud, unit)
    for key in node.servers:
        server = cloud.servers[key]
        if server.status in ('ACTIVE', 'PAUSED'):
            server.status = 'SHUTOFF'
            cloud.note('event', 'server stopped', server=key, host=node.name)


def power_on(cloud: Cloud, node: Node) -> None:
    """Bring the host back; its units start."""
    node.powered = True
    for unit in node.units.values():
        _start(cloud, unit)
    cloud.note('event', 'booted', host=node.name)


def _reachable(node: Node) -> None:
    if not node.powered:
        raise Refused(503, f'Host {node.name} does not answer.', 'HostDown')


def _has(node: Node, project: str) -> None:
    if project not in node.installed:
        raise Refused(404, f'{project} is not installed on {node.name}.', 'ProjectNotFound')


def _may_fail(cloud: Cloud, node: Node, project: str, action: str) -> None:
    if cloud.fault('action_fails', host=node.name, project=project, action=action):
        raise Refused(500, f'{action} of {project} on {node.name} failed.', 'ActionFailed')


def _stop(cloud: Cloud, unit: Unit) -> None:
    if unit.state != 'inactive':
        unit.state = 'inactive'
        unit.turn += 1
        unit.since = cloud.clock()
        cloud.note('event', 'unit down', host=unit.host, binary=unit.binary)
    if unit.binary == 'nova-compute':
        migrations.lose_host(cloud, unit.host)


def _start(cloud: Cloud, unit: Unit) -> None:
    unit.state = 'activating'
    unit.turn += 1
    unit.version = cloud.nodes[unit.host].installed[unit.project]
    unit.since = cloud.clock()
    cloud.later(cloud.spec.timing.restart, functools.partial(_started, cloud, unit, unit.turn))


def _started(cloud: Cloud, unit: Unit, turn: int) -> None:
    if unit.turn != turn:
        return
    broken = cloud.fault('unit_fails', host=unit.host, binary=unit.binary, version=unit.version)
    unit.state = 'failed' if broken else 'active'
    unit.since = cloud.clock()
    what = 'unit failed' if broken else 'unit up'
    cloud.note('event', what, host=unit.host, binary=unit.binary, version=unit.version)
