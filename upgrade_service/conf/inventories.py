"""Options of inventories beside the cloud's own APIs."""

from typing import Any

from oslo_config import cfg

_SOURCES = (
    'A cluster takes the one that its property ``{0}`` names, else the one of its own name, else '
    'the only one there is.'
)
ANSIBLE = cfg.OptGroup('ansible_inventory', title='Inventory plugin `ansible`')
ANSIBLE_OPTS = [
    cfg.DictOpt(
        'sources',
        default={},
        help='Inventories that may be read, name:path. '
        + _SOURCES.format('ansible_inventory')
        + ' The files must belong to root and be writable by nobody else.',
    ),
    cfg.StrOpt('directory', default='/usr/bin', help='Where ``ansible-inventory`` is.'),
    cfg.StrOpt('vault_password_file', help='For variables that are encrypted.'),
    cfg.StrOpt(
        'host_variable',
        help="Variable that holds a host's name as nova knows it, where the inventory's differ.",
    ),
    cfg.IntOpt('timeout', default=120, min=1, help='Seconds to wait for the inventory.'),
]
PUPPETDB = cfg.OptGroup('puppetdb', title='Inventory plugin `puppet`')
PUPPETDB_OPTS = [
    cfg.DictOpt(
        'sources',
        default={},
        help='PuppetDBs that may be asked, name:URL (https://puppetdb.example.org:8081). '
        + _SOURCES.format('puppetdb'),
    ),
    cfg.StrOpt('cafile', help='Certificates of the authorities that sign PuppetDB.'),
    cfg.StrOpt('certfile', help='Certificate of this conductor.'),
    cfg.StrOpt('keyfile', help='Key of that certificate.'),
    cfg.FloatOpt('timeout', default=30, min=1, help='Seconds to wait for an answer.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of both groups."""
    for group, options in list_opts():
        conf.register_group(group)
        conf.register_opts(options, group=group)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(ANSIBLE, ANSIBLE_OPTS), (PUPPETDB, PUPPETDB_OPTS)]
