"""The one door: what a turn lets through, and what it leaves behind."""

from upgrade_service import exception
from upgrade_service.db import api as db
from upgrade_service.db import turns
from upgrade_service.tests import base, database


class TurnsCase(base.TestCase):
    url: str | None = None

    def setUp(self):
        super().setUp()
        self.db = self.useFixture(database.Database(self.url))
        self.ctx = self.db.ctx
        self.upgrade = database.draft(self.db, database.chain_plan(['check_host'] * 3))
        self.ref = self.upgrade['id']

    def _own(self, owner='me', ttl=10):
        rows = db.ownership_claim(self.ctx, owner, ttl)
        return next((r for r in rows if r['id'] == self.ref), None)

    def _move(self, step, old, new, attempt, **more):
        more.setdefault('event', new)
        return db.StepMove(step=step['id'], old=old, new=new, attempt=attempt, **more)

    def _start(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        return self._own()


class TestTurns(TurnsCase):
    def test_all_or_nothing(self):
        epoch = self._start()['epoch']
        one, two, _ = db.step_list(self.ctx, self.ref)
        good = self._move(one, 'pending', 'dispatched', 0, begins=True)
        bad = self._move(two, 'running', 'succeeded', 0)
        before = db.upgrade_get(self.ctx, self.ref)
        self.assertRaises(db.Mismatch, db.owner_turn, self.ctx, self.ref, 'me', epoch, [good, bad])
        self.assertEqual(before, db.upgrade_get(self.ctx, self.ref))
        self.assertEqual('pending', db.step_get(self.ctx, self.ref, one['id'])['state'])

    def test_an_attempt_is_checked_as_well_as_the_state(self):
        epoch = self._start()['epoch']
        step = db.step_list(self.ctx, self.ref)[0]
        stale = self._move(step, 'pending', 'dispatched', 1, begins=True)
        self.assertRaises(db.Mismatch, db.owner_turn, self.ctx, self.ref, 'me', epoch, [stale])

    def test_an_illegal_transition_is_refused(self):
        epoch = self._start()['epoch']
        step = db.step_list(self.ctx, self.ref)[0]
        bad = self._move(step, 'pending', 'failed', 0)
        self.assertRaises(
            exception.UpgradeError, db.owner_turn, self.ctx, self.ref, 'me', epoch, [bad]
        )

    def test_a_past_owner_changes_nothing(self):
        epoch = self._start()['epoch']
        db.ownership_release(self.ctx, 'me')
        self.assertEqual(epoch + 1, self._own('you')['epoch'])
        step = db.step_list(self.ctx, self.ref)[0]
        move = self._move(step, 'pending', 'dispatched', 0, begins=True)
        self.assertRaises(db.Mismatch, db.owner_turn, self.ctx, self.ref, 'me', epoch, [move])
        self.assertRaises(
            exception.LostOwnership, db.progress_save, self.ctx, self.ref, 'me', epoch,
            step['id'], {},
        )  # fmt: skip

    def test_nothing_is_dispatched_after_a_pause_was_accepted(self):
        epoch = self._start()['epoch']
        step = db.step_list(self.ctx, self.ref)[0]
        db.upgrade_verb(self.ctx, self.ref, 'pause')
        move = self._move(step, 'pending', 'dispatched', 0, begins=True)
        self.assertRaises(
            db.Mismatch, db.owner_turn, self.ctx, self.ref, 'me', epoch, [move], None, ('running',)
        )

    def test_counters_are_kept_not_counted(self):
        epoch = self._start()['epoch']
        steps = db.step_list(self.ctx, self.ref)
        moves = [self._move(s, 'pending', 'dispatched', 0, begins=True) for s in steps[:2]]
        done = db.owner_turn(self.ctx, self.ref, 'me', epoch, moves)
        self.assertEqual({'pending': 1, 'dispatched': 2}, done['counters']['steps'])

    def test_the_events_are_a_chain_without_gaps(self):
        epoch = self._start()['epoch']
        steps = db.step_list(self.ctx, self.ref)
        begin = [self._move(s, 'pending', 'dispatched', 0, begins=True) for s in steps]
        end = [self._move(s, 'dispatched', 'succeeded', 1, output='done') for s in steps]
        db.owner_turn(self.ctx, self.ref, 'me', epoch, begin)
        db.owner_turn(self.ctx, self.ref, 'me', epoch, end)
        head, events = '', db.event_list(self.ctx, self.ref)
        for n, event in enumerate(events, 1):
            head = turns.chain(head, event)
            self.assertEqual((n, head), (event['seq'], event['hash']))
        row = db.upgrade_get(self.ctx, self.ref)
        self.assertEqual((len(events), head), (row['seq'], row['head_hash']))
        events[3]['detail'] = {'after': 'something else'}
        self.assertNotEqual(events[3]['hash'], turns.chain(events[2]['hash'], events[3]))
        self.assertEqual('done', db.step_output_get(self.ctx, steps[0]['id'])['text'])

    def test_changed_steps_are_found_by_the_number_of_the_event(self):
        epoch = self._start()['epoch']
        seen = db.upgrade_get(self.ctx, self.ref)['seq']
        step = db.step_list(self.ctx, self.ref)[1]
        move = self._move(step, 'pending', 'dispatched', 0, begins=True)
        seq = db.owner_turn(self.ctx, self.ref, 'me', epoch, [move])['seq']
        self.assertEqual(
            [step['id']], [r['id'] for r in db.steps_changed(self.ctx, self.ref, seen)]
        )
        self.assertEqual([], db.steps_changed(self.ctx, self.ref, seq))


class TestLeases(TurnsCase):
    def test_only_one_owner_while_the_lease_lasts(self):
        self.assertIsNotNone(self._start())
        self.assertIsNone(self._own('you'))

    def test_a_lease_that_ended_is_taken_with_a_higher_epoch(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        first = self._own(ttl=-1)
        second = self._own('you')
        self.assertEqual(first['epoch'] + 1, second['epoch'])
        self.assertEqual('me', second['previous'])
        self.assertEqual({}, db.ownership_renew(self.ctx, 'me', 10))
        self.assertEqual({self.ref: second['epoch']}, db.ownership_renew(self.ctx, 'you', 10))

    def test_a_draft_needs_no_owner(self):
        self.assertIsNone(self._own())


class TestVerbs(TurnsCase):
    def test_a_stale_version_changes_nothing(self):
        self.assertRaises(
            exception.Stale, db.upgrade_verb, self.ctx, self.ref, 'start', if_match=1
        )
        self.assertEqual('draft', db.upgrade_get(self.ctx, self.ref)['state'])

    def test_blocking_problems_forbid_the_start(self):
        problem = {
            'code': 'engine_missing', 'severity': 'blocking', 'host': 'cmp1', 'service': None,
            'message': 'no engine', 'hint': 'enrol one', 'acceptable': False,
        }  # fmt: skip
        self._problem(problem)
        error = self.assertRaises(
            exception.NotStartable, db.upgrade_verb, self.ctx, self.ref, 'start',
            body={'accept': ['engine_missing']},
        )  # fmt: skip
        self.assertIn('engine_missing', str(error))
        self.assertEqual('draft', db.upgrade_get(self.ctx, self.ref)['state'])

    def test_an_acceptable_problem_can_be_accepted(self):
        self._problem({
            'code': 'service_down', 'severity': 'blocking', 'host': 'cmp1', 'service': None,
            'message': 'down', 'hint': 'look', 'acceptable': True,
        })  # fmt: skip
        self.assertRaises(exception.NotStartable, db.upgrade_verb, self.ctx, self.ref, 'start')
        db.upgrade_verb(self.ctx, self.ref, 'start', body={'accept': ['service_down']})
        self.assertEqual(['service_down'], db.upgrade_get(self.ctx, self.ref)['accepted'])

    def _problem(self, values):
        import sqlalchemy as sa

        from upgrade_service.db import base as db_base
        from upgrade_service.db import models

        row = {'cluster_id': self.upgrade['cluster_id'], 'upgrade_id': self.ref, **values}
        with db_base.writer(self.ctx) as session:
            session.execute(sa.insert(models.Problem), [row])

    def test_two_live_upgrades_of_one_cluster_cannot_be(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        names = ('cluster_id', 'to_release', 'strategy', 'type', 'policy', 'selection')
        values = {k: self.upgrade[k] for k in names}
        other = db.upgrade_create(self.ctx, values)
        rows = db.ownership_claim(self.ctx, 'planner2', 10)
        row = next(r for r in rows if r['id'] == other['id'])
        plan = database.chain_plan(['check_host'])
        db.plan_store(self.ctx, row['id'], 'planner2', row['epoch'], plan, {})
        self.assertRaises(exception.NotStartable, db.upgrade_verb, self.ctx, row['id'], 'start')
        db.upgrade_verb(self.ctx, self.ref, 'pause')

    def test_each_request_is_one_event_even_if_it_is_already_so(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        version = db.upgrade_verb(self.ctx, self.ref, 'pause')['version']
        before = len(db.event_list(self.ctx, self.ref))
        self.assertEqual(version, db.upgrade_verb(self.ctx, self.ref, 'pause')['version'])
        events = db.event_list(self.ctx, self.ref)
        self.assertEqual(before + 1, len(events))
        self.assertEqual(('pause', 'alice'), (events[-1]['kind'], events[-1]['actor']))

    def test_only_a_stuck_step_can_be_retried_or_skipped(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        for verb in ('retry', 'skip'):
            self.assertRaises(exception.Conflict, db.step_verb, self.ctx, self.ref, '0', verb)

    def test_skipping_what_others_rely_on_needs_force_and_a_reason(self):
        upgrade = database.draft(self.db, database.chain_plan(['prefetch']))
        db.upgrade_verb(self.ctx, upgrade['id'], 'start')
        row = next(r for r in db.ownership_claim(self.ctx, 'me', 10) if r['id'] == upgrade['id'])
        step = db.step_list(self.ctx, upgrade['id'])[0]
        run = (self.ctx, upgrade['id'], 'me', row['epoch'])
        db.owner_turn(*run, [self._move(step, 'pending', 'dispatched', 0, begins=True)])
        db.owner_turn(*run, [self._move(step, 'dispatched', 'failed', 1, error='no')])
        self.assertRaises(exception.Conflict, db.step_verb, self.ctx, upgrade['id'], '0', 'skip')
        done = db.step_verb(
            self.ctx, upgrade['id'], '0', 'skip', {'force': True, 'reason': 'by hand'}
        )
        self.assertEqual('skipped', done['state'])

    def test_a_deleted_upgrade_leaves_its_events(self):
        db.upgrade_delete(self.ctx, self.ref)
        self.assertRaises(exception.NotFound, db.upgrade_get, self.ctx, self.ref)
        self.assertEqual('deleted', db.event_list(self.ctx, self.ref)[-1]['kind'])


class TestEnrolment(TurnsCase):
    def test_a_token_admits_one_engine_of_its_host_once(self):
        token, _ = db.enroll_token_create(self.ctx, 'cmp1')
        self.assertRaises(exception.Untrusted, db.agent_enroll, self.ctx, token, 'cmp2', 'k1')
        agent = db.agent_enroll(self.ctx, token, 'cmp1', 'k1')
        self.assertEqual('active', agent['state'])
        self.assertEqual(agent, db.agent_enroll(self.ctx, token, 'cmp1', 'k1'))
        self.assertRaises(exception.Untrusted, db.agent_enroll, self.ctx, token, 'cmp1', 'k2')

    def test_an_engine_under_review_waits_for_an_approval(self):
        token, _ = db.enroll_token_create(self.ctx, 'cmp1', review=True)
        agent = db.agent_enroll(self.ctx, token, 'cmp1', 'k1')
        self.assertEqual('pending', agent['state'])
        self.assertEqual('active', db.agent_set_state(self.ctx, 'cmp1', 'active')['state'])

    def test_an_expired_token_admits_nobody(self):
        token, _ = db.enroll_token_create(self.ctx, 'cmp1', lifetime=-1)
        self.assertRaises(exception.Untrusted, db.agent_enroll, self.ctx, token, 'cmp1', 'k1')

    def test_a_new_engine_of_a_host_revokes_the_old_one(self):
        for key in ('k1', 'k2'):
            token, _ = db.enroll_token_create(self.ctx, 'cmp1')
            db.agent_enroll(self.ctx, token, 'cmp1', key)
        states = {a['pubkey']: a['state'] for a in db.agent_list(self.ctx)}
        self.assertEqual({'k1': 'revoked', 'k2': 'active'}, states)
        self.assertEqual('k2', db.agent_get(self.ctx, 'cmp1')['pubkey'])


class TestDiscovery(TurnsCase):
    def test_a_wanted_discovery_is_taken_by_one(self):
        wanted = db.cluster_discover(self.ctx, self.upgrade['cluster_id'])
        self.assertEqual(1, len(db.discovery_claim(self.ctx, 10)))
        self.assertEqual([], db.discovery_claim(self.ctx, 10))
        db.discovery_failed(self.ctx, self.upgrade['cluster_id'], wanted, 'keystone is away')
        cluster = db.cluster_get(self.ctx, self.upgrade['cluster_id'])
        self.assertEqual('keystone is away', cluster['discover_error'])
