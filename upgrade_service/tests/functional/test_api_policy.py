"""Every rule against every role, through HTTP.

`EXPECTED` is written by hand from the security specification and names every rule: a rule
that is added without an expectation, or a route without a rule, fails here.
"""

from typing import Any

from upgrade_service import policies
from upgrade_service.api.controllers import root
from upgrade_service.tests import base
from upgrade_service.tests.functional.api import fixtures

READ = frozenset({'upgrade_reader', 'upgrade_operator', 'admin'})
OPERATE = frozenset({'upgrade_operator', 'admin'})
ADMIN = frozenset({'admin'})

#: rule -> roles that may
EXPECTED = {
    'clusters:list': READ,
    'clusters:get': READ,
    'hosts:get': READ,
    'upgrades:list': READ,
    'upgrades:get': READ,
    'steps:get': READ,
    'agents:get': READ,
    'strategies:list': READ,
    'inventories:list': READ,
    'steps:log': OPERATE,
    'clusters:discover': OPERATE,
    'upgrades:create': OPERATE,
    'upgrades:delete': OPERATE,
    'upgrades:start': OPERATE,
    'upgrades:pause': OPERATE,
    'upgrades:resume': OPERATE,
    'upgrades:cancel': OPERATE,
    'upgrades:approve': OPERATE,
    'upgrades:replan': OPERATE,
    'upgrades:rollback': ADMIN,
    'steps:retry': OPERATE,
    'steps:force': ADMIN,
    'steps:resolve': ADMIN,
    'hosts:declare_lost': ADMIN,
    'steps:skip': ADMIN,
    'upgrades:approve_ponr': ADMIN,
    'upgrades:create_approved': ADMIN,
    'clusters:create': ADMIN,
    'clusters:delete': ADMIN,
    'agents:enroll': ADMIN,
    'agents:approve': ADMIN,
    'agents:revoke': ADMIN,
    'agents:delete': ADMIN,
}
#: rules that a controller asks for by itself; tested in gabbits/upgrades.yaml
WITHIN = frozenset({'upgrades:approve_ponr', 'upgrades:create_approved', 'steps:force'})
#: what a caller may be; None is nobody
ROLES = (None, 'member', 'reader', 'manager', 'service', 'upgrade_reader', 'upgrade_operator',
         'admin')  # fmt: skip
PROJECTS = ('operators', 'other')


class PolicyMatrixTest(base.TestCase):
    """Rules x roles x projects."""

    def setUp(self) -> None:
        super().setUp()
        self.api = self.useFixture(fixtures.Api())

    def answer(self, route: Any, role: str | None, project: str, known: bool) -> int:
        """Ask for something; `known`: that exists."""
        path = route.path
        for name in ('cluster', 'host', 'upgrade', 'step', 'agent'):
            path = path.replace(f'{{{name}}}', 'here' if known else 'nowhere')
        # a body that no schema takes: whoever may is told so, and nothing is changed
        body = {'no such key': 1} if route.method == 'POST' else None
        status: int = self.api.request(
            route.method, path, body, roles=role, X_Test_Project=project
        ).status_int
        return status

    def test_every_rule_has_an_expectation(self) -> None:
        rules = {
            r.name.removeprefix('upgrade:')
            for r in policies.list_rules()
            if r.name.startswith('upgrade:')
        }
        self.assertEqual(set(EXPECTED), rules)

    def test_every_rule_guards_a_route(self) -> None:
        guarded = {r.rule for r in root.TABLE.routes if r.rule} | WITHIN
        self.assertEqual(set(EXPECTED), guarded)

    def test_the_documented_operations_are_the_routes(self) -> None:
        documented = {
            (rule.name, operation['method'], operation['path'])
            for rule in policies.list_rules()
            for operation in getattr(rule, 'operations', ())
            if rule.name.removeprefix('upgrade:') not in WITHIN
        }
        routes = {(f'upgrade:{r.rule}', r.method, r.path) for r in root.TABLE.routes if r.rule}
        self.assertEqual(routes, documented)

    def test_matrix(self) -> None:
        wrong = []
        for route in root.TABLE.routes:
            if route.rule is None:
                continue
            for role in ROLES:
                for project in PROJECTS:
                    status = self.answer(route, role, project, known=False)
                    if role is None:
                        right = status == 401
                    elif role in EXPECTED[route.rule]:
                        right = status not in (401, 403) and status < 500
                    else:
                        right = status == 403
                    if not right:
                        wrong.append((route.method, route.path, role, project, status))
        self.assertEqual([], wrong)

    def test_what_exists_is_not_told_to_those_who_may_not_read(self) -> None:
        ident = fixtures.discovered(self.api.ctx, 'here')
        fixtures.upgrade(self.api.ctx, ident, 'here', fixtures.plan())
        for path in ('/v1/clusters/{}', '/v1/upgrades/{}', '/v1/upgrades/{}/plan'):
            answers = []
            for name in ('here', 'nowhere'):
                response = self.api.request('GET', path.format(name), roles='member')
                said = response.json['errors'][0]
                answers.append((response.status_int, said['code'], said['detail']))
            self.assertEqual(answers[0], answers[1])
            self.assertEqual(403, answers[0][0])

    def test_public_addresses_need_nobody(self) -> None:
        for route in root.TABLE.routes:
            if route.public:
                response = self.api.request(route.method, route.path, roles=None)
                self.assertEqual(200, response.status_int, route.path)
