"""What `--wait` says: pure functions from rows of the API to lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from upgrade_service.osc import columns

Row = Mapping[str, Any]

#: states of a step worth a line of their own; the others only change the counts
NOTED_STATES = frozenset({'succeeded', 'failed', 'unknown', 'skipped', 'cancelled'})
#: of these, the ones that stay on a terminal whose status lines tell the rest
LOUD_STATES = frozenset({'failed', 'unknown', 'skipped'})
#: events of an upgrade that are told even if its state stays the same
TOLD = {
    'created': 'asked for',
    'plan_failed': 'cannot be planned',
    'gate_reached': 'waits at a gate',
    'releasing': 'puts hosts back into service',
    'planned': 'planned',
    'start': 'started',
    'pause': 'pause asked for',
    'resume': 'resumed',
    'cancel': 'cancel asked for',
    'rollback': 'rollback asked for',
    'going_back': 'goes back',
    'hosts_done': 'has ended the hosts in progress',
    'replan': 'is planned anew',
    'declare_lost': 'goes on without a lost host',
    'verb_refused': 'refused a request',
    'approve': 'gate approved',
}
COUNTED = ('done', 'running', 'failed')


def one_line(text: object) -> str:
    """Return a text without line breaks, and no longer than a few lines of a terminal."""
    return ' '.join(str(text).split())[:300]


def step_label(step: Row | None) -> str:
    """Name a step for people: where, what, of which service."""
    if not step:
        return 'a step'
    what = step.get('service') or step.get('project') or ''
    undo = 'undo:' if step.get('direction') == 'back' else ''
    return ' '.join(str(p) for p in (step.get('host') or 'cloud', undo, step['kind'], what) if p)


def event_line(event: Row, step: Row | None, began: int | None = None) -> str | None:
    """Tell an event in a line, or None when it is not worth one.

    `began`: when the step's attempt began (ms), for the time it took.
    """
    told = _step_event(event, step, began) if event.get('step_id') else _upgrade_event(event)
    if told is None:
        return None
    return f'{columns.stamp(event.get("at"))[11:19]} {told}'.strip()


def _step_event(event: Row, step: Row | None, began: int | None) -> str | None:
    detail = event.get('detail') or {}
    after = detail.get('after')
    if event.get('kind') == 'alarm':
        return _alarm(detail)
    if event.get('kind') == 'retry':
        return f'{step_label(step)}: to be tried again'
    if after not in NOTED_STATES or after == detail.get('before'):
        return None
    if step and step.get('kind') == 'gate':
        return f'stage {step.get("stage")}: gate passed' if after == 'succeeded' else None
    took = ''
    at = event.get('at')
    if began is not None and isinstance(at, int):
        took = f' ({columns.duration((at - began) / 1000)})'
    error = (step or {}).get('error') if after in LOUD_STATES else None
    return f'{step_label(step)}: {after}{took}' + (f': {one_line(error)}' if error else '')


def _alarm(detail: Row) -> str:
    return f'attention: {one_line(detail.get("message"))}'


def _upgrade_event(event: Row) -> str | None:
    detail = event.get('detail') or {}
    if event.get('kind') == 'alarm':
        return _alarm(detail)
    kind, after = event.get('kind', ''), detail.get('after')
    moved = after is not None and after != detail.get('before')
    if kind not in TOLD and not moved:
        return None
    said = TOLD.get(kind, after)
    if kind == 'planned':
        said = f'{said}: {detail.get("steps")} steps, {detail.get("problems", 0)} problems'
    reason = next((detail[k] for k in ('why', 'reason', 'gate') if detail.get(k)), None)
    return f'upgrade {said}' + (f' ({reason})' if reason else '')


def is_loud(event: Row) -> bool:
    """Tell whether an event's line stays on a terminal."""
    return not event.get('step_id') or (
        (event.get('detail') or {}).get('after') in LOUD_STATES
        or event.get('kind') in ('retry', 'alarm')
    )


def summary(upgrade: Row) -> str:
    """Tell in one line how far an upgrade is."""
    done = upgrade.get('progress') or {}
    hosts = upgrade.get('hosts') or {}
    total = done.get('total') or 0
    parts = [_state(upgrade)]
    if total:
        parts.append(
            f'{done.get("done", 0)}/{total} steps ({100 * done.get("done", 0) // total} %)'
        )
        parts += [f'{done[w]} {w}' for w in COUNTED[1:] if done.get(w)]
    if hosts.get('total'):
        held = f', {hosts["held"]} held' if hosts.get('held') else ''
        parts.append(f'hosts {hosts.get("done", 0)}/{hosts["total"]} done{held}')
    if upgrade.get('eta_seconds') and upgrade.get('state') == 'running':
        parts.append(f'about {columns.duration(upgrade["eta_seconds"])} to go')
    return ' · '.join(parts)


def _state(upgrade: Row) -> str:
    state = str(upgrade.get('state'))
    reason = upgrade.get('gate') or upgrade.get('blocked_reason')
    if state in ('paused', 'blocked') and reason:
        return f'{state} ({reason})'
    return f'{state} ({upgrade["next"]} next)' if upgrade.get('next') else state


def status_lines(
    upgrade: Row,
    running: Sequence[Row],
    seen: Mapping[str, float],
    now: float,
    width: int,
    most: int = 6,
) -> list[str]:
    """Return the lines a terminal rewrites: the summary, then what goes on now.

    `seen`: step id -> when (s, any clock) this client first saw it run; `now`: that clock.
    """
    name = upgrade.get('name') or upgrade.get('id')
    lines = [f'{name}: {summary(upgrade)}']
    for step in running[:most]:
        since = columns.duration(now - seen.get(str(step.get('id')), now))
        lines.append(f'  {step_label(step)}  {_step_progress(step)}{since}')
    if len(running) > most:
        lines.append(f'  and {len(running) - most} more')
    return [cut(line, width) for line in lines]


def _step_progress(step: Row) -> str:
    told = step.get('progress') or {}
    parts = []
    if told.get('total'):
        parts.append(f'{told.get("done", 0)}/{told["total"]}')
    if told.get('text'):
        parts.append(str(told['text']))
    return ' '.join(parts) + '  ' if parts else ''


def cut(line: str, width: int) -> str:
    """Shorten a line to a terminal's width, so that it stays one line."""
    return line if len(line) < width else line[: max(width - 2, 1)] + '…'


def problem_lines(problems: Sequence[Row]) -> list[str]:
    """Tell each problem: where it is, what it is, what to do."""
    lines = []
    for p in problems:
        where = ' '.join(str(w) for w in (p.get('host'), p.get('service')) if w)
        lines.append(
            f'{p.get("severity")} {p.get("code")}'
            f'{f" [{where}]" if where else ""}: {p.get("message")}'
        )
        if p.get('hint'):
            lines.append(f'    {p["hint"]}')
    return lines


def stuck_lines(ref: str, steps: Sequence[Row]) -> list[str]:
    """Tell each failed or unknown step and what may be done about it."""
    lines = []
    for step in steps:
        error = f': {one_line(step["error"])}' if step.get('error') else ''
        lines.append(f'step {step.get("ord")} {step_label(step)} is {step.get("state")}{error}')
    if steps:
        at = steps[0].get('ord')
        lines += [
            f'    see:  openstack upgrade step log {ref} {at}',
            f'    then: openstack upgrade step retry {ref} {at}   (or step skip, step resolve)',
        ]
    return lines


#: list of a report -> what is told of each of its rows
REPORTED = {
    'stages': '{name} ({direction}): {done}/{steps} steps, {seconds}',
    'hosts': '{host}: {steps} steps, {seconds} of work, {seconds_out} out of service',
    'migrations': '{server}: {source} to {target}, {state}, {seconds}',
    'failed': '{ord} {kind} {host}: {state}: {error}',
    'retried': '{ord} {kind} {host}: {attempt} attempts',
    'skipped': '{ord} {kind} {host}: {error}',
    'requests': '{at} {actor}: {verb}',
}
_SPANS = ('seconds', 'seconds_out')


def report_lines(name: str, value: Any) -> Any:
    """Tell each row of a list of a report in a line; leave anything else as it is."""
    if name not in REPORTED:
        return value
    return [REPORTED[name].format_map(_Told(row)) for row in value or ()]


class _Told(dict[str, Any]):
    """A row whose spans and times are for people; what is not there is a dash."""

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            return '-'
        if key in _SPANS:
            return columns.duration(value)
        return columns.stamp(value) if key == 'at' else value
