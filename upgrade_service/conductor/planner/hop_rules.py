"""The rules on the hop itself: which code may meet which, and what must be over before.

Like the other constraints they trust no planner: they read the finished plan, the
inventory, the project data and what the wheels of both releases say.
"""

from collections.abc import Iterator
import itertools

from upgrade_service import model
from upgrade_service.conductor.planner import constraints
from upgrade_service.conductor.planner import paper as papers
from upgrade_service.projects import loader, paths

said = constraints.said
#: kinds that take the services of their host away, whatever their project
_WHOLE_HOST = frozenset({'upgrade_host', 'reboot_host'})


class NothingSkipped(constraints.Constraint):
    """A project that skips no release makes no hop that does, or the plan names it."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for project in sorted({project for project, _ in paper.switches}):
            if paper.manner(project) == 'sequential' and not (
                paper.named_project(project, 'sequential_only')
            ):
                yield f'{project} is led over a release, and skips none'


class ColdStopped(constraints.Constraint):
    """Old and new code of a cold project never meet: all of it stops before any of it changes."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for project, plane in paper.switches:
            if plane != 'control' or paper.named_project(project, 'cold_not_stopped'):
                continue
            stops = list(paper.of('stop_service', project=project))
            if paper.manner(project) == 'rolling':
                yield from (f'{said(s)} takes {project} out without need' for s in stops)
            else:
                yield from self._running(paper, project, stops)
                yield from self._early(paper, project, stops)

    @staticmethod
    def _running(paper: papers.Paper, project: str, stops: list[model.Step]) -> Iterator[str]:
        stopped = {(s.host, unit) for s in stops for unit in s.params.get('units', ())}
        for service in paper.inventory.of_project(project):
            control = paper.projects.get(project).plane(service.binary) == 'control'
            runs = paper.behind(service) and not service.forced_down
            excused = not paper.selected(service) and paper.named_project(project, 'cold_in_part')
            if control and runs and not excused and (service.host, service.binary) not in stopped:
                yield f'{service.binary} on {service.host} runs on while {project} changes'

    @staticmethod
    def _early(paper: papers.Paper, project: str, stops: list[model.Step]) -> Iterator[str]:
        changes = [*paper.switches[project, 'control'], *paper.of('db_expand', project=project)]
        for stop, change in itertools.product(stops, changes):
            if not paper.before(stop.ord, change.ord):
                yield f'{said(change)} does not wait for {said(stop)}'


class OldMigrationsDone(constraints.Constraint):
    """A hop over a release begins with all migrations of the old release, by its own code."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        if paper.hop is None or not paths.is_skip(*paper.hop):
            return
        for project, plane in paper.switches:
            data = paper.projects.get(project)
            if plane != 'control' or 'online_migrations' not in data.commands:
                continue
            old = [
                s
                for s in paper.of('online_migrations', project=project)
                if s.params.get('version') == s.params.get('from_version')
            ]
            known = any(s.version for s in paper.inventory.of_project(project))
            if not old and known:
                yield f'{project} leaves {paper.request.from_release} with data migrations open'
            for first, then in itertools.product(old, paper.of('db_expand', project=project)):
                if not paper.before(first.ord, then.ord):
                    yield f'{said(then)} does not wait for {said(first)}'


class WavesInOrder(constraints.Constraint):
    """On the control plane, services of a lower `wave` go first, on all hosts."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for (project, plane), switches in paper.switches.items():
            if plane != 'control':
                continue
            data = paper.projects.get(project)
            waves = [
                (data.wave(unit), unit, s) for s in switches for unit in s.params.get('units', ())
            ]
            for (low, one, a), (high, two, b) in itertools.product(waves, waves):
                if low < high and (a is b or not paper.before(a.ord, b.ord)):
                    yield f'{two} on {b.host} does not wait for {one} on {a.host}'


class QuorumKept(constraints.Constraint):
    """No member of a quorum goes out before the one before it is seen to be back."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for name in paper.projects.names():
            project = paper.projects.get(name)
            if project.quorum:
                yield from self._together(paper, project)

    def _together(self, paper: papers.Paper, project: loader.Project) -> Iterator[str]:
        members = frozenset(project.quorum['members'])
        hosts = {s.host for s in paper.inventory.services if s.binary in members}
        outs = [
            s
            for s in paper.plan.steps
            if s.host in hosts
            and (
                s.kind in _WHOLE_HOST or (s.disruptive and members & {*s.params.get('units', ())})
            )
        ]
        outs.sort(key=lambda s: paper.position[s.ord])
        for a, b in itertools.pairwise(outs):
            if a.host != b.host and not self._back(paper, a, b):
                yield f'{said(b)} does not wait until {project.name} is back on {a.host}'

    @staticmethod
    def _back(paper: papers.Paper, out: model.Step, then: model.Step) -> bool:
        return any(
            s.kind in ('verify_service', 'verify_host')
            and paper.before(out.ord, s.ord)
            and paper.before(s.ord, then.ord)
            for s in paper.on[out.host or '']
        )


class LegalVersions(constraints.Constraint):
    """Infrastructure takes only steps between versions that its authors allow."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for step in paper.of('upgrade_service'):
            project = paper.projects.get(step.project or '')
            old, new = step.params.get('from_version'), step.params.get('version')
            if project.independent and old and new:
                refusal = paths.version_refusal(project, old, new)
                if refusal and not paper.named_project(project.name, 'illegal_version_step'):
                    yield f'{said(step)}: {refusal}'


class FloorKept(constraints.Constraint):
    """New nova does not start beside records below its floor: the plan names every one."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        facts = paper.wheels('nova')[1]
        if facts is None or ('nova', 'control') not in paper.switches:
            return
        for service in paper.inventory.services:
            release = paper.releases.get(service.release or '')
            counts = service.binary == 'nova-compute' and not service.forced_down
            if not counts or release is None or paper.named(service.host, 'below_floor'):
                continue
            if facts.serves(release) is False:
                yield f'nova {facts.version} would not start: {service.host} is below its floor'


HOP: tuple[constraints.Constraint, ...] = (
    NothingSkipped(),
    ColdStopped(),
    OldMigrationsDone(),
    WavesInOrder(),
    QuorumKept(),
    LegalVersions(),
    FloorKept(),
)
