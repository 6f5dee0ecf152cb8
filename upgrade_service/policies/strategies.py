"""Rules for the strategies that engines offer."""

from upgrade_service.policies import base

RULES = [
    base.rule(
        'strategies:list',
        base.READER,
        'List the strategies that engines offer.',
        'GET /v1/strategies',
    ),
]
