"""Speak to engines. Every message is a signed envelope; a lost one only costs time."""

from oslo_config import cfg
from oslo_log import log

from upgrade_service import rpc, trust

LOG = log.getLogger(__name__)

#: 1.0: order, revoke, probe, recorded, describe, keys
VERSION = '1.0'


class EngineAPI:
    """Client side of the engines' queues: one for all of them."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        cap = conf.upgrade_levels.engine
        self._client = rpc.get_client(
            conf, 'upgrade-engine', 'upgrade-engine', VERSION, retry=1, cap=cap
        )

    def order(self, agent: str, env: trust.Envelope) -> None:
        """Have steps done, one after the other."""
        self._cast(agent, 'order', env)

    def revoke(self, agent: str, env: trust.Envelope) -> None:
        """Have attempts never begun that have not begun."""
        self._cast(agent, 'revoke', env)

    def probe(self, agent: str, env: trust.Envelope) -> None:
        """Ask how attempts stand."""
        self._cast(agent, 'probe', env)

    def recorded(self, agent: str, env: trust.Envelope) -> None:
        """Say that results are in the database."""
        self._cast(agent, 'recorded', env)

    def describe(self, agent: str, env: trust.Envelope) -> None:
        """Ask for the facts of the host."""
        self._cast(agent, 'describe', env)

    def keys(self, agent: str, env: trust.Envelope) -> None:
        """Say which keys sign from now on."""
        self._cast(agent, 'keys', env)

    def _cast(self, agent: str, method: str, env: trust.Envelope) -> None:
        topic = rpc.engine_topic(agent)
        try:
            self._client.prepare(exchange=topic, topic=topic).cast({}, method, env=env)
        except rpc.LOST as e:
            LOG.warning('%s to engine %s could not be sent (%s); it is repeated', method, agent, e)
