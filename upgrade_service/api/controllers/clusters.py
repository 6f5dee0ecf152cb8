"""Clusters, and what discovery found in them."""

import collections
from importlib import metadata
from typing import Any

from upgrade_service import exception
from upgrade_service.api import ask as asks
from upgrade_service.api import types, views
from upgrade_service.db import api as db_api
from upgrade_service.projects import loader, releases
from upgrade_service.projects import paths as release_paths

Ask = asks.Ask
Answer = asks.Answer
Row = dict[str, Any]


def index(ask: Ask) -> Answer:
    """List clusters."""
    rows = db_api.cluster_list(
        ask.ctx, ask.filters('name', 'cloud'), ask.limit + 1, ask.query.get('marker')
    )
    return ask.page('clusters', rows, 'id', types.Cluster.of)


def installed_inventories() -> list[Row]:
    """List the inventory plugins that are installed: {name, package, version}."""
    found = metadata.entry_points(group='upgrade_service.inventories')
    return [
        {
            'name': entry.name,
            'package': entry.dist.name if entry.dist else '',
            'version': entry.dist.version if entry.dist else '',
        }
        for entry in sorted(found, key=lambda e: e.name)
    ]


def inventories(ask: Ask) -> Answer:
    """List the inventory plugins."""
    return Answer({'inventories': [types.Inventory.of(row) for row in installed_inventories()]})


def create(ask: Ask) -> Answer:
    """Take a cluster under care; nothing is discovered until it is asked for."""
    known = [row['name'] for row in installed_inventories()]
    for name in ask.body.get('inventories', ()):
        if name not in known:
            rule = f'there is no plugin {name}; installed are {", ".join(known)}'
            raise exception.Invalid(field='inventories', rule=rule)

    def shown(row: Row) -> Answer:
        at = f'{ask.base}{ask.path}/{row["id"]}'
        return Answer(types.Cluster.of(row), headers={'Location': at})

    asked = ask.change(shown)
    db_api.cluster_create(ask.ctx, {'cloud': ask.body['name'], **ask.body}, asked)
    return asks.answered(asked)


def get(ask: Ask) -> Row:
    """Return the cluster that the path names."""
    return db_api.cluster_get(ask.ctx, ask.refs['cluster'])


def show(ask: Ask) -> Answer:
    """Show a cluster."""
    return Answer(types.Cluster.of(get(ask)))


def delete(ask: Ask) -> Answer:
    """Forget a cluster that no upgrade refers to."""
    db_api.cluster_delete(ask.ctx, ask.refs['cluster'])
    return Answer(None)


def discover(ask: Ask) -> Answer:
    """Ask for a discovery; done when `discover_done` reaches the `discover_wanted` answered."""
    ident = get(ask)['id']
    asked = ask.change(lambda row: Answer(types.Cluster.of(row)))
    db_api.cluster_discover(ask.ctx, ident, asked)
    ask.bell.discover(ask.ctx, ident)
    return asks.answered(asked)


def hosts(ask: Ask) -> Answer:
    """List hosts."""
    ident = get(ask)['id']
    rows = db_api.host_list(
        ask.ctx, ident, ask.filters('az'), ask.limit + 1, ask.query.get('marker')
    )
    services = collections.defaultdict(list)
    for service in db_api.service_list(ask.ctx, ident):
        services[service['host']].append(service)
    up = _engines(ask)
    return ask.page('hosts', rows, 'name', lambda row: views.host(row, services[row['name']], up))


def host(ask: Ask) -> Answer:
    """Show one host."""
    ident, name = get(ask)['id'], ask.refs['host']
    row = db_api.host_get(ask.ctx, ident, name)
    services = db_api.service_list(ask.ctx, ident, {'host': name})
    return Answer(views.host(row, services, _engines(ask, name)))


def _engines(ask: Ask, host: str | None = None) -> dict[str, bool]:
    """Return host -> whether its engine is heard of; a host without an engine is absent."""
    now, timeout = db_api.now(ask.ctx), ask.conf.conductor.agent_timeout
    filters = {'state': 'active', **({'host': host} if host else {})}
    return {
        agent['host']: views.is_up(agent, now, timeout)
        for agent in db_api.agent_list(ask.ctx, filters)
    }


def declare_lost(ask: Ask) -> Answer:
    """Give up a host for ever: its steps are skipped, its engine is trusted no more."""
    ident, name = get(ask)['id'], ask.refs['host']
    found = db_api.service_list(ask.ctx, ident, {'host': name})
    asked = ask.change(lambda row: Answer(views.host(row, found, {})))
    db_api.host_lost(ask.ctx, ident, name, ask.body['reason'], asked)
    for row in db_api.upgrade_list(ask.ctx, {'live_cluster_id': ident}):
        ask.bell.advance(ask.ctx, row['id'])
    return asks.answered(asked)


def services(ask: Ask) -> Answer:
    """List services."""
    filters = ask.filters('host', 'project', 'binary', 'state', 'status')
    rows = db_api.service_list(
        ask.ctx, get(ask)['id'], filters, ask.limit + 1, ask.query.get('marker')
    )
    return ask.page('services', rows, 'id', types.Service.of)


def summary(ask: Ask) -> Answer:
    """Count services by project and release, and list the problems."""
    cluster = get(ask)
    counts = db_api.service_summary(ask.ctx, cluster['id'])
    found = db_api.problem_list(ask.ctx, cluster_id=cluster['id'])
    return Answer(
        types.Summary(
            cluster=cluster['name'],
            discovered_at=cluster['discovered_at'],
            services=[types.Count.of(c) for c in counts],
            problems=[types.Problem.of(p) for p in found],
        )
    )


def problems(ask: Ask) -> Answer:
    """List the problems that discovery found."""
    rows = db_api.problem_list(ask.ctx, cluster_id=get(ask)['id'])
    return Answer({'problems': [types.Problem.of(row) for row in rows]})


def source_release(ask: Ask, cluster_id: str) -> str | None:
    """Return the oldest release of a cluster's services; None before a discovery."""
    return oldest(ask, cluster_id)[0]


def oldest(ask: Ask, cluster_id: str) -> tuple[str | None, str]:
    """Return the oldest release of a cluster's services, and which services are at it."""
    graph = releases.load()
    counts = db_api.service_summary(ask.ctx, cluster_id)
    known = [r for c in counts if (r := graph.get(c['release'] or '')) is not None]
    if not known:
        return None, ''
    first = min(known).id
    there = [f'{c["total"]} of {c["project"]}' for c in counts if c['release'] == first]
    return first, ', '.join(there)


def paths(ask: Ask) -> Answer:
    """List the releases that can be reached from where the cluster is."""
    cluster = get(ask)
    source = source_release(ask, cluster['id'])
    if source is None:
        raise exception.Conflict(
            reason=f'no release is known in cluster {cluster["name"]}; '
            f'run `openstack upgrade cluster discover` first'
        )
    projects = loader.load_projects(ask.conf.conductor.projects_dir)
    hosts = _control_hosts(ask, cluster['id'], projects)
    found = release_paths.paths_from(releases.load(), source, projects, hosts)
    return Answer({'paths': [_path(path) for path in found]})


def _path(path: Row) -> types.Resource:
    return types.Path.of(path, legs=[types.Leg.of(leg) for leg in path['legs']])


def _control_hosts(ask: Ask, cluster_id: str, projects: loader.Projects) -> dict[str, int]:
    """Return on how many hosts the control plane of each project is that is there."""
    found: dict[str, int] = {}
    for row in db_api.binary_hosts(ask.ctx, cluster_id):
        if row['project'] in projects:
            control = projects.get(row['project']).plane(row['binary']) == 'control'
            hosts = row['hosts'] if control else 0
            found[row['project']] = max(hosts, found.get(row['project'], 0))
    return found
