"""A plan as a tree that fits a screen: pure functions from the API's document to text.

Hosts whose steps are alike are drawn once; projects that go one after the other are drawn
in that order. Marks, explained under each tree: runs beside
others, can be undone, is a point of no return.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from upgrade_service.osc import columns

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Marks:
    """The signs of a tree; an ASCII set serves terminals that know no others."""

    parallel: str = '∥'
    undo: str = '↩'
    ponr: str = '⚑'
    arrow: str = '→'
    dot: str = ' · '
    tee: str = '├─ '
    end: str = '└─ '
    bar: str = '│  '
    gap: str = '   '
    more: str = '…'


UNICODE = Marks()
ASCII = Marks('||', '<-', '!!', '->', ', ', '+- ', '`- ', '|  ', '   ', '..')

#: signs of states a step may have once the plan is carried out; pending ones have none
STATE_WORDS = frozenset(
    {'dispatched', 'running', 'succeeded', 'failed', 'unknown', 'skipped', 'cancelled'}
)


def marks_for(encoding: str | None) -> Marks:
    """Return the marks that text of this encoding can carry."""
    try:
        ''.join(dataclasses.astuple(UNICODE)).encode(encoding or 'ascii')
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def tree(plan: Row, marks: Marks = UNICODE) -> str:
    """Draw a plan: `GET /v1/upgrades/{id}/plan` to lines of text, without the last newline."""
    stages = plan.get('stages') or []
    lines = [_heading(plan, stages, marks)]
    for at, stage in enumerate(stages):
        last = at == len(stages) - 1
        lines.append((marks.end if last else marks.tee) + _stage_title(stage, marks))
        indent = marks.gap if last else marks.bar
        lines += [indent + line for line in _stage(stage, marks)]
    lines += _footer(stages, marks)
    return '\n'.join(lines)


# -- around the tree ---------------------------------------------------------------------------


def _heading(plan: Row, stages: Sequence[Row], marks: Marks) -> str:
    steps = [s for stage in stages for s in stage['steps']]
    hosts = {s['host'] for s in steps if s.get('host')}
    parts = [
        f'{plan.get("from_release")} {marks.arrow} {plan.get("to_release")}',
        _count(len(steps), 'step'),
        _count(len(hosts), 'host'),
    ]
    moves = len(plan.get('moves') or ())
    if moves:
        parts.append(f'{_count(moves, "server")} to move')
    if plan.get('estimate_seconds'):
        parts.append(f'about {columns.duration(plan["estimate_seconds"])}')
    if plan.get('digest'):
        parts.append(f'digest {str(plan["digest"])[:12]}')
    return marks.dot.join(parts)


def way_back(plan: Row) -> dict[str, Any]:
    """Return the plan of the way back, in the form of a plan."""
    back = {'from_release': plan.get('to_release'), 'to_release': plan.get('from_release')}
    return {'upgrade': plan.get('upgrade'), **back, 'stages': plan.get('undo') or []}


def _footer(stages: Sequence[Row], marks: Marks) -> list[str]:
    if not stages:
        return ['(no steps yet)']
    lines = [
        '',
        f'{marks.parallel} runs beside others   {marks.undo} can be undone   '
        f'{marks.ponr} point of no return',
    ]
    points = [s for stage in stages for s in stage['steps'] if s.get('ponr')]
    if points:
        first = points[0]
        lines.append(
            f'{_count(len(points), "point")} of no return, the first is step '
            f'{first.get("ord")} ({_what(first)} on {_where(first)})'
        )
    return lines


def _count(n: int, noun: str) -> str:
    return f'{n} {noun}' if n == 1 else f'{n} {noun}s'


# -- a stage -----------------------------------------------------------------------------------


#: kinds that take a service away for a moment: their order across hosts is what matters
RESTARTS = frozenset({'stop_service', 'upgrade_service', 'restart_service'})


@dataclasses.dataclass
class Lane:
    """Steps that belong together: those of a host, of alike hosts, or of a project."""

    names: list[str]  #: hosts, one project, or nothing for a step that stands alone
    steps: list[list[Row]]  #: for each name its steps, in order
    by: str = ''  #: 'host', 'project' or '' for a step that stands alone

    @property
    def signature(self) -> tuple[tuple[Any, ...], ...]:
        """What makes two hosts alike."""
        return tuple(
            (
                s['kind'],
                s.get('project'),
                s.get('service'),
                s.get('strategy'),
                (s.get('params') or {}).get('version'),
            )
            for s in self.steps[0]
        )


def lanes(steps: Sequence[Row]) -> list[Lane]:
    """Group the steps of a stage, in the order in which they begin.

    By host, and hosts that are alike together; by project where a project goes through all
    its hosts before the next one begins. Gates and steps of the cloud itself stand alone.
    """
    by = 'project' if _goes_by_project(steps) else 'host'
    named: dict[str, Lane] = {}
    found: list[Lane] = []
    for step in steps:
        name = step.get(by) if step.get('host') else None
        if not name:
            found.append(Lane([], [[step]]))
        elif name in named:
            named[name].steps[0].append(step)
        else:
            named[name] = Lane([name], [[step]], by)
            found.append(named[name])
    return _merged(found) if by == 'host' else found


def _goes_by_project(steps: Sequence[Row]) -> bool:
    """Tell whether the restarts come back to a host after having been at another."""
    hosts = [s['host'] for s in steps if s['kind'] in RESTARTS and s.get('host')]
    visits = [host for at, host in enumerate(hosts) if at == 0 or hosts[at - 1] != host]
    return len(visits) > len(set(hosts))


def _merged(found: list[Lane]) -> list[Lane]:
    alike: dict[Any, Lane] = {}
    kept: list[Lane] = []
    for lane in found:
        first = alike.get(lane.signature) if lane.by else None
        if first:
            first.names += lane.names
            first.steps += lane.steps
        else:
            kept.append(lane)
            if lane.by:
                alike[lane.signature] = lane
    return kept


def parallel(steps: Sequence[Row]) -> set[int]:
    """Return the numbers of steps that may run while another step of the stage runs.

    A step is ordered against its ancestors and descendants; if those are not all the other
    steps, there is one it may run beside. Sets of steps are bits of integers.
    """
    work = [s for s in steps if s.get('kind') != 'gate']
    bit = {s['ord']: 1 << at for at, s in enumerate(steps)}
    real = sum(bit[s['ord']] for s in work)
    before = _closure(steps, bit)
    after: dict[int, int] = dict.fromkeys(bit, 0)
    for step in reversed(steps):
        for parent in step.get('parents') or ():
            if parent in after:
                after[parent] |= after[step['ord']] | bit[step['ord']]
    return {
        s['ord']
        for s in work
        if (before[s['ord']] | after[s['ord']] | bit[s['ord']]) & real != real
    }


def _closure(steps: Sequence[Row], bit: Mapping[int, int]) -> dict[int, int]:
    before: dict[int, int] = {}
    for step in steps:  # parents come first: `ord` is a topological order
        before[step['ord']] = 0
        for parent in step.get('parents') or ():
            if parent in bit:
                before[step['ord']] |= before.get(parent, 0) | bit[parent]
    return before


def _stage_title(stage: Row, marks: Marks) -> str:
    steps = stage['steps']
    parts = [str(stage['name']), _count(len(steps), 'step')]
    done = sum(s.get('state') in ('succeeded', 'skipped') for s in steps)
    if done:
        parts.append(f'{done} done')
    return marks.dot.join(parts)


def _stage(stage: Row, marks: Marks) -> list[str]:
    steps = sorted(stage['steps'], key=lambda s: s['ord'])
    beside = parallel(steps)
    groups = lanes(steps)
    lines: list[str] = []
    for at, lane in enumerate(groups):
        last = at == len(groups) - 1
        head, *rest = _lane(lane, beside, marks)
        lines.append((marks.end if last else marks.tee) + head)
        lines += [(marks.gap if last else marks.bar) + line for line in rest]
    return lines


def _lane(lane: Lane, beside: set[int], marks: Marks) -> list[str]:
    first = lane.steps[0]
    if not lane.by:
        return [_step([first[0]], beside, marks)]
    lines = [lane.names[0] if lane.by == 'project' else _hosts(lane.names, marks)]
    for at, step in enumerate(first):
        end = at == len(first) - 1
        same = [steps[at] for steps in lane.steps]
        where = f'on {_where(step)}' if lane.by == 'project' else ''
        lines.append((marks.end if end else marks.tee) + _step(same, beside, marks, where))
        if step['kind'] == 'drain_host':
            lines += [(marks.gap if end else marks.bar) + line for line in _moves(same, marks)]
    return lines


def _hosts(names: Sequence[str], marks: Marks) -> str:
    if len(names) == 1:
        return names[0]
    shown = (
        ', '.join(names)
        if len(names) <= 4
        else (f'{names[0]}, {names[1]}, {marks.more} {names[-1]}')
    )
    return f'{len(names)} hosts, each: {shown}'


def _step(same: Sequence[Row], beside: set[int], marks: Marks, where: str = '') -> str:
    step = same[0]
    number = (
        f'{step["ord"]}' if len(same) == 1 else (f'{step["ord"]}{marks.more}{same[-1]["ord"]}')
    )
    details = [
        where,
        str((step.get('params') or {}).get('version') or ''),
        _estimate(same),
        _states(same),
        marks.parallel if any(s['ord'] in beside for s in same) else '',
        marks.undo if step.get('reversible') else '',
        marks.ponr if step.get('ponr') else '',
    ]
    return '  '.join([f'{number} {_what(step)}', *(d for d in details if d)])


def _what(step: Row) -> str:
    if step['kind'] == 'gate':
        params = step.get('params') or {}
        name = f'gate {params["gate"]}' if params.get('gate') else 'gate'
        who = 'waits for approval' if params.get('person') else 'waits for all before it'
        soak = params.get('soak_seconds')
        return f'{name}: {who}' + (f', then {columns.duration(soak)}' if soak else '')
    what = step.get('service') or step.get('project')
    return f'{step["kind"]} {what}' if what else str(step['kind'])


def _where(step: Row) -> str:
    return str(step.get('host') or 'the cloud')


def _estimate(same: Sequence[Row]) -> str:
    seconds = max(s.get('estimate') or 0 for s in same)
    return f'~{columns.duration(seconds)}' if seconds else ''


def _states(same: Sequence[Row]) -> str:
    """Say how far the step is: nothing while it is pending on all hosts."""
    states = [s.get('state') for s in same]
    if len(same) == 1:
        return f'[{states[0]}]' if states[0] in STATE_WORDS else ''
    told = [f'{states.count(w)} {w}' for w in sorted(STATE_WORDS) if w in states]
    return f'[{", ".join(told)}]' if told else ''


def _moves(drains: Sequence[Row], marks: Marks) -> list[str]:
    lines = []
    for drain in drains:
        moves = (drain.get('params') or {}).get('moves') or {}
        if not moves:
            continue
        targets = list(moves.values())
        to = ', '.join(f'{t} {targets.count(t)}' for t in sorted(set(targets)))
        lines.append(f'{drain["host"]}: {_count(len(moves), "server")} {marks.arrow} {to}')
    return lines
