"""What operators ask for: each request is one transaction, and one row of the audit trail.

An accepted verb is written before it is answered, and conductors act on the row. One that is
refused changes nothing, but leaves an event that says who asked for what, and why not.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa

from upgrade_service import context, exception, model, states
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, clusters, floors, models, regain, turns, upgrades

Context = context.RequestContext
Row = dict[str, Any]
Asked = askeds.Asked
#: options of a verb that a conductor needs when it acts on `next`
_INTENT = ('at', 'now', 'to')
#: the gate of a plan that was made anew and touches more than the one before
REPLAN_GATE = 'replan'


@contextlib.contextmanager
def _verb_turn(
    ctx: Context, ident: str, verb: str, if_match: int | None = None, asked: Asked | None = None
) -> Iterator[turns.Turn]:
    """Open a turn for a verb; note the request when it is refused.

    :raises Stale: `if_match` is not the version any more.
    """
    where = () if if_match is None else (models.Upgrade.version == if_match,)
    try:
        try:
            with turns.turn(ctx, ident, *where, asked=asked) as t:
                yield t
        except turns.Mismatch as e:
            version = upgrades.upgrade_get(ctx, ident)['version']
            raise exception.Stale(version=version) from e
        except db_exc.DBDuplicateEntry as e:
            if verb != 'start':
                raise
            raise exception.NotStartable(
                reason='another upgrade of this cluster is under way; end or cancel it first'
            ) from e
    except (exception.Conflict, exception.Stale) as e:
        _note_refusal(ctx, ident, verb, e)
        raise


def _note_refusal(ctx: Context, ident: str, verb: str, why: exception.UpgradeError) -> None:
    with contextlib.suppress(turns.Mismatch), turns.turn(ctx, ident) as t:
        detail = {'verb': verb, 'code': why.code, 'why': str(why), 'state': t.row.state}
        t.event('verb_refused', detail=detail)
        t.close({})


def _decide(t: turns.Turn, verb: str, option: str | None = None) -> states.Move:
    row = t.row
    move = states.decide(verb, row.state, row.next, row.direction, option)
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


def _option(body: Row) -> str | None:
    return 'now' if body.get('now') else body.get('at')


# -- upgrades ----------------------------------------------------------------------------------


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
    :raises NoWayBack: `rollback` beyond a point of no return.
    """
    body = body or {}
    ident = upgrades.upgrade_get(ctx, ref)['id']
    with _verb_turn(ctx, ident, verb, if_match, asked) as t:
        move = _decide(t, verb, _option(body))
        if move is not states.ALREADY:
            _apply(t, verb, move, body)
        else:
            t.event(verb, detail={'already': True, **body})
            t.close({})
        return askeds.end(t.session, asked, upgrades.find(t.session, ident).as_dict())


def _apply(t: turns.Turn, verb: str, move: states.Move, body: Row) -> None:
    values: Row = {'next': move.next, 'message': ''}
    values['intent'] = {k: body[k] for k in _INTENT if body.get(k)} if move.next else {}
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


def _rows(t: turns.Turn, *where: Any) -> Sequence[models.Step]:
    """Return steps of the current plan in their order."""
    s = models.Step
    query = sa.select(s).where(s.upgrade_id == t.row.id, s.revision == t.row.revision, *where)
    return t.session.execute(query.order_by(s.ord)).scalars().all()


def _live(t: turns.Turn) -> Any:
    """The condition on steps that belong to the direction the upgrade has."""
    return models.Step.direction == ('back' if t.row.direction == 'back' else 'forward')


def _resume(t: turns.Turn, body: Row) -> Row:
    if t.row.gate == REPLAN_GATE:
        raise exception.Conflict(
            reason=f'{t.row.message}: look at the plan, then approve gate {REPLAN_GATE}'
        )
    if t.row.state != 'blocked':
        return {}
    stuck = _rows(t, _live(t), models.Step.state.in_(states.STEP_STUCK))
    if stuck:
        raise exception.Conflict(
            reason=f'step {stuck[0].ord} is failed or unknown: retry, resolve or skip it first'
        )
    if body.get('acknowledge') != t.row.blocked_reason:
        raise exception.Conflict(
            reason=f'the upgrade is blocked ({t.row.blocked_reason}): name that reason in '
            f'`acknowledge` to go on'
        )
    return {'blocked_reason': None, **regain.regain(t)}


def _approve(t: turns.Turn, body: Row) -> Row:
    gate = t.row.gate
    if not gate:
        raise exception.Conflict(reason='the upgrade waits at no gate; resume it')
    if body.get('gate') not in (None, gate):
        raise exception.Conflict(reason=f'it waits at gate {gate}, not {body["gate"]}')
    approvals = t.row.approvals if gate == REPLAN_GATE else sorted({*t.row.approvals, gate})
    return {'approvals': approvals, 'gate': None}


def _rollback(t: turns.Turn, body: Row) -> Row:
    """Look whether the way back is open as far as it is asked for.

    :raises NoWayBack: a point of no return was passed.
    """
    to = body.get('to', 'start')
    target = 0 if to == 'start' else _forward_step(t, str(to)).ord
    passed = floors.passed(t.session, t.row)
    if passed is not None and target < passed.ord:
        where = f' on {passed.host}' if passed.host else ''
        raise exception.NoWayBack(
            step=passed.ord, kind=passed.kind, where=where, lowest=passed.ord, floor=passed.ord
        )
    if target and not floors.undoable(t.session, t.row, target):
        raise exception.Conflict(reason=f'nothing that was done after step {target} can be undone')
    return {'intent': {'to': target}, 'gate': None, 'blocked_reason': None}


def _forward_step(t: turns.Turn, ref: str) -> models.Step:
    step = upgrades.find_step(t.session, t.row, ref)
    if step.direction != 'forward':
        raise exception.Conflict(reason=f'step {step.ord} is of the way back itself')
    return step


def _replan(t: turns.Turn, body: Row) -> Row:
    """Look whether everything is at rest and whole, so that the rest can be planned anew."""
    s = models.Step
    if point := floors.passed(t.session, t.row):
        raise exception.Conflict(
            reason=f'step {point.ord} ({point.kind}), a point of no return, was passed: '
            f'the plan must be carried out as it is'
        )
    busy = (*states.STEP_IN_FLIGHT, *states.STEP_STUCK)
    for step in _rows(t, s.direction == 'forward', s.state.in_(busy))[:1]:
        raise exception.Conflict(
            reason=f'step {step.ord} ({step.kind}) is {step.state}: only with every step at rest '
            f'can the rest be planned anew; retry, resolve or skip it, or roll back'
        )
    windows: dict[str, Row] = {}
    for step in _rows(t, s.direction == 'forward', s.kind.in_(('disable_host', 'enable_host'))):
        windows.setdefault(step.host or '', {})[step.kind] = step
    for host, window in sorted(windows.items()):
        off, on = window.get('disable_host'), window.get('enable_host')
        out = off is not None and off.attempt and off.state in states.STEP_DONE
        if out and (on is None or on.state not in states.STEP_DONE):
            raise exception.Conflict(
                reason=f'{host} is in progress: resume, `pause --at host`, then plan anew'
            )
    return {'blocked_reason': None, 'gate': None}


_VERB_VALUES: dict[str, Callable[[turns.Turn, Row], Row]] = {
    'start': _start,
    'resume': _resume,
    'approve': _approve,
    'rollback': _rollback,
    'replan': _replan,
}


@base.retry
def upgrade_delete(
    ctx: Context, ref: str, if_match: int | None = None, asked: Asked | None = None
) -> None:
    """Delete a draft or ended upgrade; its events are kept."""
    ident = upgrades.upgrade_get(ctx, ref)['id']
    with _verb_turn(ctx, ident, 'delete', if_match, asked) as t:
        _decide(t, 'delete')
        t.event('deleted')
        t.close({})
        for table in (models.Problem, models.Attempt):
            t.session.execute(sa.delete(table).where(table.upgrade_id == ident))
        t.session.execute(sa.delete(models.Upgrade).filter_by(id=ident))
        askeds.end(t.session, asked, {})


# -- steps -------------------------------------------------------------------------------------


@base.retry
def step_verb(
    ctx: Context,
    ref: str,
    step_ref: str,
    verb: str,
    body: Row | None = None,
    asked: Asked | None = None,
    if_match: int | None = None,
) -> Row:
    """Retry, skip or resolve a failed or unknown step; return the step.

    :raises IllegalVerb: the upgrade's state forbids it. :raises Stale: see `upgrade_verb`.
    :raises Conflict: the step is not failed or unknown, or needs an acknowledgement.
    """
    body = body or {}
    ident = upgrades.upgrade_get(ctx, ref)['id']
    with _verb_turn(ctx, ident, verb, if_match, asked) as t:
        _decide(t, verb)
        step = upgrades.find_step(t.session, t.row, step_ref)
        if step.direction == 'back' and t.row.direction != 'back':
            raise exception.Conflict(reason=f'step {step.ord} is of the way back')
        if step.direction != 'back' and t.row.direction == 'back':
            raise exception.Conflict(
                reason=f'the upgrade goes back: step {step.ord} is not carried out any more'
            )
        new, more = _STEP_VERBS[verb](step, body)
        move = turns.StepMove(
            step=step.id,
            old=step.state,
            new=new,
            attempt=step.attempt,
            event=verb,
            detail={'asked': body},
            **more,
        )
        counters = turns.move_steps(t, [move])
        t.close({'counters': counters})
        found = upgrades.find_step(t.session, t.row, step.id)
        return askeds.end(t.session, asked, found.as_dict())


def _stuck(step: models.Step, verb: str) -> None:
    if step.state not in states.STEP_STUCK:
        raise exception.Conflict(
            reason=f'step {step.ord} is {step.state}; only a failed or unknown step can be {verb}'
        )


def _retry(step: models.Step, body: Row) -> tuple[str, Row]:
    _stuck(step, 'retried')
    kind = model.KINDS[step.kind]
    if step.state == 'unknown' and not kind.idempotent and not body.get('acknowledge_risk'):
        raise exception.Conflict(
            reason=f'step {step.ord} may have been done already: look at its log, then retry '
            f'with `acknowledge_risk`'
        )
    return 'pending', {}


def _skip(step: models.Step, body: Row) -> tuple[str, Row]:
    _stuck(step, 'skipped')
    if not model.KINDS[step.kind].skippable and not (body.get('force') and body.get('reason')):
        raise exception.Conflict(
            reason=f'step {step.ord} ({step.kind}) is not skippable: what follows relies on '
            f'it; give `force` and a `reason` if you made it good by hand'
        )
    return 'skipped', {}


def _resolve(step: models.Step, body: Row) -> tuple[str, Row]:
    _stuck(step, 'resolved')
    outcome = body['outcome']
    if outcome == step.state:
        raise exception.Conflict(reason=f'step {step.ord} is {step.state} already')
    if outcome == 'failed':
        return 'failed', {'error': f'resolved: {body["evidence"]}', 'final': True}
    return 'succeeded', {}


_STEP_VERBS: dict[str, Callable[[models.Step, Row], tuple[str, Row]]] = {
    'retry': _retry,
    'skip': _skip,
    'resolve': _resolve,
}


# -- hosts -------------------------------------------------------------------------------------


@base.retry
def host_lost(
    ctx: Context, cluster: str, host: str, reason: str, asked: Asked | None = None
) -> Row:
    """Give up a host for ever: its steps are skipped, its engine is believed no more.

    :returns: the host. :raises NotFound: the cluster has no such host.
    """
    row = clusters.host_get(ctx, cluster, host)
    live = _live_upgrade(ctx, row['cluster_id'])
    if live is None:
        with base.writer(ctx) as session:
            askeds.begin(session, asked)
            _quarantine(session, host)
            return askeds.end(session, asked, row)
    with _verb_turn(ctx, live, 'declare_lost', asked=asked) as t:
        _quarantine(t.session, host)
        t.event('declare_lost', detail={'host': host, 'reason': reason})
        counters = _skip_host(t, host, reason)
        t.close({'counters': counters})
        return askeds.end(t.session, asked, row)


def _live_upgrade(ctx: Context, cluster_id: str) -> str | None:
    u = models.Upgrade
    with base.reader(ctx) as session:
        return session.execute(sa.select(u.id).filter_by(live_cluster_id=cluster_id)).scalar()


def _quarantine(session: Any, host: str) -> None:
    a = models.Agent
    session.execute(
        sa.update(a).where(a.host == host, a.state != 'revoked').values(state='revoked')
    )


def _skip_host(t: turns.Turn, host: str, reason: str) -> Row:
    s = models.Step
    ended = (*states.STEP_DONE, 'cancelled')
    counters: Row = t.row.counters
    for live in (True, False):
        steps = _rows(t, s.host == host, s.state.not_in(ended), _live(t) if live else ~_live(t))
        moves = [
            turns.StepMove(
                step=x.id,
                old=x.state,
                new='skipped',
                attempt=x.attempt,
                event='lost',
                error=f'lost: {reason}',
            )
            for x in steps
        ]
        found = turns.move_steps(t, moves) if moves else counters
        # what is counted is what the upgrade's direction carries out
        counters = found if live else counters
    return counters
