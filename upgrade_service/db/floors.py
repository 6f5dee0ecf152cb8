"""How far back an upgrade can still go: read from what was attempted, never guessed."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context
from upgrade_service.db import base, models

Context = context.RequestContext


def _attempted() -> Any:
    """Whether a step was ever really begun: an attempt that was taken back never ran."""
    a, s = models.Attempt, models.Step
    begun = sa.or_(a.outcome.is_(None), a.outcome != 'pending')
    return sa.exists().where(a.step_id == s.id, begun)


def _forward(upgrade: models.Upgrade) -> Any:
    s = models.Step
    return sa.select(s).where(
        s.upgrade_id == upgrade.id, s.revision == upgrade.revision, s.direction == 'forward'
    )


def passed(session: orm.Session, upgrade: models.Upgrade) -> models.Step | None:
    """Return the last point of no return that was begun, or a switch that nothing undoes."""
    s, back = models.Step, orm.aliased(models.Step)
    undone = sa.exists().where(back.undo_of == s.id, back.kind == s.kind)
    final = sa.or_(s.ponr, sa.and_(s.kind == 'upgrade_service', ~undone))
    query = _forward(upgrade).where(final, _attempted()).order_by(s.ord.desc()).limit(1)
    return session.execute(query).scalars().first()


def undoable(session: orm.Session, upgrade: models.Upgrade, after: int) -> bool:
    """Tell whether something begun after a step can be undone."""
    s, back = models.Step, orm.aliased(models.Step)
    undone = sa.exists().where(back.undo_of == s.id)
    query = _forward(upgrade).where(s.ord > after, _attempted(), undone).limit(1)
    return session.execute(query).scalars().first() is not None


def rollback_floor(ctx: Context, upgrade_id: str) -> int | None:
    """Return the `ord` of the last point of no return that was passed; None: none was."""
    with base.reader(ctx) as session:
        found = passed(session, session.get_one(models.Upgrade, upgrade_id))
        return found.ord if found else None
