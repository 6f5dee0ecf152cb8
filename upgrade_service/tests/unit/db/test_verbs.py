"""What operators ask for, in rows: accepted once, refused with a trace, decided by the first."""

import threading

from upgrade_service import exception, model
from upgrade_service.db import api as db
from upgrade_service.tests import base, database


class VerbsCase(base.TestCase):
    url: str | None = None

    def setUp(self):
        super().setUp()
        self.db = self.useFixture(database.Database(self.url))
        self.ctx = self.db.ctx
        self.ref = database.draft(self.db, database.host_plan())['id']

    def run_it(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        rows = db.ownership_claim(self.ctx, 'me', 60)
        self.epoch = next(r for r in rows if r['id'] == self.ref)['epoch']

    def move(self, *moves, upgrade=None):
        """Let the owner move steps: (ord, to which states, one after the other)."""
        for number, *path in moves:
            for new in path:
                step = db.step_get(self.ctx, self.ref, str(number))
                begins = new in ('dispatched', 'running') and step['state'] == 'pending'
                made = db.StepMove(
                    step=step['id'], old=step['state'], new=new, attempt=step['attempt'],
                    event=new, begins=begins,
                )  # fmt: skip
                db.owner_turn(self.ctx, self.ref, 'me', self.epoch, [made])
        if upgrade:
            state, values = upgrade
            move = db.UpgradeMove(state=state, event=state, values=values)
            db.owner_turn(self.ctx, self.ref, 'me', self.epoch, (), move)

    def verb(self, verb, **body):
        return db.upgrade_verb(self.ctx, self.ref, verb, body=body)

    def step(self, number):
        return db.step_get(self.ctx, self.ref, str(number))

    def events(self, kind):
        return [e for e in db.event_list(self.ctx, self.ref) if e['kind'] == kind]


class TestRefusals(VerbsCase):
    def test_a_refused_request_is_one_row_of_the_audit_trail(self):
        before = db.upgrade_get(self.ctx, self.ref)
        self.assertRaises(exception.IllegalVerb, self.verb, 'rollback')
        (event,) = self.events('verb_refused')
        self.assertEqual('alice', event['actor'])
        self.assertEqual(
            ('rollback', 'upgrade.verb.illegal', 'draft'),
            tuple(event['detail'][k] for k in ('verb', 'code', 'state')),
        )
        after = db.upgrade_get(self.ctx, self.ref)
        self.assertEqual((before['version'], before['seq'] + 1), (after['version'], after['seq']))

    def test_a_stale_version_changes_nothing_and_is_noted(self):
        self.assertRaises(
            exception.Stale, db.upgrade_verb, self.ctx, self.ref, 'start', if_match=99
        )
        self.assertRaises(
            exception.Stale, db.step_verb, self.ctx, self.ref, '1', 'retry', if_match=99
        )
        self.assertRaises(exception.Stale, db.upgrade_delete, self.ctx, self.ref, 99)
        self.assertEqual(
            ['start', 'retry', 'delete'],
            [e['detail']['verb'] for e in self.events('verb_refused')],
        )
        self.assertEqual('draft', db.upgrade_get(self.ctx, self.ref)['state'])

    def test_of_contradictory_verbs_the_first_commit_wins(self):
        self.run_it()
        answers = {}

        def ask(verb):
            try:
                answers[verb] = self.verb(verb)['next']
            except exception.IllegalVerb as e:
                answers[verb] = e.details['next']

        threads = [threading.Thread(target=ask, args=(v,)) for v in ('cancel', 'rollback')]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        row = db.upgrade_get(self.ctx, self.ref)
        self.assertEqual({row['next']}, set(answers.values()))
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        accepted = [k for k in kinds if k in ('cancel', 'rollback')]
        self.assertEqual((1, 1), (len(accepted), kinds.count('verb_refused')), kinds)


class TestResolve(VerbsCase):
    def setUp(self):
        super().setUp()
        self.run_it()
        self.move((1, 'running', 'succeeded'), (2, 'dispatched', 'unknown'))

    def resolve(self, outcome, number=2):
        body = {'outcome': outcome, 'evidence': 'looked'}
        return db.step_verb(self.ctx, self.ref, str(number), 'resolve', body)

    def test_it_did_end_well(self):
        self.assertEqual('succeeded', self.resolve('succeeded')['state'])
        (event,) = self.events('resolve')
        self.assertEqual('looked', event['detail']['asked']['evidence'])
        self.assertRaises(exception.Conflict, self.resolve, 'failed')

    def test_it_did_not_and_is_not_tried_again_by_itself(self):
        step = self.resolve('failed')
        self.assertEqual(('failed', True), (step['state'], step['final']))
        self.assertIn('resolved: looked', step['error'])
        self.assertRaises(exception.Conflict, self.resolve, 'failed')
        self.assertEqual('succeeded', self.resolve('succeeded')['state'])

    def test_only_what_failed_or_is_unknown(self):
        for number in (1, 3):
            self.assertRaises(exception.Conflict, self.resolve, 'failed', number)


class TestRollback(VerbsCase):
    def test_the_intent_is_kept_for_the_owner(self):
        self.run_it()
        self.move((1, 'running', 'succeeded'), (2, 'dispatched', 'succeeded'))
        row = self.verb('rollback', to='1')
        self.assertEqual(
            ('stopping', 'back', {'to': 1}), (row['state'], row['next'], row['intent'])
        )

    def test_to_no_step(self):
        self.run_it()
        self.assertRaises(exception.NotFound, self.verb, 'rollback', to='77')
        e = self.assertRaises(exception.Conflict, self.verb, 'rollback', to='7')
        self.assertIn('of the way back itself', str(e))

    def test_a_point_of_no_return_that_was_begun_counts_though_it_failed(self):
        self.run_it()
        self.move((5, 'dispatched', 'failed'))
        self.assertRaises(exception.NoWayBack, self.verb, 'rollback')
        self.assertEqual(5, db.rollback_floor(self.ctx, self.ref))


class TestLost(VerbsCase):
    def setUp(self):
        super().setUp()
        cluster = db.upgrade_get(self.ctx, self.ref)['cluster_id']
        self.cluster = cluster
        token, _ = db.enroll_token_create(self.ctx, 'cmp1')
        db.agent_enroll(self.ctx, token, 'cmp1', 'k1')

    def lose(self, host='cmp1'):
        return db.host_lost(self.ctx, self.cluster, host, 'burnt')

    def test_its_steps_are_skipped_there_and_back(self):
        self.run_it()
        self.move((1, 'running', 'succeeded'), (2, 'dispatched'))
        self.lose()
        states = [self.step(n)['state'] for n in range(1, 9)]
        self.assertEqual(['succeeded', 'skipped', 'skipped', 'pending', *['skipped'] * 4], states)
        row = db.upgrade_get(self.ctx, self.ref)
        self.assertEqual({'succeeded': 1, 'skipped': 3, 'pending': 1}, row['counters']['steps'])
        self.assertEqual('lost: burnt', self.step(2)['error'])
        (event,) = self.events('declare_lost')
        self.assertEqual('cmp1', event['detail']['host'])

    def test_its_engine_is_trusted_no_more(self):
        self.lose()
        self.assertEqual('revoked', db.agent_get(self.ctx, 'cmp1')['state'])
        token, _ = db.enroll_token_create(self.ctx, 'cmp1')
        self.assertEqual('active', db.agent_enroll(self.ctx, token, 'cmp1', 'k2')['state'])

    def test_a_host_that_nobody_knows(self):
        self.assertRaises(exception.NotFound, self.lose, 'cmp9')
        self.assertEqual('active', db.agent_get(self.ctx, 'cmp1')['state'])


class TestReplan(VerbsCase):
    def replan(self, plan):
        row = self.verb('replan')
        self.assertEqual('planning', row['state'])
        rows = db.ownership_claim(self.ctx, 'planner', 60)
        epoch = next(r for r in rows if r['id'] == self.ref)['epoch']
        db.plan_store(self.ctx, self.ref, 'planner', epoch, plan, {'cmp1': 'agent-cmp1'})
        return db.upgrade_get(self.ctx, self.ref)

    def at_rest(self):
        self.run_it()
        self.move(
            (1, 'running', 'succeeded'), (2, 'dispatched', 'succeeded'),
            (3, 'running', 'succeeded'), upgrade=('paused', {'gate': 'finish'}),
        )  # fmt: skip

    def test_a_draft_becomes_another_draft(self):
        row = self.replan(database.chain_plan(['check_host']))
        self.assertEqual(
            ('draft', 2, 1), (row['state'], row['revision'], row['counters']['total'])
        )
        self.assertEqual(['check_host'], [s['kind'] for s in db.step_list(self.ctx, self.ref)])

    def test_what_was_begun_is_paused_and_its_way_back_is_kept(self):
        self.at_rest()
        old = [s['id'] for s in db.step_list(self.ctx, self.ref, {'direction': 'back'})]
        row = self.replan(database.host_plan())
        self.assertEqual(('paused', None, 2), (row['state'], row['gate'], row['revision']))
        self.assertIsNotNone(row['live_cluster_id'])
        back = db.step_list(self.ctx, self.ref, {'direction': 'back'})
        self.assertEqual([6, 7, 8, 14, 15, 16], [s['ord'] for s in back])
        self.assertEqual(old, [s['id'] for s in back[3:]])
        # the way back of the new plan comes first
        edges = db.edge_list(self.ctx, self.ref)
        self.assertEqual([back[2]['id']], edges[back[3]['id']])
        left = db.step_list(self.ctx, self.ref, revision=1)
        self.assertEqual({'succeeded', 'cancelled'}, {s['state'] for s in left})

    def test_more_hosts_or_points_of_no_return_wait_at_a_gate(self):
        self.at_rest()
        more = model.Step(
            ord=9, stage='data_plane', kind='db_contract', host='cmp2', strategy='noop',
            project='nova', parents=(5,), ponr=True,
        )  # fmt: skip
        row = self.replan(database.host_plan('cmp1', more))
        self.assertEqual('replan', row['gate'])
        self.assertIn('1 more hosts and 1 more points of no return', row['message'])
        e = self.assertRaises(exception.Conflict, self.verb, 'resume')
        self.assertIn('approve gate replan', str(e))
        row = self.verb('approve', gate='replan')
        self.assertEqual(('running', []), (row['state'], row['approvals']))

    def test_not_while_something_is_unsettled(self):
        self.run_it()
        self.move(
            (1, 'running', 'succeeded'), (2, 'dispatched', 'failed'),
            upgrade=('blocked', {'blocked_reason': 'step_failed'}),
        )  # fmt: skip
        e = self.assertRaises(exception.Conflict, self.verb, 'replan')
        self.assertIn('step 2 (upgrade_service) is failed', str(e))

    def test_not_with_a_host_in_progress(self):
        self.run_it()
        self.move((1, 'running', 'succeeded'), upgrade=('paused', {}))
        e = self.assertRaises(exception.Conflict, self.verb, 'replan')
        self.assertIn('cmp1 is in progress', str(e))
