"""The whole service upgrades a simulated cloud, over RabbitMQ and MariaDB.

Conductors, API and engines are processes that may be killed; nothing is mocked.
"""

import collections
import os
import time

import fixtures

from upgrade_service.simulator import spec
from upgrade_service.tests import base
from upgrade_service.tests.functional import service, test_database

TARGET = spec.VERSIONS['2026.2']


class ServiceCase(test_database.OnServer, base.TestCase):
    dialect = 'mysql'

    def setUp(self):
        if not service.RABBIT:
            self.skipTest('no RabbitMQ server')
        super().setUp()
        # a story takes longer than what a small test is given
        self.useFixture(fixtures.Timeout(300, gentle=True))

    def serve(self, **what):
        self.service = self.useFixture(service.Service(self.url, **what))
        return self.service

    # -- what must be true in the end ----------------------------------------------------------

    def assert_upgraded(self):
        for host in self.service.simulated():
            for name, project in host['projects'].items():
                self.assertEqual(TARGET[name], project['version'], (host['host'], name))
                for unit in project['services']:
                    self.assertEqual(
                        ('active', TARGET[name]), (unit['state'], unit['version']), unit
                    )

    def assert_all_in_service(self):
        found = {(s['host'], s['status'], s['state']) for s in self.service.computes()}
        hosts = [h for h in self.service.hosts if h.startswith('cmp')]
        self.assertEqual({(h, 'enabled', 'up') for h in hosts}, found)

    def moves(self):
        """Count the migrations of each server."""
        log = self.service.cloud_log()
        return collections.Counter(e['server'] for e in log if e['what'] == 'migrate')

    def assert_moved_as_planned(self, upgrade):
        planned = collections.Counter()
        for step in upgrade.steps(kind='drain_host'):
            planned.update(step['params'].get('moves', {}))
        self.assertEqual(planned, self.moves())
        self.assertLessEqual(max(planned.values()), 2)

    def assert_each_step_once(self, upgrade):
        """What was asked of the hosts is what the plan says, each once."""
        steps = upgrade.steps()
        self.assertEqual(set(), {s['ord'] for s in steps if s['attempt'] > 1})
        wanted = collections.Counter()
        for step in steps:
            if step['kind'] == 'upgrade_service':
                wanted[step['host'], step['project'], 'switch'] += 1
            elif step['host'] and step['project'] and step['kind'] in NOTED:
                wanted[step['host'], step['project'], step['kind']] += 1
        self.assertEqual(wanted, self.asked())

    def asked(self):
        """Count what was asked of the hosts: {(host, project, action): times}."""
        log = [e for e in self.service.cloud_log() if e['what'] in ('run', 'switch')]
        return collections.Counter(
            (e['host'], e['project'], e.get('action') or 'switch') for e in log
        )


#: kinds that the simulated hosts only note
NOTED = frozenset({
    'prefetch', 'upgrade_check', 'backup_database', 'db_expand', 'db_migrate', 'db_contract',
    'online_migrations',
})  # fmt: skip


class TestWholeCloud(ServiceCase):
    def test_a_cloud_is_upgraded(self):
        self.serve()
        upgrade = self.service.upgrade()
        row = upgrade.wait('paused')
        self.assertEqual('finish', row['gate'])
        self.assertEqual([], [s for s in upgrade.steps(stage='finish') if s['attempt']])
        upgrade.verb('approve', gate='finish')
        upgrade.wait('succeeded')
        self.assert_upgraded()
        self.assert_all_in_service()
        self.assert_moved_as_planned(upgrade)
        self.assert_each_step_once(upgrade)
