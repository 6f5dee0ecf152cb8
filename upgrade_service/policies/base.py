"""The three roles, and how a rule of a resource is written down."""

from oslo_policy import policy

READER = 'rule:upgrade_reader'
OPERATOR = 'rule:upgrade_operator'
ADMIN = 'rule:upgrade_admin'

RULES = [
    policy.RuleDefault('upgrade_admin', 'role:admin', 'Changes trust, passes no return.'),
    policy.RuleDefault(
        'upgrade_operator',
        'role:upgrade_operator or rule:upgrade_admin',
        'Starts, pauses and cancels upgrades.',
    ),
    policy.RuleDefault(
        'upgrade_reader',
        'role:upgrade_reader or rule:upgrade_operator',
        'Looks at clusters and upgrades.',
    ),
]


def rule(
    name: str, check: str, description: str, *operations: str
) -> policy.DocumentedRuleDefault:
    """Make a rule; `operations` are written 'METHOD /path'."""
    return policy.DocumentedRuleDefault(
        name=f'upgrade:{name}',
        check_str=check,
        description=description,
        operations=[
            {'method': method, 'path': path}
            for method, path in (said.split() for said in operations)
        ],
        scope_types=['project'],
    )
