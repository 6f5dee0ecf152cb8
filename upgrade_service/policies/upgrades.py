"""Rules for upgrades and their verbs."""

from upgrade_service.policies import base

UPGRADE = '/v1/upgrades/{upgrade}'
RULES = [
    base.rule('upgrades:list', base.READER, 'List the upgrades.', 'GET /v1/upgrades'),
    base.rule(
        'upgrades:get',
        base.READER,
        'Show an upgrade, its plan, problems and events.',
        f'GET {UPGRADE}',
        f'GET {UPGRADE}/plan',
        f'GET {UPGRADE}/problems',
        f'GET {UPGRADE}/events',
        f'GET {UPGRADE}/report',
    ),
    base.rule('upgrades:create', base.OPERATOR, 'Make a plan.', 'POST /v1/upgrades'),
    base.rule(
        'upgrades:create_approved',
        base.ADMIN,
        'Make a plan whose points of no return are approved beforehand.',
        'POST /v1/upgrades',
    ),
    base.rule(
        'upgrades:delete',
        base.OPERATOR,
        'Delete a draft or an ended upgrade.',
        f'DELETE {UPGRADE}',
    ),
    *(
        base.rule(
            f'upgrades:{verb}',
            base.OPERATOR,
            f'{verb.capitalize()} an upgrade.',
            f'POST {UPGRADE}/{verb}',
        )
        for verb in ('start', 'pause', 'resume', 'cancel', 'replan')
    ),
    base.rule(
        'upgrades:rollback',
        base.ADMIN,
        'Undo what an upgrade did.',
        f'POST {UPGRADE}/rollback',
    ),
    base.rule('upgrades:approve', base.OPERATOR, 'Pass a gate.', f'POST {UPGRADE}/approve'),
    base.rule(
        'upgrades:approve_ponr',
        base.ADMIN,
        'Pass a gate with points of no return behind it.',
        f'POST {UPGRADE}/approve',
    ),
]
