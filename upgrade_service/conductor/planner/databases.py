"""The stages about data: what is tried before anything is disrupted, and what ends an upgrade.

*prepare* asks the new code and copies of the databases; *finish* drops version pins and
rewrites rows once nothing old runs any more, and so holds the points of no return.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from upgrade_service import model
from upgrade_service.conductor.planner import scope as scopes

if TYPE_CHECKING:
    from upgrade_service.conductor.planner import stages

#: policy `tidy` -> kind
_TIDY = {'archive': 'db_archive', 'purge_days': 'db_purge'}


# -- prepare -----------------------------------------------------------------------------------


def prepare(build: 'stages.Build') -> None:
    """Install the new code beside the old everywhere, rehearse, and back up."""
    fetched = dict(_prefetched(build))
    for project in build.scope.order:
        for change in _each_host(build, project):
            _rehearse_config(build, change, fetched.get((change.host, project)))
        first = _database_host(build, project)
        if first is not None:
            _rehearse(build, first, fetched.get((first.host, project)))


def _prefetched(build: 'stages.Build') -> Iterator[tuple[tuple[str, str], int]]:
    """Add what brings new code to hosts; yield ((host, project), step)."""
    if build.by_host:
        for host in build.scope.hosts:
            step = build.draft.add('prefetch', host=host, params=build.goal(host))
            yield from (((host, project), step) for project in build.goal(host)['projects'])
        return
    seen = set()
    for change in sorted(build.scope.changes, key=lambda c: c.host):
        key = change.host, change.project
        if key not in seen and 'prefetch' in build.kinds(change):
            seen.add(key)
            yield key, build.add('prefetch', change)


def _each_host(build: 'stages.Build', project: str) -> list[scopes.Change]:
    """Return one change for each host of a project."""
    hosts = {c.host: c for c in reversed(build.scope.changes) if c.project == project}
    return [hosts[name] for name in sorted(hosts)]


def _rehearse_config(build: 'stages.Build', change: scopes.Change, ready: int | None) -> None:
    if build.scope.request.policy['rehearse']['config'] and build.offers('rehearse_config'):
        build.add('rehearse_config', change, [ready])


def _rehearse(build: 'stages.Build', change: scopes.Change, ready: int | None) -> None:
    """Ask the new code's own check, dump the databases, and try the dump."""
    data, policy = build.data(change.project), build.scope.request.policy
    # packages are not there beside the old ones: their check is asked once they are replaced
    checked = 'upgrade_check' in data.commands and not build.by_host
    if checked and build.scope.first_control(change.project) is change:
        ready = build.add('upgrade_check', change, [ready])
    if not data.databases or not policy['backup']['database']:
        return
    ready = build.add('backup_database', change, [ready])
    proof = how_proved(build.scope, change)
    if proof:
        build.add(proof, change, [ready])


def how_proved(scope: scopes.Scope, change: scopes.Change) -> str | None:
    """Name the kind of step that restores a project's dump, if one does."""
    policy, kinds = scope.request.policy, getattr(scope.strategy, 'kinds', ())
    host = scope.inventory.hosts[change.host]
    if not host.readiness.get('backup', {}).get('provable', True):
        return None
    rehearsed = policy['rehearse']['database'] and 'rehearse_database' in kinds
    verified = policy['backup']['verify'] and 'verify_backup' in kinds
    return 'rehearse_database' if rehearsed else 'verify_backup' if verified else None


def _database_host(build: 'stages.Build', project: str) -> scopes.Change | None:
    """Return the host of a project's database commands, if any step will change its data."""
    change = build.scope.first_control(project)
    if change is None and project not in build.scope.behind and _has_finish(build, project):
        change = any_control(build.scope, project)
    return change


def _has_finish(build: 'stages.Build', project: str) -> bool:
    finish = build.data(project).finish
    return any(finish.get(key) for key in ('restart', 'online_migrations', 'contract'))


# -- finish ------------------------------------------------------------------------------------


def finish(build: 'stages.Build') -> None:
    """Drop version pins, rewrite rows, remove what only old code used: no way back.

    Only for projects that nowhere stay behind, and only after a look whether that is so.
    """
    projects = [p for p in build.scope.order if p not in build.scope.behind]
    projects = [p for p in projects if _has_finish(build, p) or _tidied(build, p)]
    if not projects:
        return
    versions = {p: build.scope.versions[p] for p in projects}
    last: int | None = None
    seen = build.draft.add('check_versions', params={'versions': versions})
    for project in projects:
        last = _finish_project(build, project, seen, last)


def _finish_project(
    build: 'stages.Build', project: str, seen: int, last: int | None
) -> int | None:
    """Add the last steps of a project; return the last restart so far."""
    data = build.data(project)
    change = build.scope.first_control(project) or any_control(build.scope, project)
    own: int | None = seen
    restarts = _hosts_to_restart(build, project)
    if restarts and change is not None and data.records and build.offers('check_records'):
        own = build.add('check_records', change, [seen])
    for host in restarts:
        own = last = build.add('restart_service', host, [own, last], host.binaries)
    if change is None:
        return last
    if data.finish.get('online_migrations'):
        own = build.add('online_migrations', change, [own])
    if data.finish.get('contract'):
        own = build.add('db_contract', change, [own], ponr=build.scope.contracts(project))
    for key, kind in _tidied(build, project).items():
        days = build.scope.request.policy['tidy'][key]
        own = build.add(kind, change, [own], **({'days': days} if kind == 'db_purge' else {}))
    return last


def _tidied(build: 'stages.Build', project: str) -> dict[str, str]:
    """Return what the policy wants tidied and the project can tidy: {key: kind}."""
    tidy, commands = build.scope.request.policy['tidy'], build.data(project).commands
    return {k: kind for k, kind in _TIDY.items() if tidy[k] and kind in commands}


def _hosts_to_restart(build: 'stages.Build', project: str) -> list[scopes.Change]:
    """Return a change for each control host with services that keep version pins."""
    wanted = build.data(project).finish.get('restart', ())
    found: dict[str, list[model.Service]] = {}
    for service in build.scope.inventory.of_project(project):
        host = build.scope.inventory.hosts.get(service.host)
        if service.binary in wanted and build.scope.request.selects(host):
            found.setdefault(service.host, []).append(service)
    return [_control_change(project, found[host]) for host in sorted(found)]


def any_control(scope: scopes.Scope, project: str) -> scopes.Change | None:
    """Return a control host of a project whose control plane had nothing to change."""
    data, services = scope.projects.get(project), scope.inventory.of_project(project)
    hosts = sorted(
        {
            s.host
            for s in services
            if data.plane(s.binary) == 'control'
            and scope.request.selects(scope.inventory.hosts.get(s.host))
        }
    )
    mine = [s for s in services if hosts and s.host == hosts[0]]
    return _control_change(project, mine) if mine else None


def _control_change(project: str, services: Sequence[model.Service]) -> scopes.Change:
    return scopes.Change(
        project=project,
        host=services[0].host,
        plane='control',
        binaries=tuple(sorted(s.binary for s in services)),
        from_version=services[0].version,
    )
