"""The stages of a plan: which steps each of them has, and what they wait for.

`STAGES` is the table of contents; each function adds the steps of its stage to a draft.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

from upgrade_service.conductor.planner import databases, estimate
from upgrade_service.conductor.planner import draft as drafts
from upgrade_service.conductor.planner import drain as drains
from upgrade_service.conductor.planner import scope as scopes
from upgrade_service.projects import loader

#: database steps before the new code runs, in their order
_DATABASE_KINDS = ('db_expand', 'db_migrate')


@dataclasses.dataclass
class Build:
    """What the stage functions share."""

    scope: scopes.Scope
    draft: drafts.Draft
    drains: drains.Drains
    canaries: frozenset[str]
    #: host -> numbers of the steps that others of the data plane wait for
    drained: dict[str, int] = dataclasses.field(default_factory=dict)
    enabled: dict[str, int] = dataclasses.field(default_factory=dict)
    #: host -> the step that replaced its packages, where projects of a host change together
    packaged: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def by_host(self) -> bool:
        """Whether the strategy changes all projects of a host together."""
        return bool(getattr(self.scope.strategy, 'unit_of_change', 'project') == 'host')

    def goal(self, host: str) -> dict[str, Any]:
        """Return the parameters of a step that is about all projects of a host."""
        changes = [c for plane in ('control', 'data') for c in self.scope.of_host(host, plane)]
        versions = {c.project: self.scope.versions[c.project] for c in changes}
        return {'projects': versions, 'release': self.scope.request.to_release}

    def params(self, change: scopes.Change, **more: Any) -> dict[str, Any]:
        """Return the parameters of a step that brings a project to the target."""
        if commit := self.scope.request.commit(change.project):
            more['commit'] = commit
        return {
            'version': self.scope.versions[change.project],
            'from_version': change.from_version,
            'release': self.scope.request.to_release,
            **more,
        }

    def add(
        self,
        kind: str,
        change: scopes.Change,
        after: Iterable[int | None] = (),
        binaries: Sequence[str] = (),
        ponr: bool | None = None,
        **more: Any,
    ) -> int:
        """Add a host step of a project."""
        if binaries:
            more['units'] = list(binaries)
        return self.draft.add(
            kind,
            after=after,
            host=change.host,
            project=change.project,
            binaries=binaries,
            params=self.params(change, **more),
            ponr=ponr,
        )

    def data(self, project: str) -> loader.Project:
        """Return what is known of a project."""
        return self.scope.projects.get(project)

    def kinds(self, change: scopes.Change) -> list[str]:
        """Ask the strategy which host steps a change takes."""
        target = {
            'project': change.project,
            'version': self.scope.versions[change.project],
            'release': self.scope.request.to_release,
            'data': self.data(change.project),
        }
        return list(self.scope.strategy.steps(self.scope.services(change), {}, target))

    def offers(self, kind: str) -> bool:
        """Tell whether the strategy can do steps of a kind."""
        return kind in getattr(self.scope.strategy, 'kinds', ())


def check(build: Build) -> None:
    """Look before anything else: is the cloud still the one that was planned for?"""
    fingerprint = build.scope.inventory.fingerprint()
    build.draft.add('check_cloud', params={'fingerprint': fingerprint})
    if build.offers('check_host'):
        for host in build.scope.hosts:
            params = build.goal(host) if build.by_host else None
            build.draft.add('check_host', host=host, params=params)


def control_plane(build: Build) -> None:
    """Go project by project: the database first, then one control host after the other.

    Databases are extended as early as they can be, for old code works with the new schema;
    the restarts of all projects are one chain, so that no two APIs are out together. A project
    whose old and new code do not serve together stops first, on all hosts.
    """
    if build.by_host:
        _node_by_node(build)
        return
    last: int | None = None
    for project in build.scope.order:
        ready = _old_migrations(build, project)
        if build.scope.stopped(project):
            ready = last = _stopped(build, project, [ready, last])
        ready = _databases(build, project, ready)
        for change in build.scope.control(project):
            switched = build.add('upgrade_service', change, [ready, last], change.binaries)
            last = ready = _look(build, change, [switched])


def _node_by_node(build: Build) -> None:
    """Take one control host after the other, all of its projects together.

    The first one to have the new code changes the databases, before anything restarts.
    """
    last: int | None = None
    for host in _nodes(build.scope):
        changes = build.scope.of_host(host, 'control')
        first = [c for c in changes if build.scope.first_control(c.project) is c]
        for change in first:
            last = _old_migrations(build, change.project, last)
        last = _packages(build, host, last)
        for change in first:
            if 'upgrade_check' in build.data(change.project).commands:
                last = build.add('upgrade_check', change, [last])
            if build.scope.stopped(change.project):
                last = _stopped(build, change.project, [last])
            last = _databases(build, change.project, last)
        for change in changes:
            switched = build.add('upgrade_service', change, [last], change.binaries)
            last = _look(build, change, [switched])


def _nodes(scope: scopes.Scope) -> list[str]:
    """Return the control hosts, those first that have the earliest databases to change."""
    place = {
        first.host: n
        for n, project in reversed(list(enumerate(scope.order)))
        if (first := scope.first_control(project)) is not None
    }
    hosts = {c.host for c in scope.changes if c.plane == 'control'}
    return sorted(hosts, key=lambda host: (place.get(host, len(scope.order)), host))


def _packages(build: Build, host: str, last: int | None) -> int:
    """Replace the packages of all projects of a host; nothing restarts by that."""
    planes = [c for plane in ('control', 'data') for c in build.scope.of_host(host, plane)]
    binaries = [binary for change in planes for binary in change.binaries]
    build.packaged[host] = build.draft.add(
        'upgrade_packages',
        after=[last],
        host=host,
        binaries=binaries,
        params={**build.goal(host), 'units': binaries},
    )
    return build.packaged[host]


def _old_migrations(build: Build, project: str, last: int | None = None) -> int | None:
    """End the old release's own migrations, by its own code: undone by nothing, needed by all.

    A hop over a release needs that of every project that has any.
    """
    change, data = build.scope.first_control(project), build.data(project)
    wanted = data.before.get('online_migrations') == 'current' or build.scope.skips
    if not wanted or 'online_migrations' not in data.commands:
        return last
    if change is None or not change.from_version:
        return last
    return build.draft.add(
        'online_migrations',
        after=[last],
        host=change.host,
        project=project,
        ponr=False,
        params={
            'version': change.from_version,
            'from_version': change.from_version,
            'release': build.scope.request.from_release,
        },
    )


def _stopped(build: Build, project: str, after: Iterable[int | None]) -> int | None:
    """Stop the services of a project's control plane on every host, the last waves first."""
    waits = list(after)
    for change in reversed(build.scope.control(project)):
        waits = [build.add('stop_service', change, waits, change.binaries)]
    return waits[-1]


def _databases(build: Build, project: str, last: int | None) -> int | None:
    change, data = build.scope.first_control(project), build.data(project)
    for kind in _DATABASE_KINDS if change else ():
        if change and kind in data.commands:
            last = build.add(kind, change, [last])
    return last


def _look(build: Build, change: scopes.Change, after: Iterable[int | None]) -> int:
    """Let the conductor look at a changed service from outside."""
    params = {'binaries': list(change.binaries), 'version': build.scope.versions[change.project]}
    return build.draft.add(
        'verify_service',
        after=after,
        host=change.host,
        project=change.project,
        binaries=change.binaries,
        params=params,
    )


def canary(build: Build) -> None:
    """Take a few hosts through everything, and let them soak."""
    _compute_hosts(build, lambda drain: drain.host in build.canaries)


def data_plane(build: Build) -> None:
    """Take all other hosts through it: as many at a time as the broker's budget allows."""
    for host in build.scope.data_hosts:
        _verified(build, host, _switched(build, host, None))
    _compute_hosts(build, lambda drain: drain.host not in build.canaries)


def _compute_hosts(build: Build, wanted: Callable[[drains.Drain], bool]) -> None:
    for drain in filter(wanted, build.drains.order):
        _compute_host(build, drain)


def _compute_host(build: Build, drain: drains.Drain) -> None:
    """Disable, drain, upgrade, verify, enable.

    Everything that the host waits for is waited for before it is disabled: a host that is
    out must never wait for another one to get its turn in the budget.
    """
    host, compute = drain.host, {'binaries': ['nova-compute']}
    waits = [build.enabled[name] for name in sorted(drain.waits_enabled)]
    waits += [build.drained[name] for name in sorted(drain.waits_drained)]
    last = build.draft.add('disable_host', after=waits, host=host, params=compute)
    if build.scope.request.policy['drain']['instances'] != 'none':
        last = build.drained[host] = build.draft.add(
            'drain_host',
            after=[last],
            host=host,
            params=_drain_params(drain),
            estimate=estimate.drain_seconds(drain.moves, build.scope),
        )
    else:
        build.drained[host] = last
    seen = _verified(build, host, _switched(build, host, last))
    build.enabled[host] = build.draft.add('enable_host', after=seen, host=host, params=compute)


def _drain_params(drain: drains.Drain) -> dict[str, Any]:
    """Return the moves, where newcomers may go, and who is to be left alone."""
    return {
        'moves': drain.moves,
        'targets': sorted(set(drain.moves.values())),
        'leave': drain.leave,
    }


def _switched(build: Build, host: str, last: int | None) -> int | None:
    """Upgrade the data plane services of a host, in the order that the data ask for."""
    if build.by_host and host not in build.packaged:
        last = _packages(build, host, last)
    for change, binaries in data_groups(build.scope, host):
        last = build.add('upgrade_service', change, [last], binaries)
    return last


def _verified(build: Build, host: str, last: int | None) -> list[int | None]:
    """Read back what runs, then look from outside; return what to wait for."""
    changes = build.scope.of_host(host, 'data')
    for change in changes:
        if 'verify_host' in build.kinds(change):
            last = build.add('verify_host', change, [last], change.binaries)
    return [_look(build, change, [last]) for change in changes]


def data_groups(scope: scopes.Scope, host: str) -> Iterator[tuple[scopes.Change, tuple[str, ...]]]:
    """Yield the data plane services of a host in groups that are restarted together."""
    groups: list[tuple[int, scopes.Change, tuple[str, ...]]] = []
    for change in scope.of_host(host, 'data'):
        known = scope.projects.get(change.project).services
        for level in sorted({known[b].start for b in change.binaries}):
            some = tuple(b for b in change.binaries if known[b].start == level)
            groups.append((level, change, some))
    while groups:
        index = next((n for n, group in enumerate(groups) if _may_go(scope, group, groups)), 0)
        yield groups.pop(index)[1:]


def _may_go(
    scope: scopes.Scope,
    group: tuple[int, scopes.Change, tuple[str, ...]],
    left: Sequence[tuple[int, scopes.Change, tuple[str, ...]]],
) -> bool:
    known = scope.projects.get(group[1].project).services
    before = {name for binary in group[2] for name in known[binary].after}
    return not any(before & set(other[2]) for other in left if other is not group)


def verify(build: Build) -> None:
    """Read back what runs on the control hosts, then ask every API for a real answer."""
    last: dict[str, int] = {}
    for project in build.scope.order:
        for change in build.scope.control(project):
            if 'verify_host' in build.kinds(change):
                last[change.host] = build.add(
                    'verify_host', change, [last.get(change.host)], change.binaries
                )
    build.draft.add('probe_cloud', after=last.values())


#: the table of contents of a plan
STAGES: Mapping[str, Callable[[Build], None]] = {
    'check': check,
    'prepare': databases.prepare,
    'control_plane': control_plane,
    'canary': canary,
    'data_plane': data_plane,
    'finish': databases.finish,
    'verify': verify,
}
