"""Cinder: services of schedulers and back ends, volumes, types."""

from typing import Any

from upgrade_service.simulator.cloud import Cloud, Record, Refused, identity
from upgrade_service.simulator.compute import error
from upgrade_service.simulator.http import Api, Application, Reply, Request, Route, dotted, listing

LOW, HIGH = (3, 0), (3, 71)
_TYPE = {
    'name': 'lvm',
    'is_public': True,
    'description': None,
    'extra_specs': {},
    'qos_specs_id': None,
}


def versions(app: Application, request: Request) -> Reply:
    """List the only version; cinder does so with 300 at its root."""
    link = {'rel': 'self', 'href': f'{request.root}/v3/'}
    version = {
        'id': 'v3.0',
        'status': 'CURRENT',
        'version': dotted(HIGH),
        'min_version': dotted(LOW),
        'updated': '2023-08-31T00:00:00Z',
        'links': [link],
    }
    return Reply(200 if request.path else 300, {'versions': [version]})


def version(app: Application, request: Request) -> Reply:
    """Describe v3: a list of one, with 200."""
    return Reply(200, versions(app, request).body)


# -- services ------------------------------------------------------------------------------


def _service(app: Application, request: Request, record: Record) -> dict[str, Any]:
    unit = app.cloud.unit_of(record)
    view: dict[str, Any] = {
        'binary': record.binary,
        'host': record.host,
        'zone': record.zone,
        'status': 'disabled' if record.disabled else 'enabled',
        'state': 'up' if app.cloud.up(record) else 'down',
        'updated_at': app.cloud.stamp(None if unit.state == 'active' else unit.since),
        'disabled_reason': record.reason,
    }
    if record.binary == 'cinder-volume':
        view |= {'frozen': False, 'replication_status': 'not-capable', 'active_backend_id': None}
    if request.version >= (3, 7):
        view['cluster'] = None
    if request.version >= (3, 49) and record.binary == 'cinder-volume':
        view['backend_state'] = view['state']
    return view


def services(app: Application, request: Request) -> dict[str, Any]:
    """List services; filters are host and binary."""
    host, binary = request.get('host'), request.get('binary')
    rows = [
        record
        for record in app.cloud.of_project.get('cinder', [])
        if host in (None, record.host, record.node) and binary in (None, record.binary)
    ]
    return {'services': [_service(app, request, record) for record in rows]}


def update_service(app: Application, request: Request, verb: str) -> dict[str, Any]:
    """Enable or disable a service."""
    if verb not in ('enable', 'disable', 'disable-log-reason'):
        raise Refused(404, 'Unknown action')
    body = request.body or {}
    record = _record(app.cloud, str(body.get('host')), str(body.get('binary')))
    if verb == 'disable-log-reason' and not body.get('disabled_reason'):
        raise Refused(400, 'Disabled reason contains invalid characters or is too long.')
    record.disabled = verb != 'enable'
    record.reason = body.get('disabled_reason') if record.disabled else None
    what = 'disable' if record.disabled else 'enable'
    app.cloud.note('call', what, host=record.node, binary=record.binary, reason=record.reason)
    view = _service(app, request, record)
    return {key: view[key] for key in ('host', 'binary', 'status', 'disabled_reason')} | {
        'service': record.binary,
        'disabled': record.disabled,
    }


def _record(cloud: Cloud, host: str, binary: str) -> Record:
    for record in cloud.of_project.get('cinder', []):
        if (record.host, record.binary) == (host, binary):
            return record
    raise Refused(404, f'Service {binary} could not be found on host {host}.')


# -- volumes -------------------------------------------------------------------------------


def _volume(app: Application, request: Request, volume: dict[str, Any]) -> dict[str, Any]:
    cloud = app.cloud
    server = cloud.servers.get(volume['server'] or '')
    attachments = []
    if server:
        attachments = [
            {
                'id': volume['id'],
                'attachment_id': identity('attachment', volume['id']),
                'volume_id': volume['id'],
                'server_id': server.id,
                'host_name': server.host,
                'device': '/dev/vdb',
                'attached_at': cloud.stamp(volume['created']),
            }
        ]
    return {
        'id': volume['id'],
        'name': volume['name'],
        'size': volume['size'],
        'status': 'in-use' if server else 'available',
        'attachments': attachments,
        'availability_zone': 'nova',
        'bootable': 'false',
        'created_at': cloud.stamp(volume['created']),
        'description': None,
        'encrypted': False,
        'links': [{'rel': 'self', 'href': f'{request.root}/v3/volumes/{volume["id"]}'}],
        'metadata': {},
        'migration_status': None,
        'multiattach': False,
        'os-vol-host-attr:host': volume['host'],
        'os-vol-mig-status-attr:migstat': None,
        'os-vol-tenant-attr:tenant_id': identity('project', 'demo'),
        'snapshot_id': None,
        'source_volid': None,
        'user_id': identity('user', 'tenant'),
        'volume_type': _TYPE['name'],
    }


def _volumes(app: Application, request: Request, detail: bool) -> dict[str, Any]:
    rows = [_volume(app, request, volume) for volume in app.cloud.volumes.values()]
    for name, field in (('name', 'name'), ('status', 'status'), ('host', 'os-vol-host-attr:host')):
        wanted = request.get(name)
        rows = [row for row in rows if wanted in (None, row[field])]
    return listing(
        request,
        rows,
        lambda row: str(row['id']),
        lambda row: row if detail else {key: row[key] for key in ('id', 'name', 'links')},
        'volumes',
        'v3/volumes' + ('/detail' if detail else ''),
    )


def volumes(app: Application, request: Request) -> dict[str, Any]:
    """List volumes by ID and name."""
    return _volumes(app, request, detail=False)


def volumes_detail(app: Application, request: Request) -> dict[str, Any]:
    """List volumes with all their fields."""
    return _volumes(app, request, detail=True)


def volume(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a volume."""
    if key not in app.cloud.volumes:
        raise Refused(404, f'Volume {key} could not be found.')
    return {'volume': _volume(app, request, app.cloud.volumes[key])}


def types(app: Application, request: Request) -> dict[str, Any]:
    """List the one volume type."""
    return {'volume_types': [_TYPE | {'id': identity('type', 'lvm')}]}


def pools(app: Application, request: Request) -> dict[str, Any]:
    """List the pools of the back ends."""
    names = [r.host for r in app.cloud.of_project.get('cinder', []) if '@' in r.host]
    capacity = {'total_capacity_gb': 10000, 'free_capacity_gb': 9000}
    return {'pools': [{'name': f'{n}#lvm', 'capabilities': capacity} for n in names]}


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/v3/?', version),
    ('GET', '/v3/os-services', services),
    ('PUT', '/v3/os-services/{verb}', update_service),
    ('GET', '/v3/volumes', volumes),
    ('GET', '/v3/volumes/detail', volumes_detail),
    ('GET', '/v3/volumes/{key}', volume),
    ('GET', '/v3/types', types),
    ('GET', '/v3/scheduler-stats/get_pools', pools),
)

API = Api(
    prefix='volume',
    project='cinder',
    routes=ROUTES,
    error=error,
    service_type='volume',
    low=LOW,
    high=HIGH,
    open=('/?', '/v3/?'),
)
