"""Options of the API."""

from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup('api', title='Management panel')
OPTS = [
    cfg.StrOpt(
        'auth_strategy',
        default='keystone',
        choices=['keystone', 'http_basic', 'noauth'],
        help='Who may ask. noauth makes everyone an administrator and binds the '
        'loopback address only.',
    ),
    cfg.StrOpt(
        'http_basic_auth_user_file',
        default='/etc/upgrade-service/htpasswd',
        help='User file (htpasswd, bcrypt) of auth_strategy http_basic.',
    ),
    cfg.HostAddressOpt(
        'host',
        default='127.0.0.1',
        help='Address upgrade-service-api listens on; a WSGI server has its own.',
    ),
    cfg.PortOpt('port', default=9899, help='Port upgrade-service-api listens on.'),
    cfg.IntOpt('threads', default=8, min=1, help='Worker threads of upgrade-service-api.'),
    cfg.IntOpt(
        'max_limit', default=1000, min=1, max=1000, help='Rows on one page of a list, at the most.'
    ),
    cfg.IntOpt(
        'mutations_per_minute',
        default=60,
        min=0,
        help='Changes of upgrades (creating them, their verbs, retry and skip of steps) '
        'that one user may make in a minute, counted from the events; 0: no limit.',
    ),
    cfg.StrOpt(
        'public_endpoint', help='URL in links when the request does not show it (behind a proxy).'
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the [api] group."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(GROUP, OPTS)]
