"""What gabbi cannot tell: repetitions, bounds, the bell, authentication, broken backends."""

import base64
import contextlib
import os
import threading
from typing import Any
import urllib.request

import bcrypt
import fixtures as base_fixtures
from keystoneauth1 import exceptions as ks_exc
from keystonemiddleware import fixture as keystone_fixture
from oslo_db import exception as db_exc
from testtools import matchers
import webob

from upgrade_service import exception, states
from upgrade_service.api import app, auth, door, server
from upgrade_service.api.controllers import clusters
from upgrade_service.db import api as db
from upgrade_service.tests import base
from upgrade_service.tests.functional.api import fixtures

CREATE = {'cluster': 'prod', 'to_release': '2026.2'}


class RequestTest(base.TestCase):
    """The application with a discovered cluster."""

    def setUp(self) -> None:
        super().setUp()
        self.api = self.useFixture(fixtures.Api())
        self.cluster = fixtures.discovered(self.api.ctx)

    def refusal(self, response: webob.Response, status: int, code: str) -> str:
        """Check the form of a refusal; return its sentence."""
        self.assertEqual(status, response.status_int, response.text)
        self.assertEqual('application/json', response.content_type)
        (said,) = response.json['errors']
        self.assertEqual(
            (status, code, response.headers['x-openstack-request-id']),
            (said['status'], said['code'], said['request_id']),
        )
        detail: str = said['detail']
        return detail


class IdempotencyTest(RequestTest):
    """Requests whose answers were lost."""

    def test_a_repetition_gets_the_same_answer_and_changes_nothing(self) -> None:
        first = self.api.request('POST', '/v1/upgrades', CREATE, Idempotency_Key='k')
        again = self.api.request('POST', '/v1/upgrades', CREATE, Idempotency_Key='k')
        self.assertEqual((202, first.json), (again.status_int, again.json))
        self.assertThat(db.upgrade_list(self.api.ctx), matchers.HasLength(1))

    def test_a_key_belongs_to_its_caller(self) -> None:
        for project in ('one', 'two'):
            self.api.request(
                'POST', '/v1/upgrades', CREATE, Idempotency_Key='k', X_Test_Project=project
            )
        self.assertThat(db.upgrade_list(self.api.ctx), matchers.HasLength(2))

    def test_a_refused_request_may_be_put_right(self) -> None:
        wrong = {**CREATE, 'to_release': 'zebra'}
        self.api.request('POST', '/v1/upgrades', wrong, Idempotency_Key='k')
        right = self.api.request('POST', '/v1/upgrades', CREATE, Idempotency_Key='k')
        self.assertEqual(202, right.status_int)

    def test_an_enrolment_token_is_not_kept(self) -> None:
        tokens = {
            self.api.request('POST', '/v1/agents', {'host': 'cmp1'}, Idempotency_Key='k').json[
                'bundle'
            ]['token']
            for _ in range(2)
        }
        self.assertThat(tokens, matchers.HasLength(2))


class BellTest(RequestTest):
    """Who is told of what."""

    def test_every_change_of_an_upgrade_is_rung(self) -> None:
        ident = self.api.request('POST', '/v1/upgrades', CREATE).json['id']
        self.api.request('POST', f'/v1/upgrades/{ident}/cancel')
        self.assertEqual([('advance', ident)] * 2, self.api.bell.rung)

    def test_a_discovery_is_rung(self) -> None:
        self.api.request('POST', '/v1/clusters/prod/discover')
        self.assertEqual([('discover', self.cluster)], self.api.bell.rung)

    def test_what_was_refused_is_not(self) -> None:
        self.api.request('POST', '/v1/upgrades', {**CREATE, 'hosts': []})
        self.api.request('POST', '/v1/clusters/nowhere/discover')
        self.assertEqual([], self.api.bell.rung)


class VerbTest(RequestTest):
    """The verbs against the table of states."""

    def test_a_409_names_the_verbs_that_are_possible(self) -> None:
        ident = fixtures.upgrade(self.api.ctx, self.cluster, 'u', fixtures.plan())
        for verb in ('pause', 'resume', 'approve'):
            response = self.api.request('POST', f'/v1/upgrades/{ident}/{verb}')
            self.refusal(response, 409, 'upgrade.verb.illegal')
            said = response.json['errors'][0]
            self.assertEqual(states.allowed('draft', None, 'forward'), said['allowed'])
            self.assertEqual(('draft', None), (said['state'], said['next']))

    def test_one_live_upgrade_a_cluster(self) -> None:
        idents = [
            fixtures.upgrade(self.api.ctx, self.cluster, name, fixtures.plan()) for name in 'ab'
        ]
        first, second = (
            self.api.request('POST', f'/v1/upgrades/{ident}/start') for ident in idents
        )
        self.assertEqual(202, first.status_int)
        self.refusal(second, 409, 'upgrade.not_startable')

    def test_events_wait_for_the_next_one(self) -> None:
        ident = fixtures.upgrade(self.api.ctx, self.cluster, 'u', fixtures.plan())
        timer = threading.Timer(0.3, db.upgrade_verb, (self.api.ctx, ident, 'start'))
        timer.start()
        self.addCleanup(timer.join)
        response = self.api.request('GET', f'/v1/upgrades/{ident}/events?after=2&wait=5')
        self.assertEqual(['start'], [e['kind'] for e in response.json['events']])


class StrategyTest(RequestTest):
    """Which strategy an upgrade has when none is named."""

    def offer(self, host: str, **ready: bool) -> None:
        token, _ = db.enroll_token_create(self.api.ctx, host)
        ident = db.agent_enroll(self.api.ctx, token, host, f'key of {host}')['id']
        said = {name: {'ready': is_ready, 'reason': ''} for name, is_ready in ready.items()}
        db.agent_facts(self.api.ctx, ident, {'strategies': said})

    def create(self, **more: str) -> webob.Response:
        return self.api.request('POST', '/v1/upgrades', {**CREATE, **more})

    def test_the_one_that_most_engines_can_carry_out(self) -> None:
        self.offer('cmp1', noop=True, simulated=True, source=False)
        self.offer('cmp2', noop=True, simulated=True, source=True)
        self.assertEqual('simulated', self.create().json['strategy'])

    def test_noop_only_when_it_is_named(self) -> None:
        self.offer('cmp1', noop=True)
        self.assertEqual('source', self.create().json['strategy'])
        self.assertEqual('noop', self.create(strategy='noop').json['strategy'])

    def test_one_that_no_engine_knows(self) -> None:
        self.offer('cmp1', noop=True)
        said = self.refusal(self.create(strategy='magic'), 400, 'upgrade.invalid')
        self.assertIn('there are: noop', said)

    def test_an_engine_that_is_heard_of(self) -> None:
        self.offer('cmp1', noop=True)
        host = self.api.request('GET', '/v1/clusters/prod/hosts/cmp1').json
        agent = self.api.request('GET', '/v1/agents/cmp1').json
        self.assertEqual(('up', True), (host['agent_state'], agent['up']))
        self.api.request('POST', '/v1/agents/cmp1/revoke')
        self.assertEqual('revoked', self.api.request('GET', '/v1/agents/cmp1').json['state'])
        self.refusal(self.api.request('POST', '/v1/agents/cmp1/approve'), 409, 'upgrade.conflict')
        self.assertEqual(204, self.api.request('DELETE', '/v1/agents/cmp1').status_int)


class BoundsTest(RequestTest):
    """Requests at and beyond their limits."""

    def post(self, raw: bytes, path: str = '/v1/clusters') -> webob.Response:
        request = webob.Request.blank(path, method='POST', headers={'X-Test-Roles': 'admin'})
        request.body, request.content_type = raw, 'application/json'
        return request.get_response(self.api.app)

    def test_body_size(self) -> None:
        padding = b' ' * (door.MAX_BODY - len(b'{"name":"a"}'))
        self.assertEqual(201, self.post(b'{"name":"a"}' + padding).status_int)
        self.refusal(self.post(b'{"name":"b"}' + padding + b' '), 413, 'upgrade.too_large')

    def test_body_depth(self) -> None:
        for raw in (b'[' * 60000, b'[' * 20 + b']' * 20, b'{"a":' * 17 + b'1' + b'}' * 17):
            self.refusal(self.post(raw), 400, 'upgrade.bad_request')

    def test_hostile_bodies(self) -> None:
        for raw in (b'\xff\xfe', b'NaN', b'{"name": NaN}', b'"x"', b'1', b'null{',
                    b'{"name":null}', b'{"name": 7}', b'{"name": ""}', b'{"name": "a\\u0000b"}',
                    b'{"name": {}}', b'{"name": "%s"}' % (b'a' * 256)):  # fmt: skip
            response = self.post(raw)
            self.assertEqual(400, response.status_int, str(raw))
            self.assertEqual({'errors'}, set(response.json))

    def test_hostile_addresses(self) -> None:
        for path in ('/v1/%ff', '/v1/clusters/%00', '/v1/clusters/..%2f..', '/v1//clusters',
                     '/v1/clusters/' + 'a' * 300, '/v1/clusters?limit=-1',
                     '/v1/clusters?limit=' + '9' * 400, '/v1/clusters?name=%ff',
                     '/v1/clusters?limit=1&limit=x', '/v1/clusters?marker='):  # fmt: skip
            response = self.api.request('GET', path)
            self.assertIn(response.status_int, (200, 400, 404), path)

    def test_a_host_name_at_its_limit(self) -> None:
        label = 'a' * 63
        longest = '.'.join([label, label, label, 'a' * 61])
        for name, status in ((longest, 201), (longest + 'a', 400), (label + 'a', 400),
                             ('-x', 400), ('x-', 400), ('a b', 400), ('a\n', 400)):  # fmt: skip
            response = self.api.request('POST', '/v1/agents', {'host': name})
            self.assertEqual(status, response.status_int, name)

    def test_the_pace_of_changes(self) -> None:
        slow = self.useFixture(fixtures.Api(mutations_per_minute=2))
        for n in range(2):
            slow.request('POST', '/v1/clusters', {'name': f'c{n}'})
        response = slow.request('POST', '/v1/clusters', {'name': 'c3'})
        self.refusal(response, 429, 'upgrade.too_many_requests')
        self.assertThat(int(response.headers['Retry-After']), matchers.GreaterThan(0))
        self.assertEqual(200, slow.request('GET', '/v1/clusters').status_int)


class BrokenTest(RequestTest):
    """What clients see when something behind the API is broken."""

    def failing(self, error: Exception) -> webob.Response:
        def fail(*args: Any, **kw: Any) -> None:
            raise error

        target = f'{clusters.__name__}.db_api.cluster_list'
        self.useFixture(base_fixtures.MonkeyPatch(target, fail))
        return self.api.request('GET', '/v1/clusters')

    def test_a_bug_tells_clients_nothing(self) -> None:
        response = self.failing(RuntimeError('password is tiger'))
        self.refusal(response, 500, 'upgrade.internal_error')
        self.assertNotIn('tiger', response.text)

    def test_an_internal_error_of_ours_tells_nothing_either(self) -> None:
        response = self.failing(exception.PlanRefused(reason='password is tiger'))
        self.refusal(response, 500, 'upgrade.internal_error')
        self.assertNotIn('tiger', response.text)

    def test_a_keystone_that_is_away(self) -> None:
        response = self.failing(ks_exc.ConnectFailure('http://10.0.0.1:5000'))
        self.assertIn('Keystone', self.refusal(response, 503, 'upgrade.unavailable'))

    def test_a_database_that_is_away(self) -> None:
        away = (exception.Busy(retry_after=5), db_exc.DBConnectionError(), db_exc.DBDeadlock())
        for error in away:
            response = self.failing(error)
            self.refusal(response, 503, 'upgrade.unavailable')
            self.assertEqual('5', response.headers['Retry-After'])


class KeystoneTest(base.TestCase):
    """Behind the real keystonemiddleware, with tokens it has at hand."""

    def setUp(self) -> None:
        super().setUp()
        self.api = self.useFixture(
            fixtures.Api(
                authenticate=None,
                auth_strategy='keystone',
                config_file='[keystone_authtoken]\nwww_authenticate_uri = http://keystone:5000\n',
            )
        )
        self.tokens = self.useFixture(keystone_fixture.AuthTokenFixture())

    def get(self, path: str, **headers: str) -> webob.Response:
        named = {k.replace('_', '-'): v for k, v in headers.items()}
        request = webob.Request.blank(path, headers=named)
        return request.get_response(self.api.app)

    def token(self, *roles: str) -> str:
        token = f'token of {roles}'
        self.tokens.add_token_data(
            token, project_id='operators', user_id='alice', role_list=list(roles)
        )
        return token

    def test_roles_decide(self) -> None:
        for role, status in (('upgrade_reader', 200), ('admin', 200), ('member', 403)):
            response = self.get('/v1/clusters', X_Auth_Token=self.token(role))
            self.assertEqual(status, response.status_int, role)

    def test_nobody_is_asked_for_a_token(self) -> None:
        for headers in ({}, {'X_Auth_Token': 'stolen'}, {'X_Roles': 'admin'}):
            response = self.get('/v1/clusters', **headers)
            self.assertEqual(401, response.status_int)
            self.assertEqual('upgrade.unauthenticated', response.json['errors'][0]['code'])
            self.assertIn('WWW-Authenticate', response.headers)

    def test_versions_are_public(self) -> None:
        self.assertEqual(200, self.get('/').status_int)


class OtherAuthTest(base.TestCase):
    """noauth and http_basic."""

    def test_noauth_serves_this_machine_only(self) -> None:
        api = self.useFixture(fixtures.Api(authenticate=auth.NoAuth))
        for address, status in (('127.0.0.1', 200), ('::1', 200), ('192.0.2.7', 403)):
            request = webob.Request.blank('/v1/clusters', environ={'REMOTE_ADDR': address})
            self.assertEqual(status, request.get_response(api.app).status_int, address)

    def test_noauth_does_not_listen_for_others(self) -> None:
        api = self.useFixture(fixtures.Api(host='0.0.0.0'))
        self.assertRaises(SystemExit, server.Server, api.conf)

    def test_basic(self) -> None:
        folder = self.useFixture(base_fixtures.TempDir()).path
        path = os.path.join(folder, 'htpasswd')
        with open(path, 'wb') as users:
            users.write(b'alice:' + bcrypt.hashpw(b'sesame', bcrypt.gensalt(4)) + b'\n')
        api = self.useFixture(
            fixtures.Api(authenticate=lambda application: auth.BasicAuth(application, path))
        )
        for said, status in (('alice:sesame', 200), ('alice:x', 401), ('bob:sesame', 401),
                             (None, 401)):  # fmt: skip
            request = webob.Request.blank('/v1/clusters')
            if said is not None:
                token = base64.b64encode(said.encode()).decode()
                request.headers['Authorization'] = f'Basic {token}'
            response = request.get_response(api.app)
            self.assertEqual(status, response.status_int, str(said))
            if status == 401:
                self.assertIn('WWW-Authenticate', response.headers)


class ServerTest(base.TestCase):
    """The API on its own server, over a socket."""

    def test_it_serves_and_stops(self) -> None:
        api = self.useFixture(fixtures.Api(port=0))
        served = server.Server(api.conf)
        served.start()
        with contextlib.ExitStack() as stack:
            stack.callback(served.stop)
            url = f'http://127.0.0.1:{served.port}'
            with urllib.request.urlopen(f'{url}/v1/clusters', timeout=10) as response:
                self.assertEqual(b'{"clusters": []}', response.read())
        self.assertRaises(OSError, urllib.request.urlopen, url, timeout=1)


class BuildTest(base.TestCase):
    """Putting the application together."""

    def test_every_strategy_can_be_built(self) -> None:
        for strategy in ('keystone', 'noauth'):
            api = self.useFixture(fixtures.Api(authenticate=None, auth_strategy=strategy))
            self.assertTrue(callable(app.build(api.conf)))
