"""Steps of an upgrade, what they printed, and what to do with one that failed."""

from typing import Any

from upgrade_service import exception
from upgrade_service.api import ask as asks
from upgrade_service.api import plans, types, views
from upgrade_service.api.controllers import upgrades
from upgrade_service.db import api as db_api

Ask = asks.Ask
Answer = asks.Answer
Row = dict[str, Any]


def index(ask: Ask) -> Answer:
    """List steps in the plan's order; those of the way back once that is taken."""
    upgrade = upgrades.get(ask)
    filters = ask.filters('state', 'stage', 'kind', 'host', 'project', 'direction')
    if upgrade['direction'] != 'back':
        filters.setdefault('direction', 'forward')
    rows = db_api.step_list(
        ask.ctx, upgrade['id'], filters, ask.limit + 1, ask.query.get('marker')
    )
    waits = plans.parents(ask.ctx, upgrade)
    return ask.page('steps', rows, 'ord', lambda row: views.step(row, waits))


def _get(ask: Ask, upgrade: Row) -> Row:
    return db_api.step_get(ask.ctx, upgrade['id'], ask.refs['step'])


def show(ask: Ask) -> Answer:
    """Show a step."""
    upgrade = upgrades.get(ask)
    return Answer(views.step(_get(ask, upgrade), plans.parents(ask.ctx, upgrade)))


def log(ask: Ask) -> Answer:
    """Show what the last attempt, or the one asked for, printed."""
    step = _get(ask, upgrades.get(ask))
    found = db_api.step_output_get(ask.ctx, step['id'], ask.query.get('attempt'))
    if found is None and 'attempt' in ask.query:
        raise exception.NotFound(kind='output of attempt', ref=ask.query['attempt'])
    said = found or {'attempt': step['attempt'], 'text': ''}
    return Answer(types.Output(step=step['ord'], attempt=said['attempt'], text=said['text']))


def _verb(ask: Ask, verb: str) -> Answer:
    upgrade = upgrades.get(ask)
    waits = plans.parents(ask.ctx, upgrade)
    asked = ask.change(lambda row: Answer(views.step(row, waits)))
    db_api.step_verb(ask.ctx, upgrade['id'], ask.refs['step'], verb, ask.body, asked, ask.if_match)
    ask.bell.advance(ask.ctx, upgrade['id'])
    return asks.answered(asked)


def retry(ask: Ask) -> Answer:
    """Try a failed or unknown step again."""
    if ask.body.get('acknowledge_risk'):
        ask.authorize('upgrade:steps:force')
    return _verb(ask, 'retry')


def skip(ask: Ask) -> Answer:
    """Go on without a failed or unknown step."""
    return _verb(ask, 'skip')


def resolve(ask: Ask) -> Answer:
    """Say how a failed or unknown step really ended."""
    return _verb(ask, 'resolve')
