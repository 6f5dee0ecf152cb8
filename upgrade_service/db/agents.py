"""Engines' identities: enrolment, heartbeats, facts."""

import hashlib
import hmac
import secrets
from typing import Any
import uuid

import sqlalchemy as sa

from upgrade_service import context, exception
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, models

Context = context.RequestContext
Row = dict[str, Any]


def agent_id(pubkey: str) -> str:
    """Return the id an engine has: derived from its key, so both sides know it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, pubkey))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@base.retry
def enroll_token_create(
    ctx: Context, host: str, lifetime: int = 3600, review: bool = False
) -> tuple[str, int]:
    """Make a one-time token for `host`; return it and when it expires (ms).

    With `review` the engine that spends it stays `pending` until it is approved.
    """
    token = secrets.token_urlsafe(32)
    with base.writer(ctx) as session:
        exp = base.clock(session) + lifetime * 1000
        session.add(models.EnrollToken(hash=_hash(token), host=host, exp=exp, review=review))
    return token, exp


@base.retry
def agent_enroll(ctx: Context, token: str, host: str, pubkey: str) -> Row:
    """Spend a token: the engine of `host` is known by `pubkey` from now on.

    The same request again (its answer may have been lost) finds the agent and changes
    nothing. An older identity of the host is revoked: a host has one engine.
    """
    ident = agent_id(pubkey)
    with base.writer(ctx) as session:
        known = session.get(models.Agent, ident)
        if known is not None:
            if not hmac.compare_digest(known.host, host):
                raise exception.Untrusted(reason=f'this key belongs to host {known.host}')
            return known.as_dict()
        now = base.clock(session)
        offer = session.get(models.EnrollToken, _hash(token))
        review = offer is not None and offer.review
        spent = session.execute(
            sa.delete(models.EnrollToken).where(
                models.EnrollToken.hash == _hash(token),
                models.EnrollToken.host == host,
                models.EnrollToken.exp >= now,
            )
        )
        if spent.rowcount != 1:  # type: ignore[attr-defined]
            raise exception.Untrusted(reason=f'no valid enrolment token for host {host}')
        session.execute(
            sa.update(models.Agent)
            .where(models.Agent.host == host, models.Agent.state != 'revoked')
            .values(state='revoked')
        )
        row = models.Agent(
            id=ident,
            host=host,
            pubkey=pubkey,
            state='pending' if review else 'active',
            created_at=now,
            seen_at=now,
        )
        session.add(row)
        session.flush()
        return row.as_dict()


def agent_get(ctx: Context, ref: str) -> Row:
    """Return an agent by id, or the one in use of a host name."""
    a = models.Agent
    query = (
        sa.select(a)
        .where(sa.or_(a.id == ref, a.host == ref))
        .order_by(sa.case((a.state == 'revoked', 1), else_=0), a.created_at.desc())
    )
    with base.reader(ctx) as session:
        found = session.execute(query).scalars().first()
        if found is None:
            raise exception.NotFound(kind='agent', ref=ref)
        return found.as_dict()


def agent_list(
    ctx: Context, filters: Row | None = None, limit: int | None = None, marker: str | None = None
) -> list[Row]:
    """List agents by id; filters: host, state."""
    query = sa.select(models.Agent).filter_by(**(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Agent, query, models.Agent.id, limit, marker)


@base.retry
def agent_set_state(ctx: Context, ref: str, state: str, asked: askeds.Asked | None = None) -> Row:
    """Approve ('active') or revoke ('revoked') an agent."""
    ident = agent_get(ctx, ref)['id']
    with base.writer(ctx) as session:
        askeds.begin(session, asked)
        session.execute(sa.update(models.Agent).filter_by(id=ident).values(state=state))
        return askeds.end(session, asked, session.get_one(models.Agent, ident).as_dict())


@base.retry
def agent_delete(ctx: Context, ref: str) -> None:
    """Forget a revoked agent."""
    row = agent_get(ctx, ref)
    if row['state'] == 'active':
        raise exception.Conflict(reason=f'agent {row["id"]} is active; revoke it first')
    with base.writer(ctx) as session:
        session.execute(sa.delete(models.Agent).filter_by(id=row['id']))


@base.retry
def agents_seen(ctx: Context, beats: dict[str, Row]) -> None:
    """Record heartbeats {agent id: {boot_id, version}} in one transaction."""
    with base.writer(ctx) as session:
        for ident, beat in sorted(beats.items()):
            session.execute(
                sa.update(models.Agent)
                .filter_by(id=ident)
                .values(seen_at=base.now_ms(), boot_id=beat['boot_id'], version=beat['version'])
                .execution_options(synchronize_session=False)
            )


@base.retry
def agent_facts(ctx: Context, ident: str, facts: Row) -> None:
    """Record what an engine says of its host."""
    with base.writer(ctx) as session:
        session.execute(
            sa.update(models.Agent)
            .filter_by(id=ident)
            .values(facts=facts, facts_at=base.now_ms(), seen_at=base.now_ms())
            .execution_options(synchronize_session=False)
        )


def agents_absent(ctx: Context, timeout: float) -> set[str]:
    """Return the ids of engines that were not heard of for `timeout` seconds."""
    a = models.Agent
    gone = sa.or_(a.seen_at.is_(None), a.seen_at < base.now_ms() - int(timeout * 1000))
    with base.reader(ctx) as session:
        return set(session.execute(sa.select(a.id).where(gone)).scalars())


def strategy_rows(ctx: Context) -> list[Row]:
    """List strategies that engines report: [{name, ready, hosts, reasons}]."""
    found: dict[str, Row] = {}
    for agent in agent_list(ctx, {'state': 'active'}):
        for name, said in ((agent['facts'] or {}).get('strategies') or {}).items():
            row = found.setdefault(name, {'name': name, 'ready': 0, 'hosts': 0, 'reasons': []})
            row['hosts'] += 1
            row['ready'] += bool(said.get('ready'))
            reason = said.get('reason')
            if reason and reason not in row['reasons']:
                row['reasons'].append(reason)
    return [found[name] for name in sorted(found)]
