"""Look at the whole cloud: is it still the one that was planned for, does it serve."""

import functools

from upgrade_service.conductor.cloud import connect, services
from upgrade_service.conductor.cloud import task as tasks
from upgrade_service.strategies import base


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


def probe_cloud(task: tasks.CloudTask) -> base.Outcome:
    """Ask every API of the catalogue for a real answer."""
    projects = task.read('the catalogue', lambda cloud: sorted(connect.endpoints(cloud)))
    versions = {}
    for project in projects:
        versions[project] = task.read(
            f'the API of {project}', functools.partial(services.ask_api, project=project)
        )
    return tasks.done(apis=versions)
