"""Options of the engine on a host."""

import socket
from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup('engine', title='Job execution on a host')
OPTS = [
    cfg.HostnameOpt(
        'host',
        default=socket.gethostname(),
        sample_default='<hostname>',
        help='Name of this host, as nova and neutron know it.',
    ),
    cfg.StrOpt(
        'state_dir',
        default='/var/lib/upgrade-service/engine',
        help='Journal, key and attempts; must survive a reboot.',
    ),
    cfg.StrOpt(
        'config_dir',
        default='/etc/upgrade-service/engine.d',
        help='What this engine may run: <strategy>.yaml, owned by root.',
    ),
    cfg.StrOpt(
        'enroll_bundle',
        default='/etc/upgrade-service/enroll.json',
        help='Bundle of `openstack upgrade agent enroll HOST`, used once.',
    ),
    cfg.FloatOpt('heartbeat', default=30, min=0.1, help='Seconds between heartbeats.'),
    cfg.IntOpt(
        'clock_skew',
        default=120,
        min=1,
        help='Seconds the clocks may differ before orders are refused.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the [engine] group."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(GROUP, OPTS)]
