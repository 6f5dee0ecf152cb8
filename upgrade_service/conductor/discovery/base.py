"""The contract of an inventory plugin: what is there, according to one source.

A plugin (entry point `upgrade_service.inventories`) reads a source of truth about a
cluster, the cloud's own APIs for instance, and returns what it *found*. What it does not
know it leaves out; `merge.py` puts the findings of all plugins and the facts of the
engines together.
"""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import re
from typing import Any

from oslo_config import cfg
import yaml

from upgrade_service import exception, model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What one plugin knows of a cluster."""

    source: str = 'openstack'  #: name of the plugin
    #: every name of a host that it has, also of hosts without a service; aligned when merged
    names: frozenset[str] = frozenset()
    #: binaries it would list wherever they are: where it does not, they are not meant to be
    lists: frozenset[str] = frozenset()
    hosts: Mapping[str, model.Host] = dataclasses.field(default_factory=dict)
    services: Sequence[model.Service] = ()
    servers: Sequence[model.Server] = ()
    problems: Sequence[model.Problem] = ()
    endpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)


#: a name that a host can have: RFC 1123, and the underscores that some sites use
HOST = re.compile(r'^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\Z')
#: a version as packages have it
VERSION = re.compile(r'^[0-9A-Za-z][0-9A-Za-z.+:~-]{0,127}\Z')


def host_name(name: Any) -> str | None:
    """Return a name that a source gives a host, or None if no host can be called so."""
    said = name if isinstance(name, str) else ''
    return said if len(said) <= 253 and HOST.match(said) else None


@functools.cache
def known(kind: str) -> dict[str, str]:
    """Return what a deployment tool's groups or classes mean: {name: binary}."""
    path = pathlib.Path(__file__).parent / 'known.yaml'
    return {str(k): str(v) for k, v in yaml.safe_load(path.read_text())[kind].items()}


def chosen(sources: Mapping[str, str], cluster: Mapping[str, Any], key: str) -> str:
    """Return the source of a cluster: by its property `key`, by its name, or the only one.

    :raises CloudUnavailable: the conductor's configuration names none that fits.
    """
    wanted = (cluster.get('properties') or {}).get(key)
    if wanted is None and len(sources) == 1 and cluster['name'] not in sources:
        return next(iter(sources.values()))
    name = wanted or cluster['name']
    if name in sources:
        return sources[name]
    raise exception.CloudUnavailable(
        service=f'inventory {key}',
        cluster=cluster['name'],
        reason=f'[{key}] sources of the conductor names no {name}; add it there, or set the '
        f"cluster's property {key} to one of: {', '.join(sorted(sources)) or 'none'}",
    )


class InventoryManager(abc.ABC):
    """Base of every inventory plugin."""

    name: str
    summary: str = ''  #: one line for `openstack upgrade inventory list`

    @abc.abstractmethod
    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> Found:
        """Read the source; read only, a few requests whatever the number of hosts.

        `cluster` is the row: `name`, `cloud` (entry of clouds.yaml), `properties`.

        :raises CloudUnavailable: it does not answer; names what does not, and why.
        """
