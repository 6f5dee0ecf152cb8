"""What stands in the way of a hop, project by project: manners, floors, versions, commands.

The answers come from the project data and from what the target's own wheels say.
"""

from collections.abc import Iterator

from upgrade_service import model
from upgrade_service.conductor.planner import scope as scopes
from upgrade_service.projects import facts as wheel_facts
from upgrade_service.projects import loader, paths

Problems = Iterator[model.Problem]


def find_problems(scope: scopes.Scope) -> Problems:
    """Yield the problems of the hop itself."""
    for name in scope.order:
        project = scope.projects.get(name)
        if project.independent:
            yield from _of_versions(scope, project)
        else:
            yield from _of_manner(scope, project)
            yield from _of_commands(scope, project)
            yield from _of_schema(scope, project)
        yield from _by_hand(project)
    yield from _below_floor(scope)


def _problem(code: str, name: str, message: str, hint: str, **more: object) -> model.Problem:
    """Return a problem of a project: blocking, and acceptable, if nothing else is said."""
    facts = {'severity': 'blocking', 'acceptable': True, **more}
    return model.Problem(code=code, service=name, message=message, hint=hint, **facts)  # type: ignore[arg-type]


# -- manners -----------------------------------------------------------------------------------


def _of_manner(scope: scopes.Scope, project: loader.Project) -> Problems:
    how, name = scope.manner(project.name), project.name
    control = scope.control(name)
    if how == 'sequential':
        between = _between(scope)
        yield _problem(
            'sequential_only',
            name,
            f'{name} skips no release, and this hop leads from {scope.request.from_release} '
            f'over {between} to {scope.request.to_release}',
            f'go to {between} first, or leave it out: skip_projects: [{name}]',
            acceptable=False,
        )
    elif how == 'cold' and control:
        yield _cold(scope, project, len({c.host for c in control}))
        yield from _running_on(scope, project)


def _cold(scope: scopes.Scope, project: loader.Project, hosts: int) -> model.Problem:
    seconds = paths.down_seconds(project, 'cold', hosts)
    name, fact = project.name, project.upgrade['slurp' if scope.skips else 'adjacent']
    source = next(s['ref'] for s in project.sources if s['id'] == fact['source'])
    why = (
        f'nothing proves how {name} is upgraded ({source}), so it goes cold'
        if fact['proof'] == 'none'
        else f'{name} does not run in two versions across this hop'
    )
    code = 'unproven_upgrade' if fact['proof'] == 'none' else 'cold_upgrade'
    hint = 'accept it at start' + (', or go by way of the release between' if scope.skips else '')
    if not scope.stopped(name):
        code = 'cold_not_stopped'
        why = f'{why}, and strategy {scope.request.strategy} cannot stop it beforehand'
        hint = 'stop it by hand and accept it at start, or choose another strategy'
    return _problem(code, name, f'{why}: its API is out for about {seconds} s', hint)


def _running_on(scope: scopes.Scope, project: loader.Project) -> Problems:
    """Name old control services of a cold project that nobody would stop."""
    left = [s for s in scope.behind.get(project.name, ()) if project.plane(s.binary) == 'control']
    hosts = sorted({s.host for s in left if not s.forced_down})
    if hosts:
        yield _problem(
            'cold_in_part',
            project.name,
            f'{project.name} on {", ".join(hosts[:5])} is not selected and would run on with the '
            'old code, which must not meet the new one',
            f'select {", ".join(hosts[:5])} too, or leave {project.name} out',
            acceptable=False,
        )


def _between(scope: scopes.Scope) -> str:
    target = scope.releases.get(scope.request.to_release)
    earlier = [r.id for r in scope.releases.all() if target and r.ordinal == target.ordinal - 1]
    return earlier[0] if earlier else 'the release between'


# -- what the target's wheels say --------------------------------------------------------------


def _of_commands(scope: scopes.Scope, project: loader.Project) -> Problems:
    """Name services whose command the new release does not install any more."""
    gone = wheel_facts.gone(*scope.wheels(project.name))
    used = {b for c in scope.changes if c.project == project.name for b in c.binaries}
    for binary in sorted(gone & used):
        yield _problem(
            'command_gone',
            binary,
            f'{project.name} {scope.versions[project.name]} has no command {binary} any more: '
            'a unit that starts it would not come back',
            f'let the unit of {binary} run what the release notes of {project.name} name '
            'instead, then accept it at start',
        )


def _of_schema(scope: scopes.Scope, project: loader.Project) -> Problems:
    taken = wheel_facts.takes_away(*scope.wheels(project.name))
    if taken and 'db_expand' in project.commands:
        yield _problem(
            'schema_takes_away',
            project.name,
            f'migration {", ".join(taken)} of {project.name} drops or renames tables or columns: '
            'the old code may need the dump of the database to run again',
            'keep backup: {database: true}',
            severity='warning',
        )


def _below_floor(scope: scopes.Scope) -> Problems:
    """Name records of computes that the new nova refuses to start beside.

    It counts every record that is neither deleted nor forced down, be its host dead or alive.
    """
    facts = scope.wheels('nova')[1] if 'nova' in scope.versions else None
    for service in scope.inventory.services if facts else ():
        release = scope.releases.get(service.release or '')
        if service.binary != 'nova-compute' or service.forced_down or release is None:
            continue
        if facts and facts.serves(release) is False:
            yield model.Problem(
                code='below_floor',
                severity='blocking',
                host=service.host,
                service=service.binary,
                message=f'nova {facts.version} does not start while a record of nova-compute is '
                f'older than {facts.services["oldest"]}, and {service.host} is at {release.id}',
                hint=f'upgrade {service.host} to a release from {facts.services["oldest"]} on, '
                'or, if it is gone for good, delete its record or force it down',
            )


# -- infrastructure and work by hand -----------------------------------------------------------


def _of_versions(scope: scopes.Scope, project: loader.Project) -> Problems:
    target = scope.versions[project.name]
    versions = {c.from_version for c in scope.changes if c.project == project.name}
    for version in sorted(filter(None, versions)):
        refusal = paths.version_refusal(project, version, target)
        if refusal:
            yield _problem(
                'illegal_version_step',
                project.name,
                refusal,
                f'name another version in targets of projects.d/{project.name}.yaml',
                acceptable=False,
            )


def _by_hand(project: loader.Project) -> Problems:
    for work in project.manual:
        before = work['when'] == 'before'
        yield _problem(
            work['code'],
            project.name,
            f'{project.name}: {work["text"]}',
            'accept it at start when it is done' if before else 'after this upgrade',
            severity='blocking' if before else 'warning',
        )
