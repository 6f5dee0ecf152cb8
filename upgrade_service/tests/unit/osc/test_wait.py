"""`--wait`: exit statuses, clean stdout, and patience with an API that is away."""

import io

import fixtures
import requests
import requests_mock

from upgrade_service.tests.unit.osc import base, fake_api

CREATE = 'upgrade create prod --to 2026.2 --name first --start --wait'
SUCCESS = [
    lambda api: api.move_step(1, 'running'),
    lambda api: api.move_step(1, 'succeeded'),
    lambda api: api.move_step(2, 'dispatched'),
    lambda api: api.move_step(2, 'succeeded'),
    lambda api: api.move('succeeded'),
]
BLOCKED = [
    lambda api: api.move_step(1, 'running'),
    lambda api: api.move_step(1, 'failed', 'server a1 is in ERROR\nsee nova'),
    lambda api: api.move('blocked', blocked_reason='step_failed', message='step 1 failed'),
]


class WaitTestCase(base.ShellTestCase):
    """The ends of `create --start --wait` and of the other commands that wait."""

    def test_success_exits_0_with_clean_stdout(self) -> None:
        self.api.story = list(SUCCESS)
        ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual(0, ran.status, ran.err)
        self.assertEqual('succeeded', ran.json()['state'])
        self.assertIn('cmp1 drain_host nova: succeeded (1 s)', ran.err)
        self.assertIn('upgrade planned: 2 steps, 0 problems', ran.err)
        self.assertIn('Upgrade first is succeeded · 2/2 steps (100 %)', ran.err)

    def test_body_of_create(self) -> None:
        policy = self.useFixture(fixtures.TempDir()).join('p.yaml')
        with open(policy, 'w', encoding='utf-8') as out:
            out.write('max_unavailable: 2\ngates: []\n')
        self.openstack(
            f'upgrade create prod --to 2026.2 --strategy source --type service '
            f'--hosts a,b --az z1 --projects nova --approve-ponr --policy {policy}'
        )
        self.assertEqual(
            [
                {
                    'cluster': 'prod',
                    'to_release': '2026.2',
                    'strategy': 'source',
                    'type': 'service',
                    'hosts': ['a', 'b'],
                    'azs': ['z1'],
                    'projects': ['nova'],
                    'approve_ponr': True,
                    'policy': {'max_unavailable': 2, 'gates': []},
                }
            ],
            self.posted('/upgrades'),
        )

    def test_draft_without_start(self) -> None:
        ran = self.openstack('upgrade create prod --to 2026.2 --wait -f json')
        self.assertEqual((0, 'draft'), (ran.status, ran.json()['state']))
        self.assertEqual([], self.posted('/start'))

    def test_no_plan_exits_1_and_says_why(self) -> None:
        self.api.planning = [lambda api: api.move('cancelled', message='no way to 2026.2')]
        ran = self.openstack(CREATE)
        self.assertEqual(1, ran.status)
        self.assertIn('no way to 2026.2', ran.err)
        self.assertEqual([], self.posted('/start'))

    def test_blocked_exits_1_and_says_what_to_do(self) -> None:
        self.api.story = list(BLOCKED)
        ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual((1, 'blocked'), (ran.status, ran.json()['state']))
        self.assertIn('blocked (step_failed)', ran.err)
        self.assertIn(
            'step 1 cmp1 drain_host nova is failed: server a1 is in ERROR see nova', ran.err
        )
        self.assertIn('openstack upgrade step log first 1', ran.err)

    def test_cancelled_by_someone_else_exits_1(self) -> None:
        self.api.story = [
            lambda api: api.move('stopping', next='cancelled'),
            lambda api: api.move('cancelled', next=None),
        ]
        self.assertEqual(1, self.openstack(CREATE).status)

    def test_gate_exits_3_with_the_approve_command(self) -> None:
        self.api.story = [lambda api: api.move('paused', gate='finish')]
        ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual((3, 'paused'), (ran.status, ran.json()['state']))
        self.assertIn('openstack upgrade approve first --gate finish', ran.err)

    def test_approve_names_the_gate_and_goes_on(self) -> None:
        self.test_gate_exits_3_with_the_approve_command()
        self.api.story = [lambda api: None, *SUCCESS]
        ran = self.openstack('upgrade approve first --wait -f json')
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']))
        self.assertEqual([{'gate': 'finish'}], self.posted('/approve'))

    def test_blocking_problems_keep_it_a_draft(self) -> None:
        self.api.problems = [
            {
                'code': 'service_down',
                'severity': 'blocking',
                'host': 'cmp2',
                'service': 'nova-compute',
                'message': 'it is down',
                'hint': 'start it',
                'acceptable': False,
            },
            {
                'code': 'stale_facts',
                'severity': 'blocking',
                'host': 'cmp3',
                'service': None,
                'message': 'old',
                'hint': 'discover',
                'acceptable': True,
            },
            {
                'code': 'mixed',
                'severity': 'warning',
                'host': None,
                'service': None,
                'message': 'versions differ',
                'hint': '',
                'acceptable': True,
            },
        ]
        ran = self.openstack(f'{CREATE} --accept stale_facts -f json')
        self.assertEqual((1, 'draft'), (ran.status, ran.json()['state']))
        self.assertIn('blocking service_down [cmp2 nova-compute]: it is down', ran.err)
        self.assertIn('start it', ran.err)
        self.assertNotIn('stale_facts', ran.err)
        self.assertEqual([], self.posted('/start'))

    def test_accepted_problems_are_named_in_start(self) -> None:
        self.api.problems = [
            {
                'code': 'stale_facts',
                'severity': 'blocking',
                'host': 'cmp3',
                'message': 'old',
                'acceptable': True,
            }
        ]
        self.api.story = list(SUCCESS)
        self.assertEqual(0, self.openstack(f'{CREATE} --accept stale_facts').status)
        self.assertEqual([{'accept': ['stale_facts']}], self.posted('/start'))

    def test_pause_waits_for_paused(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first --start')
        self.api.story = [lambda api: None, lambda api: None, lambda api: api.move('paused')]
        ran = self.openstack('upgrade pause first --wait -f json')
        self.assertEqual((0, 'paused'), (ran.status, ran.json()['state']))

    def test_retry_waits_past_the_moment_it_is_still_blocked(self) -> None:
        self.api.story = list(BLOCKED)
        self.openstack(CREATE)
        self.api.story = [
            lambda api: None,
            lambda api: None,
            lambda api: api.move('running', blocked_reason=None),
            *SUCCESS,
        ]
        ran = self.openstack('upgrade step retry first 1 --wait -f json')
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']), ran.err)

    def test_watch_tells_only_news(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first --start')
        self.api.story = [
            lambda api: api.move_step(1, 'succeeded'),
            lambda api: None,
            *SUCCESS[2:],
        ]
        ran = self.openstack('upgrade watch first -f json')
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']))
        self.assertNotIn('asked for', ran.err)
        self.assertIn('upgrade_service nova: succeeded', ran.err)


class AwayTestCase(base.ShellTestCase):
    """An upgrade restarts the API and the keystone that are asked here."""

    def test_no_answer_5xx_and_401_are_outlived(self) -> None:
        def plan_and_leave(api: fake_api.FakeApi) -> None:
            api.move('draft')
            api.outage = [None, 503, 500, 401, None]

        self.api.story = list(SUCCESS)
        self.api.planning = [plan_and_leave]
        ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']), ran.err)
        self.assertEqual(1, ran.err.count('No answer'), ran.err)
        self.assertEqual(1, ran.err.count('The API answers again'), ran.err)

    def test_deleted_meanwhile_is_final(self) -> None:
        def delete(api: fake_api.FakeApi) -> None:
            assert api.upgrade is not None
            api.upgrade['name'] = api.upgrade['id'] = 'another'
            api.event('deleted', before='a', after='b')

        self.api.story = [delete]
        ran = self.openstack(CREATE)
        self.assertEqual(1, ran.status)
        self.assertIn('There is no upgrade', ran.err)

    def test_interrupt_says_that_the_upgrade_goes_on(self) -> None:
        def interrupt(api: fake_api.FakeApi) -> None:
            self.useFixture(
                fixtures.MonkeyPatch('upgrade_service.osc.proxy.Proxy.events', raise_interrupt)
            )

        self.api.story = [lambda api: api.move_step(1, 'running'), interrupt]
        ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual(130, ran.status)
        self.assertIn('openstack upgrade watch first', ran.err)
        self.assertEqual('running', ran.json()['state'])


class KeystoneTestCase(base.ShellTestCase):
    """With a keystone that is restarted while its tokens are refused."""

    def credentials(self) -> list[str]:
        """Log in with a password."""
        options = {
            'auth-url': 'http://keystone.test/v3',
            'username': 'alice',
            'password': 'secret',
            'project-name': 'ops',
            'user-domain-id': 'default',
            'project-domain-id': 'default',
        }
        return [word for key, value in options.items() for word in (f'--os-{key}', value)]

    def token(self) -> dict[str, object]:
        """Return keystone's answer to a login."""
        endpoint = {'interface': 'public', 'region': 'R', 'region_id': 'R', 'url': self.endpoint}
        return {
            'token': {
                'expires_at': '2999-01-01T00:00:00Z',
                'methods': ['password'],
                'user': {'id': 'u', 'name': 'alice', 'domain': {'id': 'd', 'name': 'D'}},
                'project': {'id': 'p', 'name': 'ops', 'domain': {'id': 'd', 'name': 'D'}},
                'catalog': [{'type': 'upgrade', 'name': 'upgrade', 'endpoints': [endpoint]}],
            }
        }

    def test_new_token_once_keystone_is_back(self) -> None:
        logins = [
            {'json': self.token(), 'status_code': 201, 'headers': {'X-Subject-Token': 't1'}},
            {'status_code': 503},
            {'exc': requests.exceptions.ConnectionError},
            {'json': self.token(), 'status_code': 201, 'headers': {'X-Subject-Token': 't2'}},
        ]
        self.api.story = [lambda api: api.outage.append(401), *SUCCESS]
        with requests_mock.Mocker(real_http=True) as mock:
            mock.get(
                'http://keystone.test/v3',
                json={
                    'version': {
                        'id': 'v3.14',
                        'status': 'stable',
                        'links': [{'rel': 'self', 'href': 'http://keystone.test/v3/'}],
                    }
                },
            )
            asked = mock.post('http://keystone.test/v3/auth/tokens', logins)
            ran = self.openstack(f'{CREATE} -f json')
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']), ran.err)
        self.assertEqual(len(logins), asked.call_count)
        self.assertEqual(1, ran.err.count('No answer'), ran.err)


def raise_interrupt(*args: object) -> None:
    """Be Ctrl-C."""
    raise KeyboardInterrupt


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        """Be one."""
        return True


class TerminalTestCase(base.ShellTestCase):
    """On a terminal the status is rewritten in place."""

    def test_status_lines_are_rewritten(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable('TERM', 'xterm'))
        self.api.story = list(SUCCESS)
        ran = self.openstack(f'{CREATE} -f json', err=Terminal())
        self.assertEqual((0, 'succeeded'), (ran.status, ran.json()['state']), ran.err)
        self.assertIn('\x1b[', ran.err)
        self.assertIn('cmp1 drain_host nova  0 s', ran.err)
        self.assertNotIn('drain_host nova: succeeded', ran.err)
