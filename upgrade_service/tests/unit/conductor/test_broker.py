"""The broker on a real database, with an engine and a cloud that the test plays."""

import queue
import time

import fixtures

from upgrade_service.conductor import broker
from upgrade_service.db import api as db
from upgrade_service.tests import base, database


class Played:
    """Stands for orders.Post and CloudWork: it notes what it is given."""

    digest = ''

    def __init__(self):
        self.orders = queue.Queue()
        self.cloud_steps = queue.Queue()
        self.revoked = queue.Queue()
        self.aborted = queue.Queue()
        self.looks = queue.Queue()
        self.acks = []
        self.started = set()

    def now(self):
        return int(time.time() * 1000)

    def order(self, upgrade, epoch, agent, nodes, recorded):
        self.orders.put([(n.id, n.attempt) for n in nodes])
        self.acks += recorded

    def revoke(self, upgrade, epoch, agent, nodes, now=False):
        if now:
            self.aborted.put([(n.id, n.attempt) for n in nodes])
            return
        self.revoked.put([(n.id, n.attempt) for n in nodes])

    def probe(self, upgrade, epoch, agent, nodes):
        pass

    def recorded(self, agent, attempts):
        self.acks += attempts

    def survey(self, owner, row):
        pass

    def recheck(self, owner, row, node):
        self.looks.put(node.host)

    def start(self, owner, row, node):
        if (node.id, node.attempt) not in self.started:
            self.started.add((node.id, node.attempt))
            self.cloud_steps.put((node.id, node.attempt))


class BrokerCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.db = self.useFixture(database.Database())
        self.ctx, self.conf = self.db.ctx, self.db.conf
        self.conf.set_override('reconcile_interval', 0.1, 'conductor')
        self.played = Played()

    def own(self, plan, policy=None):
        self.ref = database.draft(self.db, plan, policy)['id']
        self.verb('start')
        return self.take('me')

    def take(self, owner, ttl=60):
        rows = db.ownership_claim(self.ctx, owner, ttl)
        row = next(r for r in rows if r['id'] == self.ref)
        made = broker.Broker(row, owner, self.played, self.played, None, self.conf)
        made.start()
        self.addCleanup(made.join, 5)
        self.addCleanup(made.lose)
        self.broker = made
        return made

    def verb(self, verb, **body):
        row = db.upgrade_verb(self.ctx, self.ref, verb, body=body)
        if hasattr(self, 'broker'):
            self.broker.wake()
        return row

    def say(self, step, attempt, what='outcome', result='succeeded', **more):
        agent = db.step_get(self.ctx, self.ref, step)['executor']
        item = {'upgrade': self.ref, 'step': step, 'attempt': attempt, 'what': what}
        if agent:
            item['agent'] = agent
        if what == 'outcome':
            item['outcome'] = {'result': result, **more}
        self.broker.deliver(item)

    def wait_state(self, *states):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            row = db.upgrade_get(self.ctx, self.ref)
            if row['state'] in states:
                return row
            time.sleep(0.02)
        events = [(e['kind'], e['detail']) for e in db.event_list(self.ctx, self.ref)]
        self.fail(f'still {row["state"]}: {row["message"]}; {events[-6:]}')

    def steps(self):
        return [s['state'] for s in db.step_list(self.ctx, self.ref)]


class TestBroker(BrokerCase):
    def test_a_chain_goes_out_in_one_order_and_ends_the_upgrade(self):
        self.own(database.chain_plan(['check_host', 'prefetch', 'verify_host']))
        order = self.played.orders.get(timeout=10)
        self.assertEqual(3, len(order))
        for step, attempt in order:
            self.say(step, attempt)
        row = self.wait_state('succeeded')
        self.assertEqual({'succeeded': 3}, row['counters']['steps'])
        self.assertIsNone(row['live_cluster_id'])

    def test_an_unanswered_order_is_sent_again_with_the_same_attempt(self):
        self.conf.set_override('resend_after', 0.1, 'conductor')
        self.own(database.chain_plan(['check_host']))
        first = self.played.orders.get(timeout=10)
        self.assertEqual(first, self.played.orders.get(timeout=10))

    def test_a_failed_step_is_tried_three_times_then_blocks(self):
        self.own(database.chain_plan(['check_host']))
        for n in (1, 2, 3):
            ((step, attempt),) = self.played.orders.get(timeout=20)
            self.assertEqual(n, attempt)
            self.say(step, attempt, result='failed', error='no disk')
        row = self.wait_state('blocked')
        self.assertEqual('step_failed', row['blocked_reason'])
        self.assertIn('no disk', row['message'])
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual(2, kinds.count('auto_retry'))

    def test_retry_of_the_failed_step_goes_on(self):
        self.own(database.chain_plan(['check_host']))
        ((step, attempt),) = self.played.orders.get(timeout=10)
        self.say(step, attempt, result='failed', error='no', data={'final': True})
        self.wait_state('blocked')
        db.step_verb(self.ctx, self.ref, '0', 'retry')
        self.broker.wake()
        ((step, attempt),) = self.played.orders.get(timeout=10)
        self.assertEqual(2, attempt)
        self.say(step, attempt)
        self.wait_state('succeeded')

    def test_pause_takes_back_what_has_not_begun_and_waits_for_what_has(self):
        self.own(database.chain_plan(['check_host', 'prefetch']))
        (one, n), (two, m) = self.played.orders.get(timeout=10)
        self.say(one, n, 'accepted')
        self.verb('pause')
        self.assertIn((two, m), self.played.revoked.get(timeout=10))
        self.say(two, m, 'revoked')
        time.sleep(0.3)
        self.assertEqual('stopping', db.upgrade_get(self.ctx, self.ref)['state'])
        self.say(one, n)
        self.wait_state('paused')
        self.assertEqual(['succeeded', 'pending'], self.steps())
        self.verb('resume')
        self.take('me again')
        self.assertEqual([(two, m + 1)], self.played.orders.get(timeout=10))

    def test_a_gate_for_a_person_pauses_until_it_is_approved(self):
        gate = database.chain_plan(
            ['check_host', 'gate'], params={'gate': 'finish', 'person': True}
        )
        self.own(gate)
        ((step, n),) = self.played.orders.get(timeout=10)
        self.say(step, n)
        row = self.wait_state('paused')
        self.assertEqual('finish', row['gate'])
        self.verb('approve', gate='finish')
        self.take('me again')
        self.wait_state('succeeded')

    def test_an_approval_given_beforehand_passes_the_gate(self):
        plan = database.chain_plan(['gate'], params={'gate': 'finish', 'person': True})
        upgrade = database.draft(self.db, plan)
        self._approve_beforehand(upgrade['id'])
        self.ref = upgrade['id']
        self.verb('start')
        self.take('me')
        self.wait_state('succeeded')

    def _approve_beforehand(self, ident):
        import sqlalchemy as sa

        from upgrade_service.db import base as db_base
        from upgrade_service.db import models

        with db_base.writer(self.ctx) as session:
            session.execute(sa.update(models.Upgrade).values(approvals=['finish']))

    def test_a_soaking_gate_lets_time_pass(self):
        self.own(
            database.chain_plan(
                ['gate', 'check_host'], params={'gate': 'canary', 'soak_seconds': 1}
            )
        )
        self.played.orders.get(timeout=10)
        events = {e['kind']: e['at'] for e in db.event_list(self.ctx, self.ref)}
        # begun by the broker's clock, noted by the database's: they differ by milliseconds
        self.assertGreaterEqual(events['gate_passed'] - events['started'], 950)

    def test_cancel_puts_a_drained_host_back_and_drops_the_rest(self):
        self.own(database.chain_plan(['disable_host', 'drain_host', 'enable_host']))
        off, n = self.played.cloud_steps.get(timeout=10)
        self.say(off, n)
        drain, n = self.played.cloud_steps.get(timeout=10)
        self.verb('cancel')
        while not self.broker.stopping.is_set():
            time.sleep(0.01)
        self.say(drain, n, 'stopped')
        self.say(*self.played.cloud_steps.get(timeout=10))
        row = self.wait_state('cancelled')
        self.assertEqual(['succeeded', 'cancelled', 'succeeded'], self.steps())
        self.assertNotIn('still disabled', row['message'])

    def test_a_new_owner_goes_on_where_the_old_one_was(self):
        old = self.own(database.chain_plan(['check_host', 'prefetch']))
        first = self.played.orders.get(timeout=10)
        old.lose()
        old.join(5)
        db.ownership_release(self.ctx, 'me')
        self.take('you')
        self.assertEqual(first, self.played.orders.get(timeout=10))
        for step, n in first:
            self.say(step, n)
        self.wait_state('succeeded')
        attempts = {s['attempt'] for s in db.step_list(self.ctx, self.ref)}
        self.assertEqual({1}, attempts)

    def test_a_zombie_stops_by_itself(self):
        zombie = self.own(database.chain_plan(['check_host']))
        self.played.orders.get(timeout=10)
        db.ownership_release(self.ctx, 'me')
        rows = db.ownership_claim(self.ctx, 'you', 60)
        self.assertEqual([self.ref], [r['id'] for r in rows])
        zombie.wake()
        zombie.join(5)
        self.assertFalse(zombie.alive)


class TestDrainedHost(BrokerCase):
    """A host drained a while ago is looked at again before it is touched."""

    KINDS = ('disable_host', 'drain_host', 'gate', 'upgrade_service', 'enable_host')

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(broker, 'RECHECK_AFTER', 0.5))
        plan = database.chain_plan(list(self.KINDS), params={'soak_seconds': 1, 'gate': 'x'})
        self.own(plan)
        for _ in range(2):
            self.say(*self.played.cloud_steps.get(timeout=10))

    def test_still_empty_goes_on(self):
        self.assertEqual('cmp1', self.played.looks.get(timeout=10))
        self.assertTrue(self.played.orders.empty())
        self.broker.rechecked('cmp1', None)
        self.assertEqual(1, len(self.played.orders.get(timeout=10)))

    def test_in_use_again_is_drained_again(self):
        self.played.looks.get(timeout=10)
        self.broker.rechecked('cmp1', 'cmp1 holds servers again')
        _, attempt = self.played.cloud_steps.get(timeout=10)
        self.assertEqual(2, attempt)
        self.assertTrue(self.played.orders.empty())
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual(2, kinds.count('in_use_again'))


class TestRests(BrokerCase):
    def test_what_an_engine_gives_back_is_ordered_anew(self):
        self.own(database.chain_plan(['check_host', 'prefetch']))
        first = self.played.orders.get(timeout=10)
        # it was started again before it began
        for step, n in first:
            self.say(step, n, 'revoked')
        self.assertEqual([(s, n + 1) for s, n in first], self.played.orders.get(timeout=10))

    def test_the_rest_of_a_chain_is_not_ordered_without_its_beginning(self):
        self.conf.set_override('resend_after', 0.1, 'conductor')
        self.own(database.chain_plan(['check_host', 'prefetch']))
        (one, n), (two, m) = self.played.orders.get(timeout=10)
        # its engine gave the first one back, and died before it did so with the second
        self.say(one, n, 'revoked')
        self.assertEqual([(two, m)], self.played.revoked.get(timeout=10))
        while not self.played.orders.empty():
            self.assertNotEqual([(two, m)], self.played.orders.get())
        self.say(two, m, 'revoked')
        while (again := self.played.orders.get(timeout=10))[0][1] == n:
            pass
        self.assertEqual([(one, n + 1), (two, m + 1)], again)
