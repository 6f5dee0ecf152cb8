"""Options of the conductor."""

from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup('conductor', title='Discovery, planning and brokering')
OPTS = [
    cfg.StrOpt(
        'clouds_file',
        default='/etc/upgrade-service/clouds.yaml',
        help='clouds.yaml with an entry for each cluster; the only cloud credentials.',
    ),
    cfg.StrOpt(
        'projects_dir',
        default='/etc/upgrade-service/projects.d',
        help="The site's own project data (``*.yaml``), laid over the packaged files.",
    ),
    cfg.FloatOpt(
        'lease_ttl',
        default=10,
        min=1,
        help='Seconds after which a silent conductor loses its upgrades.',
    ),
    cfg.FloatOpt('lease_renew', default=3, min=0.1, help='Seconds between lease renewals.'),
    cfg.FloatOpt(
        'scan_interval',
        default=0.5,
        min=0.05,
        help='Seconds between looks for upgrades that nobody owns.',
    ),
    cfg.FloatOpt(
        'reconcile_interval',
        default=2,
        min=0.1,
        help='Seconds after which an owner looks at its rows without being rung.',
    ),
    cfg.FloatOpt(
        'resend_after',
        default=3,
        min=0.1,
        help='Seconds before an unanswered order is sent again; doubles up to 30.',
    ),
    cfg.IntOpt(
        'agent_timeout',
        default=90,
        min=1,
        help='Seconds without a heartbeat after which an engine counts as down.',
    ),
    cfg.IntOpt(
        'facts_max_age',
        default=600,
        min=1,
        help='Seconds after which what an engine reported is too old to plan with.',
    ),
    cfg.ListOpt(
        'deployment_hosts',
        default=[],
        help='Hosts whose engines may carry out steps of other hosts (with Ansible). What an '
        'engine of any other host says of hosts that are not its own is not believed.',
    ),
    cfg.IntOpt(
        'max_dispatched', default=32, min=1, help='Host steps in flight at once, for one upgrade.'
    ),
    cfg.IntOpt(
        'cloud_workers',
        default=8,
        min=1,
        help='Cloud steps (drain, verify …) at once, for one conductor.',
    ),
    cfg.IntOpt(
        'control_plane_grace',
        default=1800,
        min=0,
        help='Seconds a cloud API may be away before a step that needs it fails.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the [conductor] group."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, Any]]:
    """List them for the generator."""
    return [(GROUP, OPTS)]
