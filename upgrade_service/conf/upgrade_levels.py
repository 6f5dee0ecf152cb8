"""Options of our own rolling upgrade: which version of the messages peers understand."""

from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup('upgrade_levels', title='Versions of messages while our own code is mixed')
_HELP = (
    'Highest version of the RPC methods of {0} that is sent, such as 1.0; set it to that of the '
    'oldest {0} while they are being upgraded. Without it the newest is sent.'
)
OPTS = [
    cfg.StrOpt('conductor', regex=r'^[0-9]+\.[0-9]+$', help=_HELP.format('conductors')),
    cfg.StrOpt('engine', regex=r'^[0-9]+\.[0-9]+$', help=_HELP.format('engines')),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the [upgrade_levels] group."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(GROUP, OPTS)]
