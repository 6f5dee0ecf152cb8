"""What a journal remembers after anything that can happen to its file."""

import errno
import os
import pathlib
import tempfile
from typing import Any
from unittest import mock

from upgrade_service.engine import accept, journal
from upgrade_service.tests import base

NOW = 1_000_000


def accepted(step, attempt=1, epoch=1, in_process=False, nbf=NOW):
    return {
        'r': 'accepted',
        't': NOW,
        'upgrade': 'u',
        'epoch': epoch,
        'nbf': nbf,
        'boot': 'b',
        'steps': [[step, attempt, in_process]],
    }


def ended(step, attempt=1, what='outcome'):
    item = {'upgrade': 'u', 'step': step, 'attempt': attempt, 'what': what, 'outcome': {}}
    return {'r': 'ended', 't': NOW, 'items': [item]}


class JournalCase(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, 'journal')

    def open(self, **kw):
        opened = journal.Journal(self.path, NOW, **kw)
        self.addCleanup(opened.close)
        return opened


class TestJournal(JournalCase):
    def states(self, book):
        return {key: entry.state for key, entry in book.attempts.items()}

    def test_remembers(self):
        book = self.open()
        book.append([accepted('a'), accepted('b', 3, epoch=4)], sync=True)
        book.append([ended('a')], sync=False)
        revoked = {'r': 'revoked', 't': 1, 'upgrade': 'u', 'epoch': 5, 'nbf': 7}
        book.append([{**revoked, 'steps': [['c', 2]]}], sync=True)
        for again in (book, self.open()):
            self.assertEqual(
                {('a', 1): 'outcome', ('b', 3): 'accepted', ('c', 2): 'revoked'},
                self.states(again),
            )
            self.assertEqual({'u': (5, 7)}, again.epochs)
            self.assertEqual([('b', 3)], [e.key for e in again.open_attempts()])

    def test_every_torn_end_is_cut_and_nothing_else_is_lost(self):
        book = self.open()
        book.append([accepted('a')], sync=True)
        whole = self.path.read_bytes()
        last = journal.frame(accepted('b'))
        for cut in range(1, len(last)):
            self.path.write_bytes(whole + last[:cut])
            self.path.with_suffix('.size').unlink()  # of the longer one of the turn before
            again = self.open()
            self.assertFalse(again.damaged)
            self.assertEqual({('a', 1): 'accepted'}, self.states(again))
            again.append([accepted('c')], sync=True)
            self.assertEqual({('a', 1), ('c', 1)}, set(self.open().attempts))

    def test_any_flipped_bit_is_seen(self):
        book = self.open()
        book.append([accepted('a'), ended('a'), accepted('b')], sync=True)
        whole = self.path.read_bytes()
        end = whole.rindex(b'\n', 0, -1)
        for at in range(0, end, 7):
            self.path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            again = journal.Journal(self.path, NOW + 5)
            self.assertTrue(again.damaged, at)
            self.assertEqual(NOW + 5, again.floor)
            self.assertIn(('b', 1), again.attempts)
            again.close()

    def test_damage_is_settled_once(self):
        book = self.open()
        book.append([accepted('a'), accepted('b')], sync=True)
        raw = bytearray(self.path.read_bytes())
        raw[20] ^= 1
        self.path.write_bytes(raw)
        self.assertTrue(self.open().damaged)
        again = self.open()
        self.assertFalse(again.damaged)
        self.assertEqual(NOW, again.floor)
        self.assertEqual(1, len(list(self.path.parent.glob('*.damaged-*'))))

    def test_a_lost_journal_believes_no_older_order(self):
        book = self.open(expected=True)
        self.assertTrue(book.damaged)
        self.assertEqual(NOW, book.floor)

    def test_a_full_disk_changes_nothing(self):
        book = self.open()
        book.append([accepted('a')], sync=True)
        full = OSError(errno.ENOSPC, 'full')
        with mock.patch.object(os, 'fdatasync', autospec=True, side_effect=full):
            self.assertRaises(OSError, book.append, [accepted('b')], True)
        self.assertEqual({('a', 1)}, set(book.attempts))
        self.assertEqual({('a', 1)}, set(self.open().attempts))

    def test_compaction_keeps_what_is_open_or_young(self):
        book = self.open()
        book.append([accepted(s) for s in 'abcd'] + [ended(s) for s in 'abc'], sync=True)
        book.append([{'r': 'recorded', 't': NOW, 'steps': [['a', 1], ['b', 1]]}], sync=False)
        later = NOW + journal.KEEP
        book.append([{'r': 'revoked', 't': later, 'upgrade': 'u', 'steps': [['e', 1]]}], True)
        self.assertEqual([], book.compact(later))
        self.assertEqual({('a', 1), ('b', 1)}, set(book.compact(later + 1)))
        book.append([accepted('f')], sync=True)
        expected = {
            ('c', 1): 'outcome',
            ('d', 1): 'accepted',
            ('e', 1): 'revoked',
            ('f', 1): 'accepted',
        }
        for again in (book, self.open()):
            self.assertEqual(expected, self.states(again))
            self.assertEqual({'u': (1, NOW)}, again.epochs)


class TestAcceptRule(JournalCase):
    """The rule as a table: what the order says, what the engine knows, what follows."""

    ORDER = {'upgrade': 'u', 'epoch': 3, 'nbf': NOW, 'exp': NOW + 600_000, 'digest': 'd'}
    SITUATION = {'now': NOW + 1000, 'skew': 120_000, 'digest': 'd'}

    #: changes of the order, changes of the situation -> refusal
    ORDERS: tuple[Any, ...] = (
        ({}, {}, None),
        ({'nbf': NOW + 121_001}, {}, 'clock_skew'),
        ({'nbf': NOW + 121_000}, {}, None),
        ({'nbf': NOW - 119_000}, {}, None),
        ({'nbf': NOW - 119_001}, {}, 'clock_skew'),
        ({'exp': NOW + 999}, {}, 'expired'),
        ({'exp': NOW + 1000}, {}, None),
        ({'epoch': 2}, {}, 'epoch_regressed'),
        ({'epoch': 2, 'nbf': NOW - 60_000}, {}, 'stale_epoch'),
        ({'epoch': 4}, {}, None),
        ({'epoch': 1, 'upgrade': 'other'}, {}, None),
        ({'digest': 'x'}, {}, 'project_data_mismatch'),
        ({}, {'inhibited': True}, 'inhibited'),
        ({}, {'busy': True}, 'busy'),
        ({'digest': 'x'}, {'busy': True}, 'project_data_mismatch'),
        ({'epoch': 2, 'digest': 'x'}, {'inhibited': True}, 'epoch_regressed'),
    )
    #: step, attempt -> refusal; the journal holds a/2 open, b/2 ended, c/2 revoked
    STEPS = (
        (('a', 1), 'stale_attempt'),
        (('a', 3), 'busy'),
        (('b', 2), 'stale_attempt'),
        (('b', 3), None),
        (('c', 1), 'stale_attempt'),
        (('c', 3), None),
        (('d', 1), None),
    )

    def test_orders(self):
        book = self.open()
        book.append([accepted('z', epoch=3, nbf=NOW - 30_000)], sync=True)
        for changes, situation, expected in self.ORDERS:
            now = accept.Situation(**{**self.SITUATION, **situation})
            found = accept.judge_order({**self.ORDER, **changes}, book, now)
            self.assertEqual(expected, found, (changes, situation))
            self.assertTrue(found is None or found in accept.REASONS)

    def test_orders_from_before_a_damage_are_not_believed(self):
        book = self.open(expected=True)
        now = accept.Situation(**self.SITUATION)
        old = {**self.ORDER, 'nbf': NOW - 1}
        self.assertEqual('expired', accept.judge_order(old, book, now))
        self.assertIsNone(accept.judge_order(self.ORDER, book, now))

    def test_steps(self):
        book = self.open()
        book.append([accepted(s, 2) for s in 'abc'] + [ended('b', 2)], sync=True)
        revoked = {'r': 'revoked', 't': NOW, 'upgrade': 'u', 'epoch': 1, 'steps': [['c', 2]]}
        book.append([revoked], sync=True)
        for (step, attempt), expected in self.STEPS:
            found = accept.judge_step({'step': step, 'attempt': attempt}, book)
            self.assertEqual(expected, found, (step, attempt))
