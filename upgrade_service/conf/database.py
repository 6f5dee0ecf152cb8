"""Options of the database: oslo.db's own."""

from typing import Any

from oslo_config import cfg
from oslo_db import options


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.db's options with our defaults."""
    options.set_defaults(conf)


def list_opts() -> list[tuple[Any, Any]]:
    """List nothing: oslo.db lists its options itself."""
    return []
