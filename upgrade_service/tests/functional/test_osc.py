"""Every command of `openstack upgrade …` against the real API on a real database file.

No conductor runs here: the test moves the upgrade as one would.
"""

import os
import threading
from wsgiref import simple_server

import fixtures

from upgrade_service.db import api as db
from upgrade_service.tests.functional.api import fixtures as api_fixtures
from upgrade_service.tests.unit.osc import base


class Quiet(simple_server.WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format, *args):
        """Say nothing."""


class CommandsTestCase(base.ShellTestCase):
    """What the API answers is what the commands expect."""

    def setUp(self):
        super().setUp()
        # the clients of the shell would be asked for a role by the real thing
        self.real = self.useFixture(api_fixtures.Api(authenticate=None))
        httpd = simple_server.make_server('127.0.0.1', 0, self.real.app, handler_class=Quiet)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(httpd.server_close)
        self.addCleanup(httpd.shutdown)
        self.endpoint = f'http://127.0.0.1:{httpd.server_port}'
        self.cluster = api_fixtures.discovered(self.real.ctx)

    def ok(self, line, status=0):
        """Run a command that must end with `status`; return what it printed."""
        ran = self.openstack(line)
        self.assertEqual(status, ran.status, f'{line}: {ran.err}')
        self.assertNotIn('Traceback', ran.err)
        return ran

    def upgrade(self, name='first'):
        """Store a draft; return its id."""
        return api_fixtures.upgrade(self.real.ctx, self.cluster, name, api_fixtures.plan())

    def test_clusters(self):
        made = self.ok(
            'upgrade cluster create lab --cloud other --inventory openstack '
            '--property rack=7 -f json'
        ).json()
        self.assertEqual(('other', {'rack': '7'}), (made['cloud'], made['properties']))
        rows = self.ok('upgrade cluster list --limit 5 -f json').json()
        self.assertEqual({'lab', 'prod'}, {r['Name'] for r in rows})
        self.ok('upgrade cluster list --long')
        self.assertEqual('lab', self.ok('upgrade cluster show lab -f json').json()['name'])
        self.ok('upgrade cluster discover lab')
        self.ok('upgrade cluster delete lab')
        self.assertIn('(upgrade.not_found)', self.ok('upgrade cluster show lab', 1).err)

    def test_what_discovery_found(self):
        rows = self.ok('upgrade cluster summary prod -f json').json()
        self.assertEqual(
            {(r['Release'], r['Total'], r['Up'], r['Down']) for r in rows},
            {('2026.1', 2, 2, 0), (None, 1, 0, 1)},
        )
        self.assertIn(
            'warning service_down [cmp2 nova-compute]', self.ok('upgrade cluster summary prod').err
        )
        hosts = self.ok('upgrade host list prod --long -f json').json()
        self.assertEqual(['cmp1', 'cmp2', 'ctl1'], sorted(h['Name'] for h in hosts))
        page = self.ok('upgrade host list prod --limit 1 -f value -c Name').out.split()
        more = self.ok(f'upgrade host list prod --limit 1 --marker {page[0]} -f value -c Name')
        self.assertEqual(1, len(page))
        self.assertNotEqual(page, more.out.split())
        self.assertEqual('az1', self.ok('upgrade host show prod cmp1 -f json').json()['az'])
        rows = self.ok(
            'upgrade service list prod --project nova --host cmp1 '
            '--binary nova-compute --long -f json'
        ).json()
        self.assertEqual(['2026.1'], [r['Release'] for r in rows])
        paths = self.ok('upgrade path list prod -f json').json()
        self.assertIn('2026.2', [p['To Release'] for p in paths])
        problems = self.ok('upgrade problem list prod --long -f json').json()
        self.assertEqual(['service_down'], [p['Code'] for p in problems])

    def test_pages_are_followed(self):
        self.real.conf.set_override('max_limit', 2, 'api')
        self.assertEqual(3, len(self.ok('upgrade host list prod -f json').json()))
        self.upgrade()
        self.ok('upgrade cancel first')
        events = self.ok('upgrade event list first -f json').json()
        self.assertEqual(list(range(1, len(events) + 1)), [e['Seq'] for e in events])
        self.assertGreater(len(events), 2)

    def test_create_sends_all_it_is_told(self):
        policy = self.useFixture(fixtures.TempDir()).join('p.yaml')
        with open(policy, 'w', encoding='utf-8') as out:
            out.write('max_unavailable: 2\n')
        made = self.ok(
            f'upgrade create prod --to 2026.2 --name some --strategy noop --hosts cmp1 '
            f'--projects nova --type service --policy {policy} --approve-ponr '
            f'-f json'
        ).json()
        self.assertEqual(
            (['cmp1'], ['nova']), (made['selection']['hosts'], made['selection']['projects'])
        )
        stored = db.upgrade_get(self.real.ctx, made['id'])
        self.assertEqual(
            (2, ['finish']), (stored['policy']['max_unavailable'], stored['approvals'])
        )

    def test_plan_and_steps(self):
        self.upgrade()
        self.assertIn('upgrade_service nova', self.ok('upgrade plan show first').out)
        plan = self.ok('upgrade plan show first -f json').json()
        self.assertEqual([3], plan['points_of_no_return'])
        self.assertEqual(3, len(self.ok('upgrade plan show first -f csv').out.splitlines()) - 1)
        rows = self.ok(
            'upgrade step list first --state pending --host cmp1 --stage data_plane '
            '--kind upgrade_service --project nova --long -f json'
        ).json()
        self.assertEqual([2], [r['Step'] for r in rows])
        self.assertEqual([1], self.ok('upgrade step show first 2 -f json').json()['parents'])
        self.assertIn('problems', self.ok('upgrade show first').out + 'problems')
        self.assertEqual([], self.ok('upgrade problem list --upgrade first -f json').json())

    def test_verbs(self):
        ident = self.upgrade()
        for verb, state in (
            ('start', 'running'),
            ('pause', 'stopping'),
            ('resume', 'running'),
            ('cancel', 'stopping'),
        ):
            found = self.ok(f'upgrade {verb} first -f json').json()
            self.assertEqual((ident, state), (found['id'], found['state']))
        self.assertIn('(upgrade.verb.illegal)', self.ok('upgrade delete first', 1).err)
        rows = self.ok('upgrade list --cluster prod --state stopping --long -f json').json()
        self.assertEqual([ident], [r['ID'] for r in rows])

    def test_gate(self):
        api_fixtures.at_gate(self.real.ctx, self.upgrade(), 'finish')
        ran = self.ok('upgrade watch first -f json', 3)
        self.assertIn('openstack upgrade approve first --gate finish', ran.err)
        self.assertEqual('running', self.ok('upgrade approve first -f json').json()['state'])

    def test_failed_step(self):
        api_fixtures.failed_step(self.real.ctx, self.upgrade())
        shown = self.ok('upgrade step show first 1 -f json').json()
        self.assertEqual(('failed', 'exit status 1'), (shown['state'], shown['error']))
        self.assertEqual('boom\n', self.ok('upgrade step log first 1').out)
        self.assertEqual('boom\n', self.ok('upgrade step log first 1 --attempt 1').out)
        found = self.ok('upgrade step retry first 1 --acknowledge-risk -f json').json()
        self.assertEqual('pending', found['state'])

    def test_skipped_step(self):
        api_fixtures.failed_step(self.real.ctx, self.upgrade())
        found = self.ok('upgrade step skip first 1 --force --reason "by hand" -f json').json()
        self.assertEqual('skipped', found['state'])

    def test_agents(self):
        path = self.useFixture(fixtures.TempDir()).join('cmp1.json')
        self.ok(f'upgrade agent enroll cmp1 --bundle-file {path}')
        self.assertTrue(os.path.getsize(path))
        bundle = self.ok('upgrade agent enroll cmp1 -f json').json()['bundle']
        row = db.agent_enroll(self.real.ctx, bundle['token'], 'cmp1', 'A' * 44)
        rows = self.ok('upgrade agent list --host cmp1 --long -f json').json()
        self.assertEqual([row['id']], [r['ID'] for r in rows])
        self.assertIn('(upgrade.conflict)', self.ok('upgrade agent delete cmp1', 1).err)
        for verb, state in (('approve', 'active'), ('revoke', 'revoked')):
            self.ok(f'upgrade agent {verb} {row["id"]}')
            found = self.ok(f'upgrade agent show {row["id"]} -f json').json()
            self.assertEqual(state, found['state'])
        self.ok(f'upgrade agent delete {row["id"]}')
        self.assertEqual([], self.ok('upgrade strategy list -f json').json())
        plugins = self.ok('upgrade inventory list -f json').json()
        self.assertEqual(['ansible', 'openstack', 'puppet'], [p['Name'] for p in plugins])

    def test_delete(self):
        self.upgrade()
        self.ok('upgrade delete first')
        self.assertIn('(upgrade.not_found)', self.ok('upgrade show first', 1).err)
