"""The final report of an upgrade, made from rows: pure functions.

Times are wall-clock seconds between the database's own stamps; what has not ended yet has
none.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from upgrade_service.api import types

Row = dict[str, Any]
STUCK = frozenset({'failed', 'unknown'})


def report(row: Row, steps: Sequence[Row], requests: Sequence[Row]) -> types.Resource:
    """Return the report; `requests`: the events that people caused."""
    begun = [s for s in steps if s['started_at']]
    return types.Report.of(
        row,
        upgrade=row['id'],
        seconds=seconds(row['started_at'], row['finished_at']),
        stages=list(_stages(steps)),
        hosts=list(_hosts(begun)),
        migrations=list(_migrations(steps)),
        failed=[_step(s) for s in steps if s['state'] in STUCK],
        skipped=[_step(s) for s in steps if s['state'] == 'skipped'],
        retried=[_step(s) for s in steps if s['attempt'] > 1],
        requests=[types.Request.of(e, verb=e['kind']) for e in requests],
    )


def seconds(begun: int | None, ended: int | None) -> float | None:
    """Return the seconds between two stamps (ms)."""
    return (ended - begun) / 1000 if begun and ended and ended >= begun else None


def _span(steps: Iterable[Row]) -> float | None:
    """Return the seconds from the first begin to the last end."""
    spans = [(s['started_at'], s['finished_at']) for s in steps if s['started_at']]
    ends = [end for _, end in spans if end]
    return seconds(min((b for b, _ in spans), default=None), max(ends, default=None))


def _stages(steps: Sequence[Row]) -> Iterable[types.Resource]:
    grouped: dict[tuple[str, str], list[Row]] = {}
    for step in steps:
        grouped.setdefault((step['direction'], step['stage']), []).append(step)
    for (direction, name), found in grouped.items():
        if any(s['attempt'] for s in found):
            done = sum(s['state'] in ('succeeded', 'skipped') for s in found)
            yield types.StageReport(
                name=name, direction=direction, steps=len(found), done=done, seconds=_span(found)
            )


def _hosts(steps: Sequence[Row]) -> Iterable[types.Resource]:
    """Tell of each host how long its steps took, and how long it took nobody in."""
    grouped: dict[str, list[Row]] = {}
    for step in steps:
        if step['host']:
            grouped.setdefault(step['host'], []).append(step)
    for host, found in sorted(grouped.items()):
        out = (_out(found, direction) for direction in ('forward', 'back'))
        spans = [span for span in out if span is not None]
        yield types.HostReport(
            host=host,
            steps=len(found),
            seconds=_busy(s for s in found if s['kind'] != 'prefetch'),
            seconds_out=sum(spans) if spans else None,
            failed=sum(s['state'] in STUCK for s in found),
        )


def _out(steps: Iterable[Row], direction: str) -> float | None:
    """Return the seconds from disabled to enabled, on the way there or back."""
    window = {s['kind']: s for s in steps if s['direction'] == direction}
    off, on = window.get('disable_host'), window.get('enable_host')
    return seconds(off['started_at'], on['finished_at']) if off and on else None


def _busy(steps: Iterable[Row]) -> float:
    """Return the seconds in which some step was under way: those of a chain overlap."""
    spans = sorted((s['started_at'], s['finished_at']) for s in steps if s['finished_at'])
    total, until = 0, 0
    for begun, ended in spans:
        total += max(0, ended - max(begun, until))
        until = max(until, ended)
    return total / 1000


def _migrations(steps: Sequence[Row]) -> Iterable[types.Resource]:
    for step in steps:
        moves = (step['progress'] or {}).get('moves') or {}
        if step['kind'] != 'drain_host':
            continue
        for server, move in moves.items():
            yield types.Migration(
                server=server,
                source=step['host'],
                target=move.get('to'),
                state=move.get('state'),
                tries=move.get('tries'),
                seconds=move.get('seconds'),
            )


def _step(row: Row) -> types.Resource:
    return types.StepReport.of(row)
