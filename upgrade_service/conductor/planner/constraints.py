"""The rules on the order of steps: one small class for each, none trusts the planner.

A constraint yields a sentence for everything that breaks it. Where the instances are
meanwhile is the matter of `occupancy`.
"""

import abc
from collections.abc import Iterator
import itertools

from upgrade_service import model
from upgrade_service.conductor.planner import order
from upgrade_service.conductor.planner import paper as papers
from upgrade_service.projects import facts as wheel_facts

_STAGE = {stage: n for n, stage in enumerate(model.STAGES)}


class Constraint(abc.ABC):
    """A rule that every plan obeys."""

    @abc.abstractmethod
    def broken(self, paper: papers.Paper) -> Iterator[str]:
        """Yield a sentence for each breach."""


def said(step: model.Step) -> str:
    """Name a step for people."""
    return f'step {step.ord} ({" ".join(filter(None, (step.kind, step.host, step.project)))})'


class Known(Constraint):
    """Steps are numbered once, of known kinds, on known hosts, after known steps."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        if len(paper.steps) != len(paper.plan.steps):
            yield 'two steps have one number'
        for step in paper.plan.steps:
            if step.kind not in model.KINDS or step.stage not in _STAGE:
                yield f'{said(step)} is of no known kind or stage'
            elif step.what.where == 'host' and not (step.host and step.strategy):
                yield f'{said(step)} has no host or no strategy'
            if step.host is not None and step.host not in paper.inventory.hosts:
                yield f'{said(step)} is on a host that the cluster does not have'
            if step.project is not None and step.project not in paper.projects:
                yield f'{said(step)} is of a project that nothing is known of'
            if not set(step.parents) <= paper.steps.keys():
                yield f'{said(step)} waits for a step that is not in the plan'


class Acyclic(Constraint):
    """No step waits for itself, by whatever detour."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        stuck = paper.steps.keys() - paper.position.keys()
        if stuck:
            yield f'steps {sorted(stuck)[:5]} wait for one another'


class Selected(Constraint):
    """Nothing outside the selection is touched."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for step in paper.plan.steps:
            host = paper.inventory.hosts.get(step.host or '')
            if step.host and not paper.request.selects(host):
                yield f'{said(step)} is on a host that is not selected'
            if step.project and not paper.request.selects_project(step.project):
                yield f'{said(step)} is of a project that is not selected'


class AtTarget(Constraint):
    """In the end every service that was behind is at the target, and nothing else moved."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        reached = set()
        yield from self._of_hosts(paper)
        for step in paper.of('prefetch', 'upgrade_service', 'db_expand', 'db_contract'):
            if step.project is None:
                continue
            right = paper.wanted(step.project or '')
            commit = paper.request.policy['commits'].get(step.project)
            said_so = tuple(step.params.get(k) for k in ('version', 'release', 'commit'))
            if said_so != (right, paper.request.to_release, commit):
                yield f'{said(step)} leads to {step.params.get("version")}, not to {right}'
        for step in paper.of('upgrade_service'):
            reached |= {(step.host, unit) for unit in step.params.get('units', ())}
        for service in paper.inventory.services:
            here = (service.host, service.binary) in reached
            wanted = (
                paper.behind(service)
                and service.project in paper.projects
                and paper.selected(service)
            )
            if wanted and not here:
                yield f'{service.binary} on {service.host} is left behind'
            if here and not paper.behind(service):
                yield f'{service.binary} on {service.host} is there already'

    @staticmethod
    def _of_hosts(paper: papers.Paper) -> Iterator[str]:
        """Look at the steps that are about all projects of a host."""
        for step in paper.of('check_host', 'prefetch', 'upgrade_packages'):
            for project, version in step.params.get('projects', {}).items():
                if version != paper.wanted(project):
                    yield f'{said(step)} leads {project} to {version}'


class StagesMeet(Constraint):
    """A stage begins when the one before has ended, at its gate."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        used = sorted({step.stage for step in paper.plan.steps}, key=lambda s: _STAGE[s])
        for stage in used[1:]:
            gate = paper.gates.get(stage)
            if gate is None:
                yield f'no gate opens {stage}'
                continue
            for step in paper.plan.steps:
                earlier = _STAGE[step.stage] < _STAGE[stage]
                side = paper.upstream[gate] if earlier else paper.downstream[gate]
                if step.ord != gate and step.ord not in side:
                    yield f'{said(step)} does not meet the others at gate {stage}'


class PersonAsked(Constraint):
    """A person is asked where the policy wants it; points of no return are in the last stages."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        stages = {step.stage for step in paper.plan.steps}
        for stage in paper.request.policy['gates']:
            gate = paper.steps.get(paper.gates.get(stage, 0))
            if stage in stages and not (gate and gate.params.get('person') is True):
                yield f'{stage} begins without asking a person'
        for step in paper.plan.steps:
            old_code = step.kind == 'online_migrations' and step.params.get(
                'version'
            ) == step.params.get('from_version')
            harmless = old_code or self._empty(paper, step)
            if step.what.ponr and not step.ponr and not harmless:
                yield f'{said(step)} is a point of no return and does not say so'
            if step.ponr and step.stage != 'finish':
                yield f'{said(step)} is a point of no return before the stage finish'

    @staticmethod
    def _empty(paper: papers.Paper, step: model.Step) -> bool:
        """Tell whether the wheels say that a contract step changes nothing."""
        known = step.kind == 'db_contract' and step.project is not None
        return known and wheel_facts.contracts(*paper.wheels(step.project or '')) is False


class NewCodeFirst(Constraint):
    """New code is installed and proved on a host before anything there is switched to it."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        fetched = {(s.host, s.project): s for s in paper.of('prefetch')}
        for host in {host for host, project in fetched if project is None}:
            step = fetched.pop((host, None))
            fetched |= {(host, project): step for project in step.params['projects']}
        projects = {project for _, project in fetched}
        for step in paper.of('upgrade_service'):
            prefetch = fetched.get((step.host, step.project))
            if step.project in projects and not (
                prefetch and paper.before(prefetch.ord, step.ord)
            ):
                yield f'{said(step)} comes before its new code is there'


class DatabaseFirst(Constraint):
    """The old code's migrations, then the schema, then the first service of the new code."""

    KINDS = ('db_expand', 'db_migrate')

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for (project, plane), switches in paper.switches.items():
            if plane != 'control':
                continue
            data = paper.projects.get(project)
            chain = [
                next(paper.of(kind, project=project), None)
                for kind in self.KINDS
                if kind in data.commands
            ]
            if None in chain:
                yield f'{project} is switched without a database step that it needs'
            numbers = [s.ord for s in chain if s] + [switches[0].ord]
            old = [s.ord for s in paper.of('online_migrations', project=project) if not s.ponr]
            for first, then in itertools.pairwise(old + numbers):
                if not paper.before(first, then):
                    yield f'{said(paper.steps[then])} does not wait for step {first}'


class PackagesTogether(Constraint):
    """Where projects of a host change together: once, before anything of them restarts.

    The new code of a database command is on its host by then, too.
    """

    NEW_CODE = ('upgrade_service', 'upgrade_check', 'db_expand', 'db_migrate', 'db_contract')

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        replaced: dict[str | None, model.Step] = {}
        for step in paper.of('upgrade_packages'):
            if step.host in replaced:
                yield f'{said(step)} replaces the packages of {step.host} again'
            replaced[step.host] = step
        for step in paper.of(*self.NEW_CODE) if replaced else ():
            packages = replaced.get(step.host)
            if packages is None or step.project not in packages.params.get('projects', {}):
                yield f'{said(step)} though no step brings its packages'
            elif not paper.before(packages.ord, step.ord):
                yield f'{said(step)} does not wait for its packages'


class ProjectsInOrder(Constraint):
    """A project's control plane follows those that the data name.

    Where a host's projects change together, that is true of each host, and of the first
    switch of each project.
    """

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        control = {p: steps for (p, plane), steps in paper.switches.items() if plane == 'control'}
        for first, then in order.hard_edges(control, paper.projects):
            pairs = list(itertools.product(control[first], control[then]))
            if any(paper.of('upgrade_packages')):
                pairs = [p for p in pairs if p[0].host == p[1].host] + pairs[:1]
            for a, b in pairs:
                if not paper.before(a.ord, b.ord):
                    yield f'{said(b)} does not wait for {said(a)}'


class OneControlHost(Constraint):
    """No two control services are out at once: their switches are one chain."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for kinds in (('upgrade_packages', 'upgrade_service'), ('restart_service',)):
            chain = sorted(
                (s for s in paper.of(*kinds) if paper.plane(s) == 'control'),
                key=lambda s: paper.position[s.ord],
            )
            for a, b in itertools.pairwise(chain):
                if not paper.before(a.ord, b.ord):
                    yield f'{said(a)} and {said(b)} may run at once'


class ControlBeforeData(Constraint):
    """All control services of a project go before its services on the data plane."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for (project, plane), switches in paper.switches.items():
            if plane != 'data':
                continue
            control = paper.switches.get((project, 'control'), [])
            for a, b in itertools.product(control[-1:], switches):
                if not paper.before(a.ord, b.ord):
                    yield f'{said(b)} does not wait for {said(a)}'
            for service in paper.inventory.of_project(project):
                if (
                    not control
                    and paper.behind(service)
                    and not paper.named_project(project, 'control_plane_behind')
                    and paper.projects.get(project).plane(service.binary) == 'control'
                ):
                    yield f'{project} is switched on hosts while its control plane is behind'
                    break


class HostSequence(Constraint):
    """A compute host is disabled, drained, upgraded, verified, enabled: in this order."""

    WORK = ('upgrade_packages', 'upgrade_service', 'verify_host', 'verify_service')

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        drains = paper.request.policy['drain']['instances'] != 'none'
        for step in paper.of('upgrade_service'):
            if 'nova-compute' in step.params.get('units', ()):
                window = paper.window.get(step.host or '', {})
                if 'disable_host' not in window or (drains and 'drain_host' not in window):
                    yield f'{said(step)} is not disabled and drained before'
        for host, window in paper.window.items():
            first, last = window.get('disable_host'), window.get('enable_host')
            if first is None or last is None:
                yield f'{host} is not disabled and enabled in pairs'
                continue
            drain = window.get('drain_host', first)
            if drain is not first and not paper.before(first.ord, drain.ord):
                yield f'{host} is drained before it is disabled'
            for step in self._work(paper, host):
                if not paper.before(drain.ord, step.ord) or not paper.before(step.ord, last.ord):
                    yield f'{said(step)} is not between drain and enable'
            yield from self._verified(paper, host)

    def _work(self, paper: papers.Paper, host: str) -> list[model.Step]:
        """Return what must happen inside the host's window."""
        stage = paper.window[host]['disable_host'].stage
        return [s for s in paper.on[host] if s.stage == stage and s.kind in self.WORK]

    def _verified(self, paper: papers.Paper, host: str) -> Iterator[str]:
        work = self._work(paper, host)
        for switch in (s for s in work if s.kind == 'upgrade_service'):
            if not any(
                s.kind == 'verify_service'
                and s.project == switch.project
                and paper.before(switch.ord, s.ord)
                for s in work
            ):
                yield f'{said(switch)} is not verified before the host is enabled'


class NoHoldAndWait(Constraint):
    """A host that is out waits for no other host: any order inside the budget can go on."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for host, window in paper.window.items():
            first, last = window.get('disable_host'), window.get('enable_host')
            if first is None or last is None:
                continue
            for step in paper.on[host]:
                inside = paper.before(first.ord, step.ord) and (
                    step is last or paper.before(step.ord, last.ord)
                )
                strangers = [n for n in step.parents if paper.steps[n].host != host]
                if inside and strangers:
                    yield f'{said(step)} waits for steps {strangers} of others while {host} is out'


class AgentsInOrder(Constraint):
    """On a host, services go in the order that the data ask for: L2, then L3, then compute."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        for host, steps in paper.on.items():
            units = {
                unit: s
                for s in steps
                if s.kind == 'upgrade_service'
                for unit in s.params.get('units', ())
                if paper.plane(s) == 'data'
            }
            for (one, a), (two, b) in itertools.permutations(units.items(), 2):
                if self._must(paper, one, two) and not paper.before(a.ord, b.ord):
                    yield f'{two} on {host} does not wait for {one}'

    @staticmethod
    def _must(paper: papers.Paper, one: str, two: str) -> bool:
        first, then = paper.projects.by_binary(one), paper.projects.by_binary(two)
        if first is None or then is None:
            return False
        same = first is then and first.services[one].start < then.services[two].start
        return same or one in then.services[two].after


class PinsLast(Constraint):
    """What only old code needs is removed when no old code of the project runs any more."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        done = {
            (s.host, unit)
            for s in paper.of('upgrade_service')
            for unit in s.params.get('units', ())
        }
        left = {
            s.project
            for s in paper.inventory.services
            if paper.behind(s) and (s.host, s.binary) not in done
        }
        for step in paper.of('restart_service', 'online_migrations', 'db_contract'):
            if not step.ponr:
                continue
            if step.project in left:
                yield f'{said(step)} though {step.project} stays behind somewhere'
            for (project, _), switches in paper.switches.items():
                late = [
                    s
                    for s in switches
                    if project == step.project and not paper.before(s.ord, step.ord)
                ]
                if late:
                    yield f'{said(step)} does not wait for {said(late[0])}'


class BackupProved(Constraint):
    """Before a point of no return of a project lies a dump of its databases, restored once."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        backup = paper.request.policy['backup']
        for step in (s for s in paper.plan.steps if s.ponr and s.project and backup['database']):
            project = str(step.project)
            if not paper.projects.get(project).databases:
                continue
            if not self._follows(paper, step, 'backup_database'):
                yield f'{said(step)} has no dump of its databases before it'
            proved = not backup['verify'] or paper.named_project(project, 'backup_unproved')
            if not proved and not self._follows(paper, step, 'verify_backup', 'rehearse_database'):
                yield f'{said(step)} has no dump before it that was restored once'

    @staticmethod
    def _follows(paper: papers.Paper, step: model.Step, *kinds: str) -> bool:
        found = paper.of(*kinds, project=step.project)
        return any(paper.before(s.ord, step.ord) for s in found)


class OldCodeGone(Constraint):
    """A point of no return waits for a look at what really runs, everywhere."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        looks = list(paper.of('check_versions'))
        for step in (s for s in paper.plan.steps if s.ponr and s.project):
            wanted = paper.wanted(step.project or '')
            if not any(
                look.params.get('versions', {}).get(step.project) == wanted
                and paper.before(look.ord, step.ord)
                for look in looks
            ):
                yield f'{said(step)} does not wait for a look at the versions of its project'


class RecordsAgree(Constraint):
    """Version pins are dropped only after a look at the records of all services."""

    def broken(self, paper: papers.Paper) -> Iterator[str]:
        looked = {s.project: s for s in paper.of('check_records')}
        for step in paper.of('restart_service'):
            look = looked.get(step.project)
            if look is not None and not paper.before(look.ord, step.ord):
                yield f'{said(step)} does not wait for {said(look)}'


#: checked first; the others need a plan that can be laid out
FORM: tuple[Constraint, ...] = (Known(), Acyclic())
ORDER: tuple[Constraint, ...] = (
    Selected(),
    AtTarget(),
    StagesMeet(),
    PersonAsked(),
    NewCodeFirst(),
    DatabaseFirst(),
    PackagesTogether(),
    ProjectsInOrder(),
    OneControlHost(),
    ControlBeforeData(),
    HostSequence(),
    NoHoldAndWait(),
    AgentsInOrder(),
    PinsLast(),
    BackupProved(),
    OldCodeGone(),
    RecordsAgree(),
)
