"""Storing plans: each is the next revision of its upgrade, with its way back beside it."""

from collections.abc import Mapping
from typing import Any
import uuid

import sqlalchemy as sa

from upgrade_service import context, model
from upgrade_service.db import base, clusters, models, turns, verbs

Context = context.RequestContext
Row = dict[str, Any]
#: rows in one INSERT
BATCH = 5000


@base.retry
def plan_store(
    ctx: Context,
    upgrade_id: str,
    owner: str,
    epoch: int,
    plan: model.Plan,
    executors: dict[str, str],
) -> None:
    """Store a plan as the next revision, in one transaction.

    The upgrade becomes a draft; if it was started already, it is paused, and where the new
    plan touches more hosts or has other points of no return, a person must approve that.

    `executors`: host -> id of the agent that carries its steps out.

    :raises Mismatch: the upgrade has another owner, or was cancelled meanwhile.
    """
    where = turns.owned_by(owner, epoch, ('planning',))
    with turns.turn(ctx, upgrade_id, *where) as t:
        revision = t.row.revision + 1
        ids = {s.ord: str(uuid.uuid4()) for s in (*plan.steps, *plan.undo)}
        old = _old_reach(t)
        _insert(t, revision, plan, ids, executors)
        _retire(t, revision, plan, ids)
        t.event(
            'planned',
            detail={
                'steps': len(plan.steps),
                'undo': len(plan.undo),
                'digest': plan.digest(),
                'problems': len(plan.problems),
                'revision': revision,
            },
        )
        values = {
            'revision': revision,
            'digest': plan.digest(),
            'fingerprint': plan.fingerprint,
            'from_release': t.row.from_release or plan.from_release,
            'to_release': plan.to_release,
            'counters': _counters(plan, ids, t.row.counters),
            'message': '',
        }
        state = 'draft'
        if t.row.started_at is not None:
            state = 'paused'
            values.update(_gate(plan, old))
        t.close(turns.upgrade_values(t, state, values))


def _insert(
    t: turns.Turn,
    revision: int,
    plan: model.Plan,
    ids: Mapping[int, str],
    executors: Mapping[str, str],
) -> None:
    ident = t.row.id
    steps = (*plan.steps, *plan.undo)
    rows = [_row(ident, revision, ids, s, executors) for s in steps]
    edges = [
        {'upgrade_id': ident, 'step_id': ids[s.ord], 'parent_id': ids[p]}
        for s in steps
        for p in s.parents
    ]
    t.session.execute(sa.delete(models.Problem).filter_by(upgrade_id=ident))
    problems = [clusters.problem_row(t.row.cluster_id, ident, p) for p in plan.problems]
    for table, values in ((models.Step, rows), (models.Edge, edges), (models.Problem, problems)):
        for at in range(0, len(values), BATCH):
            t.session.execute(sa.insert(table), values[at : at + BATCH])


def _row(
    upgrade_id: str,
    revision: int,
    ids: Mapping[int, str],
    s: model.Step,
    executors: Mapping[str, str],
) -> Row:
    names = (
        'ord',
        'stage',
        'kind',
        'direction',
        'host',
        'project',
        'service',
        'strategy',
        'ponr',
        'estimate',
    )
    runs_on_host = s.what.where == 'host'
    return {
        'id': ids[s.ord],
        'upgrade_id': upgrade_id,
        'revision': revision,
        **{n: getattr(s, n) for n in names},
        'undo_of': ids[s.undo_of] if s.undo_of is not None else None,
        'params': dict(s.params),
        'state': 'pending',
        'executor': executors.get(s.host or '') if runs_on_host else None,
        'attempt': 0,
        'changed_seq': 0,
        'final': False,
    }


def _counters(plan: model.Plan, ids: Mapping[int, str], old: Row) -> Row:
    hosts = {s.host for s in plan.steps if s.host and s.disruptive}
    return {
        **old,
        'steps': {'pending': len(plan.steps)},
        'total': len(plan.steps),
        'hosts': {'total': len(hosts), 'done': 0, 'held': 0},
        'ponr': [ids[s.ord] for s in plan.steps if s.ponr],
        'moves': dict(plan.moves),
    }


# -- a plan made anew --------------------------------------------------------------------------


def _old_reach(t: turns.Turn) -> tuple[set[Any], set[Any]]:
    """Return the hosts and the points of no return of the plan so far."""
    s = models.Step
    query = sa.select(s.host, s.kind, s.project, s.ponr).where(
        s.upgrade_id == t.row.id, s.revision == t.row.revision, s.direction == 'forward'
    )
    rows = t.session.execute(query).all()
    return {r.host for r in rows if r.host}, {(r.kind, r.project, r.host) for r in rows if r.ponr}


def _gate(plan: model.Plan, old: tuple[set[Any], set[Any]]) -> Row:
    """Say what the operator is asked about a plan that was made anew."""
    hosts = {s.host for s in plan.steps if s.host} - old[0]
    points = {(s.kind, s.project, s.host) for s in plan.steps if s.ponr} - old[1]
    said = 'the rest was planned anew'
    if not hosts and not points:
        return {'message': f'{said}; resume to go on'}
    more = [f'{len(hosts)} more hosts'] if hosts else []
    more += [f'{len(points)} more points of no return'] if points else []
    return {'gate': verbs.REPLAN_GATE, 'message': f'{said}, with {" and ".join(more)}'}


def _retire(t: turns.Turn, revision: int, plan: model.Plan, ids: Mapping[int, str]) -> None:
    """Cancel what is left of the old plan; its way back follows that of the new one."""
    s, old = models.Step, t.row.revision
    if not old:
        return
    rows = (
        t.session.execute(
            sa.select(s).where(s.upgrade_id == t.row.id, s.revision == old).order_by(s.ord)
        )
        .scalars()
        .all()
    )
    begun = {r.id for r in rows if r.attempt}
    dropped = [
        turns.StepMove(
            step=r.id, old='pending', new='cancelled', attempt=r.attempt, event='dropped'
        )
        for r in rows
        if r.state == 'pending'
        and (r.direction == 'forward' or (r.undo_of is not None and r.undo_of not in begun))
    ]
    if dropped:
        turns.move_steps(t, dropped)
    back = [r.id for r in rows if r.direction == 'back']
    if begun and back:
        _rehome(t, back, revision, plan, ids)


def _rehome(
    t: turns.Turn, back: list[str], revision: int, plan: model.Plan, ids: Mapping[int, str]
) -> None:
    s, e = models.Step, models.Edge
    shift = max(ids, default=0)
    for at in range(0, len(back), turns.CHUNK):
        t.session.execute(
            sa.update(s)
            .where(s.id.in_(back[at : at + turns.CHUNK]))
            .values(revision=revision, ord=s.ord + shift)
            .execution_options(synchronize_session=False)
        )
    if plan.undo:
        waiting = set(
            t.session.execute(sa.select(e.step_id).filter_by(upgrade_id=t.row.id)).scalars()
        )
        last = ids[plan.undo[-1].ord]
        edges = [
            {'upgrade_id': t.row.id, 'step_id': ident, 'parent_id': last}
            for ident in back
            if ident not in waiting
        ]
        if edges:
            t.session.execute(sa.insert(e), edges)
