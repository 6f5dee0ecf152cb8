"""Rules for the plugins: strategies that engines offer, and inventories."""

from upgrade_service.policies import base

RULES = [
    base.rule(
        'strategies:list',
        base.READER,
        'List the strategies that engines offer.',
        'GET /v1/strategies',
    ),
    base.rule(
        'inventories:list',
        base.READER,
        'List the inventory plugins.',
        'GET /v1/inventories',
    ),
]
