"""What may begin next: pure decisions on hand-made boards."""

import copy

from upgrade_service import model
from upgrade_service.conductor import board as boards
from upgrade_service.conductor import ready
from upgrade_service.tests import base

POLICY = copy.deepcopy(model.POLICY_DEFAULTS)


def rows(*steps):
    """Make rows from (kind, host, parents, values) tuples; ids are their numbers."""
    made, edges = [], {}
    for n, (kind, host, parents, *more) in enumerate(steps):
        row = {
            'id': str(n), 'ord': n, 'stage': 'check', 'kind': kind, 'direction': 'forward',
            'host': host, 'executor': f'agent-{host}' if host else None, 'project': None,
            'strategy': 'noop', 'params': {}, 'ponr': False, 'state': 'pending', 'attempt': 0,
            'undo_of': None, 'not_before': None, 'progress': None, 'error': None,
            'final': False,
            'started_at': None, 'finished_at': None, **(more[0] if more else {}),
        }  # fmt: skip
        made.append(row)
        edges[str(n)] = [str(p) for p in parents]
    return made, edges


def board(*steps, azs=None):
    return boards.Board(*rows(*steps), azs)


def pick(b, policy=None, now=0, room=32):
    picks = ready.pick(b, {**POLICY, **(policy or {})}, now, room)
    return [[n.ord for n in chain] for chain in picks.chains], [n.ord for n in picks.cloud]


class TestPick(base.TestCase):
    def test_steps_of_one_host_ride_in_one_order(self):
        b = board(('check_host', 'a', []), ('prefetch', 'a', [0]), ('verify_host', 'a', [1]))
        self.assertEqual(([[0, 1, 2]], []), pick(b))

    def test_a_cloud_step_between_ends_the_chain(self):
        b = board(('check_host', 'a', []), ('verify_service', 'a', [0]), ('prefetch', 'a', [1]))
        self.assertEqual(([[0]], []), pick(b))

    def test_a_parent_on_another_host_ends_the_chain(self):
        b = board(('check_host', 'a', []), ('check_host', 'b', []), ('prefetch', 'a', [0, 1]))
        self.assertEqual(([[0], [1]], []), pick(b))

    def test_one_host_step_in_flight_for_a_host(self):
        b = board(('check_host', 'a', [], {'state': 'running', 'attempt': 1}),
                  ('check_host', 'a', []))  # fmt: skip
        self.assertEqual(([], []), pick(b))

    def test_no_more_than_there_is_room_for(self):
        b = board(*[('check_host', f'h{n}', []) for n in range(5)])
        self.assertEqual(([[0], [1]], []), pick(b, room=2))

    def test_without_an_engine_nothing_begins(self):
        b = board(('check_host', 'a', [], {'executor': None}))
        self.assertEqual(([], []), pick(b))

    def test_an_engine_of_several_hosts_gets_one_run_for_them(self):
        one, other = {'executor': 'deploy'}, {'executor': 'deploy', 'params': {'version': '2'}}
        b = board(
            ('check_host', 'a', [], one),
            ('prefetch', 'a', [0], one),
            ('check_host', 'b', [], one),
            ('check_host', 'c', [], other),
            ('check_host', 'd', []),
        )
        self.assertEqual(([[0, 2], [4]], []), pick(b))
        self.assertEqual(([[0, 2]], []), pick(b, room=2))

    def test_an_engine_at_work_for_one_host_gets_nothing_for_another(self):
        one = {'executor': 'deploy'}
        b = board(
            ('check_host', 'a', [], {**one, 'state': 'running', 'attempt': 1}),
            ('check_host', 'b', [], one),
        )
        self.assertEqual(([], []), pick(b))

    def test_a_run_for_several_hosts_stays_within_the_budget(self):
        b = board(*[('upgrade_service', h, [], {'executor': 'deploy'}) for h in 'abc'])
        self.assertEqual(([[0, 1]], []), pick(b, {'max_unavailable': 2}))

    def test_not_before_its_time(self):
        b = board(('check_host', 'a', [], {'not_before': 100}))
        self.assertEqual(([], []), pick(b, now=99))
        self.assertEqual(([[0]], []), pick(b, now=100))

    def test_only_so_many_hosts_out_at_once(self):
        b = board(*[('disable_host', f'h{n}', []) for n in range(4)])
        self.assertEqual(([], [0]), pick(b))
        self.assertEqual(([], [0, 1]), pick(b, {'max_unavailable': 2}))
        self.assertEqual(([], [0, 1]), pick(b, {'max_unavailable': '50%'}))

    def test_a_disabled_host_stays_out_until_it_is_enabled(self):
        b = board(
            ('disable_host', 'a', [], {'state': 'succeeded', 'attempt': 1}),
            ('enable_host', 'a', [0], {'not_before': 5}),
            ('disable_host', 'b', []),
        )
        self.assertEqual(([], []), pick(b))
        b.apply('1', state='succeeded', attempt=1)
        self.assertEqual(([], [2]), pick(b))

    def test_a_failed_host_counts_as_out(self):
        b = board(('upgrade_service', 'a', [], {'state': 'failed', 'attempt': 3}),
                  ('disable_host', 'b', []))  # fmt: skip
        self.assertEqual(([], []), pick(b))

    def test_a_limit_for_each_zone(self):
        b = board(
            *[('disable_host', f'h{n}', []) for n in range(4)],
            azs={'h0': 'x', 'h1': 'x', 'h2': 'y', 'h3': 'y'},
        )
        self.assertEqual(([], [0, 2]), pick(b, {'max_unavailable': 4, 'per_az': 1}))

    def test_a_chain_stops_before_what_the_budget_forbids(self):
        b = board(
            ('disable_host', 'b', [], {'state': 'succeeded', 'attempt': 1}),
            ('prefetch', 'a', []),
            ('upgrade_service', 'a', [1]),
        )
        self.assertEqual(([[1]], []), pick(b))


class TestFailures(base.TestCase):
    def test_retry_only_what_is_harmless_and_not_final(self):
        cases = (
            ({'state': 'failed', 'attempt': 1}, True),
            ({'state': 'failed', 'attempt': 3}, False),
            ({'state': 'failed', 'attempt': 1, 'final': True}, False),
            ({'state': 'unknown', 'attempt': 1}, False),
        )
        for values, expected in cases:
            node = board(('prefetch', 'a', [], values)).nodes['0']
            self.assertEqual(expected, ready.retries(node), values)

    def test_one_failed_host_does_not_trip_the_breaker(self):
        b = board(
            ('upgrade_service', 'a', [], {'state': 'failed', 'attempt': 3, 'finished_at': 5}),
            ('upgrade_service', 'b', []),
        )
        self.assertIsNone(ready.breaker(b, POLICY))

    def test_two_hosts_in_a_row_trip_it_but_not_with_a_success_between(self):
        def failed(at):
            return {'state': 'failed', 'attempt': 3, 'finished_at': at}

        steps = [('upgrade_service', 'a', [], failed(5)), ('upgrade_service', 'b', [], failed(9))]
        steps += [('upgrade_service', f'h{n}', []) for n in range(40)]
        self.assertIn('one after the other', ready.breaker(board(*steps), POLICY))
        good = ('enable_host', 'h0', [], {'state': 'succeeded', 'finished_at': 7})
        self.assertIsNone(ready.breaker(board(*steps, good), POLICY))


class TestRelease(base.TestCase):
    def _host(self, upgraded):
        return board(
            ('disable_host', 'a', [], {'state': 'succeeded', 'attempt': 1}),
            ('upgrade_service', 'a', [0], upgraded[0]),
            ('upgrade_service', 'a', [1], upgraded[1]),
            ('enable_host', 'a', [2]),
        )

    def test_untouched_and_whole_hosts_go_back_into_service_halves_do_not(self):
        done, none = {'state': 'succeeded', 'attempt': 1}, {}
        failed = {'state': 'failed', 'attempt': 3}
        self.assertEqual({'3'}, ready.release(self._host((none, none))))
        self.assertEqual({'3'}, ready.release(self._host((done, done))))
        self.assertEqual(set(), ready.release(self._host((done, none))))
        self.assertEqual(set(), ready.release(self._host((done, failed))))

    def test_a_host_never_disabled_is_left_alone(self):
        b = board(('disable_host', 'a', []), ('enable_host', 'a', [0]))
        self.assertEqual(set(), ready.release(b))


class TestBoard(base.TestCase):
    def test_frontier_follows_every_change(self):
        b = board(('check_host', 'a', []), ('check_host', 'b', [0]), ('gate', None, [0, 1]))
        self.assertEqual([0], [n.ord for n in b.ready(0)])
        b.apply('0', state='succeeded')
        self.assertEqual([1], [n.ord for n in b.ready(0)])
        b.apply('1', state='skipped')
        self.assertEqual([2], [n.ord for n in b.ready(0)])
        b.apply('0', state='pending')
        self.assertEqual([0], [n.ord for n in b.ready(0)])

    def test_tally(self):
        b = board(
            ('upgrade_service', 'a', [], {'state': 'succeeded', 'attempt': 1}),
            ('upgrade_service', 'b', [], {'state': 'failed', 'attempt': 3}),
            ('upgrade_service', 'c', []),
            ('check_host', 'd', []),
        )
        self.assertEqual({'total': 3, 'done': 1, 'held': 1}, b.tally())
