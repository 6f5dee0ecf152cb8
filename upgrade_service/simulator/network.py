"""Neutron: agents and what they carry, networks, routers, ports, extensions."""

from collections.abc import Iterable
from typing import Any

from upgrade_service.simulator.cloud import Cloud, Record, Refused, Server, identity
from upgrade_service.simulator.http import Api, Application, Reply, Request, Route, listing

#: binary -> (agent_type, topic)
_TYPES = {
    'neutron-openvswitch-agent': ('Open vSwitch agent', 'N/A'),
    'neutron-l3-agent': ('L3 agent', 'l3_agent'),
    'neutron-dhcp-agent': ('DHCP agent', 'dhcp_agent'),
    'neutron-metadata-agent': ('Metadata agent', 'N/A'),
}
_EXTENSIONS = (
    'agent', 'availability_zone', 'binding', 'dhcp_agent_scheduler', 'ext-gw-mode', 'external-net',
    'l3_agent_scheduler', 'network_availability_zone', 'pagination', 'provider', 'quotas',
    'router', 'router_availability_zone', 'sorting', 'standard-attr-timestamp',
)  # fmt: skip
_FALSE = ('false', '0')


def error(status: int, message: str) -> dict[str, Any]:
    """Shape an error as neutron does."""
    return {'NeutronError': {'type': f'HTTP{status}', 'message': message, 'detail': ''}}


def versions(app: Application, request: Request) -> dict[str, Any]:
    """List the only version."""
    link = {'rel': 'self', 'href': f'{request.root}/v2.0/'}
    return {'versions': [{'id': 'v2.0', 'status': 'CURRENT', 'links': [link]}]}


def resources(app: Application, request: Request) -> dict[str, Any]:
    """List collections."""
    names = ('agents', 'networks', 'subnets', 'routers', 'ports', 'extensions')
    return {
        'resources': [
            {'name': n[:-1], 'collection': n, 'links': [{'href': f'{request.root}/v2.0/{n}'}]}
            for n in names
        ]
    }


def _answer(request: Request, rows: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """Filter by any field, as neutron does, and page."""
    asked = {k: v for k, v in request.query.items() if k not in ('limit', 'marker', 'fields')}
    found = [r for r in rows if all(_same(r.get(k), v) for k, v in asked.items() if k in r)]
    if not request.get('limit'):
        return {name: found}
    return listing(request, found, lambda r: str(r['id']), lambda r: r, name, f'v2.0/{name}')


def _same(value: Any, wanted: list[str]) -> bool:
    if isinstance(value, bool):
        return any(value != (word.lower() in _FALSE) for word in wanted)
    return str(value) in wanted


# -- agents --------------------------------------------------------------------------------


def _agent(cloud: Cloud, record: Record) -> dict[str, Any]:
    kind, topic = _TYPES[record.binary]
    unit = cloud.unit_of(record)
    settings: dict[str, Any] = {'devices': 0}
    if record.binary == 'neutron-l3-agent':
        settings = {'routers': len(record.holds), 'agent_mode': 'legacy'}
    elif record.binary == 'neutron-dhcp-agent':
        settings = {'networks': len(record.holds), 'dhcp_driver': 'Dnsmasq'}
    elif record.binary == 'neutron-openvswitch-agent':
        settings = {'bridge_mappings': {'physnet1': 'br-data'}, 'tunnel_types': []}
    return {
        'id': record.id,
        'agent_type': kind,
        'binary': record.binary,
        'topic': topic,
        'host': record.host,
        'alive': cloud.up(record),
        'admin_state_up': not record.disabled,
        'availability_zone': 'nova' if record.holds or 'l3' in kind.lower() else None,
        'configurations': settings,
        'description': None,
        'created_at': cloud.stamp(unit.since)[:19].replace('T', ' '),
        'started_at': cloud.stamp(unit.since)[:19].replace('T', ' '),
        'heartbeat_timestamp': cloud.stamp(None if unit.state == 'active' else unit.since)[
            :19
        ].replace('T', ' '),
        'resources_synced': None,
    }


def _agents(cloud: Cloud) -> list[Record]:
    return cloud.of_project.get('neutron', [])


def _find(cloud: Cloud, key: str) -> Record:
    record = cloud.records.get(key)
    if record is None or record.project != 'neutron':
        raise Refused(404, f'Agent {key} could not be found.')
    return record


def agents(app: Application, request: Request) -> dict[str, Any]:
    """List agents."""
    host = request.get('host')
    records = app.cloud.of_host.get(host, []) if host else _agents(app.cloud)
    rows = [_agent(app.cloud, r) for r in records if r.project == 'neutron']
    return _answer(request, rows, 'agents')


def agent(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show an agent."""
    return {'agent': _agent(app.cloud, _find(app.cloud, key))}


def update_agent(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Change `admin_state_up`."""
    record = _find(app.cloud, key)
    record.disabled = not request.section('agent').get('admin_state_up', True)
    what = 'disable' if record.disabled else 'enable'
    app.cloud.note('call', what, host=record.node, binary=record.binary)
    return {'agent': _agent(app.cloud, record)}


def _carried(app: Application, key: str, binary: str) -> set[str]:
    record = _find(app.cloud, key)
    if record.binary != binary:
        raise Refused(409, f'Agent {key} is not a {binary} or has been disabled')
    return record.holds


def _take(app: Application, key: str, thing: str, binary: str, table: dict[str, str]) -> Reply:
    holds = _carried(app, key, binary)
    if thing not in table:
        raise Refused(404, f'{thing} could not be found.')
    elsewhere = any(thing in r.holds for r in _agents(app.cloud) if r.binary == binary)
    if elsewhere and thing not in holds and binary == 'neutron-l3-agent':
        raise Refused(409, f'The router {thing} has been already hosted by another L3 Agent.')
    holds.add(thing)
    app.cloud.note('call', 'add to agent', host=_find(app.cloud, key).node, thing=thing)
    return Reply(201, None)


def _drop(app: Application, key: str, thing: str, binary: str) -> Reply:
    holds = _carried(app, key, binary)
    if thing not in holds:
        raise Refused(404, f'{thing} is not hosted by agent {key}.')
    holds.discard(thing)
    app.cloud.note('call', 'remove from agent', host=_find(app.cloud, key).node, thing=thing)
    return Reply(204)


def routers_of_agent(app: Application, request: Request, key: str) -> dict[str, Any]:
    """List the routers an L3 agent carries."""
    names = app.cloud.routers
    return {'routers': [_router(k, names[k]) for k in _carried(app, key, 'neutron-l3-agent')]}


def add_router(app: Application, request: Request, key: str) -> Reply:
    """Give a router to an L3 agent."""
    router = str((request.body or {}).get('router_id'))
    return _take(app, key, router, 'neutron-l3-agent', app.cloud.routers)


def remove_router(app: Application, request: Request, key: str, router: str) -> Reply:
    """Take a router away from an L3 agent."""
    return _drop(app, key, router, 'neutron-l3-agent')


def networks_of_agent(app: Application, request: Request, key: str) -> dict[str, Any]:
    """List the networks a DHCP agent serves."""
    names = app.cloud.networks
    return {'networks': [_network(k, names[k]) for k in _carried(app, key, 'neutron-dhcp-agent')]}


def add_network(app: Application, request: Request, key: str) -> Reply:
    """Give a network to a DHCP agent."""
    network = str((request.body or {}).get('network_id'))
    return _take(app, key, network, 'neutron-dhcp-agent', app.cloud.networks)


def remove_network(app: Application, request: Request, key: str, network: str) -> Reply:
    """Take a network away from a DHCP agent."""
    return _drop(app, key, network, 'neutron-dhcp-agent')


def _agents_with(cloud: Cloud, thing: str, binary: str) -> dict[str, Any]:
    holders = [r for r in _agents(cloud) if r.binary == binary and thing in r.holds]
    return {'agents': [_agent(cloud, record) for record in holders]}


def agents_of_router(app: Application, request: Request, key: str) -> dict[str, Any]:
    """List the L3 agents that carry a router."""
    return _agents_with(app.cloud, key, 'neutron-l3-agent')


def agents_of_network(app: Application, request: Request, key: str) -> dict[str, Any]:
    """List the DHCP agents that serve a network."""
    return _agents_with(app.cloud, key, 'neutron-dhcp-agent')


# -- networks, routers, ports --------------------------------------------------------------


def _common(key: str, name: str) -> dict[str, Any]:
    project = identity('project', 'demo')
    return {
        'id': key,
        'name': name,
        'status': 'ACTIVE',
        'admin_state_up': True,
        'project_id': project,
        'tenant_id': project,
        'description': '',
        'tags': [],
    }


def _network(key: str, name: str) -> dict[str, Any]:
    return _common(key, name) | {
        'shared': True,
        'router:external': name == 'public',
        'subnets': [identity('subnet', key)],
        'mtu': 1500,
        'provider:network_type': 'vlan',
    }


def _router(key: str, name: str) -> dict[str, Any]:
    return _common(key, name) | {
        'ha': False,
        'distributed': False,
        'routes': [],
        'external_gateway_info': None,
        'availability_zones': ['nova'],
    }


def _port(cloud: Cloud, server: Server) -> dict[str, Any]:
    network = next(iter(cloud.networks), '')
    return _common(identity('port', server.id), '') | {
        'status': 'ACTIVE' if server.status == 'ACTIVE' else 'DOWN',
        'network_id': network,
        'device_id': server.id,
        'device_owner': 'compute:nova',
        'mac_address': 'fa:16:3e:'
        + ':'.join(f'{server.number >> s & 255:02x}' for s in (16, 8, 0)),
        'fixed_ips': [],
        'binding:host_id': server.host,
        'binding:vif_type': 'ovs',
        'binding:vnic_type': 'normal',
    }


def networks(app: Application, request: Request) -> dict[str, Any]:
    """List networks."""
    return _answer(request, [_network(k, n) for k, n in app.cloud.networks.items()], 'networks')


def network(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a network."""
    if key not in app.cloud.networks:
        raise Refused(404, f'Network {key} could not be found.')
    return {'network': _network(key, app.cloud.networks[key])}


def subnets(app: Application, request: Request) -> dict[str, Any]:
    """List subnets: one for each network."""
    rows = [
        _common(identity('subnet', key), name)
        | {'network_id': key, 'cidr': '10.0.0.0/8', 'ip_version': 4, 'enable_dhcp': True}
        for key, name in app.cloud.networks.items()
    ]
    return _answer(request, rows, 'subnets')


def routers(app: Application, request: Request) -> dict[str, Any]:
    """List routers."""
    return _answer(request, [_router(k, n) for k, n in app.cloud.routers.items()], 'routers')


def router(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a router."""
    if key not in app.cloud.routers:
        raise Refused(404, f'Router {key} could not be found.')
    return {'router': _router(key, app.cloud.routers[key])}


def ports(app: Application, request: Request) -> dict[str, Any]:
    """List ports: one for each server."""
    cloud, device = app.cloud, request.get('device_id')
    owners = [cloud.servers[device]] if device in cloud.servers else []
    rows = [_port(cloud, s) for s in (owners if device else cloud.servers.values())]
    return _answer(request, rows, 'ports')


def extensions(app: Application, request: Request) -> dict[str, Any]:
    """List extensions."""
    rows = [
        {'alias': alias, 'name': alias, 'description': '', 'links': [], 'updated': '2026-01-01'}
        for alias in _EXTENSIONS
    ]
    return {'extensions': rows}


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/v2.0/?', resources),
    ('GET', '/v2.0/agents', agents),
    ('GET', '/v2.0/agents/{key}', agent),
    ('PUT', '/v2.0/agents/{key}', update_agent),
    ('GET', '/v2.0/agents/{key}/l3-routers', routers_of_agent),
    ('POST', '/v2.0/agents/{key}/l3-routers', add_router),
    ('DELETE', '/v2.0/agents/{key}/l3-routers/{router}', remove_router),
    ('GET', '/v2.0/agents/{key}/dhcp-networks', networks_of_agent),
    ('POST', '/v2.0/agents/{key}/dhcp-networks', add_network),
    ('DELETE', '/v2.0/agents/{key}/dhcp-networks/{network}', remove_network),
    ('GET', '/v2.0/networks', networks),
    ('GET', '/v2.0/networks/{key}', network),
    ('GET', '/v2.0/networks/{key}/dhcp-agents', agents_of_network),
    ('GET', '/v2.0/subnets', subnets),
    ('GET', '/v2.0/routers', routers),
    ('GET', '/v2.0/routers/{key}', router),
    ('GET', '/v2.0/routers/{key}/l3-agents', agents_of_router),
    ('GET', '/v2.0/ports', ports),
    ('GET', '/v2.0/extensions', extensions),
)

API = Api(prefix='network', project='neutron', routes=ROUTES, error=error)
