"""Rows of the database as clients see them."""

from collections.abc import Mapping, Sequence
import itertools
import time
from typing import Any

from upgrade_service import model, states
from upgrade_service.api import plans, types

Row = dict[str, Any]


def upgrade(row: Row, cluster: str | None, base: str, floor: int | None = None) -> types.Resource:
    """Show an upgrade; `cluster`: name of its cluster."""
    counters = row['counters']
    at = f'{base}/v1/upgrades/{row["id"]}'
    links = [
        types.Link(rel=rel, href=f'{at}{path}')
        for rel, path in (
            ('self', ''),
            ('plan', '/plan'),
            ('steps', '/steps'),
            ('events', '/events'),
        )
    ]
    selection = {k: row['selection'].get(k) for k in ('hosts', 'azs', 'projects')}
    return types.Upgrade.of(
        row,
        cluster=cluster,
        progress=_progress(counters),
        links=links,
        hosts=types.Hosts.of({'total': 0, 'done': 0, 'held': 0, **counters.get('hosts', {})}),
        selection=types.Selection(**selection),
        eta_seconds=_eta(row),
        points_of_no_return=counters.get('ponr', []),
        rollback_floor=floor,
    )


def _progress(counters: Row) -> types.Resource:
    by_state = counters.get('steps', {})

    def count(wanted: frozenset[str]) -> int:
        return sum(n for state, n in by_state.items() if state in wanted)

    return types.Progress(
        total=counters.get('total', 0),
        done=count(states.STEP_ENDED),
        running=count(states.STEP_IN_FLIGHT),
        failed=count(states.STEP_STUCK),
    )


def _eta(row: Row) -> int | None:
    """Guess from the pace so far; None while there is none."""
    done: int = _progress(row['counters']).done
    total: int = row['counters'].get('total', 0)
    if row['state'] != 'running' or not done or not row['started_at']:
        return None
    elapsed: float = max(0.0, time.time() - row['started_at'] / 1000)
    return round(elapsed * (total - done) / done)


def step(row: Row, waits: plans.Parents) -> types.Resource:
    """Show a step."""
    kind = model.KINDS[row['kind']]
    begun, ended = row['started_at'], row['finished_at']
    return types.Step.of(
        row,
        title=kind.title,
        parents=list(waits.get(row['id'], ())),
        reversible=kind.undo,
        idempotent=kind.idempotent,
        skippable=kind.skippable,
        disruptive=kind.disruptive,
        seconds=(ended - begun) / 1000 if begun and ended and ended >= begun else None,
    )


def plan(
    row: Row, steps: Sequence[Row], back: Sequence[Row], waits: plans.Parents
) -> types.Resource:
    """Show the plan of an upgrade; `back`: the steps of its way back."""
    ranks = {name: n for n, name in enumerate(model.STAGES)}
    ordered = sorted(steps, key=lambda s: (ranks.get(s['stage'], len(ranks)), s['ord']))
    return types.Plan.of(
        row,
        upgrade=row['id'],
        stages=_stages(ordered, waits),
        undo=_stages(back, waits),
        moves=row['counters'].get('moves', {}),
        points_of_no_return=[s['ord'] for s in steps if s['ponr']],
        estimate_seconds=plans.longest(steps, waits),
    )


def _stages(steps: Sequence[Row], waits: plans.Parents) -> list[types.Resource]:
    """Group steps that stand together by their stage."""
    return [
        types.Stage(name=name, steps=[step(s, waits) for s in found])
        for name, found in itertools.groupby(steps, key=lambda s: s['stage'])
    ]


def host(row: Row, services: Sequence[Row], up: Mapping[str, bool]) -> types.Resource:
    """Show a host; `up`: host -> whether its engine is heard of."""
    releases = sorted({s['release'] for s in services if s['release']})
    heard = up.get(row['name'])
    return types.Host.of(
        row,
        agent=row['agent_id'],
        release=', '.join(releases) or None,
        release_mixed=len(releases) > 1,
        services_total=len(services),
        services_up=sum(s['state'] == 'up' for s in services),
        agent_state=None if heard is None else 'up' if heard else 'down',
    )


def is_up(agent: Row, now: int, timeout: int) -> bool:
    """Tell whether an engine was heard of within `timeout` seconds before `now` (ms)."""
    seen = agent['seen_at']
    return agent['state'] == 'active' and seen is not None and now - seen <= timeout * 1000
