"""Upgrades, their steps and events: what the API creates, reads and asks for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
import uuid

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context, exception, model, states
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, clusters, models, regain, turns

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
        return askeds.end(session, asked, _get(session, ident).as_dict())


def _get(session: orm.Session, ref: str) -> models.Upgrade:
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
        return _get(session, ref).as_dict()


def upgrade_list(
    ctx: Context, filters: Row | None = None, limit: int | None = None, marker: str | None = None
) -> list[Row]:
    """List upgrades by id; filters: cluster_id, state, name."""
    query = sa.select(models.Upgrade).filter_by(**(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Upgrade, query, models.Upgrade.id, limit, marker)


@base.retry
def upgrade_delete(ctx: Context, ref: str) -> None:
    """Delete a draft or ended upgrade; its events are kept."""
    ident = upgrade_get(ctx, ref)['id']
    with _verb_turn(ctx, ident) as t:
        _decide(t, 'delete')
        t.event('deleted')
        t.close({})
        for table in (models.Problem, models.Attempt):
            t.session.execute(sa.delete(table).where(table.upgrade_id == ident))
        t.session.execute(sa.delete(models.Upgrade).filter_by(id=ident))


def _verb_turn(
    ctx: Context, ident: str, if_match: int | None = None, asked: Asked | None = None
) -> Any:
    where = () if if_match is None else (models.Upgrade.version == if_match,)
    return turns.turn(ctx, ident, *where, asked=asked)


def _decide(t: turns.Turn, verb: str) -> states.Move:
    row = t.row
    move = states.decide(verb, row.state, row.next, row.direction)
    if move is None:
        possible = states.allowed(row.state, row.next, row.direction)
        raise exception.IllegalVerb(
            state=row.state,
            next=row.next,
            verb=verb,
            allowed=', '.join(possible) or 'nothing',
            verbs=possible,
        )
    return move


@base.retry
def upgrade_verb(
    ctx: Context,
    ref: str,
    verb: str,
    *,
    if_match: int | None = None,
    body: Row | None = None,
    asked: Asked | None = None,
) -> Row:
    """Write an operator's intent; it is what conductors act on.

    :raises IllegalVerb: the state forbids it. :raises Stale: `if_match` is not the version.
    :raises NotStartable: `start` with blocking problems, or beside another live upgrade.
    """
    body = body or {}
    ident = upgrade_get(ctx, ref)['id']
    try:
        with _verb_turn(ctx, ident, if_match, asked) as t:
            move = _decide(t, verb)
            if move is not states.ALREADY:
                _apply(t, verb, move, body)
            else:
                t.event(verb, detail={'already': True})
                t.close({})
            return askeds.end(t.session, asked, _get(t.session, ident).as_dict())
    except turns.Mismatch as e:
        raise exception.Stale(version=upgrade_get(ctx, ident)['version']) from e
    except db_exc.DBDuplicateEntry as e:
        raise exception.NotStartable(
            reason='another upgrade of this cluster is under way; end or cancel it first'
        ) from e


def _apply(t: turns.Turn, verb: str, move: states.Move, body: Row) -> None:
    values: Row = {'next': move.next, 'message': ''}
    if move.direction:
        values['direction'] = move.direction
    values.update(_VERB_VALUES.get(verb, _no_values)(t, body))
    t.event(verb, detail={'before': t.row.state, 'after': move.state, 'next': move.next, **body})
    t.close(turns.upgrade_values(t, move.state, values))


def _no_values(t: turns.Turn, body: Row) -> Row:
    return {}


def _start(t: turns.Turn, body: Row) -> Row:
    accepted = set(body.get('accept') or ())
    p = models.Problem
    problems = (
        t.session.execute(sa.select(p).filter_by(upgrade_id=t.row.id, severity='blocking'))
        .scalars()
        .all()
    )
    left = [x for x in problems if not (x.acceptable and x.code in accepted)]
    if left:
        reason = '; '.join(f'{x.code}: {x.message}' for x in left[:3])
        more = f' (and {len(left) - 3} more)' if len(left) > 3 else ''
        raise exception.NotStartable(reason=f'{reason}{more}', codes=[x.code for x in left])
    return {'live_cluster_id': t.row.cluster_id, 'started_at': t.now, 'accepted': sorted(accepted)}


def _resume(t: turns.Turn, body: Row) -> Row:
    if t.row.state != 'blocked':
        return {}
    s = models.Step
    stuck = (
        t.session.execute(
            sa.select(s.ord).where(s.upgrade_id == t.row.id, s.state.in_(states.STEP_STUCK))
        )
        .scalars()
        .all()
    )
    if stuck:
        raise exception.Conflict(
            reason=f'step {stuck[0]} is failed or unknown: retry or skip it first'
        )
    if body.get('acknowledge') != t.row.blocked_reason:
        raise exception.Conflict(
            reason=f'the upgrade is blocked ({t.row.blocked_reason}): name that reason in '
            f'`acknowledge` to go on'
        )
    return {'blocked_reason': None, **regain.regain(t)}


def _approve(t: turns.Turn, body: Row) -> Row:
    if not t.row.gate:
        raise exception.Conflict(reason='the upgrade waits at no gate; resume it')
    if body.get('gate') not in (None, t.row.gate):
        raise exception.Conflict(reason=f'it waits at gate {t.row.gate}, not {body["gate"]}')
    return {'approvals': sorted({*t.row.approvals, t.row.gate}), 'gate': None}


_VERB_VALUES: dict[str, Any] = {'start': _start, 'resume': _resume, 'approve': _approve}


# -- steps -------------------------------------------------------------------------------------


def _step(session: orm.Session, upgrade: models.Upgrade, ref: str) -> models.Step:
    s = models.Step
    query = sa.select(s).where(s.upgrade_id == upgrade.id, s.revision == upgrade.revision)
    by_ord = ref.isdecimal() and len(ref) < 10
    query = query.where(s.ord == int(ref) if by_ord else s.id == ref)
    found = session.execute(query.execution_options(populate_existing=True)).scalars().first()
    if found is None:
        raise exception.NotFound(kind='step', ref=ref)
    return found


@base.retry
def step_verb(
    ctx: Context,
    ref: str,
    step_ref: str,
    verb: str,
    body: Row | None = None,
    asked: Asked | None = None,
) -> Row:
    """Retry or skip a failed or unknown step; return the step.

    :raises IllegalVerb: the upgrade's state forbids it.
    :raises Conflict: the step is not failed or unknown, or needs an acknowledgement.
    """
    body = body or {}
    ident = upgrade_get(ctx, ref)['id']
    with _verb_turn(ctx, ident, asked=asked) as t:
        _decide(t, verb)
        step = _step(t.session, t.row, step_ref)
        new = _STEP_VERBS[verb](step, body)
        move = turns.StepMove(
            step=step.id,
            old=step.state,
            new=new,
            attempt=step.attempt,
            event=verb,
            detail={'asked': body},
        )
        counters = turns.move_steps(t, [move])
        t.close({'counters': counters})
        return askeds.end(t.session, asked, _step(t.session, t.row, step.id).as_dict())


def _stuck(step: models.Step, verb: str) -> None:
    if step.state not in states.STEP_STUCK:
        raise exception.Conflict(
            reason=f'step {step.ord} is {step.state}; only a failed or unknown step can be {verb}'
        )


def _retry(step: models.Step, body: Row) -> str:
    _stuck(step, 'retried')
    kind = model.KINDS[step.kind]
    if step.state == 'unknown' and not kind.idempotent and not body.get('acknowledge_risk'):
        raise exception.Conflict(
            reason=f'step {step.ord} may have been done already: look at its log, then retry '
            f'with `acknowledge_risk`'
        )
    return 'pending'


def _skip(step: models.Step, body: Row) -> str:
    _stuck(step, 'skipped')
    if not model.KINDS[step.kind].skippable and not (body.get('force') and body.get('reason')):
        raise exception.Conflict(
            reason=f'step {step.ord} ({step.kind}) is not skippable: what follows relies on '
            f'it; give `force` and a `reason` if you made it good by hand'
        )
    return 'skipped'


_STEP_VERBS = {'retry': _retry, 'skip': _skip}


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
        at = revision if revision is not None else _get(session, upgrade_id).revision
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
        return _step(session, _get(session, upgrade_id), step_ref).as_dict()


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


# -- plans -------------------------------------------------------------------------------------


@base.retry
def plan_store(
    ctx: Context,
    upgrade_id: str,
    owner: str,
    epoch: int,
    plan: model.Plan,
    executors: dict[str, str],
) -> None:
    """Store a plan as the next revision and make the upgrade a draft, in one transaction.

    `executors`: host -> id of the agent that carries its steps out.

    :raises Mismatch: the upgrade has another owner, or was cancelled meanwhile.
    """
    where = turns.owned_by(owner, epoch, ('planning',))
    with turns.turn(ctx, upgrade_id, *where) as t:
        revision = t.row.revision + 1
        ids = {s.ord: str(uuid.uuid4()) for s in plan.steps}
        rows = [_plan_row(upgrade_id, revision, ids[s.ord], s, executors) for s in plan.steps]
        edges = [
            {'upgrade_id': upgrade_id, 'step_id': ids[s.ord], 'parent_id': ids[p]}
            for s in plan.steps
            for p in s.parents
        ]
        problems = [clusters.problem_row(t.row.cluster_id, upgrade_id, p) for p in plan.problems]
        for table, values in (
            (models.Step, rows),
            (models.Edge, edges),
            (models.Problem, problems),
        ):
            for at in range(0, len(values), 5000):
                t.session.execute(sa.insert(table), values[at : at + 5000])
        t.event(
            'planned',
            detail={'steps': len(rows), 'digest': plan.digest(), 'problems': len(problems)},
        )
        t.close(
            turns.upgrade_values(
                t,
                'draft',
                {
                    'revision': revision,
                    'digest': plan.digest(),
                    'fingerprint': plan.fingerprint,
                    'from_release': plan.from_release,
                    'to_release': plan.to_release,
                    'counters': _counters(plan, ids, t.row.counters),
                    'message': '',
                },
            )
        )


def _counters(plan: model.Plan, ids: dict[int, str], old: Row) -> Row:
    hosts = {s.host for s in plan.steps if s.host and s.disruptive}
    return {
        **old,
        'steps': {'pending': len(plan.steps)},
        'total': len(plan.steps),
        'hosts': {'total': len(hosts), 'done': 0, 'held': 0},
        'ponr': [ids[s.ord] for s in plan.steps if s.ponr],
        'moves': dict(plan.moves),
    }


def _plan_row(
    upgrade_id: str, revision: int, ident: str, s: model.Step, executors: dict[str, str]
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
        'id': ident,
        'upgrade_id': upgrade_id,
        'revision': revision,
        **{n: getattr(s, n) for n in names},
        'params': dict(s.params),
        'state': 'pending',
        'executor': executors.get(s.host or '') if runs_on_host else None,
        'attempt': 0,
        'changed_seq': 0,
        'final': False,
    }
