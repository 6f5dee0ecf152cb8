"""Engines' identities: who may execute steps, and the strategies they offer."""

import pathlib
from typing import Any

from upgrade_service import exception
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


def public_keys(keys_dir: str) -> dict[str, str]:
    """Return the deployment's public keys {kid: key} that engines verify orders with.

    :raises Conflict: there is none; an engine enrolled so would refuse every order.
    """
    found = {
        path.stem: path.read_text().strip()
        for path in sorted(pathlib.Path(keys_dir).glob('*.pub'))
    }
    if not found:
        raise exception.Conflict(
            reason=f'there is no public key (*.pub) in {keys_dir} where '
            f'the API runs; make one with upgrade-service-manage'
        )
    return found


def enroll(ask: Ask) -> Answer:
    """Make a one-time token and the bundle that carries it; it is shown this once."""
    keys = public_keys(ask.conf.trust.keys_dir)
    host = ask.body['host']
    token, expires_at = db_api.enroll_token_create(ask.ctx, host, ask.conf.trust.enroll_lifetime)
    bundle = {'token': token, 'host': host, 'keys': keys, 'expires_at': expires_at}
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
