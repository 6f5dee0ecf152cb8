"""Turning round, stopping at a host, hurrying: the broker on a real database."""

import time

from upgrade_service import exception
from upgrade_service.db import api as db
from upgrade_service.tests import database
from upgrade_service.tests.unit.conductor import test_broker


class TurningCase(test_broker.BrokerCase):
    def setUp(self):
        super().setUp()
        self.own(database.host_plan())

    def cloud_step(self, kind, result='succeeded', **more):
        """Let the next cloud step, which must be of a kind, end."""
        step, attempt = self.played.cloud_steps.get(timeout=10)
        self.assertEqual(kind, db.step_get(self.ctx, self.ref, step)['kind'])
        self.say(step, attempt, result=result, **more)

    def order(self):
        """Return the one step of the next order, and its attempt."""
        ((step, attempt),) = self.played.orders.get(timeout=10)
        return db.step_get(self.ctx, self.ref, step), attempt

    def upgraded(self):
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.say(step['id'], attempt)
        return step

    def to_the_gate(self):
        self.upgraded()
        self.cloud_step('enable_host')
        self.wait_state('paused')

    def roll_back(self, **body):
        self.verb('rollback', **body)
        if not self.broker.alive:
            self.take('me again')

    def state_of(self):
        return {s['ord']: s['state'] for s in db.step_list(self.ctx, self.ref)}


class TestBack(TurningCase):
    def test_everything_is_undone_last_in_first_out(self):
        self.to_the_gate()
        self.roll_back()
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.assertEqual((7, '33.0.2'), (step['ord'], step['params']['version']))
        self.say(step['id'], attempt)
        self.cloud_step('enable_host')
        row = self.wait_state('rolled_back')
        self.assertEqual('all that was changed is undone', row['message'])
        self.assertEqual(
            ({'succeeded': 3}, 3), (row['counters']['steps'], row['counters']['total'])
        )
        self.assertEqual('cancelled', self.state_of()[5])
        self.assertIsNone(row['live_cluster_id'])

    def test_a_host_in_the_middle_is_brought_back_whole(self):
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.say(step['id'], attempt, result='failed', error='no', data={'final': True})
        self.wait_state('blocked')
        self.roll_back()
        # it is disabled already, and stays that until it is whole
        step, attempt = self.order()
        self.assertEqual(7, step['ord'])
        self.assertEqual({'total': 1, 'done': 0, 'held': 0}, self.hosts())
        self.say(step['id'], attempt)
        self.cloud_step('enable_host')
        self.wait_state('rolled_back')
        self.assertEqual('cancelled', self.state_of()[6])

    def hosts(self):
        return db.upgrade_get(self.ctx, self.ref)['counters']['hosts']

    def test_what_was_never_begun_is_not_undone(self):
        off, attempt = self.played.cloud_steps.get(timeout=10)
        self.roll_back()
        self.say(off, attempt)
        self.cloud_step('enable_host')
        self.wait_state('rolled_back')
        states = self.state_of()
        self.assertEqual(['cancelled', 'cancelled', 'succeeded'], [states[n] for n in (6, 7, 8)])

    def test_an_order_that_never_began_leaves_the_way_open(self):
        self.to_the_gate()
        self.verb('approve')
        self.take('me again')
        step, attempt = self.order()
        self.assertEqual(5, step['ord'])
        self.assertRaises(exception.NoWayBack, self.verb, 'rollback')
        self.verb('pause')
        self.played.revoked.get(timeout=10)
        self.say(step['id'], attempt, 'revoked')
        self.wait_state('paused')
        self.roll_back()
        self.cloud_step('disable_host')

    def test_below_the_floor_it_is_refused(self):
        self.to_the_gate()
        self.assertIsNone(db.rollback_floor(self.ctx, self.ref))
        self.verb('approve')
        self.take('me again')
        step, attempt = self.order()
        self.say(step['id'], attempt, 'accepted')
        e = self.assertRaises(exception.NoWayBack, self.verb, 'rollback')
        self.assertIn('Step 5 (restart_service on cmp1) is a point of no return', str(e))
        self.assertIn('back as far as 5', str(e))
        self.assertEqual(5, db.rollback_floor(self.ctx, self.ref))
        e = self.assertRaises(exception.Conflict, self.verb, 'rollback', to='5')
        self.assertIn('nothing that was done after step 5 can be undone', str(e))

    def test_a_failed_rollback_blocks_and_can_be_retried(self):
        self.to_the_gate()
        self.roll_back()
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.say(step['id'], attempt, result='failed', error='gone', data={'final': True})
        row = self.wait_state('blocked')
        self.assertEqual('back', row['direction'])
        for verb in ('cancel', 'replan'):
            self.assertRaises(exception.IllegalVerb, self.verb, verb)
        self.assertEqual('blocked', self.verb('rollback')['state'])
        self.verb('pause')
        db.step_verb(self.ctx, self.ref, '7', 'retry')
        self.broker.wake()
        self.wait_state('paused')
        self.verb('resume')
        self.take('me again')
        step, attempt = self.order()
        self.assertEqual((7, 2), (step['ord'], attempt))
        self.say(step['id'], attempt)
        self.cloud_step('enable_host')
        self.wait_state('rolled_back')

    def test_only_steps_of_its_direction_can_be_retried(self):
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.say(step['id'], attempt, result='failed', error='no', data={'final': True})
        self.wait_state('blocked')
        e = self.assertRaises(exception.Conflict, db.step_verb, self.ctx, self.ref, '7', 'retry')
        self.assertIn('of the way back', str(e))
        self.roll_back()
        self.order()
        e = self.assertRaises(exception.Conflict, db.step_verb, self.ctx, self.ref, '2', 'retry')
        self.assertIn('goes back', str(e))


class TestPauseAtHost(TurningCase):
    def test_the_host_in_progress_is_brought_to_its_end(self):
        self.cloud_step('disable_host')
        step, attempt = self.order()
        self.verb('pause', at='host')
        self.assertEqual('paused', self.verb('pause', at='host')['next'])
        time.sleep(0.3)
        self.assertEqual('running', db.upgrade_get(self.ctx, self.ref)['state'])
        self.say(step['id'], attempt)
        self.cloud_step('enable_host')
        row = self.wait_state('paused')
        self.assertIsNone(row['gate'])
        self.assertEqual('pending', self.state_of()[4])

    def test_it_can_be_made_a_pause_at_once(self):
        self.upgraded()
        on, attempt = self.played.cloud_steps.get(timeout=10)
        self.verb('pause', at='host')
        self.assertEqual('stopping', self.verb('pause')['state'])
        self.say(on, attempt, 'stopped')
        self.wait_state('paused')

    def test_it_can_be_withdrawn(self):
        self.cloud_step('disable_host')
        self.verb('pause', at='host')
        self.assertIsNone(self.verb('resume')['next'])
        step, attempt = self.order()
        self.say(step['id'], attempt)
        self.cloud_step('enable_host')
        self.assertEqual('finish', self.wait_state('paused')['gate'])


class TestHurry(test_broker.BrokerCase):
    def test_cancel_now_interrupts_what_may_be(self):
        self.own(database.chain_plan(['prefetch', 'upgrade_service']))
        (one, n), (two, m) = self.played.orders.get(timeout=10)
        self.say(one, n, 'accepted')
        self.verb('cancel')
        self.assertIn((two, m), self.played.revoked.get(timeout=10))
        self.say(two, m, 'revoked')
        time.sleep(0.3)
        self.assertTrue(self.played.aborted.empty())
        self.verb('cancel', now=True)
        self.assertEqual([(one, n)], self.played.aborted.get(timeout=10))
        self.say(one, n, result='failed', error='aborted')
        self.wait_state('cancelled')

    def test_a_change_to_a_host_is_seen_to_its_end(self):
        self.own(database.chain_plan(['upgrade_service']))
        ((one, n),) = self.played.orders.get(timeout=10)
        self.say(one, n, 'accepted')
        self.verb('cancel', now=True)
        time.sleep(0.5)
        self.assertTrue(self.played.aborted.empty())
        self.say(one, n)
        self.wait_state('cancelled')
