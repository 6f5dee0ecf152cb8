"""The shipped settings for kolla-ansible, checked against kolla-ansible itself.

No host is changed: its inventory is read, its playbooks are parsed, and what they would do,
for whom, is listed.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

import jsonschema
import yaml

from upgrade_service.conductor.discovery import ansible as inventory
from upgrade_service.strategies import ansible, ansible_listing
from upgrade_service.strategies import base as strategies
from upgrade_service.tests import base

KOLLA = os.environ.get('UPGRADE_TEST_KOLLA', '')
SAMPLE = pathlib.Path(__file__).parents[3] / 'etc/upgrade-service/engine.d/ansible.yaml.sample'


class KollaTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if not KOLLA:
            self.skipTest('no kolla-ansible here: tools/run_tests.sh strategies')
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.share = pathlib.Path(KOLLA) / 'share/kolla-ansible'
        for name in ('globals.yml', 'passwords.yml'):
            shutil.copy(self.share / 'etc_examples/kolla' / name, self.dir)
        self.inventory = self.dir / 'inventory'
        text = (self.share / 'ansible/inventory/multinode').read_text()
        for name in ('control01', 'control02', 'control03', 'network01', 'network02', 'storage01',
                     'compute01', 'monitoring01'):  # fmt: skip
            text = text.replace(f'\n{name}', f'\n{name} ansible_connection=local')
        self.inventory.write_text(text)
        self.settings = self._settings()
        self.site = strategies.Site(
            host='deploy1', settings=self.settings, state_dir=str(self.dir)
        )

    def _settings(self) -> dict[str, Any]:
        """Return the sample, with its paths where kolla-ansible is here."""
        text = SAMPLE.read_text()
        for theirs, ours in (
            ('/opt/kolla-ansible', KOLLA),
            ('/etc/kolla/inventory', str(self.inventory)),
            ('/etc/kolla', str(self.dir)),
        ):
            text = text.replace(theirs, ours)
        settings: dict[str, Any] = yaml.safe_load(text)
        jsonschema.validate(settings, ansible.SETTINGS_SCHEMA)
        return settings

    def run_playbook(self, play: dict[str, Any], *words: str, host: str) -> str:
        task = strategies.Task(
            step='s', attempt=1, kind='upgrade_service', host=host, project='nova',
            params={'version': '34.0.0', 'release': '2026.2'}, timeout=60,
        )  # fmt: skip
        spec = ansible.spec_of(play, [host], self.site)
        values = ansible.values_of(ansible.Play(play), task)
        extra = [w for k, v in values.items() for w in ('-e', f'{k}={v}')]
        tags = ['--tags', ','.join(spec['tags'])] if spec['tags'] else []
        done = subprocess.run(
            [f'{spec["bin"]}/ansible-playbook', '-i', str(self.inventory), *spec['options'],
             '--limit', spec['limit'], *tags, *extra, *words, spec['playbook']],
            capture_output=True, text=True, cwd=spec['directory'], timeout=600, check=False,
            env={'PATH': f'{spec["bin"]}:{ansible_listing.PATH}', 'LC_ALL': 'C.UTF-8',
                 'HOME': str(self.dir)},
        )  # fmt: skip
        self.assertEqual(0, done.returncode, done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout

    def test_inventory(self) -> None:
        listing = ansible_listing.read(self.settings['ansible'], [str(self.inventory)])
        found = inventory.compose(listing)
        binaries = {h: {s.binary for s in found.services if s.host == h} for h in found.hosts}
        self.assertEqual(
            {'control01', 'control02', 'control03', 'network01', 'network02', 'compute01'},
            set(binaries),
        )
        self.assertLess({'keystone', 'nova-api', 'cinder-api'}, binaries['control01'])
        self.assertIn('neutron-l3-agent', binaries['network01'])
        self.assertEqual(
            {'nova-compute', 'neutron-ovn-agent', 'neutron-ovn-metadata-agent'},
            binaries['compute01'],
        )
        self.assertIn('storage01', found.names)

    def test_hosts_of_the_groups(self) -> None:
        hosts = ansible.AnsibleUpgradeStrategy().hosts(self.site)
        self.assertEqual({'control01', 'control02', 'control03', 'network01', 'network02',
                          'storage01', 'compute01'}, set(hosts))  # fmt: skip

    def test_every_playbook_of_the_sample_is_understood(self) -> None:
        for project, play in self.settings['playbooks']['upgrade_service'].items():
            host = 'compute01' if project == 'nova' else 'control01'
            self.run_playbook(play, '--syntax-check', host=host)

    def test_tasks_and_hosts_of_an_upgrade_of_nova(self) -> None:
        play = self.settings['playbooks']['upgrade_service']['nova']
        tasks = self.run_playbook(play, '--list-tasks', host='compute01')
        self.assertIn('nova-cell-upgrade', tasks)
        self.assertNotIn('glance-upgrade', tasks)
        hosts = self.run_playbook(play, '--list-hosts', host='compute01')
        # the groups of the other plays are made while it runs, from the hosts of the first
        self.assertEqual({'compute01'}, set(re.findall(r'^ {6}(\S+)$', hosts, re.M)))
