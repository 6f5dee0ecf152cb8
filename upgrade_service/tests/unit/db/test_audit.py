"""What can be done to the rows of the audit trail, and what is said of it."""

import sqlalchemy as sa

from upgrade_service import context, exception
from upgrade_service.db import api as db
from upgrade_service.db import base as db_base
from upgrade_service.db import models, turns
from upgrade_service.tests.unit.db import test_turns

EVENTS = models.Event.__table__


class TestAudit(test_turns.TurnsCase):
    def setUp(self):
        super().setUp()
        epoch = self._start()['epoch']
        steps = db.step_list(self.ctx, self.ref)
        moves = [self._move(s, 'pending', 'dispatched', 0, begins=True) for s in steps]
        db.owner_turn(self.ctx, self.ref, 'me', epoch, moves)
        db.upgrade_verb(self.ctx, self.ref, 'pause')

    def _write(self, *statements):
        with db_base.writer(self.ctx) as session:
            for statement in statements:
                session.execute(statement)

    def _event(self, seq):
        return next(e for e in db.event_list(self.ctx, self.ref) if e['seq'] == seq)

    def _seq(self, seq):
        return (EVENTS.c.upgrade_id == self.ref) & (EVENTS.c.seq == seq)

    def _wrong(self, **kw):
        return [seq for seq, _ in db.verify(self.ctx, self.ref, **kw).wrong]

    def test_a_whole_trail(self):
        trail = db.verify(self.ctx, self.ref)
        events = db.event_list(self.ctx, self.ref)
        self.assertEqual([], trail.wrong)
        self.assertEqual((len(events), events[-1]['hash']), (trail.events, trail.head))
        self.assertGreaterEqual(trail.events, 7)

    def test_pages_are_read_on(self):
        self.patch(db.verify.__globals__, 'PAGE', 2)
        self.assertEqual([], self._wrong())

    def patch(self, namespace, name, value):
        old = namespace[name]
        namespace[name] = value
        self.addCleanup(namespace.__setitem__, name, old)

    def test_every_changed_field_is_seen_at_its_place(self):
        for seq in (1, 4):
            event = self._event(seq)
            for field, value in (
                ('detail', {'after': 'nothing'}),
                ('kind', 'resume'),
                ('at', 7),
                ('actor', 'mallory'),
                ('remote', '192.0.2.1'),
                ('project_id', 'other'),
                ('request_id', 'req-0'),
                ('hash', 'f' * 64),
            ):
                self._write(sa.update(EVENTS).where(self._seq(seq)).values({field: value}))
                self.assertIn(seq, self._wrong(), field)
                self._write(sa.update(EVENTS).where(self._seq(seq)).values({field: event[field]}))
        self.assertEqual([], self._wrong())

    def test_a_changed_row_with_a_hash_that_fits_it_breaks_the_next(self):
        forged = {**self._event(3), 'actor': 'mallory'}
        forged['hash'] = turns.chain(self._event(2)['hash'], forged)
        self._write(
            sa.update(EVENTS)
            .where(self._seq(3))
            .values(actor=forged['actor'], hash=forged['hash'])
        )
        self.assertEqual([4], self._wrong())

    def test_removed_rows(self):
        self._write(sa.delete(EVENTS).where(self._seq(3)))
        self.assertEqual([3], self._wrong())

    def test_a_cut_off_end(self):
        last = db.verify(self.ctx, self.ref).events
        self._write(sa.delete(EVENTS).where(self._seq(last)))
        self.assertEqual([last], self._wrong())
        self._write(sa.delete(EVENTS).where(EVENTS.c.upgrade_id == self.ref))
        self.assertEqual([1], self._wrong())

    def test_a_row_that_was_put_in(self):
        last = db.verify(self.ctx, self.ref)
        made = {**self._event(last.events), 'seq': last.events + 1, 'kind': 'resume', 'id': None}
        made['hash'] = turns.chain(last.head, made)
        del made['id']
        self._write(sa.insert(EVENTS).values(**made))
        self.assertEqual([last.events + 1], self._wrong())

    def test_rows_that_changed_places(self):
        ids = {seq: self._event(seq)['id'] for seq in (2, 3)}
        self._write(
            sa.update(EVENTS).where(EVENTS.c.id == ids[2]).values(seq=1000),
            sa.update(EVENTS).where(EVENTS.c.id == ids[3]).values(seq=2),
            sa.update(EVENTS).where(EVENTS.c.id == ids[2]).values(seq=3),
        )
        self.assertEqual([2, 3, 4], self._wrong())

    def test_a_chain_computed_anew_is_not_the_one_that_was_noted(self):
        noted = (4, self._event(4)['hash'])
        self.assertEqual([], self._wrong(head=noted))
        head = ''
        for event in db.event_list(self.ctx, self.ref):
            event['actor'] = 'mallory'
            head = turns.chain(head, event)
            change = {'actor': 'mallory', 'hash': head}
            self._write(sa.update(EVENTS).where(self._seq(event['seq'])).values(**change))
        self._write(sa.update(models.Upgrade).filter_by(id=self.ref).values(head_hash=head))
        self.assertEqual([], self._wrong())
        self.assertEqual([4], self._wrong(head=noted))

    def test_a_deleted_upgrade_is_still_audited(self):
        made = {k: self.upgrade[k] for k in ('cluster_id', 'to_release', 'strategy', 'policy')}
        other = db.upgrade_create(self.ctx, {**made, 'type': 'service', 'selection': {}})['id']
        db.upgrade_verb(self.ctx, other, 'cancel')
        db.upgrade_delete(self.ctx, other)
        self.assertEqual({self.ref, other}, set(db.audited(self.ctx)))
        self.assertEqual(other, db.upgrade_of(self.ctx, other))
        self.assertEqual([], db.verify(self.ctx, other).wrong)
        last = db.verify(self.ctx, other).events
        self._write(
            sa.delete(EVENTS).where(EVENTS.c.upgrade_id == other).where(EVENTS.c.seq == last)
        )
        self.assertEqual([last], [seq for seq, _ in db.verify(self.ctx, other).wrong])
        self.assertRaises(exception.NotFound, db.upgrade_of, self.ctx, 'nothing')

    def test_who_asked_and_from_where(self):
        asked = context.RequestContext(user_id='bob', project_id='p1', request_id='req-7')
        asked.remote_address = '192.0.2.7'
        db.upgrade_verb(asked, self.ref, 'pause', body={'reason': 'lunch'})
        last = db.event_list(self.ctx, self.ref)[-1]
        self.assertEqual(
            ('bob', 'p1', 'req-7', '192.0.2.7'),
            tuple(last[k] for k in ('actor', 'project_id', 'request_id', 'remote')),
        )
