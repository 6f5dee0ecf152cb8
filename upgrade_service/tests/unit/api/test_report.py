"""The report of an upgrade, from rows."""

from typing import Any

from upgrade_service.api import report, types
from upgrade_service.tests import base

Row = dict[str, Any]


def step(number: int, kind: str, begun: int | None, ended: int | None, **more: Any) -> Row:
    """Make a row; times are in seconds."""
    return {
        'ord': number, 'id': str(number), 'kind': kind, 'stage': 'data_plane', 'host': 'cmp1',
        'project': None, 'direction': 'forward', 'state': 'succeeded', 'attempt': 1,
        'progress': None, 'error': None,
        'started_at': begun and begun * 1000, 'finished_at': ended and ended * 1000, **more,
    }  # fmt: skip


UPGRADE: Row = {
    'id': 'u', 'name': 'first', 'state': 'rolled_back', 'direction': 'back',
    'started_at': 1_000, 'finished_at': 101_000,
}  # fmt: skip


class TestReport(base.TestCase):
    def report(self, *steps: Row, requests: tuple[Row, ...] = ()) -> Row:
        found: Row = types.plain(report.report(UPGRADE, steps, requests))
        return found

    def test_there_and_back_is_out_twice(self) -> None:
        found = self.report(
            step(1, 'disable_host', 1, 2),
            step(2, 'enable_host', 20, 21),
            step(3, 'disable_host', 60, 61, direction='back'),
            step(4, 'enable_host', 69, 70, direction='back'),
        )
        (host,) = found['hosts']
        self.assertEqual(30.0, host['seconds_out'])
        self.assertEqual(
            [('forward', 20.0), ('back', 10.0)],
            [(s['direction'], s['seconds']) for s in found['stages']],
        )
        self.assertEqual(100.0, found['seconds'])

    def test_steps_of_a_chain_overlap(self) -> None:
        chain = [step(n, 'upgrade_service', 10, 10 + n) for n in (5, 9, 12)]
        (host,) = self.report(*chain, step(20, 'verify_host', 30, 31))['hosts']
        self.assertEqual(13.0, host['seconds'])
        self.assertNotIn('seconds_out', {k for k, v in host.items() if v is not None})

    def test_migrations_with_their_times(self) -> None:
        moves = {'s1': {'to': 'cmp2', 'state': 'moved', 'tries': 1, 'seconds': 26.0}}
        drain = step(1, 'drain_host', 1, 40, progress={'moves': moves})
        (moved,) = self.report(drain)['migrations']
        self.assertEqual(
            ('s1', 'cmp1', 'cmp2', 26.0),
            tuple(moved[k] for k in ('server', 'source', 'target', 'seconds')),
        )

    def test_what_did_not_just_succeed(self) -> None:
        found = self.report(
            step(1, 'check_host', 1, 2, state='skipped'),
            step(2, 'prefetch', 1, 9, attempt=2),
            step(3, 'upgrade_service', 10, 11, state='unknown', error='lost'),
            step(4, 'verify_host', None, None, state='pending', attempt=0),
        )
        self.assertEqual([1], [s['ord'] for s in found['skipped']])
        self.assertEqual([2], [s['ord'] for s in found['retried']])
        self.assertEqual([('lost', 3)], [(s['error'], s['ord']) for s in found['failed']])

    def test_who_asked_for_what(self) -> None:
        asked = {'at': 5, 'actor': 'alice', 'kind': 'approve', 'step_id': None, 'detail': {}}
        (request,) = self.report(requests=(asked,))['requests']
        self.assertEqual(('alice', 'approve'), (request['actor'], request['verb']))
