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


def host_plan(host: str = 'cmp1', *more: model.Step) -> model.Plan:
    """Return a plan that takes one host there, past a point of no return, and its way back.

    Steps 1 to 5: disable, upgrade, enable, gate `finish`, restart; undo 6 to 8.
    """
    versions = {'version': '34.0.0', 'from_version': '33.0.2'}
    back = {'version': '33.0.2', 'from_version': '34.0.0'}

    def step(number: int, kind: str, **values: Any) -> model.Step:
        parents = () if number in (1, 6) else (number - 1,)
        on = None if kind == 'gate' else host
        values.setdefault('direction', 'forward')
        return model.Step(
            ord=number, stage='data_plane', kind=kind, host=on, strategy='noop', project='nova',
            parents=parents, ponr=model.KINDS[kind].ponr, **values,
        )  # fmt: skip

    return model.Plan(
        from_release='2026.1',
        to_release='2026.2',
        fingerprint='f' * 64,
        steps=(
            step(1, 'disable_host'),
            step(2, 'upgrade_service', params=versions),
            step(3, 'enable_host'),
            step(4, 'gate', params={'gate': 'finish', 'person': True}),
            step(5, 'restart_service'),
            *more,
        ),
        undo=(
            step(6, 'disable_host', direction='back', undo_of=3),
            step(7, 'upgrade_service', direction='back', undo_of=2, params=back),
            step(8, 'enable_host', direction='back', undo_of=1),
        ),
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
