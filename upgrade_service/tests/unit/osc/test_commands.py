"""Commands one by one: what they send, what they print, how they fail."""

import json
import os
import stat

import fixtures
import requests_mock

from upgrade_service.tests.unit.osc import base, fake_api


class ReadTestCase(base.ShellTestCase):
    """Lists and cards."""

    def test_lists_follow_pages(self) -> None:
        self.api.hosts = [
            {'name': f'cmp{n}', 'roles': ['compute'], 'az': 'z1', 'instances': n} for n in range(5)
        ]
        found = self.openstack('upgrade host list prod -f json').json()
        self.assertEqual([f'cmp{n}' for n in range(5)], [h['Name'] for h in found])
        self.assertEqual(['compute'], found[0]['Roles'])
        found = self.openstack('upgrade host list prod --limit 1 --marker cmp2 -f json').json()
        self.assertEqual(['cmp3'], [h['Name'] for h in found])

    def test_times_are_for_people_in_tables_only(self) -> None:
        table = self.openstack('upgrade cluster show prod').out
        self.assertIn('2025-10-09T08:53:20Z', table)
        found = self.openstack('upgrade cluster show prod -f json').json()
        self.assertEqual(1760000000000, found['created_at'])

    def test_summary_counts_and_tells_problems_apart(self) -> None:
        self.api.problems = [
            {
                'code': 'service_down',
                'severity': 'blocking',
                'host': 'cmp2',
                'service': 'nova-compute',
                'message': 'down',
                'hint': 'up',
            }
        ]
        ran = self.openstack('upgrade cluster summary prod -f json')
        self.assertEqual(
            [{'Project': 'nova', 'Release': '2026.1', 'Total': 4, 'Up': 3, 'Down': 1, 'Hosts': 2}],
            ran.json(),
        )
        self.assertIn('blocking service_down [cmp2 nova-compute]: down', ran.err)

    def test_discover_waits_for_the_wanted_one(self) -> None:
        ran = self.openstack('upgrade cluster discover prod --wait -f json')
        self.assertEqual(0, ran.status, ran.err)
        self.assertEqual(1, self.api.clusters['prod']['discover_done'])

    def test_discover_that_fails_exits_1(self) -> None:
        self.api.clusters['prod']['discover_error'] = 'keystone does not answer'
        ran = self.openstack('upgrade cluster discover prod --wait')
        self.assertEqual(1, ran.status)
        self.assertIn('keystone does not answer', ran.err)

    def test_problem_list_wants_one_of_two(self) -> None:
        ran = self.openstack('upgrade problem list')
        self.assertEqual(1, ran.status)
        self.assertIn('name either a cluster or', ran.err)

    def test_problem_list_takes_a_cluster_either_way(self) -> None:
        self.api.problems = [{'code': 'service_down', 'severity': 'warning', 'message': 'down'}]
        for named in ('prod', '--cluster prod'):
            ran = self.openstack(f'upgrade problem list {named} -f json')
            self.assertEqual(['service_down'], [p['Code'] for p in ran.json()], ran.err)
        ran = self.openstack('upgrade problem list prod --cluster prod')
        self.assertEqual(1, ran.status)

    def test_plan_as_tree_json_and_table(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first --wait')
        tree = self.openstack('upgrade plan show first').out
        self.assertIn('upgrade_service nova', tree)
        self.assertIn('2026.1 → 2026.2', tree)
        plan = self.openstack('upgrade plan show first -f json').json()
        self.assertEqual(self.api.plan(), plan)
        rows = self.openstack('upgrade plan show first -f value -c Kind').out.split()
        self.assertEqual(['drain_host', 'upgrade_service'], rows)

    def test_plan_as_graph(self):
        self.openstack('upgrade create prod --to 2026.2 --name first --wait')
        graph = self.openstack('upgrade plan show first -f dot').out
        self.assertTrue(graph.startswith('digraph plan {'), graph)

    def test_upgrade_is_brief_to_people_only(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first')
        assert self.api.upgrade
        self.api.upgrade['points_of_no_return'] = [f'step-{n}' for n in range(11)]
        self.api.upgrade['policy'] = {'max_unavailable': 1}
        table = self.openstack('upgrade show first').out
        self.assertIn('11 steps', table)
        for absent in ('step-3', 'policy', 'None', 'blocked_reason'):
            self.assertNotIn(absent, table)
        self.assertIn('max_unavailable 1', self.openstack('upgrade show first --long').out)
        whole = self.openstack('upgrade show first -f json').json()
        self.assertEqual('step-10', whole['points_of_no_return'][-1])
        self.assertEqual({'max_unavailable': 1}, whole['policy'])
        self.assertIsNone(whole['blocked_reason'])

    def test_step_log_is_raw(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first')
        self.assertEqual('output of 2\n', self.openstack('upgrade step log first 2').out)

    def test_every_command_has_help_with_its_options(self) -> None:
        ran = self.openstack('upgrade create --help')
        self.assertEqual(0, ran.status)
        self.assertIn('  canary: {hosts: 1, soak_seconds: 600}\n', ran.out)


class EnrollTestCase(base.ShellTestCase):
    """The bundle reaches the host out of band."""

    def test_value_is_json(self) -> None:
        out = self.openstack('upgrade agent enroll cmp1 -f value -c bundle').out
        self.assertEqual('t0', json.loads(out)['token'])

    def test_file_is_private_and_never_overwritten(self) -> None:
        path = self.useFixture(fixtures.TempDir()).join('cmp1.json')
        ran = self.openstack(f'upgrade agent enroll cmp1 --bundle-file {path}')
        self.assertEqual(0, ran.status, ran.err)
        self.assertNotIn('t0', ran.out)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        with open(path, encoding='utf-8') as source:
            self.assertEqual('cmp1', json.load(source)['host'])
        ran = self.openstack(f'upgrade agent enroll cmp1 --bundle-file {path}')
        self.assertEqual(1, ran.status)
        self.assertEqual(1, len(self.posted('/agents')))

    def test_refused_enrolment_leaves_no_file(self) -> None:
        self.api.refuse = (403, 'upgrade.forbidden', 'it needs admin')
        path = self.useFixture(fixtures.TempDir()).join('cmp1.json')
        ran = self.openstack(f'upgrade agent enroll cmp1 --bundle-file {path}')
        self.assertEqual(1, ran.status)
        self.assertFalse(os.path.exists(path))


class ErrorTestCase(base.ShellTestCase):
    """Errors are one line that names field and rule."""

    def test_refusal_of_ours(self) -> None:
        self.api.refuse = (400, 'upgrade.policy.invalid', 'Policy key max_unavailble:\n unknown')
        ran = self.openstack('upgrade create prod --to 2026.2')
        self.assertEqual(1, ran.status)
        self.assertEqual('Policy key max_unavailble: unknown (upgrade.policy.invalid)\n', ran.err)
        self.assertEqual('', ran.out)

    def test_unknown_upgrade(self) -> None:
        ran = self.openstack('upgrade show nothing')
        self.assertEqual(
            (1, 'There is no upgrade nothing (upgrade.not_found)\n'), (ran.status, ran.err)
        )

    def test_no_api_at_all(self) -> None:
        self.endpoint = 'http://127.0.0.1:9'
        ran = self.openstack('upgrade list')
        self.assertEqual(1, ran.status)
        self.assertEqual(1, len(ran.err.splitlines()), ran.err)
        self.assertIn('http://127.0.0.1:9', ran.err)
        self.assertNotIn('Traceback', ran.err)

    def test_something_else_answers(self) -> None:
        with requests_mock.Mocker(real_http=True) as mock:
            mock.get(
                f'{self.server.url}/v1/upgrades',
                status_code=502,
                reason='Bad Gateway',
                text='<html>nginx</html>',
            )
            ran = self.openstack('upgrade list')
        self.assertEqual(1, ran.status)
        self.assertIn('answered 502 Bad Gateway', ran.err)

    def test_policy_file_that_is_none(self) -> None:
        for content, rule in (('- a\n', 'expected keys and values'), ('a: [\n', 'while parsing')):
            path = self.useFixture(fixtures.TempDir()).join('p.yaml')
            with open(path, 'w', encoding='utf-8') as out:
                out.write(content)
            ran = self.openstack(f'upgrade create prod --to 2026.2 --policy {path}')
            self.assertEqual(1, ran.status)
            self.assertIn(rule, ran.err)
            self.assertEqual(1, len(ran.err.splitlines()))
        self.assertEqual([], self.posted('/upgrades'))

    def test_start_that_is_refused_tells_the_problems(self) -> None:
        self.openstack('upgrade create prod --to 2026.2 --name first --wait')
        self.api.problems = [
            {
                'code': 'engine_missing',
                'severity': 'blocking',
                'host': 'cmp2',
                'service': None,
                'message': 'no engine',
                'hint': 'enroll it',
            }
        ]
        self.api.refuse = (409, 'upgrade.not_startable', 'The plan cannot be started')
        ran = self.openstack('upgrade start first')
        self.assertEqual(1, ran.status)
        self.assertIn('blocking engine_missing [cmp2]: no engine', ran.err)
        self.assertIn('enroll it', ran.err)

    def test_empty_names_in_a_selection(self) -> None:
        ran = self.openstack("upgrade create prod --to 2026.2 --hosts ''")
        self.assertEqual(2, ran.status)
        self.assertIn('--hosts', ran.err)

    def test_requests_carry_idempotency_keys(self) -> None:
        self.openstack('upgrade create prod --to 2026.2')
        self.assertEqual(fake_api.UPGRADE_ID, (self.api.upgrade or {}).get('id'))
