"""The database connection: transactions, the server's clock, retries.

Writers on SQLite use BEGIN IMMEDIATE, because a transaction that begins as a reader and
then writes fails at once when another writes; on the servers READ COMMITTED is used, so
that what is read after the locking statement is what is there.
"""

from collections.abc import Callable, Iterator
import contextlib
import threading
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

from upgrade_service import context, exception

_manager: Any = None
_writing = threading.local()
F = TypeVar('F', bound=Callable[..., Any])

#: writers are tried again on a deadlock only: after a lost connection nobody knows
#: whether COMMIT was done, so the caller must read again before it repeats anything
retry = oslo_db_api.wrap_db_retry(
    max_retries=20,
    retry_interval=0.02,
    inc_retry_interval=True,
    max_retry_interval=0.5,
    retry_on_deadlock=True,
)


class now_ms(functions.FunctionElement[int]):
    """Milliseconds since the epoch by the database server's clock."""

    type = sa.BigInteger()
    inherit_cache = True


@compiler.compiles(now_ms, 'sqlite')
def _now_sqlite(element: Any, comp: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiler.compiles(now_ms, 'mysql')
@compiler.compiles(now_ms, 'mariadb')
def _now_mysql(element: Any, comp: Any, **kw: Any) -> str:
    return 'CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)'


@compiler.compiles(now_ms, 'postgresql')
def _now_postgresql(element: Any, comp: Any, **kw: Any) -> str:
    return 'CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)'


def _prepare(engine: sa.Engine) -> None:
    if engine.dialect.name == 'sqlite':
        sa.event.listen(engine, 'connect', _sqlite_pragmas)
        sa.event.listen(engine, 'before_cursor_execute', _sqlite_begin, retval=True)
    elif engine.dialect.name in ('mysql', 'mariadb'):
        sa.event.listen(engine, 'connect', _mysql_isolation)


def _sqlite_pragmas(connection: Any, record: Any) -> None:
    for pragma in ('journal_mode=WAL', 'busy_timeout=30000', 'synchronous=FULL'):
        connection.execute(f'PRAGMA {pragma}')


def _sqlite_begin(
    conn: Any, cursor: Any, statement: str, params: Any, ctx: Any, many: bool
) -> tuple[str, Any]:
    if statement == 'BEGIN' and getattr(_writing, 'on', False):
        return 'BEGIN IMMEDIATE', params
    return statement, params


def _mysql_isolation(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')


def configure(conf: cfg.ConfigOpts, connection: str | None = None) -> None:
    """Point this process at its database (`[database] connection`, or the URL given)."""
    global _manager
    _manager = enginefacade.transaction_context()
    _manager.append_on_engine_create(_prepare)
    url = connection or conf.database.connection
    _manager.configure(
        connection=url,
        sqlite_fk=True,
        max_retries=3,
        retry_interval=1,
        max_pool_size=20,
        max_overflow=40,
    )


def get_engine() -> sa.Engine:
    """Return the SQLAlchemy engine, for migrations and tests."""
    engine: sa.Engine = _manager.writer.get_engine()
    return engine


@contextlib.contextmanager
def reader(ctx: context.RequestContext) -> Iterator[orm.Session]:
    """One reading transaction."""
    with _translated(), _manager.reader.using(ctx) as session:
        yield session


@contextlib.contextmanager
def writer(ctx: context.RequestContext) -> Iterator[orm.Session]:
    """One writing transaction, committed at the end."""
    _writing.on = True
    try:
        with _translated(), _manager.writer.using(ctx) as session:
            yield session
    finally:
        _writing.on = False


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (db_exc.DBConnectionError, db_exc.CantStartEngineError) as e:
        raise exception.Busy(retry_after=5) from e


def now(ctx: context.RequestContext) -> int:
    """Return the database server's time, ms since the epoch."""
    with reader(ctx) as session:
        return clock(session)


def clock(session: orm.Session) -> int:
    """Return the database server's time inside a transaction."""
    return int(session.execute(sa.select(now_ms())).scalar_one())


def page(
    session: orm.Session, model: Any, query: Any, key: Any, limit: int | None, marker: Any
) -> list[dict[str, Any]]:
    """Run a query page by page: keyset paging on `key`, which must be unique."""
    if marker is not None:
        query = query.where(key > marker)
    query = query.order_by(key)
    if limit is not None:
        query = query.limit(limit)
    return [row.as_dict() for row in session.execute(query).scalars()]
