"""Inventory plugin `openstack`: what the cloud's own APIs say of hosts and services.

One request for each page of each list, none for each host.
"""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from keystoneauth1 import exceptions as ksa_exceptions
import openstack as sdk
from openstack import exceptions as sdk_exceptions
from oslo_config import cfg

from upgrade_service import exception, model
from upgrade_service.conductor.cloud import connect, migrations, services
from upgrade_service.conductor.discovery import base

Rows = list[dict[str, Any]]
PAGE = 1000  #: rows asked for at once; the cloud may give fewer
HYPERVISORS = '2.53'  #: nova microversion: uuids; 2.88 no longer tells vcpus
GROUPS = '2.64'  #: nova microversion: a group has one policy
CANDIDATES = '1.29'  #: placement: whole trees in the summaries


class OpenStackInventory(base.InventoryManager):
    """The cluster, as keystone, nova, cinder, neutron and placement know it."""

    name = 'openstack'
    summary = "the cloud's own APIs: hosts, services, servers, capacity"

    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> base.Found:
        """Read the cloud."""
        cloud = connect.connect(conf, cluster['cloud'])
        asking = 'keystone'
        lists: dict[str, Any] = {}
        try:
            endpoints = connect.endpoints(cloud)
            for what, project, name, read in READS:
                asking = what
                lists[name] = read(cloud) if project in endpoints else []
        except (ksa_exceptions.ClientException, sdk_exceptions.SDKException) as error:
            connect.forget(conf, cluster['cloud'])
            raise exception.CloudUnavailable(
                service=asking,
                cluster=cluster.get('name') or cluster['cloud'],
                reason=str(error).partition('\n')[0],
            ) from error
        return compose(endpoints, **lists)


def _compute(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(cloud.compute, '/os-services', 'services', services.COMPUTE, 2)


def _hypervisors(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(
        cloud.compute, '/os-hypervisors/detail', 'hypervisors', HYPERVISORS, 2, limit=PAGE
    )


def _servers(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(
        cloud.compute, '/servers/detail', 'servers', migrations.NOVA, 2, all_tenants=1, limit=PAGE
    )


def _groups(cloud: sdk.connection.Connection) -> Rows:
    """Server groups page by offset and have no links."""
    rows: Rows = []
    while True:
        page = connect.get(
            cloud.compute,
            '/os-server-groups',
            GROUPS,
            2,
            all_projects=1,
            limit=PAGE,
            offset=len(rows),
        )['server_groups']
        known = {g['id'] for g in rows}
        new = [g for g in page if g['id'] not in known]
        rows.extend(new)
        if not new or len(page) < PAGE:
            return rows


def _capacity(cloud: sdk.connection.Connection) -> Rows:
    """Ask placement for capacities with ratios applied, all hosts at once.

    There is no list of inventories over all providers; the summaries of the candidates
    for the least possible request hold the same. A host so full that it is no candidate
    is missing and keeps what its hypervisor says.
    """
    try:
        document = connect.get(
            cloud.placement, '/allocation_candidates', CANDIDATES, 2, resources='MEMORY_MB:1'
        )
    except sdk_exceptions.NotFoundException:
        return []
    return [{'id': i, **s['resources']} for i, s in document['provider_summaries'].items()]


def _volume_services(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(cloud.block_storage, '/os-services', 'services', services.VOLUME, 2)


def _volumes(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(
        cloud.block_storage, '/volumes/detail', 'volumes', retries=2, all_tenants=1, limit=PAGE
    )


def _agents(cloud: sdk.connection.Connection) -> Rows:
    return connect.pages(cloud.network, '/agents', 'agents', retries=2)


#: what is read: for people, project that must be in the catalogue, name, reader
READS = (
    ('nova services', 'nova', 'compute', _compute),
    ('nova hypervisors', 'nova', 'hypervisors', _hypervisors),
    ('nova servers', 'nova', 'servers', _servers),
    ('nova server groups', 'nova', 'groups', _groups),
    ('placement', 'placement', 'capacity', _capacity),
    ('cinder services', 'cinder', 'volume_services', _volume_services),
    ('cinder volumes', 'cinder', 'volumes', _volumes),
    ('neutron agents', 'neutron', 'agents', _agents),
)


# -- from the documents to the nouns; pure ------------------------------------------------------


def compose(
    endpoints: Mapping[str, str],
    compute: Rows,
    hypervisors: Rows,
    servers: Rows,
    groups: Rows,
    capacity: Rows,
    volume_services: Rows,
    volumes: Rows,
    agents: Rows,
) -> base.Found:
    """Turn the lists into hosts, services and servers."""
    found = [
        *map(_nova_service, compute),
        *_cinder_services(volume_services),
        *map(_neutron_service, agents),
    ]
    tenants = _tenants(servers, groups)
    hosts: dict[str, model.Host] = {}
    for service in found:
        host = hosts.get(service.host, model.Host(name=service.host))
        if service.az and (host.az is None or service.binary == 'nova-compute'):
            host = dataclasses.replace(host, az=service.az)
        hosts[service.host] = host
    counts: dict[str, collections.Counter[str]] = {
        'instances': collections.Counter(t.host for t in tenants),
        'volumes': collections.Counter(
            _plain_host(v.get('os-vol-host-attr:host')) for v in volumes
        ),
        'routers': _served(agents),
    }
    for name, host in hosts.items():
        hosts[name] = dataclasses.replace(
            host,
            instances=counts['instances'][name],
            volumes=counts['volumes'][name],
            routers=counts['routers'][name],
        )
    for name, size in _sizes(hypervisors, capacity).items():
        if name in hosts:
            hosts[name] = dataclasses.replace(
                hosts[name],
                vcpus=size['vcpus'],
                ram_mb=size['ram_mb'],
                hypervisor_version=size['version'],
            )
    return base.Found(hosts=hosts, services=found, servers=tenants, endpoints=endpoints)


def _nova_service(row: Mapping[str, Any]) -> model.Service:
    return model.Service(
        project='nova',
        binary=row['binary'],
        host=row['host'],
        az=row.get('zone'),
        state=row.get('state', 'unknown'),
        status=row.get('status', 'enabled'),
        disabled_reason=row.get('disabled_reason'),
        forced_down=bool(row.get('forced_down')),
    )


def _plain_host(name: str | None) -> str:
    """Cut cinder's `host@backend#pool` down to the host."""
    return (name or '').partition('@')[0]


def _cinder_services(rows: Iterable[Mapping[str, Any]]) -> list[model.Service]:
    """One service for each host and binary: back ends share the process; the worst counts."""
    found: dict[tuple[str, str], model.Service] = {}
    for row in rows:
        key = (_plain_host(row['host']), row['binary'])
        one = model.Service(
            project='cinder',
            binary=row['binary'],
            host=key[0],
            az=row.get('zone'),
            state=row['state'],
            status=row['status'],
            disabled_reason=row.get('disabled_reason'),
        )
        worst = found.get(key)
        if (
            worst is None
            or (one.state, one.status) == ('down', 'enabled')
            or (worst.status == 'enabled' and worst.state == 'up')
        ):
            found[key] = one
    return list(found.values())


def _neutron_service(row: Mapping[str, Any]) -> model.Service:
    return model.Service(
        project='neutron',
        binary=row['binary'],
        host=row['host'],
        az=row.get('availability_zone'),
        state='up' if row['alive'] else 'down',
        status='enabled' if row.get('admin_state_up', True) else 'disabled',
    )


def _served(agents: Rows) -> collections.Counter[str]:
    """Count the routers and DHCP networks that agents say they serve."""
    served: collections.Counter[str] = collections.Counter()
    for row in agents:
        settings = row.get('configurations') or {}
        if row['binary'] == 'neutron-l3-agent':
            served[row['host']] += int(settings.get('routers') or 0)
        elif row['binary'] == 'neutron-dhcp-agent':
            served[row['host']] += int(settings.get('networks') or 0)
    return served


def _tenants(servers: Rows, groups: Rows) -> list[model.Server]:
    group_of = {member: g for g in groups for member in g.get('members', ())}
    return [
        _tenant(row, group_of.get(row['id'], {}))
        for row in servers
        if row.get('OS-EXT-SRV-ATTR:host')
    ]


def _tenant(row: Mapping[str, Any], group: Mapping[str, Any]) -> model.Server:
    flavour = row.get('flavor') or {}
    return model.Server(
        id=row['id'],
        name=row.get('name', ''),
        host=row['OS-EXT-SRV-ATTR:host'],
        state=row.get('status', 'UNKNOWN'),
        vcpus=int(flavour.get('vcpus') or 1),
        ram_mb=int(flavour.get('ram') or 0),
        az=row.get('OS-EXT-AZ:availability_zone'),
        group=group.get('id'),
        group_policy=group.get('policy') or next(iter(group.get('policies') or ()), None),
    )


def _sizes(hypervisors: Rows, capacity: Rows) -> dict[str, dict[str, int]]:
    """Return host -> size for servers; what placement says goes over what nova says."""
    by_id = {row['id']: row for row in capacity}
    sizes: dict[str, dict[str, int]] = {}
    for row in hypervisors:
        placed = by_id.get(row['id'], {})
        size = sizes.setdefault(
            (row.get('service') or {}).get('host', ''),
            {'vcpus': 0, 'ram_mb': 0, 'version': row.get('hypervisor_version') or 0},
        )
        size['vcpus'] += int(placed.get('VCPU', {}).get('capacity', row.get('vcpus') or 0))
        size['ram_mb'] += int(
            placed.get('MEMORY_MB', {}).get('capacity', row.get('memory_mb') or 0)
        )
    return sizes
