"""Options of trust: keys and TLS."""

from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup('trust', title='Keys that sign orders')
OPTS = [
    cfg.StrOpt(
        'keys_dir',
        default='/etc/upgrade-service/keys',
        help='Signing keys of the deployment (<kid>.key and <kid>.pub, shared by its '
        'conductors; `current` names the one in use).',
    ),
    cfg.IntOpt(
        'order_lifetime',
        default=600,
        min=10,
        max=3600,
        help='Seconds for which an order may be accepted.',
    ),
    cfg.IntOpt(
        'enroll_lifetime',
        default=3600,
        min=60,
        help='Seconds for which an enrolment token may be used.',
    ),
    cfg.BoolOpt(
        'insecure_lab',
        default=False,
        help='Allow a message bus without TLS beyond the loopback address. For labs.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the [trust] group."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(GROUP, OPTS)]
