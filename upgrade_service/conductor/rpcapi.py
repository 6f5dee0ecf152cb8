"""Ring a conductor's bell. Rows say what is to be done; a lost message only costs time."""

from oslo_config import cfg
from oslo_log import log

from upgrade_service import context, rpc

LOG = log.getLogger(__name__)

#: 1.0: advance, discover, enroll, heartbeat, report, facts
VERSION = '1.0'


class ConductorAPI:
    """Client side of the conductors' queue."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._client = rpc.get_client(
            conf,
            rpc.CONDUCTOR_EXCHANGE,
            rpc.CONDUCTOR_TOPIC,
            VERSION,
            retry=1,
            cap=conf.upgrade_levels.conductor,
        )

    def advance(self, ctx: context.RequestContext, upgrade: str) -> None:
        """Say that an upgrade's rows have changed."""
        self._ring(ctx, 'advance', upgrade=upgrade)

    def discover(self, ctx: context.RequestContext, cluster: str) -> None:
        """Say that a discovery is wanted."""
        self._ring(ctx, 'discover', cluster=cluster)

    def pass_on(self, ctx: context.RequestContext, server: str, env: dict[str, str]) -> None:
        """Give a report to the conductor that owns the upgrade it is about."""
        try:
            self._client.prepare(server=server).cast(ctx.to_dict(), 'report', env=env)
        except rpc.LOST as e:
            LOG.warning('A report could not be passed on (%s); its engine will repeat it', e)

    def _ring(self, ctx: context.RequestContext, method: str, **kw: str) -> None:
        try:
            self._client.cast(ctx.to_dict(), method, **kw)
        except rpc.LOST as e:
            # conductors look at the rows by themselves every few seconds
            LOG.warning(
                'The message bus does not answer (%s); a conductor will find the change by itself',
                e,
            )
