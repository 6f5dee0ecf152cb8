"""The contract of an inventory plugin: what is there, according to one source.

A plugin (entry point `upgrade_service.inventories`) reads a source of truth about a
cluster, the cloud's own APIs for instance, and returns what it *found*. What it does not
know it leaves out; `merge.py` puts the findings of all plugins and the facts of the
engines together.
"""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from oslo_config import cfg

from upgrade_service import model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What one plugin knows of a cluster."""

    hosts: Mapping[str, model.Host] = dataclasses.field(default_factory=dict)
    services: Sequence[model.Service] = ()
    servers: Sequence[model.Server] = ()
    problems: Sequence[model.Problem] = ()
    endpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)


class InventoryManager(abc.ABC):
    """Base of every inventory plugin."""

    name: str

    @abc.abstractmethod
    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> Found:
        """Read the source; read only, a few requests whatever the number of hosts.

        `cluster` is the row: `name`, `cloud` (entry of clouds.yaml), `properties`.

        :raises CloudUnavailable: it does not answer; names what does not, and why.
        """
