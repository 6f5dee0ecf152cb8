"""Inventory plugin `ansible`: what the operator's own Ansible inventory says there is.

Groups that openstack-ansible and kolla-ansible use are known (`known.yaml`): they say which
service is meant to be on which host. Only inventories that the conductor's configuration
names are read, with Ansible's own command; no play is run.
"""

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from upgrade_service import exception, model
from upgrade_service.conductor.discovery import base
from upgrade_service.strategies import ansible_listing, trusted

Listing = Mapping[str, Any]
SHOWN = 5


class AnsibleInventory(base.InventoryManager):
    """The cluster, as the groups of an Ansible inventory describe it."""

    name = 'ansible'
    summary = "the groups of the operator's Ansible inventory (openstack-ansible, kolla-ansible)"

    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> base.Found:
        """Read the inventory."""
        options = conf.ansible_inventory
        path = base.chosen(options.sources, cluster, 'ansible_inventory')
        words = []
        if options.vault_password_file:
            words = ['--vault-password-file', options.vault_password_file]
        try:
            if why := trusted.fault(path):
                raise exception.Refused(reason=why)
            listing = ansible_listing.read(
                options.directory, [path], words, timeout=options.timeout
            )
        except exception.Refused as e:
            raise exception.CloudUnavailable(
                service=f'inventory ansible ({path})', cluster=cluster['name'], reason=str(e)
            ) from e
        return compose(listing, options.host_variable)


def compose(listing: Listing, host_variable: str | None = None) -> base.Found:
    """Turn a listing into hosts and services; pure."""
    names, problems = _names(listing, host_variable)
    services: dict[tuple[str, str], model.Service] = {}
    lists = set()
    for group, binary in base.known('ansible').items():
        members = ansible_listing.members(listing, group)
        lists |= {binary} if members else set()
        for host in sorted(names[m] for m in members if m in names):
            services[host, binary] = model.Service(
                project=_project(binary), binary=binary, host=host, source='ansible'
            )
    hosts = {host: model.Host(name=host) for host, _ in services}
    return base.Found(
        source='ansible',
        hosts=hosts,
        services=[services[key] for key in sorted(services)],
        names=frozenset(names.values()),
        lists=frozenset(lists),
        problems=problems,
    )


def _project(binary: str) -> str:
    """Name the project of a binary: all that are known begin with it."""
    return binary.partition('-')[0]


def _names(
    listing: Listing, host_variable: str | None
) -> tuple[dict[str, str], list[model.Problem]]:
    """Return inventory name -> host, and a problem for names that no host can have."""
    variables = (listing.get('_meta') or {}).get('hostvars') or {}
    everyone = ansible_listing.members(listing, 'all') | set(variables)
    found, wrong = {}, []
    for name in sorted(everyone):
        said = (variables.get(name) or {}).get(host_variable) if host_variable else None
        host = base.host_name(said or name)
        if host is None:
            wrong.append(name)
        else:
            found[name] = host
    if not wrong:
        return found, []
    shown = ', '.join(ascii(n[:64]) for n in wrong[:SHOWN])
    return found, [
        model.Problem(
            code='bad_host_name',
            severity='warning',
            acceptable=True,
            message=f'{len(wrong)} names of the Ansible inventory can be no host: {shown}.',
            hint='they are left out; rename them, or name the variable that holds the name of the '
            'host in [ansible_inventory] host_variable',
        )
    ]
