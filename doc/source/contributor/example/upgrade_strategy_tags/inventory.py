"""An inventory from a file of the operator: which service is meant to be on which host."""

from collections.abc import Mapping
import pathlib
from typing import Any

from oslo_config import cfg
import yaml

from upgrade_service import exception, model
from upgrade_service.conductor.discovery import base

#: {host: [binary, …]}; a path of the package's own, never one that an API request names
ROSTER = pathlib.Path('/etc/upgrade-service/roster.yaml')


class RosterInventory(base.InventoryManager):
    """The hosts and services of a roster."""

    name = 'roster'
    summary = f'the services that {ROSTER} names for each host'

    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> base.Found:
        """Read the roster."""
        try:
            said = yaml.safe_load(ROSTER.read_text()) or {}
            pairs = [(host, binary) for host, binaries in said.items() for binary in binaries]
        except (OSError, yaml.YAMLError, AttributeError, TypeError) as e:
            raise exception.CloudUnavailable(
                service=f'inventory roster ({ROSTER})', cluster=cluster['name'], reason=str(e)
            ) from e
        good = [(host, binary) for host, binary in pairs if base.host_name(host)]
        return base.Found(
            source=self.name,
            hosts={host: model.Host(name=host) for host, _ in good},
            services=[
                model.Service(
                    project=binary.partition('-')[0], binary=binary, host=host, source=self.name
                )
                for host, binary in good
            ],
            names=frozenset(host for host, _ in good),
            lists=frozenset(binary for _, binary in good),
        )
