"""What nova says about moves: migration records, servers of a host, allocations.

Readers only. A record is identified by its number, which grows: a record with a higher
number than the one seen before the call is the answer to that call.
"""

import dataclasses
from typing import Any

import openstack
from openstack import exceptions as sdk_exceptions
from oslo_utils import timeutils

from upgrade_service.conductor.cloud import connect

NOVA = '2.73'  #: servers with embedded flavour and locked state; Train
LIVE = '2.68'  #: migrateLive is a cast, the scheduler checks the target, no force; Stein
RECORD = '2.59'  #: migrations with uuids and paging, newest first; Queens
ABORT = '2.65'  #: abort also while queued or preparing; Rocky
PLACEMENT = '1.28'

#: statuses of a migration that has ended
COMPLETED = frozenset({'completed', 'confirmed', 'done'})
FAILED = frozenset({'error', 'failed', 'cancelled', 'reverted'})
MOVABLE = frozenset({'ACTIVE', 'PAUSED'})  #: statuses nova live-migrates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tenant:
    """A server as far as its move goes."""

    id: str
    name: str
    host: str
    status: str
    task: str | None
    hypervisor: str | None = None
    fault: str = ''

    @property
    def moving(self) -> bool:
        """Whether nova is moving it now."""
        return self.status == 'MIGRATING' or self.task == 'migrating'


def tenant(row: dict[str, Any]) -> Tenant:
    """Read a server document."""
    return Tenant(
        id=row['id'],
        name=row.get('name', ''),
        host=row.get('OS-EXT-SRV-ATTR:host') or '',
        status=row.get('status', 'UNKNOWN'),
        task=row.get('OS-EXT-STS:task_state'),
        hypervisor=row.get('OS-EXT-SRV-ATTR:hypervisor_hostname'),
        fault=(row.get('fault') or {}).get('message', ''),
    )


def on_host(cloud: openstack.connection.Connection, host: str) -> list[Tenant]:
    """List the servers nova has on a host, of all projects."""
    rows = connect.pages(
        cloud.compute, '/servers/detail', 'servers', NOVA, all_tenants=1, host=host
    )
    return [t for t in map(tenant, rows) if t.host == host and t.status != 'DELETED']


def server(cloud: openstack.connection.Connection, server_id: str) -> Tenant | None:
    """Return one server, or None when it is gone."""
    try:
        return tenant(connect.get(cloud.compute, f'/servers/{server_id}', NOVA)['server'])
    except sdk_exceptions.NotFoundException:
        return None


def latest(cloud: openstack.connection.Connection, server_id: str) -> dict[str, Any] | None:
    """Return the newest live-migration record of a server, or None."""
    rows = connect.get(
        cloud.compute,
        '/os-migrations',
        RECORD,
        instance_uuid=server_id,
        migration_type='live-migration',
        limit=1,
    )['migrations']
    return dict(rows[0]) if rows else None


def incoming(cloud: openstack.connection.Connection, host: str) -> list[str]:
    """List the ids of servers that are on their way to a host."""
    rows = connect.get(cloud.compute, '/os-migrations', RECORD, host=host, limit=100)
    ids = [
        r['instance_uuid']
        for r in rows['migrations']
        if r.get('dest_compute') == host
        and r.get('source_compute') != host
        and r['status'] not in COMPLETED | FAILED
    ]
    moving = (server(cloud, i) for i in ids)  # records of long ago may never have been closed
    return [t.id for t in moving if t is not None and t.moving]


def remaining(cloud: openstack.connection.Connection, server_id: str) -> dict[str, int]:
    """Return the bytes that a running migration has still to copy, as nova knows them."""
    rows = connect.get(cloud.compute, f'/servers/{server_id}/migrations', RECORD)['migrations']
    if not rows:
        return {}
    return {
        key: int(rows[0].get(key) or 0)
        for key in (
            'memory_total_bytes',
            'memory_remaining_bytes',
            'memory_processed_bytes',
            'disk_total_bytes',
            'disk_remaining_bytes',
            'disk_processed_bytes',
        )
    }


def provider(cloud: openstack.connection.Connection, hypervisor: str) -> str | None:
    """Return the uuid of a hypervisor's resource provider."""
    rows = connect.get(cloud.placement, '/resource_providers', PLACEMENT, name=hypervisor)
    found = rows['resource_providers']
    return str(found[0]['uuid']) if found else None


def allocated(cloud: openstack.connection.Connection, server_id: str) -> set[str]:
    """Return the resource providers that a server has allocations on."""
    return set(connect.get(cloud.placement, f'/allocations/{server_id}', PLACEMENT)['allocations'])


def reason(cloud: openstack.connection.Connection, server_id: str) -> str:
    """Say why the last move failed, as far as nova tells; never raises."""
    try:
        path = f'/servers/{server_id}/os-instance-actions'
        actions = [
            a
            for a in connect.get(cloud.compute, path, '2.58')['instanceActions']
            if a['action'] == 'live-migration'
        ]
        if not actions:
            return ''
        events = connect.get(cloud.compute, f'{path}/{actions[0]["request_id"]}', '2.84')
        bad = [e for e in events['instanceAction'].get('events', ()) if e.get('result') == 'Error']
        return str(bad[0].get('details') or '') if bad else str(actions[0].get('message') or '')
    except Exception:
        return ''


def seconds(record: dict[str, Any]) -> float | None:
    """Return how long a migration took, from nova's own record of it."""
    begun, ended = record.get('created_at'), record.get('updated_at')
    if not begun or not ended:
        return None
    spent = timeutils.parse_isotime(ended) - timeutils.parse_isotime(begun)
    return max(0.0, spent.total_seconds())
