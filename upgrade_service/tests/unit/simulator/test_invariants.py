"""Whatever is done to the cloud, its tables agree with one another."""

import collections
import random

from oslotest import base as test_base

from upgrade_service.simulator import machines, migrations
from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import FAULTS, Cloud, Refused
from upgrade_service.tests.unit.simulator import base


class TestInvariants(test_base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = base.Clock()
        self.cloud = Cloud(specs.default_spec(computes=8, servers=40), clock=self.clock)

    def _audit(self) -> None:
        cloud = self.cloud
        for server in cloud.servers.values():
            homes = [n.name for n in cloud.nodes.values() if server.id in n.servers]
            self.assertEqual([server.host], homes)
        used: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
        for host, amounts in cloud.allocations.values():
            used[host] = [a + b for a, b in zip(used[host], amounts, strict=True)]
        for node in cloud.nodes.values():
            self.assertEqual(used[node.name], node.used, node.name)
            self.assertLessEqual(len(node.moving), cloud.spec.max_migrations)
            for most, have in zip(cloud.capacity(node), node.used, strict=True):
                self.assertLessEqual(have, most)
        under_way = {m.server for m in cloud.migrations.values() if m.status in migrations.OPEN}
        moving = {s.id for s in cloud.servers.values() if s.task == 'migrating'}
        self.assertEqual(under_way, moving)

    def _audit_at_rest(self) -> None:
        self.assertEqual(set(self.cloud.servers), set(self.cloud.allocations))
        for key, (host, _) in self.cloud.allocations.items():
            self.assertEqual(self.cloud.servers[key].host, host)
        for group in self.cloud.groups.values():
            homes = [self.cloud.servers[member].host for member in group['members']]
            self.assertEqual(len(homes), len(set(homes)))

    def _something(self, dice: random.Random) -> None:
        cloud = self.cloud
        computes = [n.name for n in cloud.compute_nodes]
        host = dice.choice(computes)
        action = dice.choice(['move'] * 12 + ['restart', 'disable', 'fault', 'abort', 'force'])
        if action == 'move':
            server = dice.choice(list(cloud.servers.values()))
            target = dice.choice([*computes, None])
            migrations.request(cloud, server, target, wait=dice.random() < 0.5)
        elif action == 'restart':
            machines.control_unit(cloud, cloud.nodes[host], 'nova-compute', 'restart')
        elif action == 'disable':
            record = cloud.record(host, 'nova-compute')
            assert record is not None
            record.disabled = dice.random() < 0.3
        elif action == 'fault':
            kind = dice.choice([k for k in FAULTS if k.startswith('migration')])
            cloud.inject(kind, source=host, count=1)
        elif cloud.open_migrations:
            migration = cloud.migrations[dice.choice(sorted(cloud.open_migrations))]
            if action == 'abort':
                migrations.abort(cloud, migration, queued=True)
            else:
                migrations.force_complete(cloud, migration)

    def test_random_walks(self) -> None:
        done: collections.Counter[str] = collections.Counter()
        for seed in range(5):
            dice = random.Random(seed)  # noqa: S311 - a walk, not a secret
            self.cloud = Cloud(specs.default_spec(computes=8, servers=40), clock=self.clock)
            for _ in range(400):
                self.clock.now += dice.random()
                with self.cloud.turn():
                    try:
                        self._something(dice)
                    except Refused as refusal:
                        done[str(refusal.status)] += 1
                    self._audit()
            for number in list(self.cloud.open_migrations):
                self.clock.now += 1000
                with self.cloud.turn():
                    if number in self.cloud.open_migrations:
                        migrations.abort(self.cloud, self.cloud.migrations[number], queued=True)
            with self.cloud.turn():
                self._audit()
                self._audit_at_rest()
            done.update(m.status for m in self.cloud.migrations.values())
        for outcome in ('completed', 'failed', 'cancelled', 'error', '400', '409'):
            self.assertGreater(done[outcome], 0, outcome)
