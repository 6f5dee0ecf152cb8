"""The stages of a plan: which steps each of them has, and what they wait for.

`STAGES` is the table of contents; each function adds the steps of its stage to a draft.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.planner import draft as drafts
from upgrade_service.conductor.planner import drain as drains
from upgrade_service.conductor.planner import estimate
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


def check(build: Build) -> None:
    """Look before anything else: is the cloud still the one that was planned for?"""
    fingerprint = build.scope.inventory.fingerprint()
    build.draft.add('check_cloud', params={'fingerprint': fingerprint})
    if 'check_host' in getattr(build.scope.strategy, 'kinds', ()):
        for host in build.scope.hosts:
            build.draft.add('check_host', host=host)


def prepare(build: Build) -> None:
    """Install the new code beside the old everywhere, rehearse, and back up."""
    fetched: dict[tuple[str, str], int] = {}
    for change in sorted(build.scope.changes, key=lambda c: c.host):
        if (change.host, change.project) not in fetched and 'prefetch' in build.kinds(change):
            fetched[change.host, change.project] = build.add('prefetch', change)
    for project in build.scope.order:
        first = build.scope.first_control(project)
        if first is not None:
            _rehearse(build, first, fetched.get((first.host, project)))


def _rehearse(build: Build, change: scopes.Change, ready: int | None) -> None:
    """Ask the new code's own check, then dump the databases, on the first control host."""
    data = build.data(change.project)
    if 'upgrade_check' in data.commands:
        ready = build.add('upgrade_check', change, [ready])
    if build.scope.request.policy['backup']['database'] and data.databases:
        build.add('backup_database', change, [ready])


def control_plane(build: Build) -> None:
    """Go project by project: the database first, then one control host after the other.

    Databases are extended as early as they can be, for old code works with the new schema;
    the restarts of all projects are one chain, so that no two APIs are out together. A project
    whose old and new code do not serve together stops first, on all hosts.
    """
    last: int | None = None
    for project in build.scope.order:
        ready = _old_migrations(build, project)
        if build.scope.stopped(project):
            ready = last = _stopped(build, project, [ready, last])
        ready = _databases(build, project, ready)
        for change in build.scope.control(project):
            switched = build.add('upgrade_service', change, [ready, last], change.binaries)
            last = ready = _look(build, change, [switched])


def _old_migrations(build: Build, project: str) -> int | None:
    """End the old release's own migrations, by its own code: undone by nothing, needed by all.

    A hop over a release needs that of every project that has any.
    """
    change, data = build.scope.first_control(project), build.data(project)
    wanted = data.before.get('online_migrations') == 'current' or build.scope.skips
    if not wanted or 'online_migrations' not in data.commands:
        return None
    if change is None or not change.from_version:
        return None
    return build.draft.add(
        'online_migrations',
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


def finish(build: Build) -> None:
    """Drop version pins, rewrite rows, remove what only old code used: no way back.

    Only for projects that nowhere stay behind.
    """
    last: int | None = None
    for project in build.scope.order:
        change, data = build.scope.first_control(project), build.data(project)
        if project in build.scope.behind:
            continue
        for host in _hosts_to_restart(build, project):
            last = build.add('restart_service', host, [last], host.binaries)
        change = change or _any_control(build, project)
        if change is None:
            continue
        own = last if data.finish.get('restart') else None
        if data.finish.get('online_migrations'):
            own = build.add('online_migrations', change, [own])
        if data.finish.get('contract'):
            build.add('db_contract', change, [own], ponr=build.scope.contracts(project))


def _hosts_to_restart(build: Build, project: str) -> list[scopes.Change]:
    """Return a change for each control host with services that keep version pins."""
    wanted = build.data(project).finish.get('restart', ())
    found: dict[str, list[model.Service]] = {}
    for service in build.scope.inventory.of_project(project):
        host = build.scope.inventory.hosts.get(service.host)
        if service.binary in wanted and build.scope.request.selects(host):
            found.setdefault(service.host, []).append(service)
    return [_control_change(project, found[host]) for host in sorted(found)]


def _any_control(build: Build, project: str) -> scopes.Change | None:
    """Return a control host of a project whose control plane had nothing to change."""
    found: Mapping[str, list[model.Service]] = {}
    data, scope = build.data(project), build.scope
    hosts = sorted(
        {
            s.host
            for s in scope.inventory.of_project(project)
            if data.plane(s.binary) == 'control'
            and scope.request.selects(scope.inventory.hosts.get(s.host))
        }
    )
    found = {h: [s for s in scope.inventory.of_host(h) if s.project == project] for h in hosts}
    return _control_change(project, found[hosts[0]]) if hosts else None


def _control_change(project: str, services: Sequence[model.Service]) -> scopes.Change:
    return scopes.Change(
        project=project,
        host=services[0].host,
        plane='control',
        binaries=tuple(sorted(s.binary for s in services)),
        from_version=services[0].version,
    )


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
    'prepare': prepare,
    'control_plane': control_plane,
    'canary': canary,
    'data_plane': data_plane,
    'finish': finish,
    'verify': verify,
}
