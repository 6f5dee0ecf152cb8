"""What engines say, at the right and at the wrong moment."""

from upgrade_service.conductor import outcomes
from upgrade_service.tests import base
from upgrade_service.tests.unit.conductor import test_ready

ENGINE = 'agent-a'


def item(what, attempt=1, **more):
    return {'upgrade': 'u', 'step': '0', 'attempt': attempt, 'what': what, 'agent': ENGINE, **more}


def outcome(result='succeeded', attempt=1, **said):
    return item('outcome', attempt, outcome={'result': result, **said})


class TestTake(base.TestCase):
    def _take(self, *items, kind='prefetch', state='dispatched', attempt=1):
        self.board = test_ready.board((kind, 'a', [], {'state': state, 'attempt': attempt}))
        taken = outcomes.take(self.board, items, 7)
        self.acks = taken.acks
        return taken, [(m.old, m.new, m.event) for m in taken.moves.values()]

    def test_the_same_outcome_twice_counts_once_and_is_answered_twice(self):
        _, moves = self._take(outcome(), outcome())
        self.assertEqual([('dispatched', 'succeeded', 'succeeded')], moves)
        self.assertEqual([(ENGINE, ('0', 1))] * 2, self.acks)

    def test_accepted_and_outcome_of_one_turn_become_one_move(self):
        _, moves = self._take(item('accepted'), outcome('failed', error='no disk'))
        self.assertEqual([('dispatched', 'failed', 'failed')], moves)
        self.assertEqual('no disk', self.board.nodes['0'].error)

    def test_accepted_after_the_outcome_changes_nothing(self):
        _, moves = self._take(outcome(), item('accepted'))
        self.assertEqual([('dispatched', 'succeeded', 'succeeded')], moves)

    def test_an_older_attempt_is_late(self):
        taken, moves = self._take(outcome(attempt=1), attempt=2)
        self.assertEqual([], moves)
        self.assertEqual(1, len(taken.late))
        self.assertEqual([(ENGINE, ('0', 1))], self.acks)

    def test_a_newer_attempt_than_the_database_knows_blocks(self):
        taken, moves = self._take(outcome(attempt=3), attempt=2)
        self.assertEqual('state_loss', taken.blocked[0])
        self.assertEqual(([], []), (moves, self.acks))

    def test_interrupted_is_failed_if_harmless_else_unknown(self):
        _, moves = self._take(item('interrupted', boot_changed=True), state='running')
        self.assertEqual([('running', 'failed', 'interrupted')], moves)

    def test_a_refusal_that_passes_leaves_the_order_out(self):
        for reason in outcomes.PASSING:
            self.assertEqual([], self._take(item('refused', reason=reason))[1])

    def test_a_refusal_for_good_fails_the_step_for_good(self):
        _, moves = self._take(item('refused', reason='not_allowed'))
        self.assertEqual([('dispatched', 'failed', 'refused')], moves)
        self.assertTrue(self.board.nodes['0'].final)

    def test_an_engine_that_knows_a_higher_epoch_blocks(self):
        taken, _ = self._take(item('refused', reason='epoch_regressed', current={'epoch': 9}))
        self.assertEqual('state_loss', taken.blocked[0])

    def test_a_refused_order_of_a_past_owner_means_nothing(self):
        taken, moves = self._take(item('refused', reason='stale_epoch', current={'epoch': 9}))
        self.assertEqual((None, []), (taken.blocked, moves))

    def test_revoked_gives_the_step_back(self):
        self.assertEqual([('dispatched', 'pending', 'revoked')], self._take(item('revoked'))[1])
        self.assertEqual([], self._take(item('revoked'), state='running')[1])

    def test_nonsense_is_not_believed(self):
        _, moves = self._take(outcome('fine'), state='running')
        self.assertEqual([('running', 'unknown', 'unknown')], moves)

    def test_drift_blocks_the_upgrade(self):
        drift = outcome('failed', error='a host is gone', data={'blocked_reason': 'drift'})
        taken, _ = self._take({**drift, 'agent': None}, kind='check_cloud', state='running')
        self.assertEqual(('drift', 'a host is gone'), taken.blocked)

    def test_an_engine_speaks_of_its_own_steps_only(self):
        for kind, agent in (('prefetch', 'agent-b'), ('prefetch', None), ('check_cloud', ENGINE)):
            _, moves = self._take({**outcome(), 'agent': agent}, kind=kind)
            self.assertEqual(([], []), (moves, self.acks))

    def test_a_character_that_no_database_takes_is_left_out(self):
        taken, _ = self._take(outcome('failed', error='no\0disk', output='\0'))
        (move,) = taken.moves.values()
        self.assertEqual(('nodisk', ''), (move.error, move.output))

    def test_what_is_not_known_is_not_believed(self):
        self.assertEqual([], self._take(item('teleported'))[1])
        self.assertEqual([], self.acks)
        # a result that is not known is no success
        _, moves = self._take(outcome('mostly_fine'))
        self.assertEqual([('dispatched', 'unknown', 'unknown')], moves)

    def test_an_epoch_that_is_not_beyond_ours_is_no_loss(self):
        """A past owner's order came late; what it heard is not about this one."""
        self.board = test_ready.board(('prefetch', 'a', [], {'state': 'dispatched', 'attempt': 1}))
        self.board.epoch = 9
        said = item('refused', reason='epoch_regressed', current={'epoch': 9, 'attempt': 1})
        self.assertIsNone(outcomes.take(self.board, [said], 7).blocked)


class TestLegible(base.TestCase):
    def test_what_engines_say_is_legible(self):
        for said in (
            outcome(rc=0, error='', output='', data={}),
            outcome(rc=None, error=None),
            item('accepted'),
            item('refused', reason='busy', current={'attempt': 0, 'epoch': 3}),
        ):
            self.assertTrue(outcomes.legible(said), said)

    def test_nothing_else_is(self):
        for said in (
            None, 7, 'x', [], {}, item('outcome'), item('outcome', outcome='x'), outcome(7),
            item('outcome', outcome={}), outcome(error=7), outcome(data=[]), outcome(output={}),
            item('accepted', '1'), item('accepted', 0), item('accepted', 2**31), item(7),
            item('accepted', step=['x']), item('accepted', upgrade=None),
            item('refused', current=7), item('refused', current={'attempt': 'x'}),
        ):  # fmt: skip
            self.assertFalse(outcomes.legible(said), said)
