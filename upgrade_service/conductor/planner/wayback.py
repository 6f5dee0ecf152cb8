"""The rules on the way back: it undoes all that can be undone, last in first out.

As in `constraints`, nothing here is shared with the code that made the plan.
"""

from collections.abc import Iterator, Mapping
import itertools

from upgrade_service import model
from upgrade_service.conductor.planner import constraints
from upgrade_service.conductor.planner import paper as papers

said = constraints.said
#: what undoes a step of a kind
OPPOSITE = {
    'upgrade_service': 'upgrade_service',
    'upgrade_packages': 'upgrade_packages',
    'stop_service': 'stop_service',
    'disable_host': 'enable_host',
    'enable_host': 'disable_host',
}


def undone(paper: papers.Paper) -> Mapping[int, model.Step]:
    """Return the step that undoes each number of the plan that has one."""
    found = {}
    for step in paper.back.plan.steps:
        origin = paper.steps.get(step.undo_of or 0)
        if origin is not None and OPPOSITE.get(origin.kind) == step.kind:
            found[origin.ord] = step
    return found


class BackForm(constraints.Constraint):
    """The way back is a plan of its own, with numbers and a direction of its own."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for step in paper.plan.steps:
            if step.direction != 'forward' or step.undo_of is not None:
                yield f'{said(step)} is of the way back and stands among the others'
        for step in paper.plan.undo:
            if step.direction != 'back' or step.ord in paper.steps:
                yield f'{said(step)} of the way back could be taken for another'
            if step.undo_of is not None and step.undo_of not in paper.steps:
                yield f'{said(step)} undoes a step that is not in the plan'
            if step.ponr or step.params.get('person'):
                yield f'{said(step)} would stop the way back'
        for rule in constraints.FORM:
            yield from rule.broken(paper.back)


class AllUndone(constraints.Constraint):
    """Each change has one step that takes it back, on its host, to what ran there before."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        back = undone(paper)
        for step in paper.plan.steps:
            known = step.kind != 'upgrade_service' or step.params.get('from_version')
            if step.kind in OPPOSITE and known and step.ord not in back:
                yield f'{said(step)} is not undone on the way back'
        doubles = [
            s
            for s in paper.plan.undo
            if OPPOSITE.get(s.kind) and back.get(s.undo_of or 0, s) is not s
        ]
        for step in doubles:
            yield f'{said(step)} undoes what another step undoes'
        for number, step in back.items():
            yield from self._alike(paper, paper.steps[number], step)

    def _alike(self, paper: papers.Paper, origin: model.Step, step: model.Step) -> Iterator[str]:
        same = ('host', 'project', 'service', 'strategy')
        if any(getattr(origin, name) != getattr(step, name) for name in same):
            yield f'{said(step)} does not undo {said(origin)} where it was done'
        if step.kind == 'upgrade_service' and self._target(paper, step) != {
            (step.params.get('version'), step.params.get('release'))
        }:
            yield f'{said(step)} leads to {step.params.get("version")}, which did not run there'

    @staticmethod
    def _target(paper: papers.Paper, step: model.Step) -> set[tuple[str | None, str | None]]:
        """Return what the services of a step ran before, as the inventory says."""
        units = step.params.get('units', ())
        release = paper.request.from_release
        return {
            (s.version, release)
            for s in paper.inventory.of_host(step.host or '')
            if s.project == step.project and s.binary in units
        }


class LastInFirstOut(constraints.Constraint):
    """Stages, control services and the services of a host are undone in reverse order."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        back = undone(paper)
        yield from self._stages(paper.back)
        for chain in self._chains(paper):
            for first, then in itertools.pairwise(s for s in chain if s.ord in back):
                if not paper.back.before(back[then.ord].ord, back[first.ord].ord):
                    yield f'{said(back[first.ord])} does not wait for {said(back[then.ord])}'

    @staticmethod
    def _chains(paper: papers.Paper) -> Iterator[list[model.Step]]:
        changes = paper.of('upgrade_service', 'upgrade_packages', 'stop_service')
        control = [s for s in changes if s.stage == 'control_plane']
        yield sorted(control, key=lambda s: paper.position[s.ord])
        for steps in paper.on.values():
            yield [s for s in steps if s.kind in OPPOSITE and s.stage != 'control_plane']

    @staticmethod
    def _stages(back: papers.Paper) -> Iterator[str]:
        used = {step.stage for step in back.plan.steps}
        order = ('prepare', 'data_plane', 'canary', 'control_plane', 'verify')
        yield from (f'stage {s} has no place on the way back' for s in used - {*order})
        stages = [s for s in order if s in used]
        for at, stage in enumerate(stages[1:], 1):
            gate = back.gates.get(stage)
            if gate is None:
                yield f'no gate opens {stage} on the way back'
                continue
            for step in back.plan.steps:
                side = back.upstream if step.stage in stages[:at] else back.downstream
                if step.ord != gate and step.ord not in side[gate]:
                    yield f'{said(step)} does not meet the others at gate {stage}'


class SafelyBack(constraints.Constraint):
    """A host is disabled while it is undone, and seen to work before it is enabled."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        back = paper.back
        yield from constraints.NoHoldAndWait().broken(back)
        for host, window in back.window.items():
            yield from self._inside(back, host, window)
        for step in back.of('upgrade_service'):
            looks = back.of('verify_service', project=step.project)
            if not any(s.host == step.host and back.before(step.ord, s.ord) for s in looks):
                yield f'{said(step)} is not looked at from outside'
        for reset in back.of('reset_records'):
            for step in back.of('upgrade_service', project=reset.project):
                if not back.before(reset.ord, step.ord):
                    yield f'{said(step)} does not wait for {said(reset)}'

    @staticmethod
    def _inside(back: papers.Paper, host: str, window: Mapping[str, model.Step]) -> Iterator[str]:
        off, on = window.get('disable_host'), window.get('enable_host')
        for step in back.on[host]:
            if step in (off, on) or off is None or on is None:
                continue
            inside = step.stage == off.stage
            if inside and not (back.before(off.ord, step.ord) and back.before(step.ord, on.ord)):
                yield f'{said(step)} is not between disable and enable'


RULES: tuple[constraints.Constraint, ...] = (AllUndone(), LastInFirstOut(), SafelyBack())
