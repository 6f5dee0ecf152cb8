"""DISCOVERY ENGINE: catalogue hosts, services, versions and health of a cluster.

Inventory plugins say what is there; the facts that each engine signs say what is
installed on its host; `merge.py` makes one :class:`model.Inventory` of both and lists
what an operator should know as problems.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg
from stevedore import extension

from upgrade_service import exception, model
from upgrade_service.conductor.discovery import base, merge

NAMESPACE = 'upgrade_service.inventories'


def discover(
    conf: cfg.ConfigOpts,
    cluster: Mapping[str, Any],
    agents: Sequence[Mapping[str, Any]],
    releases: Any,
    projects: Any,
    now_ms: int,
) -> model.Inventory:
    """Take a snapshot of a cluster.

    `agents`: rows {id, host, state, seen_at, facts, facts_at}; times in ms, by the same
    clock as `now_ms`.

    :raises CloudUnavailable: a source does not answer, or its plugin is not installed.
    """
    found = [collect(conf, cluster, name) for name in cluster.get('inventories') or ['openstack']]
    return merge.merge(
        cluster['name'],
        found,
        agents,
        releases,
        projects,
        merge.Clock(now_ms, conf.conductor.agent_timeout, conf.conductor.facts_max_age),
        frozenset(conf.conductor.deployment_hosts),
    )


def collect(conf: cfg.ConfigOpts, cluster: Mapping[str, Any], name: str) -> base.Found:
    """Ask one plugin."""
    plugins: Any = extension.ExtensionManager(NAMESPACE, invoke_on_load=False)
    for plugin in plugins:
        if plugin.name == name:
            manager: base.InventoryManager = plugin.plugin()
            return manager.collect(conf, cluster)
    raise exception.CloudUnavailable(
        service=f'inventory {name}',
        cluster=cluster['name'],
        reason='no such plugin is installed on the conductor',
    )
