"""Engines' identities: who may execute steps, and the strategies they offer."""

from typing import Any

from upgrade_service import exception, keys
from upgrade_service.api import ask as asks
from upgrade_service.api import types, views
from upgrade_service.db import api as db_api

Ask = asks.Ask
Answer = asks.Answer
Row = dict[str, Any]


def _shown(ask: Ask, row: Row, now: int | None = None) -> types.Resource:
    at = db_api.now(ask.ctx) if now is None else now
    return types.Agent.of(row, up=views.is_up(row, at, ask.conf.conductor.agent_timeout))


def index(ask: Ask) -> Answer:
    """List agents."""
    rows = db_api.agent_list(
        ask.ctx, ask.filters('host', 'state'), ask.limit + 1, ask.query.get('marker')
    )
    now = db_api.now(ask.ctx)
    return ask.page('agents', rows, 'id', lambda row: _shown(ask, row, now))


def show(ask: Ask) -> Answer:
    """Show an agent, by id or by host."""
    return Answer(_shown(ask, db_api.agent_get(ask.ctx, ask.refs['agent'])))


def enroll(ask: Ask) -> Answer:
    """Make a one-time token and the bundle that carries it; it is shown this once."""
    trusted = keys.public(ask.conf)
    if not trusted:
        raise exception.Conflict(
            reason='engines would have no key to trust: make one with '
            '`upgrade-service-manage keys create`, and have it where the API runs'
        )
    host = ask.body['host']
    token, expires_at = db_api.enroll_token_create(
        ask.ctx, host, ask.conf.trust.enroll_lifetime, bool(ask.body.get('review'))
    )
    bundle = {'token': token, 'host': host, 'keys': trusted, 'expires_at': expires_at}
    return Answer(types.Enrolment(host=host, expires_at=expires_at, bundle=bundle))


def approve(ask: Ask) -> Answer:
    """Trust an engine."""
    row = db_api.agent_get(ask.ctx, ask.refs['agent'])
    if row['state'] == 'revoked':
        raise exception.Conflict(reason=f'agent {row["id"]} was revoked; enrol its host again')
    return Answer(_shown(ask, db_api.agent_set_state(ask.ctx, row['id'], 'active')))


def revoke(ask: Ask) -> Answer:
    """Trust an engine no more."""
    return Answer(_shown(ask, db_api.agent_set_state(ask.ctx, ask.refs['agent'], 'revoked')))


def delete(ask: Ask) -> Answer:
    """Forget an engine that is not active."""
    db_api.agent_delete(ask.ctx, ask.refs['agent'])
    return Answer(None)


def strategies(ask: Ask) -> Answer:
    """List the strategies that engines offer."""
    rows = db_api.strategy_rows(ask.ctx)
    return Answer({'strategies': [types.Strategy.of(row) for row in rows]})
