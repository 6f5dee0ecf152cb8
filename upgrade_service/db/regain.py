"""After the database lost commits: go on above what the engines remember (F13).

What engines said beyond the rows is kept on the upgrade's row, `lost`: {epoch, attempts:
{step id: number}}. When an operator acknowledges the loss, epoch and attempts are set to
the highest of both; so nothing that an engine has done before can be taken for new.
"""

from typing import Any

import sqlalchemy as sa

from upgrade_service import context, model, states
from upgrade_service.db import base, models, turns

Context = context.RequestContext
Row = dict[str, Any]


@base.retry
def lost_note(
    ctx: Context, upgrade_id: str, epoch: int, attempts: dict[str, int], highest: int
) -> None:
    """Note what engines know that the rows do not: attempts by step, and an epoch.

    :raises Mismatch: the upgrade has another owner than that of `epoch`.
    """
    with turns.turn(ctx, upgrade_id, models.Upgrade.epoch == epoch) as t:
        before = t.row.lost or {'epoch': 0, 'attempts': {}}
        known = dict(before['attempts'])
        for step, n in attempts.items():
            known[step] = max(n, known.get(step, 0))
        t.close({'lost': {'epoch': max(highest, before['epoch']), 'attempts': known}})


def regain(t: turns.Turn) -> Row:
    """Return the columns of an upgrade whose loss was acknowledged; set its attempts."""
    lost = t.row.lost
    if t.row.blocked_reason != 'state_loss' or not lost:
        return {}
    s = models.Step
    query = sa.select(s.id, s.kind, s.state, s.attempt).where(
        s.upgrade_id == t.row.id, s.id.in_(list(lost['attempts']))
    )
    found = t.session.execute(query).all()
    flying = [f for f in found if f.state in states.STEP_IN_FLIGHT]
    moves = [_move(f.id, f.kind, f.state, f.attempt, lost['attempts'][f.id]) for f in flying]
    changes: Row = {'counters': turns.move_steps(t, moves)} if moves else {}
    for f in found:
        t.session.execute(
            sa.update(s)
            .where(s.id == f.id)
            .values(attempt=max(f.attempt, lost['attempts'][f.id]), changed_seq=t.seq + 1)
            .execution_options(synchronize_session=False)
        )
    epoch = max(t.row.epoch, lost['epoch'])
    # whoever owns it has an epoch that is over; the next one claims it with a higher one
    return {**changes, 'epoch': epoch, 'owner': None, 'lease_until': 0, 'lost': None}


def _move(ident: str, kind: str, state: str, attempt: int, known: int) -> turns.StepMove:
    """Give a step in flight back if that is harmless; if not, a person must look at it."""
    idempotent = model.KINDS[kind].idempotent
    error = f'the database lost what came of it; its engine knows attempt {known}'
    return turns.StepMove(
        step=ident,
        old=state,
        new='pending' if idempotent else 'unknown',
        attempt=attempt,
        event='state_loss',
        error=error,
        detail={'known': known},
    )
