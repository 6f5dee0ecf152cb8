"""Live migration: what nova refuses, and what happens in time to what it accepts.

Modelled on nova/api/openstack/compute/migrate_server.py, nova/compute/api.py
(`live_migrate`), nova/conductor/tasks/live_migrate.py and nova/compute/manager.py
(`live_migration`, `_do_live_migration`, `_rollback_live_migration`):

* a server that is not ACTIVE or PAUSED, or has a task, is refused with 409; a host
  without compute node with 400;
* below microversion 2.34 the conductor's checks are waited for and answered with 400; from
  2.34 on the call is accepted and the migration's record ends in `error`, the server
  staying as it was;
* a host that is named goes through the scheduler (microversion 2.30 and later without
  `force`), so a disabled or full host is NoValidHost; with `force` (to 2.67) only the
  conductor's own checks are made;
* at most `max_concurrent_live_migrations` leave a host at once, others are `queued`;
* the server's allocation goes to the destination at once while the migration's record
  holds that of the source until the end (`replace_allocation_with_migration`);
* a nova-compute that stops takes its migrations with it (they end `failed`).
"""

import dataclasses
import functools

from upgrade_service.simulator import scheduling
from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import Cloud, Node, Refused, Server, identity

#: states in which a migration is still under way
OPEN = ('accepted', 'queued', 'preparing', 'running', 'post-migrating')
#: share of the whole time that goes by before memory is copied
_PREPARING = 0.15


@dataclasses.dataclass
class Migration:
    """A row of nova's `migrations`."""

    number: int
    uuid: str
    server: str
    source: str
    dest: str | None
    created: float
    updated: float
    total_bytes: int
    status: str = 'accepted'
    seconds: float = 0.0  #: simulated seconds it will take
    copying_since: float | None = None
    sticks: bool = False
    lies: bool = False


def request(
    cloud: Cloud, server: Server, host: str | None, *, force: bool = False, wait: bool = True
) -> Migration:
    """Ask for a live migration. `wait`: refuse at once what the conductor would refuse."""
    if server.task is not None:
        raise Refused(
            409,
            f"Cannot 'os-migrateLive' instance {server.id} while it is in task_state "
            f'{server.task}',
            'InstanceInvalidState',
        )
    if server.status not in ('ACTIVE', 'PAUSED'):
        raise Refused(
            409,
            f"Cannot 'os-migrateLive' instance {server.id} while it is in vm_state "
            f'{server.status.lower()}',
            'InstanceInvalidState',
        )
    node = cloud.nodes.get(host) if host else None
    if host and (node is None or 'nova-compute' not in node.units):
        raise Refused(400, f'Compute host {host} could not be found.', 'ComputeHostNotFound')
    migration = _record(cloud, server)
    try:
        target = _destination(cloud, server, node, force)
    except Refused as refusal:
        _close(cloud, migration, 'error', refusal.code)
        if wait:
            raise
        return migration
    _accept(cloud, server, migration, target)
    return migration


def _destination(cloud: Cloud, server: Server, node: Node | None, force: bool) -> Node:
    """Make the checks of the conductor's task; return where it goes."""
    source = cloud.record(server.host or '', 'nova-compute')
    if source is None or not cloud.up(source):
        raise Refused(
            400,
            f'Compute service of {server.host} is unavailable at this time.',
            'ComputeServiceUnavailable',
        )
    if force and node:
        _check_forced(cloud, server, node)
        return node
    if node is None:
        node = scheduling.choose(cloud, server, but=server.host)
        reason = None if node else 'none_left'
    elif node.name == server.host:
        reason = 'same_host'
    else:
        reason = scheduling.unfit(cloud, server, node)
    if node is None or reason:
        raise Refused(
            400,
            'No valid host was found. There are not enough hosts available.',
            f'NoValidHost: {reason}',
        )
    return node


def _check_forced(cloud: Cloud, server: Server, node: Node) -> None:
    if node.name == server.host:
        raise Refused(
            400,
            f'Unable to migrate instance ({server.id}) to current host ({node.name}).',
            'UnableToMigrateToSelf',
        )
    record = cloud.record(node.name, 'nova-compute')
    if record is None or not cloud.up(record):
        raise Refused(
            400,
            f'Compute service of {node.name} is unavailable at this time.',
            'ComputeServiceUnavailable',
        )
    if node.used[1] + specs.FLAVORS[server.flavor][1] > cloud.capacity(node)[1]:
        raise Refused(400, 'Migration pre-check error: Lack of memory', 'MigrationPreCheckError')
    if scheduling.too_old(cloud, server, node):
        raise Refused(
            400,
            'The instance requires a newer hypervisor version than has been provided.',
            'DestinationHypervisorTooOld',
        )


def _record(cloud: Cloud, server: Server) -> Migration:
    number = len(cloud.migrations) + 1
    now = cloud.clock()
    migration = cloud.migrations[number] = Migration(
        number=number,
        uuid=identity('migration', str(number)),
        server=server.id,
        source=server.host or '',
        dest=None,
        created=now,
        updated=now,
        total_bytes=specs.FLAVORS[server.flavor][1] << 20,
    )
    cloud.migrations_of.setdefault(server.id, []).append(number)
    cloud.note('call', 'migrate', server=server.id, source=server.host, migration=number)
    return migration


def _accept(cloud: Cloud, server: Server, migration: Migration, target: Node) -> None:
    source = cloud.nodes[migration.source]
    migration.dest = target.name
    migration.seconds = cloud.dice.uniform(*cloud.spec.timing.migration)
    cloud.allocate(migration.uuid, source.name, cloud.allocations[server.id][1])
    cloud.allocate(server.id, target.name, specs.FLAVORS[server.flavor])
    server.task = 'migrating'
    server.updated = cloud.clock()
    source.waiting.append(migration.number)
    _set(cloud, migration, 'queued')
    _next(cloud, source)


def _next(cloud: Cloud, source: Node) -> None:
    """Start what the host's limit lets start."""
    while source.waiting and len(source.moving) < cloud.spec.max_migrations:
        migration = cloud.migrations[source.waiting.pop(0)]
        source.moving.append(migration.number)
        _set(cloud, migration, 'preparing')
        cloud.later(migration.seconds * _PREPARING, functools.partial(_copy, cloud, migration))


def _copy(cloud: Cloud, migration: Migration) -> None:
    if migration.status != 'preparing':
        return
    about = {'server': migration.server, 'source': migration.source, 'dest': migration.dest}
    rest = migration.seconds * (1 - _PREPARING)
    migration.copying_since = cloud.clock()
    _set(cloud, migration, 'running')
    if cloud.fault('migration_breaks', **about):
        cloud.later(rest / 2, functools.partial(_fail, cloud, migration, 'error', True))
    elif cloud.fault('migration_fails', **about):
        cloud.later(rest / 2, functools.partial(_fail, cloud, migration, 'failed'))
    elif cloud.fault('migration_sticks', **about):
        migration.sticks = True
    else:
        migration.lies = cloud.fault('migration_lies', **about)
        cloud.later(rest, functools.partial(_finish, cloud, migration))


def _finish(cloud: Cloud, migration: Migration) -> None:
    if migration.status != 'running':
        return
    server = cloud.servers[migration.server]
    if migration.lies or migration.dest is None:
        cloud.allocate(server.id, migration.source, cloud.allocations[server.id][1])
    else:
        cloud.nodes[migration.source].servers.discard(server.id)
        cloud.nodes[migration.dest].servers.add(server.id)
        server.host = migration.dest
    _close(cloud, migration, 'completed')


def _fail(cloud: Cloud, migration: Migration, status: str, broken: bool = False) -> None:
    """End a migration that has not moved its server."""
    if migration.status not in OPEN:
        return
    server = cloud.servers.get(migration.server)
    if server is not None:
        if migration.uuid in cloud.allocations:
            amounts = cloud.allocations[migration.uuid][1]
            cloud.allocate(server.id, migration.source, amounts)
        if broken:
            server.status, server.fault = 'ERROR', 'Live migration failed.'
    _close(cloud, migration, status)


def _close(cloud: Cloud, migration: Migration, status: str, reason: str = '') -> None:
    """Write the last state, release what the migration held, let the next one start."""
    _set(cloud, migration, status, reason)
    cloud.release(migration.uuid)
    server = cloud.servers.get(migration.server)
    if server is not None and server.task == 'migrating':
        server.task = None
        server.updated = cloud.clock()
    source = cloud.nodes[migration.source]
    for queue in (source.moving, source.waiting):
        if migration.number in queue:
            queue.remove(migration.number)
    _next(cloud, source)


def _set(cloud: Cloud, migration: Migration, status: str, reason: str = '') -> None:
    migration.status = status
    migration.updated = cloud.clock()
    change = cloud.open_migrations.add if status in OPEN else cloud.open_migrations.discard
    change(migration.number)
    cloud.note(
        'event',
        f'migration {status}',
        migration=migration.number,
        server=migration.server,
        source=migration.source,
        dest=migration.dest,
        reason=reason,
    )


def lose_host(cloud: Cloud, host: str) -> None:
    """A nova-compute has stopped: its migrations, in and out, end without success."""
    for number in list(cloud.open_migrations):
        migration = cloud.migrations[number]
        if host in (migration.source, migration.dest):
            _fail(cloud, migration, 'failed')


def lose_server(cloud: Cloud, server: Server) -> None:
    """A server is deleted while it moves."""
    for number in cloud.migrations_of.get(server.id, ()):
        _fail(cloud, cloud.migrations[number], 'cancelled')


def abort(cloud: Cloud, migration: Migration, *, queued: bool) -> None:
    """Abort; one that does not copy yet only where the microversion allows (2.65)."""
    allowed = ('queued', 'preparing', 'running') if queued else ('running',)
    if migration.status not in allowed:
        raise _wrong_state(migration, 'abort live migration')
    cloud.note('call', 'migration abort', migration=migration.number, server=migration.server)
    _fail(cloud, migration, 'cancelled')


def force_complete(cloud: Cloud, migration: Migration) -> None:
    """Pause the guest so that its memory can be copied to the end."""
    if migration.status != 'running':
        raise _wrong_state(migration, 'force complete')
    cloud.note('call', 'migration force', migration=migration.number, server=migration.server)
    migration.sticks = False
    cloud.later(migration.seconds / 10, functools.partial(_finish, cloud, migration))


def _wrong_state(migration: Migration, doing: str) -> Refused:
    return Refused(
        400,
        f'Migration {migration.number} state of instance {migration.server} is '
        f'{migration.status}. Cannot {doing} while the migration is in this state.',
        'InvalidMigrationState',
    )


def copied_bytes(cloud: Cloud, migration: Migration) -> int:
    """Return how much memory has gone over by now."""
    if migration.status in ('completed', 'post-migrating'):
        return migration.total_bytes
    if migration.copying_since is None:
        return 0
    if migration.sticks:
        return migration.total_bytes // 2
    whole = migration.seconds * (1 - _PREPARING) / cloud.speed
    share = (cloud.clock() - migration.copying_since) / whole if whole else 1.0
    return int(migration.total_bytes * min(1.0, share))
