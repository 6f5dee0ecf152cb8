"""Nova's servers: list, show, boot, delete, stop and start, live-migrate; and migrations."""

from collections.abc import Callable
import functools
import re
from typing import Any
import uuid

from upgrade_service.simulator import migrations, scheduling
from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import Cloud, Refused, Server, identity
from upgrade_service.simulator.http import Application, Reply, Request, Route, listing
from upgrade_service.simulator.migrations import Migration

_YES = ('1', 'True', 'true', 'yes')
#: status -> (vm_state, power_state)
_STATES = {
    'ACTIVE': ('active', 1),
    'PAUSED': ('paused', 3),
    'SHUTOFF': ('stopped', 4),
    'ERROR': ('error', 0),
    'BUILD': ('building', 0),
}


def flavor_named(reference: str) -> str:
    """Return a flavor's name for its ID or name; 404 if there is none."""
    for name in specs.FLAVORS:
        if reference in (name, identity('flavor', name)):
            return name
    raise Refused(404, f'Flavor {reference} could not be found.')


def _found(cloud: Cloud, key: str) -> Server:
    if key not in cloud.servers:
        raise Refused(404, f'Instance {key} could not be found.')
    return cloud.servers[key]


def status_of(server: Server) -> str:
    """Return the status the API shows: a task may hide the state."""
    return 'MIGRATING' if server.task == 'migrating' else server.status


# -- looking -------------------------------------------------------------------------------


def _brief(request: Request, server: Server) -> dict[str, Any]:
    link = {'rel': 'self', 'href': f'{request.root}/v2.1/servers/{server.id}'}
    return {'id': server.id, 'name': server.name, 'links': [link]}


def _detail(cloud: Cloud, request: Request, server: Server) -> dict[str, Any]:
    vm_state, power = _STATES.get(server.status, ('active', 1))
    node = cloud.nodes.get(server.host or '')
    view = _brief(request, server) | {
        'status': status_of(server),
        'tenant_id': identity('project', server.project),
        'user_id': identity('user', 'tenant'),
        'created': cloud.stamp(server.created)[:19] + 'Z',
        'updated': cloud.stamp(server.updated)[:19] + 'Z',
        'hostId': identity('hostid', server.host or ''),
        'host_status': 'UP',
        'flavor': _flavor(request, server.flavor),
        'image': {'id': identity('image', 'cirros')},
        'addresses': {'private': [_address(server)]},
        'metadata': {},
        'key_name': None,
        'progress': 0,
        'locked': False,
        'OS-EXT-SRV-ATTR:host': server.host,
        'OS-EXT-SRV-ATTR:hypervisor_hostname': server.host,
        'OS-EXT-SRV-ATTR:instance_name': f'instance-{server.number:08x}',
        'OS-EXT-STS:vm_state': vm_state,
        'OS-EXT-STS:task_state': server.task,
        'OS-EXT-STS:power_state': power,
        'OS-EXT-AZ:availability_zone': (node.spec.az or 'nova') if node else '',
        'os-extended-volumes:volumes_attached': [
            {'id': key, 'delete_on_termination': False}
            for key in cloud.attached.get(server.id, ())
        ],
    }
    if server.fault:
        view['fault'] = {'code': 500, 'message': server.fault, 'created': view['updated']}
    if request.version >= (2, 71):
        view['server_groups'] = [server.group] if server.group else []
    if request.version >= (2, 96):
        view['pinned_availability_zone'] = server.pinned_az
    return view


def _flavor(request: Request, name: str) -> dict[str, Any]:
    if request.version < (2, 47):
        return {'id': identity('flavor', name), 'links': []}
    vcpus, ram, disk = specs.FLAVORS[name]
    return {
        'original_name': name, 'vcpus': vcpus, 'ram': ram, 'disk': disk,
        'ephemeral': 0, 'swap': 0, 'extra_specs': {},
    }  # fmt: skip


def _address(server: Server) -> dict[str, Any]:
    return {
        'addr': f'10.{server.number >> 16 & 255}.{server.number >> 8 & 255}.{server.number & 255}',
        'version': 4,
        'OS-EXT-IPS:type': 'fixed',
    }


def _wanted(cloud: Cloud, request: Request) -> list[Server]:
    """Apply the filters; newest first, as nova sorts."""
    host = request.get('host')
    if host:
        node = cloud.nodes.get(host)
        rows = [cloud.servers[key] for key in node.servers] if node else []
    else:
        rows = list(cloud.servers.values())
    tests: dict[str, Callable[[Server, str], bool]] = {
        'status': lambda s, v: status_of(s) == v.upper(),
        'name': lambda s, v: re.search(v, s.name) is not None,
        'uuid': lambda s, v: s.id == v,
        'availability_zone': lambda s, v: (cloud.nodes[s.host].spec.az == v) if s.host else False,
    }
    for name, test in tests.items():
        value = request.get(name)
        if value:
            rows = [row for row in rows if test(row, value)]
    if request.get('all_tenants') not in ('', *_YES):
        mine = (request.token or {}).get('project')
        rows = [row for row in rows if row.project == mine]
    return sorted(rows, key=lambda s: -s.number)


def _list(app: Application, request: Request, detail: bool) -> dict[str, Any]:
    return listing(
        request,
        _wanted(app.cloud, request),
        lambda s: str(s.id),
        lambda s: _detail(app.cloud, request, s) if detail else _brief(request, s),
        'servers',
        'v2.1/servers' + ('/detail' if detail else ''),
    )


def servers(app: Application, request: Request) -> dict[str, Any]:
    """List servers by ID and name."""
    return _list(app, request, detail=False)


def servers_detail(app: Application, request: Request) -> dict[str, Any]:
    """List servers with all their fields."""
    return _list(app, request, detail=True)


def server(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a server."""
    return {'server': _detail(app.cloud, request, _found(app.cloud, key))}


# -- boot and delete -----------------------------------------------------------------------


def create(app: Application, request: Request) -> Reply:
    """Accept a server, schedule it, and have it ACTIVE (or ERROR) a little later."""
    cloud, body = app.cloud, request.section('server')
    zone, _, host = str(body.get('availability_zone') or '').partition(':')
    hints = request.body.get('os:scheduler_hints') or request.body.get(
        'OS-SCH-HNT:scheduler_hints'
    )
    group = (hints or {}).get('group')
    if group and group not in cloud.groups:
        raise Refused(400, f'Instance group {group} could not be found.')
    row = Server(
        id=str(uuid.uuid4()),
        number=cloud.number(),
        name=str(body.get('name') or 'server'),
        host=None,
        flavor=flavor_named(str(body.get('flavorRef'))),
        status='BUILD',
        created=cloud.clock(),
        updated=cloud.clock(),
        project=(request.token or {}).get('project') or 'demo',
        pinned_az=zone or None,
        group=group,
        task='spawning',
    )
    cloud.servers[row.id] = row
    if group:
        cloud.groups[group]['members'].append(row.id)
    cloud.note('call', 'boot server', server=row.id, name=row.name)
    _place(cloud, row, host or body.get('host'))
    cloud.later(cloud.spec.timing.build, functools.partial(_built, cloud, row))
    answer = _brief(request, row) | {'adminPass': uuid.uuid4().hex, 'security_groups': []}
    return Reply(202, {'server': answer})


def _place(cloud: Cloud, row: Server, host: str | None) -> None:
    node = cloud.nodes.get(host) if host else scheduling.choose(cloud, row)
    if node is None or scheduling.unfit(cloud, row, node):
        row.fault = 'No valid host was found. There are not enough hosts available.'
        return
    row.host = node.name
    node.servers.add(row.id)
    cloud.allocate(row.id, node.name, specs.FLAVORS[row.flavor])


def _built(cloud: Cloud, row: Server) -> None:
    row.status = 'ERROR' if row.fault else 'ACTIVE'
    row.task = None
    row.updated = cloud.clock()
    cloud.note('event', 'server built', server=row.id, host=row.host, status=row.status)


def delete(app: Application, request: Request, key: str) -> Reply:
    """Delete a server at once."""
    cloud, row = app.cloud, _found(app.cloud, key)
    migrations.lose_server(cloud, row)
    cloud.release(row.id)
    if row.host:
        cloud.nodes[row.host].servers.discard(row.id)
    if row.group:
        cloud.groups[row.group]['members'].remove(row.id)
    for volume in cloud.attached.pop(row.id, ()):
        cloud.volumes[volume]['server'] = None
    del cloud.servers[row.id]
    cloud.note('call', 'delete server', server=row.id, host=row.host)
    return Reply(204)


# -- actions -------------------------------------------------------------------------------


def action(app: Application, request: Request, key: str) -> Reply:
    """Carry out an action: live migration, stop, start, reboot, reset of the state."""
    row = _found(app.cloud, key)
    name = next(iter(request.body or {}), '')
    if name not in _ACTIONS:
        raise Refused(400, f'There is no such action: {name}')
    _ACTIONS[name](app.cloud, row, request)
    return Reply(202)


def _live_migrate(cloud: Cloud, row: Server, request: Request) -> None:
    asked = request.section('os-migrateLive')
    if 'host' not in asked or 'block_migration' not in asked:
        raise Refused(400, "'host' and 'block_migration' are required properties")
    named = asked['host']
    if 'force' in asked and not (2, 30) <= request.version < (2, 68):
        raise Refused(400, "Additional properties are not allowed ('force' was unexpected)")
    force = bool(asked.get('force')) or (request.version < (2, 30) and named is not None)
    migrations.request(cloud, row, named, force=force, wait=request.version < (2, 34))


def _set_status(status: str, *needs: str) -> Callable[[Cloud, Server, Request], None]:
    def act(cloud: Cloud, row: Server, request: Request) -> None:
        name = next(iter(request.body))
        if row.task or row.status not in needs:
            state = row.task or row.status.lower()
            raise Refused(409, f"Cannot '{name}' instance {row.id} while it is in {state}")
        row.status = status
        row.updated = cloud.clock()
        cloud.note('call', name, server=row.id, host=row.host)

    return act


_ACTIONS: dict[str, Callable[[Cloud, Server, Request], None]] = {
    'os-migrateLive': _live_migrate,
    'os-stop': _set_status('SHUTOFF', 'ACTIVE', 'ERROR'),
    'os-start': _set_status('ACTIVE', 'SHUTOFF'),
    'reboot': _set_status('ACTIVE', 'ACTIVE', 'SHUTOFF', 'ERROR', 'PAUSED'),
    'pause': _set_status('PAUSED', 'ACTIVE'),
    'unpause': _set_status('ACTIVE', 'PAUSED'),
    'os-resetState': _set_status('ACTIVE', 'ERROR', 'ACTIVE'),
}


# -- migrations ----------------------------------------------------------------------------


def _migration(cloud: Cloud, request: Request, row: Migration) -> dict[str, Any]:
    view: dict[str, Any] = {
        'id': row.number,
        'status': row.status,
        'source_compute': row.source,
        'source_node': row.source,
        'dest_compute': row.dest,
        'dest_node': row.dest,
        'dest_host': '127.0.0.1' if row.dest else None,
        'created_at': cloud.stamp(row.created),
        'updated_at': cloud.stamp(row.updated),
    }
    if request.version >= (2, 59):
        view['uuid'] = row.uuid
    if request.version >= (2, 80):
        view['user_id'] = identity('user', 'admin')
        view['project_id'] = identity('project', 'admin')
    return view


def _in_progress(cloud: Cloud, request: Request, row: Migration) -> dict[str, Any]:
    copied = migrations.copied_bytes(cloud, row)
    return _migration(cloud, request, row) | {
        'server_uuid': row.server,
        'memory_total_bytes': row.total_bytes,
        'memory_processed_bytes': copied,
        'memory_remaining_bytes': row.total_bytes - copied,
        'disk_total_bytes': 0,
        'disk_processed_bytes': 0,
        'disk_remaining_bytes': 0,
    }


def server_migrations(app: Application, request: Request, key: str) -> dict[str, Any]:
    """List the migrations of a server that are under way; ended ones are not shown."""
    cloud, row = app.cloud, _found(app.cloud, key)
    own = [cloud.migrations[number] for number in cloud.migrations_of.get(row.id, ())]
    under_way = [m for m in own if m.status in migrations.OPEN]
    return {'migrations': [_in_progress(cloud, request, m) for m in under_way]}


def _one(cloud: Cloud, key: str, reference: str) -> Migration:
    """Find a migration under way, by number or UUID."""
    for number in cloud.migrations_of.get(_found(cloud, key).id, ()):
        row: Migration = cloud.migrations[number]
        if reference in (str(number), row.uuid) and row.status in migrations.OPEN:
            return row
    raise Refused(404, f'In-progress live migration {reference} is not found for server {key}.')


def server_migration(
    app: Application, request: Request, key: str, migration: str
) -> dict[str, Any]:
    """Show a migration that is under way."""
    row = _one(app.cloud, key, migration)
    return {'migration': _in_progress(app.cloud, request, row)}


def abort(app: Application, request: Request, key: str, migration: str) -> Reply:
    """Abort a migration."""
    queued = request.version >= (2, 65)
    migrations.abort(app.cloud, _one(app.cloud, key, migration), queued=queued)
    return Reply(202)


def migration_action(app: Application, request: Request, key: str, migration: str) -> Reply:
    """Force a migration to complete."""
    if 'force_complete' not in (request.body or {}):
        raise Refused(400, "'force_complete' is a required property")
    migrations.force_complete(app.cloud, _one(app.cloud, key, migration))
    return Reply(202)


def all_migrations(app: Application, request: Request) -> dict[str, Any]:
    """List migrations, newest first; filters as nova's."""
    cloud = app.cloud
    server_id, host = request.get('instance_uuid'), request.get('host')
    numbers = cloud.migrations_of.get(server_id, []) if server_id else list(cloud.migrations)
    rows = [cloud.migrations[number] for number in reversed(numbers)]
    if host:
        rows = [m for m in rows if host in (m.source, m.dest)]
    for name, field in (('status', 'status'), ('source_compute', 'source')):
        value = request.get(name)
        rows = [m for m in rows if value in (None, getattr(m, field))]
    if request.get('migration_type') not in (None, 'live-migration'):
        rows = []
    since = request.get('changes-since')
    if since:
        rows = [m for m in rows if cloud.stamp(m.updated)[:19] >= since[:19].replace(' ', 'T')]
    return listing(
        request,
        rows,
        lambda m: str(m.uuid),
        lambda m: _migration(cloud, request, m) | _kind(m),
        'migrations',
        'v2.1/os-migrations',
    )


def _kind(row: Migration) -> dict[str, Any]:
    return {
        'instance_uuid': row.server,
        'migration_type': 'live-migration',
        'old_instance_type_id': 1,
        'new_instance_type_id': 1,
    }


ROUTES: tuple[Route, ...] = (
    ('GET', '/v2.1/servers', servers),
    ('POST', '/v2.1/servers', create),
    ('GET', '/v2.1/servers/detail', servers_detail),
    ('GET', '/v2.1/servers/{key}', server),
    ('DELETE', '/v2.1/servers/{key}', delete),
    ('POST', '/v2.1/servers/{key}/action', action),
    ('GET', '/v2.1/servers/{key}/migrations', server_migrations),
    ('GET', '/v2.1/servers/{key}/migrations/{migration}', server_migration),
    ('DELETE', '/v2.1/servers/{key}/migrations/{migration}', abort),
    ('POST', '/v2.1/servers/{key}/migrations/{migration}/action', migration_action),
    ('GET', '/v2.1/os-migrations', all_migrations),
)
