"""Upgrades, their steps and events: what the API creates, reads and asks for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context, exception
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, models, turns

Context = context.RequestContext
Row = dict[str, Any]
Asked = askeds.Asked


@base.retry
def upgrade_create(ctx: Context, values: Row, asked: Asked | None = None) -> Row:
    """Insert an upgrade in state `planning`; a conductor makes its plan.

    `values`: cluster_id, to_release, strategy, type, policy, selection; optional name,
    approvals (gates approved beforehand), from_release.
    """
    ident = str(uuid.uuid4())
    with base.writer(ctx) as session:
        askeds.begin(session, asked)
        if asked is not None:
            asked.count(session, ctx)
        row = models.Upgrade(
            **{'name': None, 'approvals': [], 'accepted': [], **values},
            id=ident,
            state='planning',
            direction='forward',
            version=1,
            seq=0,
            epoch=0,
            revision=0,
            lease_until=0,
            counters={},
            intent={},
            head_hash='',
            message='',
            user_id=ctx.user_id,
            project_id=ctx.project_id,
            created_at=base.clock(session),
        )
        session.add(row)
        session.flush()
        session.expunge(row)
        t = turns.Turn(session, row, row.created_at, ctx)
        t.event(
            'created',
            detail={k: values[k] for k in ('cluster_id', 'to_release', 'strategy', 'policy')},
        )
        t.close({})
        return askeds.end(session, asked, find(session, ident).as_dict())


def find(session: orm.Session, ref: str) -> models.Upgrade:
    """Return an upgrade by id, or the newest of a name.

    :raises NotFound: there is none.
    """
    u = models.Upgrade
    found = (
        session.execute(
            sa.select(u)
            .where(sa.or_(u.id == ref, u.name == ref))
            .order_by(u.created_at.desc())
            .limit(1)
            .execution_options(populate_existing=True)
        )
        .scalars()
        .first()
    )
    if found is None:
        raise exception.NotFound(kind='upgrade', ref=ref)
    return found


def upgrade_get(ctx: Context, ref: str) -> Row:
    """Return an upgrade by id, or the newest one of a name."""
    with base.reader(ctx) as session:
        return find(session, ref).as_dict()


def upgrade_list(
    ctx: Context, filters: Row | None = None, limit: int | None = None, marker: str | None = None
) -> list[Row]:
    """List upgrades by id; filters: cluster_id, state, name."""
    query = sa.select(models.Upgrade).filter_by(**(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Upgrade, query, models.Upgrade.id, limit, marker)


# -- steps -------------------------------------------------------------------------------------


def find_step(session: orm.Session, upgrade: models.Upgrade, ref: str) -> models.Step:
    """Return a step of the current plan by id or `ord`.

    :raises NotFound: there is none.
    """
    s = models.Step
    query = sa.select(s).where(s.upgrade_id == upgrade.id, s.revision == upgrade.revision)
    by_ord = ref.isdecimal() and len(ref) < 10
    query = query.where(s.ord == int(ref) if by_ord else s.id == ref)
    found = session.execute(query.execution_options(populate_existing=True)).scalars().first()
    if found is None:
        raise exception.NotFound(kind='step', ref=ref)
    return found


def step_list(
    ctx: Context,
    upgrade_id: str,
    filters: Row | None = None,
    limit: int | None = None,
    marker: int | None = None,
    revision: int | None = None,
) -> list[Row]:
    """List the steps of the current revision by `ord` (which is the marker)."""
    s = models.Step
    with base.reader(ctx) as session:
        at = revision if revision is not None else find(session, upgrade_id).revision
        query = sa.select(s).filter_by(upgrade_id=upgrade_id, revision=at, **(filters or {}))
        return base.page(session, s, query, s.ord, limit, marker)


def steps_changed(ctx: Context, upgrade_id: str, since: int) -> list[Row]:
    """Return {id, state, attempt, not_before, progress…} of steps changed after event `since`."""
    s = models.Step
    query = sa.select(s).where(s.upgrade_id == upgrade_id, s.changed_seq > since)
    with base.reader(ctx) as session:
        return [row.as_dict() for row in session.execute(query).scalars()]


def step_get(ctx: Context, upgrade_id: str, step_ref: str) -> Row:
    """Return one step by id or `ord`."""
    with base.reader(ctx) as session:
        return find_step(session, find(session, upgrade_id), step_ref).as_dict()


def edge_list(
    ctx: Context, upgrade_id: str, steps: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Return {step id: ids of the steps it waits for}."""
    e = models.Edge
    query = sa.select(e.step_id, e.parent_id).where(e.upgrade_id == upgrade_id)
    if steps is not None:
        query = query.where(e.step_id.in_(steps))
    found: dict[str, list[str]] = defaultdict(list)
    with base.reader(ctx) as session:
        for step, parent in session.execute(query):
            found[step].append(parent)
    return found


def step_output_get(ctx: Context, step_id: str, attempt: int | None = None) -> Row | None:
    """Return {attempt, text} of an attempt, by default the last that printed something."""
    o = models.StepOutput
    query = sa.select(o).filter_by(step_id=step_id).order_by(o.attempt.desc())
    if attempt is not None:
        query = query.where(o.attempt == attempt)
    with base.reader(ctx) as session:
        found = session.execute(query).scalars().first()
        return found.as_dict() if found else None


def event_list(
    ctx: Context, upgrade_id: str, after: int = 0, limit: int | None = None
) -> list[Row]:
    """List events by `seq`, those after the given one."""
    e = models.Event
    query = sa.select(e).filter_by(upgrade_id=upgrade_id)
    with base.reader(ctx) as session:
        return base.page(session, e, query, e.seq, limit, after or None)


def request_list(ctx: Context, upgrade_id: str) -> list[Row]:
    """List the events that people caused: what they asked for, and what they were refused."""
    e = models.Event
    people = e.actor != context.system().actor
    # the steps of a lost host are what became of one request
    query = sa.select(e).where(e.upgrade_id == upgrade_id, people, e.kind != 'lost')
    with base.reader(ctx) as session:
        return base.page(session, e, query, e.seq, None, None)


def upgrade_ended_at(ctx: Context, cluster_id: str) -> int:
    """Return when an upgrade of a cluster ended last (ms); 0: none has."""
    u = models.Upgrade
    with base.reader(ctx) as session:
        query = sa.select(sa.func.max(u.finished_at)).filter_by(cluster_id=cluster_id)
        return session.execute(query).scalar() or 0
