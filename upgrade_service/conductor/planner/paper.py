"""A plan laid out on paper: who comes before whom, and where every server is when.

It is made from the finished steps, the inventory and the request only, and shares
nothing with the code that made the plan.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import functools

from upgrade_service import model
from upgrade_service.conductor.planner import request as requests
from upgrade_service.projects import facts as wheel_facts
from upgrade_service.projects import loader, paths
from upgrade_service.projects import releases as releases_data


@dataclasses.dataclass(frozen=True)
class Paper:
    """What the constraints look at."""

    plan: model.Plan
    inventory: model.Inventory
    request: requests.Request
    projects: loader.Projects
    releases: releases_data.Releases
    facts: wheel_facts.WheelFacts = dataclasses.field(default_factory=wheel_facts.load)

    @functools.cached_property
    def steps(self) -> Mapping[int, model.Step]:
        """The steps by number."""
        return {step.ord: step for step in self.plan.steps}

    @functools.cached_property
    def back(self) -> 'Paper':
        """The way back, laid out by itself."""
        return dataclasses.replace(
            self, plan=dataclasses.replace(self.plan, steps=self.plan.undo, undo=())
        )

    @functools.cached_property
    def _children(self) -> Mapping[int, list[int]]:
        children: dict[int, list[int]] = {}
        for step in self.plan.steps:
            for parent in step.parents:
                children.setdefault(parent, []).append(step.ord)
        return children

    @functools.cached_property
    def position(self) -> Mapping[int, int]:
        """Place of each step in one legal order; those in or behind a cycle have none."""
        waits = {step.ord: len(set(step.parents)) for step in self.plan.steps}
        ready = deque(n for n, count in waits.items() if not count)
        position: dict[int, int] = {}
        while ready:
            number = ready.popleft()
            position[number] = len(position)
            for child in dict.fromkeys(self._children.get(number, ())):
                waits[child] -= 1
                if not waits[child]:
                    ready.append(child)
        return position

    @functools.cached_property
    def gates(self) -> Mapping[str, int]:
        """Number of the gate that opens each stage."""
        return {
            s.params['gate']: s.ord
            for s in self.plan.steps
            if s.kind == 'gate' and 'gate' in s.params
        }

    @functools.cached_property
    def upstream(self) -> Mapping[int, frozenset[int]]:
        """Everything that comes before each gate."""
        parents = {step.ord: step.parents for step in self.plan.steps}
        return {gate: _reach(gate, parents) for gate in self.gates.values()}

    @functools.cached_property
    def downstream(self) -> Mapping[int, frozenset[int]]:
        """Everything that comes after each gate."""
        return {gate: _reach(gate, self._children) for gate in self.gates.values()}

    def before(self, first: int, then: int) -> bool:
        """Tell whether `then` cannot start before `first` has ended."""
        if self.position[first] >= self.position[then]:
            return False
        if any(
            first in self.upstream[gate] and (then == gate or then in self.downstream[gate])
            for gate in self.gates.values()
        ):
            return True
        return self._walk(first, then)

    def _walk(self, first: int, then: int) -> bool:
        floor, seen, queue = self.position[first], {then}, deque([then])
        while queue:
            for parent in self.steps[queue.popleft()].parents:
                if parent == first:
                    return True
                if parent not in seen and self.position[parent] > floor:
                    seen.add(parent)
                    queue.append(parent)
        return False

    @functools.cached_property
    def _by_kind(self) -> Mapping[str, list[model.Step]]:
        kinds: dict[str, list[model.Step]] = {}
        for step in self.plan.steps:
            kinds.setdefault(step.kind, []).append(step)
        return kinds

    def of(self, *kinds: str, project: str | None = None) -> Iterator[model.Step]:
        """Yield the steps of some kinds, and of one project if it is named."""
        for kind in kinds:
            for step in self._by_kind.get(kind, ()):
                if project in (None, step.project):
                    yield step

    @functools.cached_property
    def on(self) -> Mapping[str, list[model.Step]]:
        """The steps of each host, in a legal order."""
        hosts: dict[str, list[model.Step]] = {}
        for step in sorted(self.plan.steps, key=lambda s: self.position[s.ord]):
            if step.host:
                hosts.setdefault(step.host, []).append(step)
        return hosts

    def plane(self, step: model.Step) -> str:
        """Tell the plane of a step's services; of a whole host, the one it serves then."""
        if step.project is None:
            return 'data' if step.stage in ('canary', 'data_plane') else 'control'
        data = self.projects.get(step.project or '')
        planes = {data.plane(binary) for binary in step.params.get('units', ())}
        return 'data' if planes == {'data'} else 'control'

    @functools.cached_property
    def switches(self) -> Mapping[tuple[str, str], list[model.Step]]:
        """The upgrade_service steps of each (project, plane), in a legal order."""
        found: dict[tuple[str, str], list[model.Step]] = {}
        for step in sorted(self.of('upgrade_service'), key=lambda s: self.position[s.ord]):
            found.setdefault((step.project or '', self.plane(step)), []).append(step)
        return found

    @functools.cached_property
    def window(self) -> Mapping[str, dict[str, model.Step]]:
        """The disable, drain and enable step of each host that has them."""
        found: dict[str, dict[str, model.Step]] = {}
        for step in self.of('disable_host', 'drain_host', 'enable_host'):
            found.setdefault(step.host or '', {})[step.kind] = step
        return found

    def behind(self, service: model.Service) -> bool:
        """Tell whether a service is older than the target, unknown, or of another commit."""
        project = self.projects.get(service.project) if service.project in self.projects else None
        if service.project in self.request.policy['commits']:
            return service.version != self.wanted(service.project)
        if project is not None and project.independent:
            return self.wanted(project.name) not in ('', service.version)
        release = self.releases.get(service.release or '')
        target = self.releases.get(self.request.to_release)
        return release is None or target is None or release < target

    def wanted(self, project: str) -> str:
        """Return the version that a project is to reach: a tag, or a tag and a commit."""
        release = self.request.to_release
        known = project in self.projects
        tag = self.projects.get(project).target(release, self.releases) if known else None
        commit = self.request.policy['commits'].get(project)
        return f'{tag}+g{commit[:12]}' if tag and commit else tag or ''

    @functools.cached_property
    def hop(self) -> tuple[releases_data.Release, releases_data.Release] | None:
        """Where the plan leads from, and to; None: a release is not known."""
        source = self.releases.get(self.request.from_release)
        target = self.releases.get(self.request.to_release)
        return (source, target) if source and target else None

    def manner(self, project: str) -> str:
        """Tell how a project makes the hop."""
        if self.hop is None:
            return 'cold'
        return paths.manner(self.projects.get(project), *self.hop, self.facts)

    def wheels(self, project: str) -> tuple[wheel_facts.Facts | None, wheel_facts.Facts | None]:
        """Return what the wheels of a project say of themselves: where from, and where to."""
        ends = self.request.from_release, self.request.to_release
        return self.facts.of(project, ends[0]), self.facts.of(project, ends[1])

    def selected(self, service: model.Service) -> bool:
        """Tell whether the upgrade may touch a service."""
        return self.request.selects_project(service.project) and self.request.selects(
            self.inventory.hosts.get(service.host)
        )

    def named(self, host: str, *codes: str) -> bool:
        """Tell whether the plan itself names such a problem of a host."""
        return any(p.host == host and p.code in codes for p in self.plan.problems)

    def named_project(self, project: str, code: str) -> bool:
        """Tell whether the plan itself names such a problem of a project."""
        return any(p.service == project and p.code == code for p in self.plan.problems)


def _reach(start: int, neighbours: Mapping[int, Iterable[int]]) -> frozenset[int]:
    seen: set[int] = set()
    stack = list(neighbours.get(start, ()))
    while stack:
        number = stack.pop()
        if number not in seen:
            seen.add(number)
            stack.extend(neighbours.get(number, ()))
    return frozenset(seen)
