"""Upgrades: making them, looking at them, and the operators' verbs."""

from collections.abc import Callable
import time
from typing import Any

from upgrade_service import exception
from upgrade_service.api import ask as asks
from upgrade_service.api import plans, types, views
from upgrade_service.api import report as reports
from upgrade_service.api.controllers import request
from upgrade_service.db import api as db_api

Ask = asks.Ask
Answer = asks.Answer
Row = dict[str, Any]

#: seconds a request for events may wait for one, and between two looks
WAIT_MOST, WAIT_LOOK = 5, 0.25


def index(ask: Ask) -> Answer:
    """List upgrades."""
    filters = ask.filters('state', 'name')
    if 'cluster' in ask.query:
        filters['cluster_id'] = db_api.cluster_get(ask.ctx, ask.query['cluster'])['id']
    rows = db_api.upgrade_list(ask.ctx, filters, ask.limit + 1, ask.query.get('marker'))
    names = {c['id']: c['name'] for c in db_api.cluster_list(ask.ctx)}
    return ask.page(
        'upgrades',
        rows,
        'id',
        lambda row: views.upgrade(row, names.get(row['cluster_id']), ask.base),
    )


def create(ask: Ask) -> Answer:
    """Write an upgrade down; a conductor makes its plan."""
    if ask.body.get('approve_ponr'):
        ask.authorize('upgrade:upgrades:create_approved')
    values = request.values(ask)
    asked = ask.change(_shower(ask, values['cluster_id'], located=True))
    row = db_api.upgrade_create(ask.ctx, values, asked)
    ask.bell.advance(ask.ctx, row['id'])
    return asks.answered(asked)


def get(ask: Ask) -> Row:
    """Return the upgrade that the path names."""
    return db_api.upgrade_get(ask.ctx, ask.refs['upgrade'])


def show(ask: Ask) -> Answer:
    """Show an upgrade."""
    row = get(ask)
    return _shower(ask, row['cluster_id'], db_api.rollback_floor(ask.ctx, row['id']))(row)


def _shower(
    ask: Ask, cluster_id: str, floor: int | None = None, located: bool = False
) -> Callable[[Row], Answer]:
    """Return what shows an upgrade of a cluster, without asking the database anything more."""
    cluster = db_api.cluster_get(ask.ctx, cluster_id)['name']

    def shown(row: Row) -> Answer:
        headers = {'ETag': f'"{row["version"]}"'}
        if located:
            headers['Location'] = f'{ask.base}{ask.path}/{row["id"]}'
        return Answer(views.upgrade(row, cluster, ask.base, floor), headers=headers)

    return shown


def delete(ask: Ask) -> Answer:
    """Delete a draft or an ended upgrade."""
    asked = ask.change(lambda row: Answer(None))
    db_api.upgrade_delete(ask.ctx, ask.refs['upgrade'], ask.if_match, asked)
    return asks.answered(asked)


def _verb(ask: Ask, verb: str, body: Row) -> Answer:
    row = get(ask)
    asked = ask.change(_shower(ask, row['cluster_id']))
    db_api.upgrade_verb(ask.ctx, row['id'], verb, if_match=ask.if_match, body=body, asked=asked)
    ask.bell.advance(ask.ctx, row['id'])
    return asks.answered(asked)


def start(ask: Ask) -> Answer:
    """Start a draft."""
    return _verb(ask, 'start', ask.body)


def pause(ask: Ask) -> Answer:
    """Begin nothing new; with `at` host, end the hosts in progress first."""
    return _verb(ask, 'pause', ask.body)


def resume(ask: Ask) -> Answer:
    """Go on."""
    return _verb(ask, 'resume', ask.body)


def cancel(ask: Ask) -> Answer:
    """Stop, and put healthy hosts back into service."""
    return _verb(ask, 'cancel', ask.body)


def rollback(ask: Ask) -> Answer:
    """Undo what was done, last in first out."""
    return _verb(ask, 'rollback', ask.body)


def replan(ask: Ask) -> Answer:
    """Plan what is left anew."""
    return _verb(ask, 'replan', ask.body)


def approve(ask: Ask) -> Answer:
    """Pass the gate the upgrade waits at."""
    row = get(ask)
    gate = ask.body.get('gate', row['gate'])
    if gate and _has_ponr(ask, row, gate):
        ask.authorize('upgrade:upgrades:approve_ponr')
    # the gate is named in any case: another one may have been reached meanwhile
    return _verb(ask, 'approve', {'gate': gate} if gate else {})


def _has_ponr(ask: Ask, row: Row, stage: str) -> bool:
    return bool(db_api.step_list(ask.ctx, row['id'], {'stage': stage, 'ponr': True}, limit=1))


def plan(ask: Ask) -> Answer:
    """Show the plan."""
    row = get(ask)
    if not row['revision']:
        raise exception.Conflict(reason='the plan is not made yet', state=row['state'])
    steps = db_api.step_list(ask.ctx, row['id'], {'direction': 'forward'})
    back = db_api.step_list(ask.ctx, row['id'], {'direction': 'back'})
    return Answer(views.plan(row, steps, back, plans.parents(ask.ctx, row)))


def report(ask: Ask) -> Answer:
    """Report what was done, how long it took, and who asked for it."""
    row = get(ask)
    steps = db_api.step_list(ask.ctx, row['id'])
    requests = db_api.request_list(ask.ctx, row['id'])
    return Answer(reports.report(row, steps, requests))


def problems(ask: Ask) -> Answer:
    """List what stands against the upgrade."""
    rows = db_api.problem_list(ask.ctx, upgrade_id=get(ask)['id'])
    return Answer({'problems': [types.Problem.of(row) for row in rows]})


def events(ask: Ask) -> Answer:
    """List events; with `wait`, wait a while for the next one."""
    ident, after = get(ask)['id'], ask.query.get('after', 0)
    rows = db_api.event_list(ask.ctx, ident, after, ask.limit + 1)
    # so many requests may wait that others still find a thread; the rest are answered at once
    if not rows and ask.query.get('wait') and ask.waiters.acquire(blocking=False):
        try:
            rows = _next_events(ask, ident, after)
        finally:
            ask.waiters.release()
    return ask.page('events', rows, 'seq', types.Event.of, argument='after')


def _next_events(ask: Ask, ident: str, after: int) -> list[Row]:
    ends = time.monotonic() + min(ask.query['wait'], WAIT_MOST)
    rows: list[Row] = []
    while not rows and time.monotonic() < ends:
        time.sleep(WAIT_LOOK)
        rows = db_api.event_list(ask.ctx, ident, after, ask.limit + 1)
    return rows
