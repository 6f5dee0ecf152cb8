"""What has to change: the services behind the target release, inside the selection."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

from upgrade_service import exception, model
from upgrade_service.conductor.planner import order
from upgrade_service.conductor.planner import request as requests
from upgrade_service.projects import facts as wheel_facts
from upgrade_service.projects import loader, paths
from upgrade_service.projects import releases as releases_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """The services of one project and plane on one host that are behind."""

    project: str
    host: str
    plane: str  #: 'control' or 'data'
    wave: int = 0  #: control plane: those of a lower one go first, on all hosts
    binaries: tuple[str, ...]
    from_version: str | None  #: None: nobody knows, which is a problem of its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scope:
    """Everything that the stages are made from."""

    inventory: model.Inventory
    request: requests.Request
    projects: loader.Projects
    releases: releases_data.Releases
    strategy: Any  #: the planning half of a strategy: steps(), kinds
    order: tuple[str, ...]  #: projects that change, in their order
    versions: Mapping[str, str]  #: project -> target version
    changes: tuple[Change, ...]
    facts: wheel_facts.WheelFacts = dataclasses.field(default_factory=wheel_facts.load)

    @functools.cached_property
    def hosts(self) -> list[str]:
        """Hosts that are changed, by name."""
        return sorted({change.host for change in self.changes})

    @functools.cached_property
    def compute_hosts(self) -> list[str]:
        """Hosts with nova-compute whose data plane is changed: they are drained."""
        compute = {s.host for s in self.inventory.services if s.binary == 'nova-compute'}
        return sorted(compute & {c.host for c in self.changes if c.plane == 'data'})

    @functools.cached_property
    def data_hosts(self) -> list[str]:
        """Hosts whose data plane is changed and that run no instances."""
        data = {c.host for c in self.changes if c.plane == 'data'}
        return sorted(data - set(self.compute_hosts))

    @functools.cached_property
    def upgraded(self) -> frozenset[str]:
        """Hosts whose nova-compute is at the target already."""
        return frozenset(
            s.host
            for s in self.inventory.services
            if s.binary == 'nova-compute' and not self.is_behind(s)
        )

    @functools.cached_property
    def servers(self) -> Mapping[str, model.Server]:
        """The servers by id."""
        return {server.id: server for server in self.inventory.servers}

    @functools.cached_property
    def _by_host(self) -> Mapping[tuple[str, str], list[Change]]:
        found: dict[tuple[str, str], list[Change]] = {}
        for change in self.changes:
            found.setdefault((change.host, change.plane), []).append(change)
        return found

    @functools.cached_property
    def _services(self) -> Mapping[str, list[model.Service]]:
        found: dict[str, list[model.Service]] = {}
        for service in self.inventory.services:
            found.setdefault(service.host, []).append(service)
        return found

    def services(self, change: Change) -> list[model.Service]:
        """Return the services that a change is about."""
        return [s for s in self._services[change.host] if s.binary in change.binaries]

    def of_host(self, host: str, plane: str) -> list[Change]:
        """Return the changes of a host, in the order of projects."""
        return sorted(
            self._by_host.get((host, plane), ()), key=lambda c: self.order.index(c.project)
        )

    def control(self, project: str) -> list[Change]:
        """Return the changes of a project's control hosts, by wave and host name."""
        found = [c for c in self.changes if (c.project, c.plane) == (project, 'control')]
        return sorted(found, key=lambda c: (c.wave, c.host))

    def first_control(self, project: str) -> Change | None:
        """Return the change whose host runs the project's database commands."""

        def reachable(change: Change) -> bool:
            host = self.inventory.hosts[change.host]
            return host.agent_state == 'up' or self.request.strategy in host.executors

        changes = self.control(project)
        return next(filter(reachable, changes), changes[0] if changes else None)

    @functools.cached_property
    def behind(self) -> Mapping[str, list[model.Service]]:
        """Services of each project that stay behind because they are outside the scope."""
        changed = {(c.host, b) for c in self.changes for b in c.binaries}
        left: dict[str, list[model.Service]] = {}
        for service in self.inventory.services:
            if (
                (service.host, service.binary) not in changed
                and service.project in self.versions
                and self.is_behind(service)
            ):
                left.setdefault(service.project, []).append(service)
        return left

    def is_behind(self, service: model.Service) -> bool:
        """Tell whether a service has to change."""
        known = service.project in self.projects
        project = self.projects.get(service.project) if known else None
        return self.request.behind(service, project, self.releases)

    @functools.cached_property
    def skips(self) -> bool:
        """Whether the hop leads over a release between."""
        source, target = map(
            self.releases.get, (self.request.from_release, self.request.to_release)
        )
        return bool(source and target and paths.is_skip(source, target))

    def manner(self, project: str) -> str:
        """Tell how a project makes the hop: 'rolling', 'cold' or 'sequential'."""
        source, target = map(
            self.releases.get, (self.request.from_release, self.request.to_release)
        )
        if source is None or target is None:
            return 'cold'
        return paths.manner(self.projects.get(project), source, target, self.facts)

    def stopped(self, project: str) -> bool:
        """Tell whether the services of a project stop all together before any of them changes."""
        return self.manner(project) != 'rolling' and 'stop_service' in self.strategy.kinds

    def wheels(self, project: str) -> tuple[wheel_facts.Facts | None, wheel_facts.Facts | None]:
        """Return what the wheels of a project say of themselves: where from, and where to."""
        ends = self.request.from_release, self.request.to_release
        return self.facts.of(project, ends[0]), self.facts.of(project, ends[1])

    def contracts(self, project: str) -> bool:
        """Tell whether the contract migrations of the hop do anything, as far as is known."""
        return wheel_facts.contracts(*self.wheels(project)) is not False


def make_scope(
    inventory: model.Inventory,
    request: requests.Request,
    projects: loader.Projects,
    releases: releases_data.Releases,
    strategies: Mapping[str, Any],
) -> Scope:
    """Find out what has to change.

    :raises PlanImpossible: nothing is selected, nothing is behind, or nobody can do it.
    """
    if request.strategy not in strategies:
        there = ', '.join(sorted(strategies)) or 'none'
        raise exception.PlanImpossible(
            reason=f'there is no strategy {request.strategy}; there are: {there}'
        )
    changes = _changes(inventory, request, projects, releases)
    if not changes:
        raise exception.PlanImpossible(reason=_nothing(inventory, request, projects))
    names = {change.project for change in changes}
    return Scope(
        inventory=inventory,
        request=request,
        projects=projects,
        releases=releases,
        strategy=strategies[request.strategy],
        order=tuple(order.project_order(names, projects)),
        versions={name: request.version(projects.get(name), releases) or '' for name in names},
        changes=tuple(changes),
    )


def _nothing(
    inventory: model.Inventory, request: requests.Request, projects: loader.Projects
) -> str:
    """Say why there is nothing to do, and what would have to be otherwise."""
    hosts = [h for h in inventory.hosts.values() if request.selects(h)]
    if not hosts:
        return 'no host of the cloud is selected: name others with --hosts or --az'
    names = {h.name for h in hosts}
    here = [s for s in inventory.services if s.host in names]
    chosen = [s for s in here if request.selects_project(s.project)]
    known = [s for s in chosen if s.project in projects]
    if not known:
        what = ', '.join(sorted({s.project for s in (chosen or here)})) or 'nothing'
        why = 'nothing is known of it' if chosen else 'the projects selected are not there'
        return f'on the hosts selected runs {what}, and {why}: select other hosts or projects'
    releases = ', '.join(sorted({s.release or s.version or 'unknown' for s in known}))
    return (
        f'nothing that is selected is behind {request.to_release}: the {len(known)} services on '
        f'{len(hosts)} hosts are at {releases}'
    )


def _changes(
    inventory: model.Inventory,
    request: requests.Request,
    projects: loader.Projects,
    releases: releases_data.Releases,
) -> list[Change]:
    groups: dict[tuple[str, str, str, int], list[model.Service]] = {}
    for service in inventory.services:
        if (
            service.project in projects
            and _selected(service, inventory, request)
            and request.behind(service, projects.get(service.project), releases)
        ):
            project = projects.get(service.project)
            plane = project.plane(service.binary)
            wave = project.wave(service.binary) if plane == 'control' else 0
            groups.setdefault((service.project, service.host, plane, wave), []).append(service)
    return [_change(key, groups[key]) for key in sorted(groups)]


def _selected(
    service: model.Service, inventory: model.Inventory, request: requests.Request
) -> bool:
    return request.selects_project(service.project) and request.selects(
        inventory.hosts.get(service.host)
    )


def _change(key: tuple[str, str, str, int], services: Sequence[model.Service]) -> Change:
    project, host, plane, wave = key
    return Change(
        project=project,
        host=host,
        plane=plane,
        wave=wave,
        binaries=tuple(sorted(s.binary for s in services)),
        from_version=next((s.version for s in services if s.version), None),
    )
