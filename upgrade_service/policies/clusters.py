"""Rules for clusters and what discovery found in them."""

from upgrade_service.policies import base

CLUSTER = '/v1/clusters/{cluster}'
RULES = [
    base.rule('clusters:list', base.READER, 'List the clusters.', 'GET /v1/clusters'),
    base.rule(
        'clusters:get',
        base.READER,
        'Show a cluster, its services, problems and paths.',
        f'GET {CLUSTER}',
        f'GET {CLUSTER}/services',
        f'GET {CLUSTER}/summary',
        f'GET {CLUSTER}/paths',
        f'GET {CLUSTER}/problems',
    ),
    base.rule('clusters:create', base.ADMIN, 'Take a cluster under care.', 'POST /v1/clusters'),
    base.rule('clusters:delete', base.ADMIN, 'Forget a cluster.', f'DELETE {CLUSTER}'),
    base.rule(
        'clusters:discover',
        base.OPERATOR,
        'Run the discovery of a cluster.',
        f'POST {CLUSTER}/discover',
    ),
    base.rule(
        'hosts:declare_lost',
        base.ADMIN,
        'Give up a host for ever.',
        f'POST {CLUSTER}/hosts/{{host}}/declare-lost',
    ),
    base.rule(
        'hosts:get',
        base.READER,
        'Show the hosts of a cluster.',
        f'GET {CLUSTER}/hosts',
        f'GET {CLUSTER}/hosts/{{host}}',
    ),
]
