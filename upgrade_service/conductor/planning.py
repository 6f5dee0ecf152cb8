"""From a request to a draft: discover, plan, have the plan checked, store it.

Also the discoveries that operators ask for by themselves. Neither changes anything in
the cloud.
"""

import time
from typing import Any

from oslo_config import cfg
from oslo_log import log
from stevedore import extension

from upgrade_service import context, exception, model
from upgrade_service.conductor import discovery, orders, planner
from upgrade_service.conductor.planner import request, verify
from upgrade_service.db import api as db
from upgrade_service.projects import loader, paths, releases

LOG = log.getLogger(__name__)
Row = dict[str, Any]
#: seconds to wait for engines to describe their hosts anew
FACTS_WAIT = 10.0
#: facts younger than this are not asked for again (ms), unless an upgrade ended after them
FACTS_FRESH = 20_000
#: seconds between two tries while the cloud does not answer
RETRY_WAIT = 5.0
STRATEGIES = 'upgrade_service.strategies'


def load_strategies() -> dict[str, Any]:
    """Return the planning half of every strategy that is installed: {name: strategy}."""
    plugins: Any = extension.ExtensionManager(STRATEGIES, invoke_on_load=True)
    return {p.name: p.obj for p in plugins}


class Planning:
    """Discovers clusters and plans upgrades for one conductor."""

    def __init__(self, conf: cfg.ConfigOpts, post: orders.Post) -> None:
        self._conf, self._post = conf, post
        self._ctx = context.system()
        self.projects = loader.load_projects(conf.conductor.projects_dir)
        self._releases = releases.load()
        self._strategies = load_strategies()

    def inventory(self, cluster: Row) -> model.Inventory:
        """Take a fresh snapshot of a cluster, with fresh facts from its engines.

        :raises CloudUnavailable: a source of it does not answer.
        """
        self._ask_engines(db.upgrade_ended_at(self._ctx, cluster['id']))
        agents = [a for a in db.agent_list(self._ctx) if a['state'] == 'active']
        return discovery.discover(
            self._conf, cluster, agents, self._releases, self.projects, self._post.now()
        )

    def _ask_engines(self, changed: int) -> None:
        """Have engines that are there describe their hosts; wait for them a little.

        `changed`: when an upgrade ended last; what was told before that is not fresh.
        """
        asked = self._post.now()
        waiting = set()
        for agent in db.agent_list(self._ctx, {'state': 'active'}):
            there = asked - (agent['seen_at'] or 0) < self._conf.conductor.agent_timeout * 1000
            if there and (agent['facts_at'] or 0) < max(asked - FACTS_FRESH, changed):
                self._post.describe(agent['id'])
                waiting.add(agent['id'])
        end = time.monotonic() + FACTS_WAIT
        while waiting and time.monotonic() < end:
            time.sleep(0.2)
            rows = db.agent_list(self._ctx, {'state': 'active'})
            waiting = {
                a['id'] for a in rows if a['id'] in waiting and (a['facts_at'] or 0) <= asked
            }

    def discover(self, cluster: Row) -> None:
        """Carry out a discovery that was asked for, and store what it found."""
        wanted = cluster['discover_wanted']
        try:
            self.save(cluster, self.inventory(cluster), wanted)
        except exception.UpgradeError as e:
            LOG.warning('discovery of cluster %s: %s', cluster['name'], e)
            db.discovery_failed(self._ctx, cluster['id'], wanted, str(e))
        except Exception as e:
            LOG.exception('discovery of cluster %s broke', cluster['name'])
            db.discovery_failed(self._ctx, cluster['id'], wanted, f'{type(e).__name__}: {e}')

    def save(self, cluster: Row, found: model.Inventory, wanted: int | None = None) -> None:
        """Store an inventory."""
        facts = {
            a['host']: {'facts': a['facts'], 'facts_at': a['facts_at']}
            for a in db.agent_list(self._ctx, {'state': 'active'})
        }
        db.inventory_save(self._ctx, cluster['id'], found, wanted, facts)

    def plan(self, row: Row, broker: Any) -> None:
        """Make an upgrade in state `planning` a draft, or end it with a reason.

        While the cloud does not answer, the upgrade stays in `planning` and says why.
        """
        try:
            found, made = self._made(row)
        except exception.CloudUnavailable as e:
            self._note(row, broker, str(e))
            time.sleep(RETRY_WAIT)
            broker.wake()
            return
        except exception.UpgradeError as e:
            self._give_up(row, broker, e)
            return
        executors = {
            h.name: agent
            for h in found.hosts.values()
            if (agent := h.executors.get(row['strategy']) or h.agent)
        }
        db.plan_store(self._ctx, row['id'], broker.owner, broker.epoch, made, executors)

    def _made(self, row: Row) -> tuple[model.Inventory, model.Plan]:
        cluster = db.cluster_get(self._ctx, row['cluster_id'])
        found = self.inventory(cluster)
        self.save(cluster, found)
        wanted = self._request(row, found)
        if wanted.type != 'host':
            paths.check_target(self._releases, wanted.from_release, wanted.to_release)
        made = planner.make_plan(found, wanted, self.projects, self._releases, self._strategies)
        verify.verify(made, found, wanted, self.projects, self._releases)
        return found, made

    def _request(self, row: Row, found: model.Inventory) -> request.Request:
        selection = {k: tuple(v) for k, v in row['selection'].items() if v is not None}
        target = self._releases.get(row['to_release'])
        return request.Request(
            upgrade_id=row['id'],
            from_release=row['from_release'] or self._from_release(found, row['to_release']),
            to_release=target.id if target else row['to_release'],
            type=row['type'],
            strategy=row['strategy'],
            policy=row['policy'],
            selection=model.Selection(**selection),
        )

    def _from_release(self, found: model.Inventory, target: str) -> str:
        """Return the oldest release that a service of the cloud has: where the hop begins."""
        known = {s.release for s in found.services if s.release}
        releases = [r for r in map(self._releases.get, known) if r is not None]
        if not releases:
            raise exception.PlanImpossible(
                reason='no service of this cloud has a known release; are its engines enrolled?'
            )
        return min(releases).id

    def _note(self, row: Row, broker: Any, why: str) -> None:
        LOG.warning('upgrade %s: planning waits: %s', row['id'], why)
        db.owner_note(self._ctx, row['id'], broker.owner, broker.epoch, f'waits: {why}')

    def _give_up(self, row: Row, broker: Any, why: exception.UpgradeError) -> None:
        """End an upgrade that cannot be planned; one that was begun keeps the plan it has."""
        LOG.warning('upgrade %s cannot be planned: %s', row['id'], why)
        begun = row['started_at'] is not None
        state = 'paused' if begun else 'cancelled'
        said = 'the plan stays as it was; no new one' if begun else 'no plan'
        db.owner_turn(
            self._ctx,
            row['id'],
            broker.owner,
            broker.epoch,
            (),
            db.UpgradeMove(
                state=state,
                event='plan_failed',
                detail={'why': str(why), 'code': why.code},
                values={'message': f'{said}: {why}'},
            ),
            ('planning',),
        )
