"""Replays a finished plan against every constraint; whoever made the plan is not asked."""

from collections.abc import Iterator
import dataclasses

from upgrade_service import exception, model
from upgrade_service.conductor.planner import constraints, hop_rules, occupancy, wayback
from upgrade_service.conductor.planner import paper as papers
from upgrade_service.conductor.planner import request as requests
from upgrade_service.projects import loader
from upgrade_service.projects import releases as releases_data


@dataclasses.dataclass(frozen=True)
class Breach:
    """A rule that a plan breaks."""

    constraint: str  #: name of its class
    message: str


def breaches(
    plan: model.Plan,
    inventory: model.Inventory,
    request: requests.Request,
    projects: loader.Projects,
    releases: releases_data.Releases,
) -> list[Breach]:
    """List everything that is wrong with a plan; an empty list means that it may start."""
    paper = papers.Paper(plan, inventory, request, projects, releases)
    found = list(_check(constraints.FORM, paper))
    if not found:  # the rest needs steps that can be put in an order
        found = list(_check((*constraints.ORDER, *hop_rules.HOP, *occupancy.SERVERS), paper))
        found += list(_check((wayback.BackForm(),), paper)) or list(_check(wayback.RULES, paper))
    return found


def verify(
    plan: model.Plan,
    inventory: model.Inventory,
    request: requests.Request,
    projects: loader.Projects,
    releases: releases_data.Releases,
) -> None:
    """Refuse a plan that breaks a rule.

    :raises PlanRefused: names the first breach, and how many more there are.
    """
    found = breaches(plan, inventory, request, projects, releases)
    if found:
        more = f' (and {len(found) - 1} more)' if len(found) > 1 else ''
        raise exception.PlanRefused(reason=f'{found[0].constraint}: {found[0].message}{more}')


def _check(rules: tuple[constraints.Constraint, ...], paper: papers.Paper) -> Iterator[Breach]:
    for rule in rules:
        for message in rule.broken(paper):
            yield Breach(type(rule).__name__, message)
