"""The drain: to the planned hosts, through faults, and by several owners in turn."""

from typing import Any

from upgrade_service import exception
from upgrade_service.conductor import cloud as cloud_steps
from upgrade_service.simulator import spec as specs
from upgrade_service.tests.unit.cloud import base


class DrainTest(base.CloudTestCase):
    spec = specs.default_spec(computes=6, servers=20, groups=0)

    def setUp(self) -> None:
        super().setUp()
        self.run_step('disable_host', 'cmp1')
        self.servers = self.on('cmp1')
        self.assertGreater(len(self.servers), 2)

    def moves(self, target: str = 'cmp3') -> dict[str, str]:
        return {s: target for s in self.servers}

    def test_moves_everything_where_the_plan_says(self) -> None:
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual({'cmp3': len(self.servers)}, outcome.data['moved_to'])
        self.assertEqual([], self.on('cmp1'))
        last = self.saved[-1]
        self.assertEqual((len(self.servers), len(self.servers)), (last['done'], last['total']))

    def test_intent_is_saved_before_each_call(self) -> None:
        task = self.task('drain_host', 'cmp1', moves=self.moves())

        def lost(seconds: float) -> None:
            raise exception.LostOwnership(upgrade=base.UPGRADE, epoch=1)

        task.may_act = lost
        self.assertRaises(exception.LostOwnership, cloud_steps.run, task)
        asked = [m for m in self.saved[-1]['moves'].values() if m['state'] == 'asked']
        self.assertEqual(1, len(asked))
        self.assertEqual([], self.calls('migrate'))

    def test_settles_before_it_believes_the_host_empty(self) -> None:
        for server in self.servers:
            self.conn.compute.delete_server(server)
        self.sleep(1)
        before = self.clock.now
        self.assertEqual('succeeded', self.run_step('drain_host', 'cmp1').result)
        self.assertGreaterEqual(self.clock.now - before, 5)

    def test_server_unknown_to_the_plan_goes_to_an_upgraded_host(self) -> None:
        outcome = self.run_step('drain_host', 'cmp1', moves={}, targets=['cmp2'])
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertIn('cmp2', outcome.data['moved_to'])
        self.assertEqual([], self.on('cmp1'))

    def test_failed_migration_is_tried_once_more_elsewhere(self) -> None:
        self.cloud.inject('migration_fails', count=1, source='cmp1')
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves(), targets=['cmp2'])
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(1, outcome.data['moved_to']['cmp2'])

    def test_second_failure_names_the_server(self) -> None:
        self.cloud.inject('migration_fails', server=self.servers[0])
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('failed', outcome.result)
        self.assertIn(self.servers[0], outcome.error)
        self.assertIn(self.servers[0], self.on('cmp1'))
        self.cloud.clear()
        again = self.task('drain_host', 'cmp1', moves=self.moves())
        again.progress = self.saved[-1]
        self.assertEqual('succeeded', cloud_steps.run(again).result)
        self.assertEqual([], self.on('cmp1'))

    def test_lying_record_is_not_believed(self) -> None:
        self.cloud.inject('migration_lies', server=self.servers[0])
        outcome = self.run_step(
            'drain_host', 'cmp1', moves=self.moves(), drain={'no_progress_seconds': 30}
        )
        self.assertEqual('failed', outcome.result)
        self.assertIn('completed, but', outcome.error)

    def test_server_that_breaks_is_named(self) -> None:
        self.cloud.inject('migration_breaks', server=self.servers[0])
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('failed', outcome.result)
        self.assertEqual([self.servers[0]], outcome.data['servers'])

    def test_stuck_migration_is_aborted_and_tried_elsewhere(self) -> None:
        self.cloud.inject('migration_sticks', count=1, source='cmp1')
        outcome = self.run_step(
            'drain_host',
            'cmp1',
            moves=self.moves(),
            targets=['cmp2'],
            drain={'no_progress_seconds': 60},
        )
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(1, outcome.data['moved_to']['cmp2'])

    def test_stuck_migration_is_forced(self) -> None:
        self.cloud.inject('migration_sticks', count=1, source='cmp1')
        outcome = self.run_step(
            'drain_host',
            'cmp1',
            moves=self.moves(),
            drain={'no_progress_seconds': 60, 'on_stuck': 'force_complete'},
        )
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual({'cmp3': len(self.servers)}, outcome.data['moved_to'])

    def test_stopped_server_is_named_at_once(self) -> None:
        self.cloud.servers[self.servers[0]].status = 'SHUTOFF'
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('failed', outcome.result)
        self.assertIn('it is SHUTOFF', outcome.error)

    def test_servers_that_the_plan_leaves_stay(self) -> None:
        for server in self.servers[:2]:
            self.cloud.servers[server].status = 'SHUTOFF'
        left = sorted(self.servers[:2])
        moves = {s: 'cmp3' for s in self.servers[2:]}
        outcome = self.run_step('drain_host', 'cmp1', moves=moves, leave=left)
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(
            (left, {'cmp3': len(moves)}), (outcome.data['left'], outcome.data['moved_to'])
        )
        self.assertEqual(left, sorted(self.on('cmp1')))
        self.assertEqual(len(moves), self.migrations())
        self.assertEqual('', self.recheck(leave=left))
        self.assertIn(left[0], self.recheck())

    def test_server_stopped_since_the_plan_stays_if_policy_skips(self) -> None:
        self.cloud.servers[self.servers[0]].status = 'SHUTOFF'
        skip = {'on_immovable': 'skip'}
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves(), drain=skip)
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(self.servers[:1], outcome.data['left'])
        self.assertEqual(self.servers[:1], self.on('cmp1'))
        self.assertEqual('', self.recheck(drain=skip))

    def test_api_away_during_the_drain(self) -> None:
        def go_away() -> None:
            self.cloud.inject('api_down', seconds=60, project='nova')

        self.cloud.later(3, go_away)
        outcome = self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(len(self.servers), self.migrations())

    def test_new_owner_adopts_what_is_under_way(self) -> None:
        """Ownership is lost after each possible save; no server is moved twice."""
        rounds = 0
        progress: dict[str, Any] = {}
        while True:
            rounds += 1
            task = self.task('drain_host', 'cmp1', moves=self.moves())
            task.progress = progress
            budget = [2]

            def save(what: dict[str, Any], budget: list[int] = budget) -> None:
                self.saved.append(what)
                budget[0] -= 1
                if budget[0] < 0:
                    raise exception.LostOwnership(upgrade=base.UPGRADE, epoch=1)

            task.save = save
            try:
                outcome = cloud_steps.run(task)
                break
            except exception.LostOwnership:
                progress = {k: v for k, v in self.saved[-1].items()}
        self.assertGreater(rounds, 2)
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual(len(self.servers), self.migrations())

    def migrations(self) -> int:
        return sum(m.source == 'cmp1' for m in self.cloud.migrations.values())

    def test_recheck(self) -> None:
        self.assertIn('holds servers', self.recheck())
        self.run_step('drain_host', 'cmp1', moves=self.moves())
        self.assertEqual('', self.recheck())
        self.run_step('enable_host', 'cmp1')
        self.assertIn('enabled again', self.recheck())

    def recheck(self, **params: Any) -> str:
        return cloud_steps.recheck(self.task('drain_host', 'cmp1', **params)) or ''
