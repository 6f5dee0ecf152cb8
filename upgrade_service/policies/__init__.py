"""Who may do what: the defaults of the policy, one file per resource.

Every rule asks for a role, never for a project: inventory is infrastructure, so a
project's own `reader` and `member` get nothing.
"""

import itertools

from oslo_policy import policy

from upgrade_service.policies import agents, base, clusters, steps, strategies, upgrades


def list_rules() -> list[policy.RuleDefault]:
    """List all rules, for the enforcer and for the sample generator."""
    rooms = (base, clusters, upgrades, steps, agents, strategies)
    return list(itertools.chain.from_iterable(room.RULES for room in rooms))
