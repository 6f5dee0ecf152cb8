"""Is the audit trail as it was written? Each event's hash covers the event and the hash before it.

A row that was changed, removed, put in or moved breaks the chain at that place, and the
upgrade's own row holds the number and the hash of the last event. Somebody who can write
to every table could compute a whole chain anew: that is what `head` is for, a hash that
was noted outside of this database.
"""

import dataclasses
from typing import Any

import sqlalchemy as sa

from upgrade_service import context, exception
from upgrade_service.db import base, models, turns

Context = context.RequestContext
Row = dict[str, Any]
PAGE = 2000


@dataclasses.dataclass(kw_only=True)
class Trail:
    """What the events of one upgrade look like."""

    upgrade: str
    events: int = 0
    head: str = ''  #: hash of the last event
    #: (number of the event, what is wrong there), in order
    wrong: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def audited(ctx: Context) -> list[str]:
    """List the ids of all upgrades that have events, deleted ones too, or that should have."""
    query = sa.union(sa.select(models.Event.upgrade_id), sa.select(models.Upgrade.id))
    with base.reader(ctx) as session:
        return sorted(session.execute(query).scalars())


def upgrade_of(ctx: Context, ref: str) -> str:
    """Return the id of an upgrade by id or name; a deleted one is known by its id.

    :raises NotFound: there is none, nor are there events of one.
    """
    u, e = models.Upgrade, models.Event
    live = sa.select(u.id).where(sa.or_(u.id == ref, u.name == ref)).order_by(u.created_at.desc())
    with base.reader(ctx) as session:
        for query in (live, sa.select(e.upgrade_id).where(e.upgrade_id == ref)):
            if found := session.execute(query.limit(1)).scalars().first():
                return str(found)
    raise exception.NotFound(kind='upgrade', ref=ref)


def verify(ctx: Context, upgrade_id: str, head: tuple[int, str] | None = None) -> Trail:
    """Read an upgrade's events and say where they are not as they were written.

    :param head: (number, hash) of an event, noted before.
    """
    trail, last, noted, kind = Trail(upgrade=upgrade_id), 0, None, ''
    owner: Row | None = None
    while True:
        page = _events(ctx, upgrade_id, last)
        if not page:
            # the run may go on meanwhile: what its row counts is read after the events
            before, owner = owner, _owner(ctx, upgrade_id)
            if owner is None or owner['seq'] <= last or owner == before:
                break
        for event in page:
            trail.wrong += _link(trail.head, event, last)
            trail.events += 1
            trail.head, last, kind = event['hash'], event['seq'], event['kind']
            noted = event['hash'] if head and last == head[0] else noted
    trail.wrong += _end(trail, owner, last, kind)
    if head and noted != head[1]:
        trail.wrong.append((head[0], 'not the one whose hash was noted'))
    return trail


def _link(head: str, event: Row, last: int) -> list[tuple[int, str]]:
    seq = event['seq']
    if seq != last + 1:
        return [(last + 1, _missing(last + 1, seq - 1))]
    if turns.chain(head, event) != event['hash']:
        return [(seq, 'changed, or not the one that followed the event before it')]
    return []


def _missing(first: int, last: int) -> str:
    return 'missing' if first == last else f'missing, and all up to {last}'


def _end(trail: Trail, owner: Row | None, last: int, kind: str) -> list[tuple[int, str]]:
    if owner is None:
        gone = kind == 'deleted'
        return [] if gone else [(last + 1, 'the upgrade is gone, and no event says that')]
    if owner['seq'] > last:
        return [(last + 1, _missing(last + 1, owner['seq']))]
    if owner['seq'] < last:
        return [(owner['seq'] + 1, 'more than the upgrade has had')]
    if owner['head_hash'] != trail.head:
        return [(last, 'not the last one that the upgrade knows of')]
    return []


def _owner(ctx: Context, upgrade_id: str) -> Row | None:
    u = models.Upgrade
    with base.reader(ctx) as session:
        found = session.execute(sa.select(u.seq, u.head_hash).where(u.id == upgrade_id)).first()
    return {'seq': found.seq, 'head_hash': found.head_hash} if found else None


def _events(ctx: Context, upgrade_id: str, after: int) -> list[Row]:
    e = models.Event
    query = sa.select(e).where(e.upgrade_id == upgrade_id, e.seq > after)
    with base.reader(ctx) as session:
        found = session.execute(query.order_by(e.seq).limit(PAGE)).scalars()
        return [row.as_dict() for row in found]


def grants(user: str) -> list[str]:
    """Return the statements that give a database user what the service needs, and no more.

    Events can be added and read, never changed or removed. The schema is made by another user.
    """
    quoted = base.get_engine().dialect.identifier_preparer.quote
    server = base.get_engine().dialect.name != 'postgresql'
    name = f"'{user}'@'%'" if server else quoted(user)
    said = []
    for table in models.Base.metadata.sorted_tables:
        rights = 'SELECT, INSERT'
        if table.name != models.Event.__tablename__:
            rights += ', UPDATE, DELETE'
        said.append(f'GRANT {rights} ON {quoted(table.name)} TO {name};')
    said.append(f'GRANT SELECT ON alembic_version TO {name};')
    if not server:
        said.append(f'GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {name};')
    return said
