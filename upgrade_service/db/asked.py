"""What a client's change must meet in its own transaction: said once, and not too often.

The answer is kept where the change is made. So neither a request that is sent twice at
once, nor a process that dies right after the commit, gives two effects or two answers.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context, exception
from upgrade_service.db import base, models

Context = context.RequestContext
Row = dict[str, Any]
#: how long an answer is kept, and the window in which changes are counted (ms)
KEPT, WINDOW = 86_400_000, 60_000
#: old answers that one request clears away
SWEPT = 100


class Repeated(Exception):
    """The request was answered before: nothing was changed, see :func:`answer_get`."""


@dataclasses.dataclass(kw_only=True)
class Asked:
    """A change that a client asks for."""

    #: turns the changed row into what is answered, as JSON; must not use the database
    shown: Callable[[Row], Row]
    key: str | None = None  #: name under which the answer is kept; None: it is not
    request: str = ''  #: digest of what is asked
    most: int = 0  #: changes of upgrades a user may make in a minute; 0: any number
    answer: Row = dataclasses.field(default_factory=dict)

    def begin(self, session: orm.Session) -> None:
        """Take the key, before anything else of the transaction.

        An equal request waits here for the end of this one.

        :raises Repeated: it is answered by then.
        """
        if self.key is None:
            return
        row = {'key': self.key, 'request': self.request, 'status': 0, 'body': {}}
        try:
            session.execute(sa.insert(models.IdempotencyKey).values(at=base.now_ms(), **row))
        except db_exc.DBDuplicateEntry as e:
            raise Repeated(self.key) from e

    def count(self, session: orm.Session, ctx: Context) -> None:
        """Look how many events the user caused in the last minute.

        :raises TooMany: as many as are allowed.
        """
        if not self.most:
            return
        event, now = models.Event, base.clock(session)
        times = session.execute(
            sa.select(event.at)
            .where(event.actor == ctx.actor, event.at > now - WINDOW)
            .order_by(event.at.desc())
            .limit(self.most)
        ).scalars()
        found = list(times)
        if len(found) >= self.most:
            wait = max(1, math.ceil((found[-1] + WINDOW - now) / 1000))
            raise exception.TooMany(most=self.most, retry_after=wait)

    def end(self, session: orm.Session, row: Row) -> None:
        """Keep the answer with the change."""
        self.answer = self.shown(row)
        if self.key is not None:
            session.execute(
                sa.update(models.IdempotencyKey)
                .filter_by(key=self.key)
                .values(status=self.answer['status'], body=self.answer)
                .execution_options(synchronize_session=False)
            )


def begin(session: orm.Session, asked: Asked | None) -> None:
    """Begin a change that perhaps no client asked for."""
    if asked is not None:
        asked.begin(session)


def end(session: orm.Session, asked: Asked | None, row: Row) -> Row:
    """End it; return the row."""
    if asked is not None:
        asked.end(session, row)
    return row


def answer_get(ctx: Context, key: str) -> Row | None:
    """Return what is kept under a key: {request, status, body: the answer}."""
    with base.reader(ctx) as session:
        found = session.get(models.IdempotencyKey, key)
        return found.as_dict() if found else None


@base.retry
def answers_sweep(ctx: Context) -> None:
    """Delete some answers older than a day."""
    k = models.IdempotencyKey
    # found without locks, so that this never waits for a request that is under way
    with base.reader(ctx) as session:
        old = sa.select(k.key).where(k.at < base.now_ms() - KEPT).limit(SWEPT)
        keys = list(session.execute(old).scalars())
    if keys:
        with base.writer(ctx) as session:
            session.execute(sa.delete(k).where(k.key.in_(keys)))
