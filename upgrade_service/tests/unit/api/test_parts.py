"""Parts of the API by themselves: versions, validation, routes, description."""

import json
from typing import Any

import jsonschema
from webob import exc

from upgrade_service import exception, model
from upgrade_service.api import ask, microversion, openapi, plans, schemas, types, validation
from upgrade_service.api.controllers import root
from upgrade_service.tests import base


class MicroversionTest(base.TestCase):
    """Which version a request asks for."""

    def asked(self, said: str) -> tuple[int, int]:
        return microversion.asked({microversion.HEADER: said})

    def test_none_is_the_oldest(self) -> None:
        self.assertEqual(microversion.MIN, microversion.asked({}))

    def test_latest_is_the_newest(self) -> None:
        self.assertEqual(microversion.MAX, self.asked('upgrade latest'))

    def test_served_and_not(self) -> None:
        self.assertEqual((1, 0), self.asked('upgrade 1.0'))
        for said in ('upgrade 0.9', 'upgrade 1.1', 'upgrade 2.0'):
            self.assertRaises(exc.HTTPNotAcceptable, self.asked, said)

    def test_other_services_are_ignored(self) -> None:
        self.assertEqual(microversion.MIN, self.asked('compute 2.79'))

    def test_nonsense(self) -> None:
        for said in ('upgrade one', 'upgrade 1', 'upgrade 1.0.0'):
            self.assertRaises(exc.HTTPBadRequest, self.asked, said)


class ValidationTest(base.TestCase):
    """Sentences about wrong requests."""

    def sentence(self, schema: Any, value: Any) -> str:
        error = self.assertRaises(exception.Invalid, validation.check, schema, value, 'body')
        return str(error)

    def test_sentences(self) -> None:
        create = schemas.UPGRADE_CREATE
        right = {'cluster': 'c', 'to_release': '2026.2'}
        for value, said in (
            ({'to_release': '2026.2'}, 'cluster: is required.'),
            ({**right, 'hosts': 'cmp1'}, 'hosts: must be of type array.'),
            ({**right, 'hosts': ['a', 'a']}, 'hosts: must not name anything twice.'),
            ({**right, 'approve_ponr': 1}, 'approve_ponr: must be of type boolean.'),
            ({**right, 'type': 'x'}, 'type: must be one of service, host, all.'),
            ([], 'body: must be of type object.'),
        ):
            self.assertEqual(said, self.sentence(create, value))

    def test_a_value_is_never_repeated(self) -> None:
        self.assertNotIn('secret', self.sentence(schemas.AGENT_CREATE, {'host': 'secret value'}))

    def test_numbers_of_the_query(self) -> None:
        self.assertEqual({'limit': 7}, validation.query(schemas.PAGE, {'limit': '7'}))
        for said in ('0', '-1', '1001', '7.0', '\u0661', '', 'x'):
            self.assertRaises(exception.Invalid, validation.query, schemas.PAGE, {'limit': said})

    def test_every_schema_is_one(self) -> None:
        for route in root.TABLE.routes:
            for schema in (route.query, route.body):
                if schema is not None:
                    jsonschema.Draft202012Validator.check_schema(schema)
                    self.assertFalse(schema['additionalProperties'], route.path)


class IfMatchTest(base.TestCase):
    """The header that names a version."""

    def test_forms(self) -> None:
        for said, wanted in (('"7"', 7), ('7', 7), ('W/"7"', 7), ('*', None), (None, None)):
            self.assertEqual(wanted, ask.parse_if_match(said))

    def test_nonsense(self) -> None:
        for said in ('', 'x', '-1', '9' * 20, '\u0663'):
            self.assertRaises(exception.Invalid, ask.parse_if_match, said)


class RoutesTest(base.TestCase):
    """The table of addresses."""

    def test_every_route_is_found_by_its_own_path(self) -> None:
        for route in root.TABLE.routes:
            path = route.path.replace('{', '').replace('}', '')
            self.assertEqual(route, root.TABLE.find(route.method, path)[0])

    def test_variables(self) -> None:
        route, refs = root.TABLE.find('GET', '/v1/upgrades/u/steps/3/log')
        self.assertEqual({'upgrade': 'u', 'step': '3'}, refs)
        self.assertEqual('steps:log', route.rule)

    def test_only_versions_and_description_are_public(self) -> None:
        public = {r.path for r in root.TABLE.routes if root.TABLE.is_public(r.path)}
        self.assertEqual({'/', '/v1', '/v1/openapi.json'}, public)

    def test_a_path_that_only_looks_public_is_not(self) -> None:
        for path in ('/v1/clusters', '//', '/v1//', '/v1/openapi.json/x', '/v1/x/..', ''):
            expected = path == ''
            self.assertEqual(expected, root.TABLE.is_public(path), path)


class DescriptionTest(base.TestCase):
    """What /v1/openapi.json says."""

    def setUp(self) -> None:
        super().setUp()
        self.said = openapi.document(root.TABLE.routes, 'http://api')

    def test_it_has_every_route_once(self) -> None:
        told = {(m.upper(), p) for p, methods in self.said['paths'].items() for m in methods}
        self.assertEqual({(r.method, r.path) for r in root.TABLE.routes}, told)
        names = [o['operationId'] for p in self.said['paths'].values() for o in p.values()]
        self.assertEqual(sorted(set(names)), sorted(names))

    def test_its_references_lead_somewhere(self) -> None:
        text = json.dumps(self.said)
        for name in {part.split('"')[0] for part in text.split('#/components/schemas/')[1:]}:
            self.assertIn(name, self.said['components']['schemas'])


class PlanTest(base.TestCase):
    """How long a plan takes."""

    def test_the_longest_chain_counts(self) -> None:
        steps = [
            {'id': n, 'ord': o, 'estimate': e, 'direction': 'forward'}
            for n, o, e in (('a', 1, 5), ('b', 2, 50), ('c', 3, 7), ('d', 4, 1))
        ]
        waits = {'c': [1], 'd': [2, 3]}
        self.assertEqual(51, plans.longest(steps, waits))

    def test_no_steps(self) -> None:
        self.assertEqual(0, plans.longest([], {}))


class TypesTest(base.TestCase):
    """The fields that clients rely on."""

    FIELDS = (
        (
            types.Upgrade,
            'id name cluster from_release to_release strategy type state direction next progress '
            'hosts selection eta_seconds points_of_no_return rollback_floor blocked_reason '
            'created_at started_at finished_at version links message gate',
        ),
        (
            types.Step,
            'id ord stage kind host project service strategy state attempt parents reversible '
            'idempotent ponr started_at finished_at seconds error',
        ),
        (
            types.Host,
            'name roles az release agent_state services_up services_total instances release_mixed',
        ),
        (types.Service, 'project binary host az state status version release forced_down'),
        (types.Problem, 'code severity host service message hint'),
    )

    def test_they_are_there(self) -> None:
        for kind, names in self.FIELDS:
            self.assertEqual(set(), set(names.split()) - set(types.fields(kind)), kind.__name__)

    def test_kinds_have_what_steps_show(self) -> None:
        for kind in model.KINDS.values():
            self.assertIsInstance(kind.undo, bool)
