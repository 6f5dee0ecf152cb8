"""Reasons why a plan may not be started, or should be looked at first."""

from collections.abc import Iterator

from upgrade_service import model
from upgrade_service.conductor.planner import drain as drains
from upgrade_service.conductor.planner import hops
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
    return problem.host in scope.hosts and not (done_for_it and problem.code in _OF_THE_ENGINE)


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
    for name in scope.hosts:
        host = scope.inventory.hosts[name]
        fault = _engine_fault(host, scope.request.strategy)
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
    for name in scope.hosts:
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
