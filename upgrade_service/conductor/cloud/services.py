"""Disable, enable and look at the services of a host, as the cloud itself sees them.

What somebody else has disabled stays disabled: only a disabled_reason that carries the
id of this upgrade gives the right to enable.
"""

from collections.abc import Mapping
from typing import Any
from urllib import parse

import openstack
from oslo_utils import timeutils

from upgrade_service import model
from upgrade_service.conductor.cloud import connect
from upgrade_service.conductor.cloud import task as tasks
from upgrade_service.strategies import base

COMPUTE = '2.69'  #: nova microversion: services with uuids, forced_down; Stein
VOLUME = '3.7'  #: cinder microversion: disabled_reason, cluster; Ocata
#: seconds within which an agent's start counts as the restart that is being verified
JUST_STARTED = 300.0


def compute_service(
    cloud: openstack.connection.Connection, host: str, binary: str
) -> dict[str, Any] | None:
    """Return nova's record of a service of a host, or None."""
    rows = connect.get(cloud.compute, '/os-services', COMPUTE, host=host, binary=binary)
    for row in rows['services']:
        if row.get('host') == host and row.get('binary') == binary:
            return dict(row)
    return None


def _record(task: tasks.CloudTask, binary: str) -> dict[str, Any]:
    record = task.read(
        f'{binary} of {task.host}', lambda cloud: compute_service(cloud, task.host, binary)
    )
    if record is None:
        raise tasks.Unfit(
            f'nova does not list {binary} on {task.host}; discover the cluster again and replan'
        )
    return record


def _set(task: tasks.CloudTask, record: Mapping[str, Any], body: dict[str, Any]) -> None:
    """Change a record of nova's; an unanswered call is judged by reading it back."""
    try:
        task.act(
            {'intent': {'service': record['binary'], **body}},
            lambda cloud, timeout: connect.send(
                cloud.compute,
                'put',
                f'/os-services/{record["id"]}',
                body,
                timeout=timeout,
                microversion=COMPUTE,
            ),
        )
    except Exception as error:
        if not connect.is_away(error):
            raise
        task.pause()


def disable_host(task: tasks.CloudTask) -> base.Outcome:
    """Keep the scheduler away from the host, in our name."""
    data: dict[str, Any] = {'disabled_by_others': False}
    for binary in task.params.get('binaries', ['nova-compute']):
        while True:
            record = _record(task, binary)
            reason = record.get('disabled_reason') or ''
            if record['status'] == 'disabled':
                break
            _set(task, record, {'status': 'disabled', 'disabled_reason': task.tag()})
        if not reason.startswith(task.mark()):
            data.update(disabled_by_others=True, reason=reason)
    return tasks.done(**data)


def enable_host(task: tasks.CloudTask) -> base.Outcome:
    """Let the scheduler use the host again, if it was we who said it should not."""
    left = []
    deadline = task.clock() + model.KINDS['enable_host'].timeout
    for binary in task.params.get('binaries', ['nova-compute']):
        while True:
            record = _record(task, binary)
            if record['status'] == 'enabled':
                break
            if not (record.get('disabled_reason') or '').startswith(task.mark()):
                left.append(binary)
                break
            if record['state'] == 'up':
                _set(task, record, {'status': 'enabled'})
            elif task.clock() > deadline:
                raise tasks.Unfit(
                    f'{binary} on {task.host} is {record["state"]} in nova, so it '
                    'stays disabled; look at its log on the host, then retry'
                )
            else:
                task.pause()
    return tasks.done(left_disabled=left, disabled_by_others=bool(left))


# -- verify_service ----------------------------------------------------------------------------


def _nova(cloud: openstack.connection.Connection, host: str) -> dict[str, dict[str, Any]]:
    rows = connect.get(cloud.compute, '/os-services', COMPUTE, host=host)['services']
    return {
        r['binary']: {
            'up': r['state'] == 'up',
            'seen': r.get('updated_at'),
            'down': bool(r.get('forced_down')),
        }
        for r in rows
        if r.get('host') == host
    }


def _cinder(cloud: openstack.connection.Connection, host: str) -> dict[str, dict[str, Any]]:
    rows = connect.get(cloud.block_storage, '/os-services', VOLUME)['services']
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row['host'].partition('@')[0] != host:
            continue
        entry = seen.setdefault(row['binary'], {'up': True, 'seen': '', 'down': False})
        entry['up'] = entry['up'] and row['state'] == 'up'
        entry['seen'] += f'{row["host"]}={row.get("updated_at")} '
    return seen


def _neutron(cloud: openstack.connection.Connection, host: str) -> dict[str, dict[str, Any]]:
    rows = connect.get(cloud.network, '/agents', host=host)['agents']
    return {
        r['binary']: {
            'up': bool(r['alive']),
            'seen': r.get('heartbeat_timestamp'),
            'started': r.get('started_at'),
            'down': False,
        }
        for r in rows
        if r.get('host') == host
    }


#: project -> reader of its own records of the services of a host
RECORDS = {'nova': _nova, 'cinder': _cinder, 'neutron': _neutron}

RECORDED = frozenset(
    {
        'nova-compute',
        'nova-conductor',
        'nova-scheduler',
        'cinder-scheduler',
        'cinder-volume',
        'cinder-backup',
    }
)

#: project -> (SDK proxy, a small GET that needs a token and the database, its query)
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    'keystone': ('identity', '/services', {'name': 'none-such'}),
    'placement': ('placement', '/resource_providers', {'name': 'none-such'}),
    'glance': ('image', '/images', {'limit': 1}),
    'nova': ('compute', '/servers', {'limit': 1}),
    'neutron': ('network', '/networks', {'limit': 1, 'fields': 'id'}),
    'cinder': ('block_storage', '/volumes', {'limit': 1}),
}


def ask_api(cloud: openstack.connection.Connection, project: str) -> str:
    """Get a project's version document and a real answer; return its highest version."""
    proxy, path, query = REQUESTS[project]
    adapter = getattr(cloud, proxy)
    url = parse.urlsplit(connect.endpoints(cloud)[project])
    root, _, version = url.path.rstrip('/').rpartition('/v')
    while '/' in version:  # cinder's endpoint goes on after the version
        version = version.rpartition('/')[0]
    base_url = url._replace(path=(root if version else url.path.rstrip('/')) + '/', query='')
    response = cloud.session.get(
        base_url.geturl(), authenticated=False, raise_exc=False, connect_retries=0
    )
    if response.status_code not in (200, 300):
        raise tasks.Unfit(
            f'the API of {project} answers {response.status_code} at {base_url.geturl()}'
        )
    connect.get(adapter, path, **query)
    return highest(response.json())


def highest(document: Mapping[str, Any]) -> str:
    """Find the highest microversion, or else version id, in a version document."""
    versions = document.get('versions') or [document.get('version') or {}]
    if isinstance(versions, Mapping):  # keystone: {'values': […]}
        versions = versions.get('values', [])
    current = [v for v in versions if v.get('status') in ('CURRENT', 'stable')] or versions
    for entry in current:
        found = entry.get('max_version') or entry.get('version')
        if found:
            return str(found)
    return str(current[0].get('id', '')) if current else ''


def fresh(row: Mapping[str, Any], first: Mapping[str, Any] | None) -> bool:
    """Tell whether a record was written by the process that runs now.

    The verified process was restarted before the first look, so any later report is its
    own; an «up» alone may be the old process's for a minute. neutron's agents say when
    they started.
    """
    if not row or first is None or not row['up']:
        return False
    if row.get('started'):
        began = timeutils.normalize_time(timeutils.parse_isotime(row['started']))
        if abs((timeutils.utcnow() - began).total_seconds()) < JUST_STARTED:
            return True
    return bool(row['seen'] != first['seen'])


def recorded(binary: str) -> bool:
    """Tell whether the cloud keeps a record of such a service."""
    return binary in RECORDED or binary.endswith('-agent')


def verify_service(task: tasks.CloudTask) -> base.Outcome:
    """Prove from outside that the project's services on the host run and serve."""
    project = str(task.step['project'])
    wanted = list(task.params.get('binaries') or ())
    deadline = task.clock() + model.KINDS['verify_service'].timeout - 30
    first: dict[str, dict[str, Any]] = {}
    while True:
        rows = _records(task, project)
        for binary, row in rows.items():
            first.setdefault(binary, row)
        late = [b for b in wanted if recorded(b) and not fresh(rows.get(b, {}), first.get(b))]
        dead = [b for b in late if b in rows and rows[b]['down']]
        if dead:
            raise tasks.Unfit(
                f'{", ".join(dead)} on {task.host} is forced down in nova; '
                'unset that when the host is sound, then retry'
            )
        if not late:
            break
        if task.clock() > deadline:
            raise tasks.Unfit(
                f'{", ".join(late)} on {task.host} did not report to {project} '
                'after the restart; look at its log on the host, then retry'
            )
        task.pause()
    unseen = [b for b in wanted if not recorded(b)]
    if project in REQUESTS and (unseen or not wanted):
        return tasks.done(unseen=unseen, api=_api(task, project, deadline))
    return tasks.done(unseen=unseen)


def _records(task: tasks.CloudTask, project: str) -> dict[str, dict[str, Any]]:
    if project not in RECORDS or not any(map(recorded, task.params.get('binaries') or ())):
        return {}
    return task.read(f'services of {project}', lambda cloud: RECORDS[project](cloud, task.host))


def _api(task: tasks.CloudTask, project: str, deadline: float) -> str:
    """Ask until it answers: an API is slow to come back, and late is not wrong."""
    while True:
        try:
            return ask_api(connect.connect(task.conf, task.cluster['cloud']), project)
        except Exception as error:
            if not (connect.is_away(error) or isinstance(error, tasks.Unfit)):
                raise
            connect.forget(task.conf, task.cluster['cloud'])
            if task.clock() > deadline:
                raise tasks.Unfit(
                    f'the API of {project} does not answer: {error}; look at its '
                    'log on the control hosts, then retry'
                ) from error
            task.pause()
