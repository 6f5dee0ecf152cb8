"""Reasons why a plan may not be started, or should be looked at first."""

from collections.abc import Iterator

from upgrade_service import model
from upgrade_service.conductor.planner import databases, hops, machines
from upgrade_service.conductor.planner import drain as drains
from upgrade_service.conductor.planner import scope as scopes

#: seconds after which an engine's facts are too old to plan with
FACTS_MAX_AGE = 600


def find_problems(scope: scopes.Scope, planned: drains.Drains) -> list[model.Problem]:
    """List the problems of a plan, each once, the blocking ones first."""
    found = [
        *_of_inventory(scope),
        *_of_engines(scope),
        *_of_projects(scope),
        *hops.find_problems(scope),
        *_of_selection(scope),
        *_of_holders(scope),
        *_of_backups(scope),
        *_of_shared_hosts(scope),
        *planned.problems,
    ]
    once = {(p.code, p.host, p.service): p for p in reversed(found)}
    return sorted(
        once.values(),
        key=lambda p: (p.severity != 'blocking', p.code, p.host or '', p.service or ''),
    )


def _of_inventory(scope: scopes.Scope) -> Iterator[model.Problem]:
    """What discovery found counts in full where a step goes, and as a warning elsewhere."""
    for problem in scope.inventory.problems:
        if problem.severity != 'blocking' or _counts(problem, scope):
            yield problem
        else:
            yield _warning(problem)


#: what matters only if the host's own engine has something to do
_OF_THE_ENGINE = frozenset({'engine_missing', 'engine_down', 'stale_facts'})


def _counts(problem: model.Problem, scope: scopes.Scope) -> bool:
    """Whether a blocking problem is one for this plan."""
    if problem.host is None:
        return True
    host = scope.inventory.hosts.get(problem.host)
    done_for_it = host is not None and scope.request.strategy in host.executors
    return problem.host in scope.touched and not (done_for_it and problem.code in _OF_THE_ENGINE)


def _warning(problem: model.Problem) -> model.Problem:
    return model.Problem(
        code=problem.code,
        severity='warning',
        message=problem.message,
        host=problem.host,
        service=problem.service,
        hint=problem.hint,
    )


def _of_engines(scope: scopes.Scope) -> Iterator[model.Problem]:
    wanted = [(h, scope.request.strategy) for h in scope.hosts]
    for name, strategy in (*wanted, *((h, machines.STRATEGY) for h in scope.machines)):
        fault = _engine_fault(scope.inventory.hosts[name], strategy)
        if fault:
            code, message, hint = fault
            yield model.Problem(
                code=code, severity='blocking', host=name, message=message, hint=hint
            )


def _engine_fault(host: model.Host, strategy: str) -> tuple[str, str, str] | None:
    if strategy in host.executors:
        return None
    if host.agent_state is None:
        return (
            'engine_missing',
            f'no engine is enrolled for {host.name}',
            f'openstack upgrade agent enroll {host.name}',
        )
    if host.agent_state != 'up':
        return (
            'engine_down',
            f'the engine of {host.name} sends no heartbeat',
            f'start upgrade-service-engine on {host.name}',
        )
    if host.facts_age is None or host.facts_age > FACTS_MAX_AGE:
        return (
            'stale_facts',
            f'the facts of {host.name} are missing or too old to plan with',
            'discover the cluster again',
        )
    if strategy not in host.strategies:
        return (
            'strategy_missing',
            f'the engine of {host.name} does not offer {strategy}',
            f'put {strategy}.yaml into engine.d of {host.name}, or choose another strategy; '
            'if a deployment host is to do it, name that host in [conductor] deployment_hosts',
        )
    return None


def _of_projects(scope: scopes.Scope) -> Iterator[model.Problem]:
    for name in scope.order:
        if not scope.versions[name]:
            yield model.Problem(
                code='unknown_target',
                severity='blocking',
                service=name,
                message=f'no version of {name} in {scope.request.to_release} is known',
                hint='tools/refresh-releases, or leave it out with skip_projects',
            )
    for change in scope.changes:
        if change.from_version is None:
            yield model.Problem(
                code='unknown_version',
                severity='blocking',
                host=change.host,
                service=change.binaries[0],
                message=f'nobody can tell which version of {change.project} {change.host} runs',
                hint=f'is an engine on {change.host}, and does it find {change.project}?',
            )
    yield from _too_old(scope)


def _too_old(scope: scopes.Scope) -> Iterator[model.Problem]:
    source = scope.releases.get(scope.request.from_release)
    for service in scope.inventory.services:
        release = scope.releases.get(service.release or '')
        if service.forced_down or service.project not in scope.versions:
            continue
        if release and source and release < source:
            yield model.Problem(
                code='release_too_old',
                severity='blocking',
                host=service.host,
                service=service.binary,
                message=f'{service.binary} on {service.host} is still at {release.id}: '
                f'new code does not talk to it',
                hint=f'upgrade it to {source.id} first, or delete its record',
            )


def _of_selection(scope: scopes.Scope) -> Iterator[model.Problem]:
    for name, services in sorted(scope.behind.items()):
        data = scope.projects.get(name)
        control = sorted({s.host for s in services if data.plane(s.binary) == 'control'})
        if control and any(c.plane == 'data' and c.project == name for c in scope.changes):
            yield model.Problem(
                code='control_plane_behind',
                severity='blocking',
                service=name,
                message=f'{name} on {", ".join(control[:5])} is behind and not selected, but must '
                'be upgraded before the hosts that are',
                hint='upgrade the control plane first, or select its hosts too',
            )
        yield model.Problem(
            code='finish_postponed',
            severity='warning',
            service=name,
            message=f'{len(services)} services of {name} stay behind, so its version pins and '
            'old rows stay too',
            hint='the upgrade of the remaining hosts will finish it',
        )


def _of_holders(scope: scopes.Scope) -> Iterator[model.Problem]:
    """Volumes and routers are not moved: restarting what serves them keeps the data path."""
    for name in scope.touched:
        host = scope.inventory.hosts[name]
        for what, amount in (('volumes', host.volumes), ('routers', host.routers)):
            if amount:
                drained = name in scope.compute_hosts
                yield model.Problem(
                    code=f'holds_{what}',
                    severity='blocking' if drained else 'warning',
                    host=name,
                    message=f'{name} holds {amount} {what}, which are not moved away',
                    hint='they keep working while its services restart'
                    + ('; move them, or accept it at start' if drained else ''),
                    acceptable=True,
                )


def _of_shared_hosts(scope: scopes.Scope) -> Iterator[model.Problem]:
    """Name hosts whose guests are still there when their packages are replaced."""
    if getattr(scope.strategy, 'unit_of_change', 'project') != 'host':
        return
    control = {c.host for c in scope.changes if c.plane == 'control'}
    for name in sorted(control & set(scope.compute_hosts)):
        yield model.Problem(
            code='shared_packages',
            severity='warning',
            host=name,
            message=f'{name} is a control host and holds instances: the packages of both change '
            'at once, before it is drained',
            hint='its nova-compute goes on with the code it has loaded, and restarts later',
        )


def _of_backups(scope: scopes.Scope) -> Iterator[model.Problem]:
    """Dumps that cannot be made, or not be proved, where the policy wants them."""
    policy = scope.request.policy
    for name in scope.order:
        change = scope.first_control(name) or databases.any_control(scope, name)
        if change is None or not scope.projects.get(name).databases:
            continue
        said = scope.inventory.hosts[change.host].readiness.get('backup')
        if not policy['backup']['database'] or said is None:
            continue
        if not said['ready']:
            yield model.Problem(
                code='backup_impossible',
                severity='blocking',
                host=change.host,
                service=name,
                message=f'the databases of {name} cannot be dumped on {change.host}: '
                f'{said["reason"]}',
                hint=f'mend `backup` in engine.d/{scope.request.strategy}.yaml there, or set the '
                'policy backup.database to false',
            )
        elif policy['backup']['verify'] and not said['provable']:
            yield model.Problem(
                code='backup_unproved',
                severity='warning',
                host=change.host,
                service=name,
                message=f'the dump of {name} cannot be restored to prove it on {change.host}',
                hint=f'name backup server and scratch in engine.d/{scope.request.strategy}.yaml',
            )
