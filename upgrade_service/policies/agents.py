"""Rules for the engines' identities."""

from upgrade_service.policies import base

AGENT = '/v1/agents/{agent}'
RULES = [
    base.rule(
        'agents:get',
        base.READER,
        'Show the engines that are enrolled.',
        'GET /v1/agents',
        f'GET {AGENT}',
    ),
    base.rule(
        'agents:enroll',
        base.ADMIN,
        'Make a bundle that enrols the engine of a host.',
        'POST /v1/agents',
    ),
    base.rule('agents:approve', base.ADMIN, 'Trust an engine.', f'POST {AGENT}/approve'),
    base.rule('agents:revoke', base.ADMIN, 'Trust an engine no more.', f'POST {AGENT}/revoke'),
    base.rule('agents:delete', base.ADMIN, 'Forget an engine.', f'DELETE {AGENT}'),
]
