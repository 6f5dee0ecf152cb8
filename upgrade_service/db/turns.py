"""The one door through which the state of an upgrade and of its steps changes.

A *turn* is one transaction on one upgrade. Its first statement locks the upgrade's row
and checks, in one, that whoever acts may act now: owner and epoch for a conductor, the
state for both. Everything read afterwards is current, because nobody else writes an
upgrade or its steps without that lock.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import hashlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context, exception, model, states
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, models

Context = context.RequestContext
Row = dict[str, Any]
#: ids in one IN (…) list
CHUNK = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMove:
    """One transition of one step, and what is to be remembered of it."""

    step: str
    old: str
    new: str
    attempt: int  #: the attempt it had before
    event: str  #: kind of the audit event
    begins: bool = False  #: makes a new attempt
    agent: str | None = None  #: who carries the new attempt out
    error: str | None = None
    final: bool = False  #: a failure that trying again cannot mend
    output: str = ''
    not_before: int | None = None
    detail: Row = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpgradeMove:
    """A transition of the upgrade itself; absent values stay as they are."""

    state: str
    event: str
    values: Row = dataclasses.field(default_factory=dict)
    detail: Row = dataclasses.field(default_factory=dict)


class Mismatch(Exception):
    """Rows are not what the caller thought; it must read again."""


class Turn:
    """An open turn: the locked row, and the events it will leave."""

    def __init__(self, session: orm.Session, row: models.Upgrade, now: int, actor: Context):
        self.session, self.row, self.now = session, row, now
        self._actor = actor
        self._seq, self._head = row.seq, row.head_hash
        self._events: list[Row] = []

    @property
    def seq(self) -> int:
        """The number of the last event so far."""
        return self._seq

    def event(
        self,
        kind: str,
        step: str | None = None,
        attempt: int | None = None,
        once: str | None = None,
        detail: Row | None = None,
    ) -> None:
        """Append an audit event; `once` makes a second one for the same attempt fail."""
        self._seq += 1
        said: Row = {
            'upgrade_id': self.row.id,
            'seq': self._seq,
            'kind': kind,
            'once': once,
            'step_id': step,
            'attempt': attempt,
            'at': self.now,
            'actor': self._actor.actor,
            'project_id': self._actor.project_id,
            'request_id': self._actor.request_id,
            'remote': self._actor.remote_address,
            'detail': detail or {},
        }
        self._head = chain(self._head, said)
        self._events.append({**said, 'hash': self._head})

    def close(self, values: Row) -> None:
        """Write events and what changed of the upgrade, in two statements."""
        if self._events:
            self.session.execute(sa.insert(models.Event), self._events)
            values = {**values, 'seq': self._seq, 'head_hash': self._head}
        if values:
            self.session.execute(
                sa.update(models.Upgrade)
                .filter_by(id=self.row.id)
                .values(**values)
                .execution_options(synchronize_session=False)
            )


def chain(head: str, event: Row) -> str:
    """Return the hash of an event that follows one with hash `head`."""
    said = {k: v for k, v in event.items() if k not in ('hash', 'id')}
    return hashlib.sha256((head + model.canonical(said)).encode()).hexdigest()


@contextlib.contextmanager
def turn(
    ctx: Context, upgrade_id: str, *where: Any, asked: askeds.Asked | None = None
) -> Iterator[Turn]:
    """Lock an upgrade for one transaction; `where` must hold or nothing happens.

    `asked`: what a client's change must meet as well.

    :raises Mismatch: the upgrade is gone or a condition does not hold.
    """
    upgrade = models.Upgrade
    with base.writer(ctx) as session:
        askeds.begin(session, asked)
        locked = session.execute(
            sa.update(upgrade)
            .where(upgrade.id == upgrade_id, *where)
            .values(seq=upgrade.seq)
            .execution_options(synchronize_session=False)
        )
        if locked.rowcount != 1:  # type: ignore[attr-defined]
            raise Mismatch(upgrade_id)
        row = session.get_one(upgrade, upgrade_id, populate_existing=True)
        session.expunge(row)
        if asked is not None:
            asked.count(session, ctx)
        yield Turn(session, row, base.clock(session), ctx)


def owned_by(owner: str, epoch: int, allowed: Sequence[str]) -> tuple[Any, ...]:
    u = models.Upgrade
    return u.owner == owner, u.epoch == epoch, u.state.in_(allowed)


@base.retry
def owner_turn(
    ctx: Context,
    upgrade_id: str,
    owner: str,
    epoch: int,
    moves: Sequence[StepMove] = (),
    upgrade: UpgradeMove | None = None,
    allowed: Sequence[str] = tuple(states.OWNED),
    hosts: Row | None = None,
) -> Row:
    """Carry out any number of transitions of an upgrade that `owner` owns, or none.

    All or nothing: a step that is not in the state its move begins with undoes the whole.
    `allowed`: states the upgrade must be in, checked in the same transaction, so that a
    dispatch can never be committed after an operator's pause was. `hosts`: the new count
    of hosts {total, done, held}.

    :returns: the new {seq, version, state, next, counters}.
    :raises Mismatch: rows are not what the caller read; read again.
    """
    with turn(ctx, upgrade_id, *owned_by(owner, epoch, allowed)) as t:
        changes: Row = {}
        if moves:
            changes['counters'] = move_steps(t, moves)
        if hosts:
            changes['counters'] = {**changes.get('counters', t.row.counters), 'hosts': hosts}
        if upgrade is not None:
            changes.update(_move_upgrade(t, upgrade, states.OWNER_MOVES))
        t.close(changes)
        return _summary(t, changes)


def _summary(t: Turn, changes: Row) -> Row:
    names = ('version', 'state', 'next', 'direction', 'counters')
    return {'seq': t.seq, **{n: changes.get(n, getattr(t.row, n)) for n in names}}


def _move_upgrade(t: Turn, move: UpgradeMove, legal: Any) -> Row:
    if (t.row.state, move.state) not in legal:
        raise Mismatch(f'{t.row.state} to {move.state}')
    t.event(move.event, detail={'before': t.row.state, 'after': move.state, **move.detail})
    return upgrade_values(t, move.state, move.values)


def upgrade_values(t: Turn, state: str, values: Row) -> Row:
    """Return the columns that change with a new state of the upgrade."""
    changes = {'state': state, 'version': t.row.version + 1, **values}
    if state in states.TERMINAL:
        changes.update(live_cluster_id=None, finished_at=t.now)
    if state not in states.OWNED:
        changes.update(owner=None, lease_until=0)
    return changes


def move_steps(t: Turn, moves: Sequence[StepMove]) -> Row:
    _check_current(t, moves)
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for m in moves:
        if not states.legal_step(m.old, m.new):
            raise exception.UpgradeError(f'illegal step transition {m.old} to {m.new}')
        groups[m.old, m.new, m.begins, m.error, m.not_before, m.final].append(m.step)
    for key, ids in groups.items():
        _update_steps(t, ids, *key)
    _write_attempts(t, moves)
    for m in moves:
        n = m.attempt + m.begins
        # a person may say twice how an attempt ended, an engine may not
        ends = m.new in states.STEP_DONE or m.new in states.STEP_STUCK
        once = ends and m.event not in states.STEP_VERBS
        t.event(
            m.event,
            m.step,
            n,
            once=m.event if once or m.begins else None,
            detail={'before': m.old, 'after': m.new, **m.detail},
        )
    return _count(t.row.counters, moves)


def _check_current(t: Turn, moves: Sequence[StepMove]) -> None:
    wanted = {m.step: (m.old, m.attempt) for m in moves}
    if len(wanted) != len(moves):
        raise Mismatch('two moves of one step in one turn')
    found = current(t.session, t.row.id, list(wanted))
    for step, expected in wanted.items():
        if found.get(step) != expected:
            raise Mismatch(f'step {step} is {found.get(step)}, not {expected}')


def current(session: orm.Session, upgrade_id: str, ids: list[str]) -> dict[str, tuple[str, int]]:
    """Return {step id: (state, attempt)} as it is now."""
    s = models.Step
    found = {}
    for at in range(0, len(ids), CHUNK):
        query = sa.select(s.id, s.state, s.attempt).where(
            s.upgrade_id == upgrade_id, s.id.in_(ids[at : at + CHUNK])
        )
        found.update({i: (state, n) for i, state, n in session.execute(query)})
    return found


def _update_steps(
    t: Turn,
    ids: list[str],
    old: str,
    new: str,
    begins: bool,
    error: str | None,
    not_before: int | None,
    final: bool,
) -> None:
    s = models.Step
    values: Row = {
        'state': new,
        'changed_seq': t.row.seq + 1,
        'error': error,
        'not_before': not_before,
        'final': final,
    }
    if begins:
        values.update(attempt=s.attempt + 1, started_at=t.now, finished_at=None)
    if new in states.STEP_ENDED or new in states.STEP_STUCK:
        values['finished_at'] = t.now
    for at in range(0, len(ids), CHUNK):
        part = ids[at : at + CHUNK]
        done = t.session.execute(
            sa.update(s)
            .where(s.upgrade_id == t.row.id, s.state == old, s.id.in_(part))
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        if done.rowcount != len(part):  # type: ignore[attr-defined]
            raise Mismatch('steps changed under the lock')


def _write_attempts(t: Turn, moves: Sequence[StepMove]) -> None:
    begun = [
        {
            'step_id': m.step,
            'n': m.attempt + 1,
            'upgrade_id': t.row.id,
            'epoch': t.row.epoch,
            'owner': t.row.owner or '',
            'agent_id': m.agent,
            'dispatched_at': t.now,
        }
        for m in moves
        if m.begins
    ]
    if begun:
        t.session.execute(sa.insert(models.Attempt), begun)
    _end_attempts(t, moves)
    outputs = [
        {'step_id': m.step, 'attempt': m.attempt, 'text': m.output} for m in moves if m.output
    ]
    if outputs:
        t.session.execute(sa.insert(models.StepOutput), outputs)


def _end_attempts(t: Turn, moves: Sequence[StepMove]) -> None:
    ended: dict[tuple[str, int], list[str]] = defaultdict(list)
    for m in moves:
        if m.old in states.STEP_IN_FLIGHT and m.new not in states.STEP_IN_FLIGHT:
            ended[m.new, m.attempt].append(m.step)
    a = models.Attempt
    for (outcome, n), ids in ended.items():
        for at in range(0, len(ids), CHUNK):
            t.session.execute(
                sa.update(a)
                .where(a.step_id.in_(ids[at : at + CHUNK]), a.n == n)
                .values(outcome=outcome, finished_at=t.now)
                .execution_options(synchronize_session=False)
            )


def _count(counters: Row, moves: Sequence[StepMove]) -> Row:
    steps = dict(counters.get('steps', {}))
    for m in moves:
        steps[m.old] = steps.get(m.old, 0) - 1
        steps[m.new] = steps.get(m.new, 0) + 1
    return {**counters, 'steps': {k: v for k, v in steps.items() if v}}


@base.retry
def note_late(ctx: Context, upgrade_id: str, items: Sequence[Row]) -> None:
    """Record outcomes that came too late to count: facts for the audit trail only."""
    with turn(ctx, upgrade_id) as t:
        for item in items:
            t.event('late_outcome', item['step'], item['attempt'], detail=item)
        t.close({})


@base.retry
def progress_save(
    ctx: Context, upgrade_id: str, owner: str, epoch: int, step: str, progress: Row
) -> None:
    """Write a cloud step's progress: what it is about to do, before it does it.

    :raises LostOwnership: another conductor owns the upgrade by now.
    """
    try:
        with turn(ctx, upgrade_id, *owned_by(owner, epoch, tuple(states.OWNED))) as t:
            t.session.execute(
                sa.update(models.Step)
                .where(models.Step.id == step, models.Step.upgrade_id == upgrade_id)
                .values(progress=progress, changed_seq=t.row.seq + 1)
                .execution_options(synchronize_session=False)
            )
    except Mismatch as e:
        raise exception.LostOwnership(upgrade=upgrade_id, epoch=epoch) from e


@base.retry
def owner_note(ctx: Context, upgrade_id: str, owner: str, epoch: int, message: str) -> None:
    """Say on the upgrade's row what its owner waits for."""
    with turn(ctx, upgrade_id, *owned_by(owner, epoch, tuple(states.OWNED))) as t:
        t.close({'message': message})


# -- leases ------------------------------------------------------------------------------------


@base.retry
def ownership_claim(ctx: Context, owner: str, ttl: float, limit: int = 20) -> list[Row]:
    """Take upgrades that need an owner and whose lease is over; epoch grows by one.

    :returns: their rows, with `previous`: whether someone held it before (not released).
    """
    u = models.Upgrade
    query = (
        sa.select(u.id, u.epoch, u.owner)
        .where(u.state.in_(states.OWNED), u.lease_until < base.now_ms())
        .limit(limit)
    )
    with base.reader(ctx) as session:
        free = session.execute(query).all()
    taken = []
    for ident, epoch, before in free:
        with base.writer(ctx) as session:
            done = session.execute(
                sa.update(u)
                .where(
                    u.id == ident,
                    u.epoch == epoch,
                    u.lease_until < base.now_ms(),
                    u.state.in_(states.OWNED),
                )
                .values(owner=owner, epoch=epoch + 1, lease_until=base.now_ms() + int(ttl * 1000))
                .execution_options(synchronize_session=False)
            )
            if done.rowcount == 1:  # type: ignore[attr-defined]
                row = session.get_one(u, ident, populate_existing=True)
                taken.append({**row.as_dict(), 'previous': before})
    return taken


@base.retry
def ownership_renew(ctx: Context, owner: str, ttl: float) -> dict[str, int]:
    """Prolong every lease of `owner`; return {upgrade id: epoch} of what it still owns."""
    u = models.Upgrade
    with base.writer(ctx) as session:
        session.execute(
            sa.update(u)
            .where(u.owner == owner, u.state.in_(states.OWNED))
            .values(lease_until=base.now_ms() + int(ttl * 1000))
            .execution_options(synchronize_session=False)
        )
        query = sa.select(u.id, u.epoch).where(u.owner == owner, u.state.in_(states.OWNED))
        return {ident: epoch for ident, epoch in session.execute(query)}


@base.retry
def ownership_release(ctx: Context, owner: str) -> None:
    """Give every upgrade of `owner` free at once: an orderly end of its process."""
    u = models.Upgrade
    with base.writer(ctx) as session:
        session.execute(
            sa.update(u)
            .where(u.owner == owner)
            .values(owner=None, lease_until=0)
            .execution_options(synchronize_session=False)
        )
