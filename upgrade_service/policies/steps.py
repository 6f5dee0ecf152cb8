"""Rules for the steps of an upgrade."""

from upgrade_service.policies import base

STEPS = '/v1/upgrades/{upgrade}/steps'
RULES = [
    base.rule(
        'steps:get',
        base.READER,
        'Show the steps of an upgrade.',
        f'GET {STEPS}',
        f'GET {STEPS}/{{step}}',
    ),
    base.rule(
        'steps:log',
        base.OPERATOR,
        'Read what a step printed: it may tell of the host.',
        f'GET {STEPS}/{{step}}/log',
    ),
    base.rule(
        'steps:retry',
        base.OPERATOR,
        'Try a failed or unknown step again.',
        f'POST {STEPS}/{{step}}/retry',
    ),
    base.rule(
        'steps:force',
        base.ADMIN,
        'Try a step again that may have been done already.',
        f'POST {STEPS}/{{step}}/retry',
    ),
    base.rule(
        'steps:resolve',
        base.ADMIN,
        'Say how a failed or unknown step really ended.',
        f'POST {STEPS}/{{step}}/resolve',
    ),
    base.rule(
        'steps:skip',
        base.ADMIN,
        'Go on without a failed or unknown step.',
        f'POST {STEPS}/{{step}}/skip',
    ),
]
