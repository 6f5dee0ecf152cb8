"""What steps would do on this host, told by the code that would do them; none is done.

The settings of a host are root's, so only root on the host can read what a plan means
there. A step is told as the host is now: what an earlier step of the plan brings is not
there yet, and a step that needs it says so.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import shlex
from typing import Any

from upgrade_service import exception, model
from upgrade_service.engine import runner, settings
from upgrade_service.strategies import base

Row = Mapping[str, Any]
#: operations without a command, for people
_WORDS = {
    'symlink': 'link {path} -> {target}',
    'mkdir': 'make directory {path}',
    'remove': 'remove {path}',
    'write': 'write {path} ({size} bytes, mode {mode:04o})',
    'rename': 'rename {path} to {target}',
    'expect': 'insist on "{text}" at the end of {path}',
    'wait_http': 'wait for {url} ({timeout} s)',
    'wait_unit': 'wait until {text} is active ({timeout} s)',
}


@dataclasses.dataclass(frozen=True)
class Told:
    """What one step would do."""

    title: str
    lines: tuple[str, ...]
    refused: bool = False


def steps_of(plan: Row, host: str) -> Iterator[Row]:
    """Yield the steps of a host out of what `openstack upgrade plan show -f json` printed."""
    for stage in plan.get('stages') or ():
        for step in stage.get('steps') or ():
            if step.get('host') == host and step.get('strategy'):
                yield step


def tell(steps: Iterable[Row], allowed: settings.Allowed, host: str) -> Iterator[Told]:
    """Tell steps: each a mapping with kind, strategy, project, params, direction."""
    for number, step in enumerate(steps, 1):
        task = base.Task(
            step=str(step.get('id') or f'dry-run-{number}'),
            attempt=1,
            kind=str(step['kind']),
            host=host,
            project=step.get('project'),
            params=dict(step.get('params') or {}),
            timeout=model.KINDS[step['kind']].timeout,
            direction=str(step.get('direction') or 'forward'),
        )
        name = str(step['strategy'])
        words = (str(step.get('ord') or number), task.kind, task.project or '', f'by {name}')
        lines, refused = _step(task, name, allowed)
        yield Told(' '.join(filter(None, words)), tuple(runner.masked(x) for x in lines), refused)


def _step(task: base.Task, name: str, allowed: settings.Allowed) -> tuple[list[str], bool]:
    try:
        why = allowed.refusal(task, name)
        if why:
            return [f'would be refused: {why[0]}: {why[1]}'], True
        strategy = allowed.strategy(name)
        site = dataclasses.replace(allowed.site(name), rehearsal=True)
        undo = task.direction == 'back'
        if task.kind in strategy.in_process:
            return ['the engine does it itself, and starts no process'], False
        if not undo and strategy.check(task, site):
            return ['nothing to do: its goal is met already'], False
        if task.kind in strategy.together:
            made: base.Job | base.Outcome = strategy.run_together([task], site)
        else:
            made = (strategy.undo if undo else strategy.run)(task, site)
    except exception.Refused as e:
        return [f'would be refused: {e}'], True
    except Exception as e:
        return [f'cannot be told: {type(e).__name__}: {e}'], True
    if isinstance(made, base.Outcome):
        return [f'{made.result.value}{f": {made.error}" if made.error else ""}'], bool(made.rc)
    return list(_job(made)), False


def _job(job: base.Job) -> Iterator[str]:
    if not job.ops:
        yield 'nothing to do'
    for op in job.ops:
        yield _operation(op, job)
    for op in job.always:
        yield f'{_operation(op, job)}  (however it ends)'
    if job.reboots:
        yield 'then the host restarts, and is looked at'


def _operation(op: base.Op, job: base.Job) -> str:
    if op.do != 'run':
        values = {**vars(op), 'size': len((op.text or '').encode())}
        return _WORDS[op.do].format(**values)
    user = op.user or job.user
    words = [f'{key}={shlex.quote(value)}' for key, value in sorted(op.env.items())]
    line = ' '.join([*words, shlex.join(op.argv)])
    return f'$ {line}{f"  (as {user})" if user else ""}{f"  > {op.stdout}" if op.stdout else ""}'
