"""Alarms of a run: problems that come and go, each coming and going on record."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from upgrade_service import context
from upgrade_service.db import base, models, turns

Context = context.RequestContext
Row = dict[str, Any]
Key = tuple[str, str | None, int | None]  #: (code, host, number of the step)
SEVERITY = 'alarm'


def alarm_list(ctx: Context, upgrade_id: str) -> list[Key]:
    """List the alarms that stand."""
    p = models.Problem
    query = sa.select(p.code, p.host, p.step).filter_by(upgrade_id=upgrade_id, severity=SEVERITY)
    with base.reader(ctx) as session:
        return [(code, host, step) for code, host, step in session.execute(query)]


@base.retry
def alarms_tell(
    ctx: Context,
    upgrade_id: str,
    epoch: int,
    raised: Sequence[Row],
    cleared: Iterable[Key],
    message: str,
) -> None:
    """Raise and clear alarms of an upgrade, as long as nobody took it over from `epoch`.

    `raised`: {code, message, hint, host, service, step, step_id, attempt}. `message`: what the
    upgrade itself says while it runs.

    :raises Mismatch: the upgrade has another owner by now.
    """
    p = models.Problem
    with turns.turn(ctx, upgrade_id, models.Upgrade.epoch == epoch) as t:
        for code, host, step in cleared:
            t.session.execute(
                sa.delete(p).where(
                    p.upgrade_id == upgrade_id,
                    p.severity == SEVERITY,
                    p.code == code,
                    p.host.is_not_distinct_from(host),
                    p.step.is_not_distinct_from(step),
                )
            )
            t.event('alarm_over', detail={'code': code, 'host': host, 'step': step})
        for row in raised:
            said = {k: row[k] for k in ('code', 'message', 'hint', 'host', 'service', 'step')}
            t.session.execute(
                sa.insert(p).values(
                    cluster_id=t.row.cluster_id,
                    upgrade_id=upgrade_id,
                    severity=SEVERITY,
                    acceptable=False,
                    **said,
                )
            )
            t.event('alarm', row['step_id'], row['attempt'], detail=said)
        t.close({'message': message} if t.row.state in ('running', 'stopping') else {})
