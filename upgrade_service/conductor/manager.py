"""What a conductor answers to on the message bus. Every method is short: it believes a
message only as far as its signature goes, writes rows or wakes a broker, and returns.
"""

import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log
import oslo_messaging as messaging

from upgrade_service import context, exception, rpc, states, trust
from upgrade_service.conductor import outcomes, rpcapi
from upgrade_service.db import api as db

LOG = log.getLogger(__name__)
Row = dict[str, Any]
#: items of a report that are not about one of our attempts are cut off here
MAX_ITEMS = 1000
#: of what engines say
VERSION = 1


class ConductorManager:
    """RPC endpoint of a conductor."""

    # 1.0: advance, discover, enroll, heartbeat, report, facts
    target = messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self, conf: cfg.ConfigOpts, leases: Any, post: Any, discoveries: threading.Event
    ) -> None:
        self._conf, self._leases, self._post = conf, leases, post
        self._discoveries = discoveries
        self._ctx = context.system()
        self._peers = rpcapi.ConductorAPI(conf)
        self._beats: dict[str, Row] = {}
        self._lock = threading.Lock()

    @rpc.expose
    def advance(self, ctxt: Row, upgrade: str) -> None:
        """Look at an upgrade's rows."""
        self._leases.wake(upgrade)

    @rpc.expose
    def discover(self, ctxt: Row, cluster: str) -> None:
        """Look for discoveries that are wanted."""
        self._discoveries.set()

    @rpc.expose
    def enroll(self, ctxt: Row, token: str, host: str, pubkey: str) -> None:
        """Admit an engine that has a valid one-time token for its host."""
        try:
            agent = db.agent_enroll(self._ctx, str(token), str(host), str(pubkey))
        except exception.UpgradeError as e:
            LOG.warning('enrolment of host %.64s refused: %s', host, e)
            return
        LOG.info('engine %s of host %s is %s', agent['id'], agent['host'], agent['state'])
        if agent['state'] == 'active':
            self._post.describe(agent['id'])

    @rpc.expose
    def heartbeat(self, ctxt: Row, agent: str, boot_id: str, version: str) -> None:
        """Note that an engine is there; a heartbeat gives no rights, so nobody signs it."""
        with self._lock:
            self._beats[str(agent)[:36]] = {
                'boot_id': str(boot_id)[:64],
                'version': str(version)[:64],
            }

    def flush_heartbeats(self) -> None:
        """Write the heartbeats of the last second in one transaction."""
        with self._lock:
            beats, self._beats = self._beats, {}
        if beats:
            db.agents_seen(self._ctx, beats)

    @rpc.expose
    def report(self, ctxt: Row, env: trust.Envelope) -> None:
        """Take what an engine says of attempts on its own host."""
        said = self._believed(env, 'report')
        if said is None:
            return
        away: dict[str, list[Row]] = {}
        for item in self._items(said):
            broker = self._leases.broker(item['upgrade'])
            if broker is not None:
                broker.deliver({**item, 'agent': said['agent']})
            else:
                away.setdefault(item['upgrade'], []).append(item)
        for upgrade, items in away.items():
            self._elsewhere(upgrade, items, said['agent'], env)

    def _items(self, said: Row) -> list[Row]:
        """Return the items of a report that can be read."""
        items = said.get('items')
        known = items[:MAX_ITEMS] if isinstance(items, list) else []
        good = [i for i in known if outcomes.legible(i)]
        if len(good) < len(known):
            LOG.warning('engine %s says things that cannot be read', said['agent'])
        return good

    def _elsewhere(self, upgrade: str, items: list[Row], agent: str, env: trust.Envelope) -> None:
        """Pass a report on to the owner; where nobody needs it any more, say that it came."""
        try:
            row = db.upgrade_get(self._ctx, upgrade)
        except exception.NotFound:
            row = {'state': 'gone', 'owner': None}
        if row['state'] not in states.OWNED:
            ended = [(i['step'], i['attempt']) for i in items if i['what'] == 'outcome']
            if ended:
                self._post.recorded(agent, ended)
        elif row['owner'] and row['owner'] != self._leases.owner:
            self._peers.pass_on(self._ctx, row['owner'], env)

    @rpc.expose
    def facts(self, ctxt: Row, env: trust.Envelope) -> None:
        """Take what an engine says of its host."""
        said = self._believed(env, 'facts')
        if said is not None:
            db.agent_facts(self._ctx, said['agent'], said)

    def _believed(self, env: trust.Envelope, kind: str) -> Row | None:
        """Return a message's payload if an active engine signed it about itself."""
        try:
            agent = db.agent_get(self._ctx, str(trust.peek(env).get('agent'))[:36])
            if agent['state'] != 'active':
                raise exception.Untrusted(reason=f'agent {agent["id"]} is {agent["state"]}')
            said = trust.unseal(env, {agent['id']: agent['pubkey']}, kind)
            if said.get('v') != VERSION:
                raise exception.Untrusted(reason=f'version {str(said.get("v"))[:16]} is not known')
            if (said.get('agent'), said.get('host')) != (agent['id'], agent['host']):
                raise exception.Untrusted(reason='it speaks for another host')
        except (exception.Untrusted, exception.NotFound) as e:
            LOG.warning('a %s message was refused: %s', kind, e)
            return None
        return said
