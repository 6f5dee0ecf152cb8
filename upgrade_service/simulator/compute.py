"""Nova's administrative half: services, hypervisors, aggregates, zones, flavors, groups.

Servers and their migrations are in :mod:`upgrade_service.simulator.servers`.
"""

import fnmatch
from typing import Any

from upgrade_service.simulator import servers
from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import Cloud, Node, Record, Refused, identity
from upgrade_service.simulator.http import Api, Application, Reply, Request, Route, dotted, listing

LOW, HIGH = (2, 1), (2, 100)
_UUIDS = (2, 53)  #: services and hypervisors are named by UUID from here on

#: names of the members of an error, by status
_ERRORS = {
    400: 'badRequest',
    401: 'unauthorized',
    403: 'forbidden',
    404: 'itemNotFound',
    405: 'badMethod',
    406: 'notAcceptable',
    409: 'conflictingRequest',
    503: 'serviceUnavailable',
}


def error(status: int, message: str) -> dict[str, Any]:
    """Shape an error as nova does."""
    return {_ERRORS.get(status, 'computeFault'): {'code': status, 'message': message}}


# -- versions ------------------------------------------------------------------------------


def _version(request: Request) -> dict[str, Any]:
    return {
        'id': 'v2.1',
        'status': 'CURRENT',
        'version': dotted(HIGH),
        'min_version': dotted(LOW),
        'updated': '2013-07-23T11:33:21Z',
        'links': [{'rel': 'self', 'href': f'{request.root}/v2.1/'}],
        'media-types': [{'base': 'application/json', 'type': 'application/json'}],
    }


def versions(app: Application, request: Request) -> dict[str, Any]:
    """List the versions."""
    return {'versions': [_version(request)]}


def version(app: Application, request: Request) -> dict[str, Any]:
    """Describe v2.1."""
    return {'version': _version(request)}


# -- services ------------------------------------------------------------------------------


def _service(app: Application, request: Request, record: Record) -> dict[str, Any]:
    cloud = app.cloud
    alive = cloud.up(record)
    since = None if cloud.unit_of(record).state == 'active' else cloud.unit_of(record).since
    view: dict[str, Any] = {
        'id': record.id if request.version >= _UUIDS else record.number,
        'binary': record.binary,
        'host': record.host,
        'zone': record.zone,
        'status': 'disabled' if record.disabled else 'enabled',
        'state': 'up' if alive else 'down',
        'updated_at': cloud.stamp(since),
        'disabled_reason': record.reason,
    }
    if request.version >= (2, 11):
        view['forced_down'] = record.forced_down
    return view


def services(app: Application, request: Request) -> dict[str, Any]:
    """List services; filters are host and binary."""
    host, binary = request.get('host'), request.get('binary')
    rows = app.cloud.of_host.get(host, []) if host else app.cloud.of_project.get('nova', [])
    found = [r for r in rows if r.project == 'nova' and binary in (None, r.binary)]
    return {'services': [_service(app, request, record) for record in found]}


def update_service(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Enable, disable or force down a service (2.53 and later), or by the old verbs."""
    if request.version < _UUIDS:
        return _update_service_by_verb(app, request, key)
    record = app.cloud.records.get(key)
    if record is None or record.project != 'nova':
        raise Refused(404, f'Service {key} not found.')
    body = request.body or {}
    _change(app.cloud, record, body)
    return {'service': _service(app, request, record)}


def _update_service_by_verb(app: Application, request: Request, verb: str) -> dict[str, Any]:
    body = request.body or {}
    record = app.cloud.record(body.get('host', ''), body.get('binary', ''))
    if record is None or record.project != 'nova':
        raise Refused(404, f'Service {body.get("binary")} on {body.get("host")} not found.')
    changes: dict[str, dict[str, Any]] = {
        'enable': {'status': 'enabled'},
        'disable': {'status': 'disabled'},
        'disable-log-reason': {
            'status': 'disabled',
            'disabled_reason': body.get('disabled_reason'),
        },
        'force-down': {'forced_down': body.get('forced_down', False)},
    }
    if verb not in changes:
        raise Refused(404, 'Unknown action')
    _change(app.cloud, record, changes[verb])
    return {'service': _service(app, request, record)}


def _change(cloud: Cloud, record: Record, body: dict[str, Any]) -> None:
    """Apply a change; nova lets only nova-compute be changed."""
    status, reason = body.get('status'), body.get('disabled_reason')
    if not {'status', 'forced_down'} & set(body):
        raise Refused(400, 'No updates were requested. Fields that can be updated: status')
    if reason and status != 'disabled':
        raise Refused(400, 'Specifying disabled_reason is only valid when status is disabled')
    if record.binary != 'nova-compute':
        raise Refused(
            400,
            f'Updating a {record.binary} service is not supported. '
            'Only nova-compute services can be updated.',
        )
    if status is not None:
        record.disabled = status == 'disabled'
        record.reason = reason if record.disabled else None
        what = 'disable' if record.disabled else 'enable'
        cloud.note('call', what, host=record.node, binary=record.binary, reason=reason)
    if 'forced_down' in body:
        record.forced_down = bool(body['forced_down'])
        cloud.note('call', 'force down', host=record.node, forced_down=record.forced_down)


# -- hypervisors ---------------------------------------------------------------------------


def _hypervisor(app: Application, request: Request, node: Node, detail: bool) -> dict[str, Any]:
    cloud = app.cloud
    record = cloud.record(node.name, 'nova-compute')
    assert record is not None  # noqa: S101 - every compute node has one
    modern = request.version >= _UUIDS
    view: dict[str, Any] = {
        'id': node.hypervisor_id if modern else record.number,
        'hypervisor_hostname': node.name,
        'state': 'up' if cloud.up(record) else 'down',
        'status': 'disabled' if record.disabled else 'enabled',
    }
    if modern and request.get('with_servers') in ('True', 'true', '1'):
        here = [cloud.servers[key] for key in node.servers]
        view['servers'] = [{'uuid': s.id, 'name': s.name} for s in here]
    if not detail:
        return view
    view |= {
        'hypervisor_type': 'QEMU',
        'hypervisor_version': node.hypervisor_version,
        'host_ip': '127.0.0.1',
        'service': {
            'id': record.id if modern else record.number,
            'host': node.name,
            'disabled_reason': record.reason,
        },
    }
    return view | (_usage(cloud, node) if request.version < (2, 88) else {'uptime': None})


def _usage(cloud: Cloud, node: Node) -> dict[str, Any]:
    """Return what 2.88 removed: capacities without allocation ratios, and their use."""
    vcpus, ram, disk = node.used
    return {
        'vcpus': node.spec.vcpus,
        'vcpus_used': vcpus,
        'memory_mb': node.spec.ram_mb,
        'memory_mb_used': ram,
        'free_ram_mb': node.spec.ram_mb - ram,
        'local_gb': node.spec.disk_gb,
        'local_gb_used': disk,
        'free_disk_gb': node.spec.disk_gb - disk,
        'disk_available_least': node.spec.disk_gb - disk,
        'running_vms': len(node.servers),
        'current_workload': len(node.moving),
        'cpu_info': {},
    }


def _hypervisors(app: Application, request: Request, detail: bool) -> dict[str, Any]:
    rows = app.cloud.compute_nodes
    pattern = request.get('hypervisor_hostname_pattern')
    if pattern:
        rows = [node for node in rows if fnmatch.fnmatch(node.name, f'*{pattern}*')]
    return listing(
        request,
        rows,
        lambda node: str(node.hypervisor_id),
        lambda node: _hypervisor(app, request, node, detail),
        'hypervisors',
        'v2.1/os-hypervisors' + ('/detail' if detail else ''),
    )


def hypervisors(app: Application, request: Request) -> dict[str, Any]:
    """List hypervisors."""
    return _hypervisors(app, request, detail=False)


def hypervisors_detail(app: Application, request: Request) -> dict[str, Any]:
    """List hypervisors with all their fields."""
    return _hypervisors(app, request, detail=True)


def hypervisor(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a hypervisor."""
    if key not in app.cloud.by_hypervisor:
        raise Refused(404, f'Compute host {key} could not be found.')
    node = app.cloud.by_hypervisor[key]
    return {'hypervisor': _hypervisor(app, request, node, detail=True)}


# -- zones, aggregates, flavors, groups ----------------------------------------------------


def _zones(cloud: Cloud) -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for node in cloud.compute_nodes:
        zones.setdefault(node.spec.az or 'nova', []).append(node.name)
    return zones


def aggregates(app: Application, request: Request) -> dict[str, Any]:
    """List aggregates: one for each availability zone."""
    return {
        'aggregates': [
            {
                'id': number,
                'uuid': identity('aggregate', zone),
                'name': zone,
                'availability_zone': zone,
                'hosts': hosts,
                'metadata': {'availability_zone': zone},
                'created_at': app.cloud.stamp(),
                'updated_at': None,
                'deleted': False,
                'deleted_at': None,
            }
            for number, (zone, hosts) in enumerate(_zones(app.cloud).items(), 1)
        ]
    }


def availability_zones(app: Application, request: Request) -> dict[str, Any]:
    """List zones that have an enabled compute."""
    return {'availabilityZoneInfo': [_zone(app.cloud, z, None) for z in _zones(app.cloud)]}


def availability_zones_detail(app: Application, request: Request) -> dict[str, Any]:
    """List zones with their hosts and services, `internal` too."""
    hosts: dict[str, dict[str, Any]] = {}
    for record in app.cloud.of_project.get('nova', []):
        services_here = hosts.setdefault(record.zone, {}).setdefault(record.host, {})
        services_here[record.binary] = {
            'active': not record.disabled,
            'available': app.cloud.up(record),
            'updated_at': app.cloud.stamp(),
        }
    return {'availabilityZoneInfo': [_zone(app.cloud, z, h) for z, h in hosts.items()]}


def _zone(cloud: Cloud, zone: str, hosts: dict[str, Any] | None) -> dict[str, Any]:
    nodes = _zones(cloud).get(zone, ())
    records = [cloud.record(name, 'nova-compute') for name in nodes]
    return {
        'zoneName': zone,
        'zoneState': {
            'available': zone == 'internal' or any(r and not r.disabled for r in records)
        },
        'hosts': hosts,
    }


def _flavor(request: Request, name: str, detail: bool) -> dict[str, Any]:
    vcpus, ram, disk = specs.FLAVORS[name]
    view: dict[str, Any] = {
        'id': identity('flavor', name),
        'name': name,
        'links': [{'rel': 'self', 'href': f'{request.root}/v2.1/flavors/{name}'}],
        'description': None,
    }
    if detail:
        view |= {
            'vcpus': vcpus,
            'ram': ram,
            'disk': disk,
            'swap': 0,
            'rxtx_factor': 1.0,
            'os-flavor-access:is_public': True,
            'OS-FLV-EXT-DATA:ephemeral': 0,
            'OS-FLV-DISABLED:disabled': False,
            'extra_specs': {},
        }
    return view


def _flavors(request: Request, detail: bool) -> dict[str, Any]:
    return listing(
        request,
        list(specs.FLAVORS),
        lambda name: identity('flavor', name),
        lambda name: _flavor(request, name, detail),
        'flavors',
        'v2.1/flavors' + ('/detail' if detail else ''),
    )


def flavors(app: Application, request: Request) -> dict[str, Any]:
    """List flavors."""
    return _flavors(request, detail=False)


def flavors_detail(app: Application, request: Request) -> dict[str, Any]:
    """List flavors with all their fields."""
    return _flavors(request, detail=True)


def flavor(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a flavor, by its ID (or by name: it is one of the four)."""
    return {'flavor': _flavor(request, servers.flavor_named(key), detail=True)}


def extra_specs(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a flavor's extra specs: none."""
    return {'extra_specs': {}}


def _group(cloud: Cloud, request: Request, group: dict[str, Any]) -> dict[str, Any]:
    view = {
        'id': group['id'],
        'name': group['name'],
        'members': [m for m in group['members'] if m in cloud.servers],
        'project_id': identity('project', 'demo'),
        'user_id': identity('user', 'tenant'),
    }
    if request.version >= (2, 64):
        return view | {'policy': group['policy'], 'rules': {}}
    return view | {'policies': [group['policy']], 'metadata': {}}


def server_groups(app: Application, request: Request) -> dict[str, Any]:
    """List server groups; `offset` and `limit` are how nova pages these."""
    rows = list(app.cloud.groups.values())
    start = int(request.get('offset') or 0)
    page = rows[start : start + int(request.get('limit') or 1000)]
    return {'server_groups': [_group(app.cloud, request, g) for g in page]}


def server_group(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a server group."""
    if key not in app.cloud.groups:
        raise Refused(404, f'Instance group {key} could not be found.')
    return {'server_group': _group(app.cloud, request, app.cloud.groups[key])}


def limits(app: Application, request: Request) -> Reply:
    """Limits: none."""
    return Reply(200, {'limits': {'rate': [], 'absolute': {}}})


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/v2.1/?', version),
    ('GET', '/v2.1/os-services', services),
    ('PUT', '/v2.1/os-services/{key}', update_service),
    ('GET', '/v2.1/os-hypervisors', hypervisors),
    ('GET', '/v2.1/os-hypervisors/detail', hypervisors_detail),
    ('GET', '/v2.1/os-hypervisors/{key}', hypervisor),
    ('GET', '/v2.1/os-aggregates', aggregates),
    ('GET', '/v2.1/os-availability-zone', availability_zones),
    ('GET', '/v2.1/os-availability-zone/detail', availability_zones_detail),
    ('GET', '/v2.1/flavors', flavors),
    ('GET', '/v2.1/flavors/detail', flavors_detail),
    ('GET', '/v2.1/flavors/{key}', flavor),
    ('GET', '/v2.1/flavors/{key}/os-extra_specs', extra_specs),
    ('GET', '/v2.1/os-server-groups', server_groups),
    ('GET', '/v2.1/os-server-groups/{key}', server_group),
    ('GET', '/v2.1/limits', limits),
    *servers.ROUTES,
)

API = Api(
    prefix='compute',
    project='nova',
    routes=ROUTES,
    error=error,
    service_type='compute',
    low=LOW,
    high=HIGH,
    open=('/?', '/v2.1/?'),
)
