"""The resources of `/v1`, as openstacksdk sees them.

Fields that a newer API adds are kept, so that an older client still shows what it knows.
"""

from collections.abc import Mapping
from typing import Any
import urllib.parse

from openstack import resource


class _Resource(resource.Resource):
    _allow_unknown_attrs_in_body = True
    allow_list = True
    allow_fetch = True

    @classmethod
    def _get_next_link(
        cls, uri: str, response: Any, data: Mapping[str, Any], *args: Any
    ) -> tuple[str | None, dict[str, Any]]:
        """Take the query of `next`, not its host: the API may not know its own address."""
        following = data.get('next')
        if not following:
            return None, {}
        return uri, urllib.parse.parse_qs(urllib.parse.urlsplit(following).query)


class Cluster(_Resource):
    """A cloud under care."""

    resources_key = 'clusters'
    base_path = '/clusters'
    allow_create = True

    cloud = resource.Body('cloud')
    inventories = resource.Body('inventories')
    properties = resource.Body('properties')
    discovered_at = resource.Body('discovered_at')
    discover_wanted = resource.Body('discover_wanted')
    discover_done = resource.Body('discover_done')
    discover_error = resource.Body('discover_error')
    created_at = resource.Body('created_at')


class Host(_Resource):
    """A machine of a cluster, named by its host name."""

    resources_key = 'hosts'
    base_path = '/clusters/%(cluster_ref)s/hosts'

    cluster_ref = resource.URI('cluster_ref')
    roles = resource.Body('roles')
    az = resource.Body('az')
    release = resource.Body('release')
    release_mixed = resource.Body('release_mixed')
    agent_state = resource.Body('agent_state')
    services_up = resource.Body('services_up')
    services_total = resource.Body('services_total')
    instances = resource.Body('instances')


class Service(_Resource):
    """A binary on a host."""

    resources_key = 'services'
    base_path = '/clusters/%(cluster_ref)s/services'
    _query_mapping = resource.QueryParameters('host', 'project', 'binary')

    cluster_ref = resource.URI('cluster_ref')
    project = resource.Body('project')
    binary = resource.Body('binary')
    host = resource.Body('host')
    az = resource.Body('az')
    state = resource.Body('state')
    status = resource.Body('status')
    version = resource.Body('version')
    release = resource.Body('release')
    forced_down = resource.Body('forced_down')


class Path(_Resource):
    """A release that can be reached."""

    resources_key = 'paths'
    base_path = '/clusters/%(cluster_ref)s/paths'

    cluster_ref = resource.URI('cluster_ref')
    to = resource.Body('to')
    hops = resource.Body('hops')
    stops = resource.Body('stops')
    down = resource.Body('down')
    legs = resource.Body('legs')
    slurp = resource.Body('slurp')
    projects = resource.Body('projects')


class Problem(_Resource):
    """Something that discovery or a check found; the path says of what."""

    resources_key = 'problems'

    code = resource.Body('code')
    severity = resource.Body('severity')
    host = resource.Body('host')
    service = resource.Body('service')
    message = resource.Body('message')
    hint = resource.Body('hint')
    acceptable = resource.Body('acceptable')


class Upgrade(_Resource):
    """One operator's request: cluster to target release."""

    resources_key = 'upgrades'
    base_path = '/upgrades'
    allow_create = True
    allow_delete = True
    _query_mapping = resource.QueryParameters('cluster', 'state', 'name')

    cluster = resource.Body('cluster')
    from_release = resource.Body('from_release')
    to_release = resource.Body('to_release')
    strategy = resource.Body('strategy')
    type = resource.Body('type')
    state = resource.Body('state')
    direction = resource.Body('direction')
    next = resource.Body('next')
    gate = resource.Body('gate')
    blocked_reason = resource.Body('blocked_reason')
    message = resource.Body('message')
    progress = resource.Body('progress')
    hosts = resource.Body('hosts')
    selection = resource.Body('selection')
    eta_seconds = resource.Body('eta_seconds')
    points_of_no_return = resource.Body('points_of_no_return')
    rollback_floor = resource.Body('rollback_floor')
    created_at = resource.Body('created_at')
    started_at = resource.Body('started_at')
    finished_at = resource.Body('finished_at')
    version = resource.Body('version')


class Step(_Resource):
    """A step of a plan, named by its id or its number (`ord`)."""

    resources_key = 'steps'
    base_path = '/upgrades/%(upgrade_ref)s/steps'
    _query_mapping = resource.QueryParameters(
        'state', 'host', 'stage', 'kind', 'project', 'direction'
    )

    upgrade_ref = resource.URI('upgrade_ref')
    ord = resource.Body('ord')
    direction = resource.Body('direction')
    stage = resource.Body('stage')
    kind = resource.Body('kind')
    host = resource.Body('host')
    project = resource.Body('project')
    service = resource.Body('service')
    strategy = resource.Body('strategy')
    state = resource.Body('state')
    attempt = resource.Body('attempt')
    parents = resource.Body('parents')
    reversible = resource.Body('reversible')
    idempotent = resource.Body('idempotent')
    ponr = resource.Body('ponr')
    progress = resource.Body('progress')
    estimate = resource.Body('estimate')
    started_at = resource.Body('started_at')
    finished_at = resource.Body('finished_at')
    seconds = resource.Body('seconds')
    error = resource.Body('error')


class Event(_Resource):
    """An entry of an upgrade's audit trail, ordered by `seq`."""

    resources_key = 'events'
    base_path = '/upgrades/%(upgrade_ref)s/events'
    allow_fetch = False
    _query_mapping = resource.QueryParameters('after')

    upgrade_ref = resource.URI('upgrade_ref')
    seq = resource.Body('seq')
    kind = resource.Body('kind')
    step_id = resource.Body('step_id')
    attempt = resource.Body('attempt')
    at = resource.Body('at')
    actor = resource.Body('actor')
    detail = resource.Body('detail')


class Agent(_Resource):
    """The registered identity of an engine."""

    resources_key = 'agents'
    base_path = '/agents'
    _query_mapping = resource.QueryParameters('host', 'state')

    host = resource.Body('host')
    state = resource.Body('state')
    version = resource.Body('version')
    seen_at = resource.Body('seen_at')
    facts_at = resource.Body('facts_at')
    created_at = resource.Body('created_at')


class Strategy(_Resource):
    """A way to upgrade a host, as the engines report it."""

    resources_key = 'strategies'
    base_path = '/strategies'
    allow_fetch = False

    ready = resource.Body('ready')
    hosts = resource.Body('hosts')
    reasons = resource.Body('reasons')


class Inventory(_Resource):
    """A plugin that says what a cluster is made of."""

    resources_key = 'inventories'
    base_path = '/inventories'
    allow_fetch = False

    package = resource.Body('package')
    version = resource.Body('version')
