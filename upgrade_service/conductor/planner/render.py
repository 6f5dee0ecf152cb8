"""A plan as text: what `tests/golden` compares, and what a person can read.

Marks: ``~`` can be undone, ``!`` point of no return, ``?`` waits for a person. Steps that
wait for the same ones stand together and run in parallel, within the budgets.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.planner import estimate


def render(plan: model.Plan, budget: int = 1) -> str:
    """Return the text of a plan; `budget`: hosts out at once."""
    return '\n'.join(_lines(plan, budget)) + '\n'


def _lines(plan: model.Plan, budget: int) -> Iterator[str]:
    seconds = estimate.duration(plan.steps, budget)
    yield (
        f'{plan.from_release} -> {plan.to_release}: {len(plan.steps)} steps, '
        f'{len(plan.moves)} servers move, about {seconds} s'
    )
    for problem in plan.problems:
        yield f'{problem.severity}: {problem.code}: {problem.message}'
    stage = None
    for step in plan.steps:
        if step.stage != stage:
            stage = step.stage
            yield f'{stage}'
        yield _line(step)


def _line(step: model.Step) -> str:
    mark = (
        '!'
        if step.ponr
        else '?'
        if step.params.get('person')
        else ('~' if step.what.undo else ' ')
    )
    words = [step.kind, step.host, step.project, _details(step)]
    after = ','.join(map(str, step.parents)) or '-'
    return f'{step.ord:4} {mark} {" ".join(filter(None, words))}  <- {after}'


def _details(step: model.Step) -> str:
    params = step.params
    if step.kind == 'gate':
        soak = f' after {params["soak_seconds"]} s' if params['soak_seconds'] else ''
        return f'{params["gate"]}{soak}'
    if step.kind == 'drain_host':
        return _moves(params)
    if step.kind == 'upgrade_service':
        return f'{params["from_version"]} -> {params["version"]}: {step.service}'
    if 'projects' in params:
        return ' '.join(f'{p}={v}' for p, v in params['projects'].items())
    if 'version' in params:
        return ' '.join(filter(None, (params['version'], step.service)))
    return step.service or ''


def _moves(params: Mapping[str, Any]) -> str:
    moved = ' '.join(f'{server}>{target}' for server, target in params['moves'].items())
    left = ' '.join(f'{server}=' for server in params['leave'])
    return ' '.join(filter(None, (moved, left))) or 'nobody'
