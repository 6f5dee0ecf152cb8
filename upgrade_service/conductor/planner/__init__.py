"""DECISION ENGINE: inventory + target + policy -> plan; pure functions.

A *plan* is the immutable graph of steps of one upgrade. Nothing here does I/O or asks
for the time; what is true of a project comes from `projects/`, what a strategy needs from
its planning half. The planner is distrusted: `verify` replays each plan on paper.
"""

from collections.abc import Mapping
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.planner import draft, drain, estimate, problems, stages, undo
from upgrade_service.conductor.planner import scope as scopes
from upgrade_service.conductor.planner.request import Request, share
from upgrade_service.projects import loader
from upgrade_service.projects import releases as releases_data

__all__ = ['Request', 'make_plan', 'share']


def make_plan(
    inventory: model.Inventory,
    request: Request,
    projects: loader.Projects,
    releases: releases_data.Releases,
    strategies: Mapping[str, Any],
) -> model.Plan:
    """Plan one hop; what stands in its way is listed in the plan's problems.

    `strategies`: name -> object with ``steps(services, facts, target)`` and ``kinds``.

    :raises PlanImpossible: there is nothing to do, or no plan can be expressed at all.
    """
    scope = scopes.make_scope(inventory, request, projects, releases, strategies)
    drains = _drains(scope)
    build = stages.Build(
        scope=scope,
        draft=draft.Draft(request.policy, request.strategy),
        drains=drains,
        canaries=frozenset(d.host for d in drains.order[: request.policy['canary']['hosts']]),
    )
    for stage, add_steps in stages.STAGES.items():
        build.draft.begin(stage)
        add_steps(build)
    return model.Plan(
        from_release=request.from_release,
        to_release=request.to_release,
        steps=tuple(build.draft.steps),
        fingerprint=inventory.fingerprint(),
        moves=drains.last_hosts(),
        problems=tuple(problems.find_problems(scope, drains)),
        undo=undo.way_back(scope, build.draft.steps),
    )


def _drains(scope: scopes.Scope) -> drain.Drains:
    hosts = scope.compute_hosts
    if scope.request.policy['drain']['instances'] == 'none':
        return drain.Drains(order=[drain.Drain(host) for host in hosts])
    return drain.plan_drains(
        scope.inventory,
        hosts,
        scope.upgraded,
        scope.request.policy,
        lambda host: estimate.upgrade_seconds(scope, host),
    )
