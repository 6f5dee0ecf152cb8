"""Configuration options: one file per group, registered on the ConfigOpts passed in."""

import itertools
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service.conf import (
    api,
    conductor,
    database,
    engine,
    inventories,
    trust,
    upgrade_levels,
)

_GROUPS = (api, conductor, database, engine, inventories, trust, upgrade_levels)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option of the service on `conf`."""
    for module in _GROUPS:
        module.register_opts(conf)


def parse(conf: cfg.ConfigOpts, argv: list[str], files: list[str] | None = None) -> None:
    """Read configuration files and the command line; set logging up."""
    log.register_options(conf)
    register_opts(conf)
    conf(argv, project='upgrade-service', prog='upgrade-service', default_config_files=files)
    log.setup(conf, 'upgrade-service')


def list_opts() -> list[tuple[Any, Any]]:
    """List all options for oslo-config-generator."""
    return list(itertools.chain.from_iterable(m.list_opts() for m in _GROUPS))
