"""A real database for a test: a SQLite file, or the URL given."""

import itertools
import os
from typing import Any

import fixtures
from oslo_config import cfg
from oslo_config import fixture as config_fixture

from upgrade_service import conf as options
from upgrade_service import context, model
from upgrade_service.db import api as db
from upgrade_service.db import migration

_numbers = itertools.count(1)


class Database(fixtures.Fixture):
    """The schema, migrated, in an empty database."""

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self._url = url

    def _setUp(self) -> None:
        self.conf = self.useFixture(config_fixture.Config(cfg.ConfigOpts())).conf
        options.register_opts(self.conf)
        self.conf([], default_config_files=[])
        folder = self.useFixture(fixtures.TempDir()).path
        self.url = self._url or f'sqlite:///{os.path.join(folder, "upgrade.sqlite")}'
        db.configure(self.conf, self.url)
        self.addCleanup(db.get_engine().dispose)
        migration.upgrade()
        self.ctx = context.RequestContext(user_id='alice', roles=['admin'])


def chain_plan(kinds: list[str], host: str = 'cmp1', **more: Any) -> model.Plan:
    """Return a plan of steps of one host, one after the other."""
    steps = tuple(
        model.Step(
            ord=n, stage='check', kind=kind, host=host, strategy='noop',
            parents=(n - 1,) if n else (), ponr=model.KINDS[kind].ponr, **more,
        )
        for n, kind in enumerate(kinds)
    )  # fmt: skip
    return model.Plan(
        from_release='2026.1', to_release='2026.2', steps=steps, fingerprint='f' * 64
    )


def draft(
    fixture: Database, plan: model.Plan, policy: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Store a cluster and an upgrade with this plan; return the upgrade, a draft."""
    ctx = fixture.ctx
    cluster = db.cluster_create(ctx, {'name': f'c{next(_numbers)}', 'cloud': 'prod'})
    hosts = {
        s.host: model.Host(name=s.host, agent=f'agent-{s.host}') for s in plan.steps if s.host
    }
    db.inventory_save(
        ctx, cluster['id'], model.Inventory(cluster=cluster['name'], taken_at=0, hosts=hosts)
    )
    made = db.upgrade_create(
        ctx,
        {
            'cluster_id': cluster['id'], 'to_release': '2026.2', 'strategy': 'noop',
            'type': 'service', 'policy': {**model.POLICY_DEFAULTS, **(policy or {})},
            'selection': {},
        },
    )  # fmt: skip
    row = next(r for r in db.ownership_claim(ctx, 'planner', 10) if r['id'] == made['id'])
    agents = {h.name: h.agent or '' for h in hosts.values()}
    db.plan_store(ctx, row['id'], 'planner', row['epoch'], plan, agents)
    return db.upgrade_get(ctx, made['id'])
