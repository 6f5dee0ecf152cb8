"""What an operator hears of before anything has failed, and what waits for it."""

import copy

from upgrade_service import exception, model
from upgrade_service.conductor import alarms, ready
from upgrade_service.db import api as db
from upgrade_service.tests import base, database
from upgrade_service.tests.unit.conductor import test_broker, test_ready

POLICY = copy.deepcopy(model.POLICY_DEFAULTS)
NOW = 1_000_000


def flying(state, **more):
    values = {'state': state, 'attempt': 1, 'started_at': NOW, **more}
    return test_ready.board(('prefetch', 'a', [], values))


class TestAlarms(base.TestCase):
    def codes(self, board, after, *said, at=0):
        ear = alarms.Ear()
        ear.alarms(board, NOW)
        ear.hear(({'step': '0', 'attempt': 1, **s} for s in said), NOW + at)
        return [a.code for a in ear.alarms(board, NOW + after)]

    def test_a_step_that_does_not_begin(self):
        self.assertEqual([], self.codes(flying('dispatched'), 60_000))
        self.assertEqual(['not_started'], self.codes(flying('dispatched'), 60_001))

    def test_it_says_why(self):
        refused = {'what': 'refused', 'reason': 'busy', 'message': 'another step runs'}
        self.assertEqual([], self.codes(flying('dispatched'), 100, refused))
        ear = alarms.Ear()
        ear.hear([{'step': '0', 'attempt': 1, **refused}], NOW)
        (found,) = ear.alarms(flying('dispatched'), NOW + 70_000)
        self.assertIn('(busy: another step runs)', found.message)
        self.assertIn('step 0 (prefetch on a)', found.message)

    def test_a_host_that_holds_back_is_told_at_once(self):
        for reason in ('clock_skew', 'inhibited', 'journal'):
            refused = {'what': 'refused', 'reason': reason, 'message': 'x'}
            self.assertEqual(['held_back'], self.codes(flying('dispatched'), 100, refused))
        accepted = {'what': 'accepted'}
        self.assertEqual([], self.codes(flying('running'), 100, refused, accepted))

    def test_what_waits_its_turn_is_none(self):
        """The rest of a chain begins when the engine is done with what is before it."""
        values = {'attempt': 1, 'started_at': NOW}
        board = test_ready.board(
            ('prefetch', 'a', [], {**values, 'state': 'running'}),
            ('verify_host', 'a', [0], {**values, 'state': 'dispatched'}),
        )
        ear = alarms.Ear()
        for after in range(0, 200_000, 5_000):
            ear.hear([{'step': '0', 'attempt': 1, 'what': 'progress'}], NOW + after)
            self.assertEqual([], ear.alarms(board, NOW + after))
        board.apply('0', state='succeeded')
        self.assertEqual([], ear.alarms(board, NOW + 210_000))
        self.assertEqual(1, len(ear.alarms(board, NOW + 260_001)))

    def test_a_step_that_says_nothing(self):
        self.assertEqual([], self.codes(flying('running'), 90_000))
        self.assertEqual(['no_progress'], self.codes(flying('running'), 90_001))
        still = {'what': 'running'}
        self.assertEqual([], self.codes(flying('running'), 90_001, still, at=50_000))

    def test_a_step_that_takes_too_long(self):
        late = {'what': 'progress', 'progress': {'text': 'x', 'overdue': True}}
        self.assertEqual(['overdue'], self.codes(flying('running'), 100, late))

    def test_it_is_over_with_the_attempt(self):
        ear, board = alarms.Ear(), flying('dispatched')
        self.assertEqual(1, len(ear.alarms(board, NOW + 70_000)))
        board.apply('0', state='succeeded')
        self.assertEqual([], ear.alarms(board, NOW + 70_001))
        board.apply('0', state='dispatched', attempt=2, started_at=None)
        self.assertEqual([], ear.alarms(board, NOW + 70_002))

    def test_every_code_has_a_hint(self):
        board = flying('dispatched')
        (found,) = alarms.Ear().alarms(board, NOW + 70_000)
        self.assertIn('upgrade-service-engine', found.row()['hint'])


class TestWhoIsThere(base.TestCase):
    """A lost engine only makes its steps not ready; a lost service takes its host out."""

    def _board(self):
        b = test_ready.board(
            ('upgrade_service', 'a', []), ('upgrade_service', 'b', []), ('prefetch', 'c', [])
        )
        return b

    def test_an_engine_that_is_not_heard_of(self):
        b = self._board()
        b.absent = {'agent-a', 'agent-c'}
        self.assertEqual(([[1]], []), test_ready.pick(b))
        self.assertEqual(set(), b.hosts_out())
        codes = {(a.code, a.host) for a in alarms.Ear().alarms(b, NOW)}
        self.assertEqual({('engine_lost', 'a'), ('engine_lost', 'c')}, codes)
        b.absent = set()
        self.assertEqual(([[0], [2]], []), test_ready.pick(b))
        self.assertEqual('', alarms.waits(b, NOW))

    def test_a_service_that_goes_down_during_the_run(self):
        b = self._board()
        b.down = {'b': 'nova-compute', 'z': 'not in the plan'}
        self.assertEqual({'b'}, b.hosts_out())
        # b may be worked on: it is out already; a must wait
        self.assertEqual(([[1], [2]], []), test_ready.pick(b))
        self.assertEqual(([[0], [1], [2]], []), test_ready.pick(b, {'max_unavailable': 2}))
        self.assertIn('nova-compute on b went down', alarms.waits(b, NOW))
        b.down = {}
        self.assertEqual(([[0], [2]], []), test_ready.pick(b))

    def test_a_host_is_not_emptied_while_a_service_of_it_is_down(self):
        """As after a restart of the message bus: in a minute it is there again."""
        done = {'state': 'succeeded', 'attempt': 1}
        for plan in (
            [('disable_host', 'a', [])],
            [('disable_host', 'a', [], done), ('drain_host', 'a', [0])],
        ):
            b = test_ready.board(*plan)
            b.down = {'a': 'nova-compute'}
            self.assertEqual(([], []), test_ready.pick(b))
            self.assertIn('nova-compute on a went down', alarms.waits(b, NOW))
            b.down = {}
            self.assertEqual(([], [len(plan) - 1]), test_ready.pick(b))

    def test_what_we_took_out_ourselves_is_no_news(self):
        b = test_ready.board(
            ('upgrade_service', 'a', [], {'state': 'running', 'attempt': 1}),
            ('upgrade_service', 'b', []),
        )
        b.down = {'a': 'nova-compute'}
        self.assertEqual([], alarms.lost_services(b, NOW))
        self.assertFalse(ready.Budget(b, POLICY).take('b'))


class TestAlarmsOfARun(test_broker.BrokerCase):
    def _problems(self):
        return {(p['code'], p['step']) for p in db.problem_list(self.ctx, upgrade_id=self.ref)}

    def until(self, what):
        for _ in range(1000):
            if found := what():
                return found
            self.broker.wake()
            self.broker.join(0.02)
        raise AssertionError(self._problems())

    def test_they_come_and_go_on_record(self):
        self.own(database.chain_plan(['check_host']))
        ((step, attempt),) = self.played.orders.get(timeout=20)
        why = {'reason': 'clock_skew', 'message': 'the clocks differ'}
        self.say(step, attempt, 'refused', **why)
        self.until(lambda: self._problems() == {('held_back', 0)})
        row = db.upgrade_get(self.ctx, self.ref)
        self.assertIn('the clocks differ', row['message'])
        self.assertEqual('running', row['state'])
        self.say(step, attempt)
        self.wait_state('succeeded')
        events = db.event_list(self.ctx, self.ref)
        (came,) = [e for e in events if e['kind'] == 'alarm']
        self.assertEqual((step, attempt), (came['step_id'], came['attempt']))
        self.assertEqual([], db.verify(self.ctx, self.ref).wrong)

    def test_a_new_owner_knows_them(self):
        self.own(database.chain_plan(['check_host']))
        ((step, attempt),) = self.played.orders.get(timeout=20)
        self.say(step, attempt, 'refused', reason='inhibited', message='x')
        self.until(self._problems)
        self.broker.lose()
        self.broker.join(10)
        db.ownership_release(self.ctx, 'me')
        self.take('you')
        self.until(lambda: not self._problems())
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual((1, 1), (kinds.count('alarm'), kinds.count('alarm_over')))

    def say(self, step, attempt, what='outcome', result='succeeded', **more):
        if what == 'outcome':
            super().say(step, attempt, result=result)
            return
        agent = db.step_get(self.ctx, self.ref, step)['executor']
        ids = {'upgrade': self.ref, 'step': step, 'attempt': attempt, 'agent': agent}
        self.broker.deliver({**ids, 'what': what, **more})

    def test_what_waits_too_long_is_blocked_until_a_person_says_go_on(self):
        self.conf.set_override('control_plane_grace', 0, 'conductor')
        self.ref = database.draft(self.db, database.chain_plan(['check_host']))['id']
        agent = db.step_list(self.ctx, self.ref)[0]['executor']
        real = db.agents_absent
        self.addCleanup(setattr, db, 'agents_absent', real)
        db.agents_absent = lambda ctx, timeout: {agent}
        self.verb('start')
        self.take('me')
        row = self.wait_state('blocked')
        self.assertEqual('stuck', row['blocked_reason'])
        self.assertIn('the engine that does step 0', row['message'])
        self.broker.wake()
        self.broker.join(0.5)
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual(1, kinds.count('blocked'), kinds)
        db.agents_absent = real
        self.broker._absent.clear()
        self.broker._due['engines'] = 0.0
        self.verb('resume', acknowledge='stuck')
        for step, attempt in self.played.orders.get(timeout=20):
            self.say(step, attempt)
        self.wait_state('succeeded')

    def test_lost_commits(self):
        """An engine knows more than the rows: nothing goes on until a person says so."""
        self.own(database.chain_plan(['check_host', 'prefetch']))
        order = self.played.orders.get(timeout=20)
        step, attempt = order[0]
        current = {'attempt': 4, 'epoch': 70}
        self.say(step, attempt, 'refused', reason='epoch_regressed', current=current)
        row = self.wait_state('blocked')
        self.assertEqual('state_loss', row['blocked_reason'])
        other, n = order[1]
        self.say(other, n, 'refused', reason='epoch_regressed', current={'attempt': 9})
        self.until(lambda: len(db.upgrade_get(self.ctx, self.ref)['lost']['attempts']) == 2)
        self.assertRaises(exception.Conflict, self.verb, 'resume')
        self.verb('resume', acknowledge='state_loss')
        self.broker.join(10)
        self.assertFalse(self.broker.alive)
        found = self.take('you')
        self.assertEqual(71, found.epoch)
        self._assert_above(self.played.orders.get(timeout=20), {step: 5, other: 10})

    def _assert_above(self, order, expected):
        self.assertEqual(expected, dict(order))
        for step, attempt in order:
            self.say(step, attempt)
        self.wait_state('succeeded')
        self.assertEqual([], db.verify(self.ctx, self.ref).wrong)

    def test_a_past_owner_is_no_loss(self):
        self.own(database.chain_plan(['check_host']))
        ((step, attempt),) = self.played.orders.get(timeout=20)
        current = {'attempt': attempt, 'epoch': self.broker.epoch}
        self.say(step, attempt, 'refused', reason='epoch_regressed', current=current)
        self.say(step, attempt)
        self.wait_state('succeeded')


class TestDatabaseAway(test_broker.BrokerCase):
    """A turn that the database did not answer is decided anew from the rows."""

    def setUp(self):
        super().setUp()
        self.real = db.owner_turn
        self.addCleanup(setattr, db, 'owner_turn', self.real)
        self.tries = 0

    def break_turns(self, *, after):
        """Have the connection lost at the first two commits: before them, or after."""

        def turn(*args, **kw):
            self.tries += 1
            if self.tries > 2:
                return self.real(*args, **kw)
            if after:
                self.real(*args, **kw)
            raise exception.Busy(retry_after=1)

        db.owner_turn = turn

    def _run(self, **how):
        self.break_turns(**how)
        self.own(database.chain_plan(['check_host', 'gate', 'prefetch']))
        for _ in range(2):
            for step, attempt in self.played.orders.get(timeout=30):
                self.assertEqual(1, attempt)
                self.say(step, attempt)
        self.wait_state('succeeded')
        self.assertGreaterEqual(self.tries, 3)
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual((2, 2), (kinds.count('dispatched'), kinds.count('succeeded') - 1), kinds)
        self.assertEqual([], db.verify(self.ctx, self.ref).wrong)

    def test_nothing_was_written(self):
        self._run(after=False)

    def test_all_was_written_and_only_the_answer_was_lost(self):
        self.conf.set_override('resend_after', 0.1, 'conductor')
        self._run(after=True)
