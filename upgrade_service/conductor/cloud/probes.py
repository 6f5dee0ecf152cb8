"""Look at the whole cloud: is it still the one that was planned for, does it serve."""

import functools

from upgrade_service.conductor.cloud import connect, services
from upgrade_service.conductor.cloud import task as tasks
from upgrade_service.strategies import base

PATIENCE = 60.0  #: seconds until the facts of every engine are in
SHOWN = 5  #: services named in one message


def check_cloud(task: tasks.CloudTask) -> base.Outcome:
    """Compare the cloud with the one the plan was made for."""
    expected = task.params.get('fingerprint')
    found = task.inventory().fingerprint()
    if expected in (None, found):
        return tasks.done(fingerprint=found)
    return tasks.failed(
        'hosts, services or versions of the cloud are no longer those the plan was made for; '
        'look at `openstack upgrade service list`, then cancel and make a new plan',
        blocked_reason='drift',
        fingerprint=found,
    )


def check_versions(task: tasks.CloudTask) -> base.Outcome:
    """See that every service of some projects runs the target, everywhere, before pins go."""
    wanted = task.params['versions']
    deadline = task.clock() + PATIENCE
    while True:
        old = sorted(
            f'{s.binary} on {s.host} ({s.version or "of unknown version"})'
            for s in task.inventory().services
            if s.project in wanted and s.version != wanted[s.project]
        )
        if not old:
            return tasks.done(versions=dict(wanted))
        if task.clock() > deadline:
            more = f' and {len(old) - SHOWN} more' if len(old) > SHOWN else ''
            return tasks.failed(
                f'old code still runs: {", ".join(old[:SHOWN])}{more}; upgrade or delete it, '
                'then retry: nothing was made final yet'
            )
        task.pause()


def survey(task: tasks.CloudTask) -> dict[str, str]:
    """Return {host: binary} of the hosts with a service that is down, as the cloud says now.

    What somebody has forced down is not news.
    """
    cloud = connect.connect(task.conf, task.cluster['cloud'])
    known = connect.endpoints(cloud)
    found: dict[str, str] = {}
    if 'nova' in known:
        for row in connect.pages(cloud.compute, '/os-services', 'services', services.COMPUTE):
            if row.get('state') == 'down' and not row.get('forced_down'):
                found[row['host']] = row['binary']
    if 'neutron' in known:
        for row in connect.pages(cloud.network, '/agents', 'agents'):
            if not row['alive']:
                found[row['host']] = row['binary']
    if 'cinder' in known:
        rows = connect.pages(cloud.block_storage, '/os-services', 'services', services.VOLUME)
        for row in rows:
            if row['state'] == 'down':
                found[row['host'].partition('@')[0]] = row['binary']
    return found


def probe_cloud(task: tasks.CloudTask) -> base.Outcome:
    """Ask every API of the catalogue for a real answer."""
    projects = task.read('the catalogue', lambda cloud: sorted(connect.endpoints(cloud)))
    versions = {}
    for project in projects:
        versions[project] = task.read(
            f'the API of {project}', functools.partial(services.ask_api, project=project)
        )
    return tasks.done(apis=versions)
