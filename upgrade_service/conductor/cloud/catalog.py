"""This service's own place in keystone: its user, its roles, its catalogue entry.

What there is already is left as it is, so the command can be given again.
"""

from collections.abc import Iterator
from typing import Any

import openstack

#: roles of this service: see the policy matrix in the documentation
ROLES = ('upgrade_reader', 'upgrade_operator')
INTERFACES = ('public', 'internal', 'admin')


def register(
    os_cloud: str, url: str, user: str, password: str, region: str | None = None
) -> Iterator[str]:
    """Create what is missing; yield a line for each thing that was created or found."""
    cloud = openstack.connect(cloud=os_cloud)
    identity: Any = cloud.identity
    project = identity.find_project('service', ignore_missing=False)
    account = identity.find_user(user)
    if account is None:
        account = identity.create_user(name=user, password=password, default_project_id=project.id)
    yield f'user {user}: {account.id}'
    for name in ROLES:
        role = identity.find_role(name) or identity.create_role(name=name)
        yield f'role {name}: {role.id}'
    for name in ('admin', 'service'):
        role = identity.find_role(name) or identity.create_role(name=name)
        identity.assign_project_role_to_user(project, account, role)
        yield f'{user} has role {name} in project service'
    entry = next(iter(identity.services(type='upgrade')), None)
    if entry is None:
        entry = identity.create_service(
            type='upgrade', name='upgrade-service', description='Upgrades this cloud'
        )
    where = region or cloud.config.get_region_name() or None
    for interface in INTERFACES:
        known = list(identity.endpoints(service_id=entry.id, interface=interface))
        if not any(e.region_id == where for e in known):
            identity.create_endpoint(
                service_id=entry.id, interface=interface, url=url, region_id=where
            )
        yield f'endpoint {interface}: {url}'
