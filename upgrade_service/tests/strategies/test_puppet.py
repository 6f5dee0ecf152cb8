"""Strategy `puppet` with a real agent, a real server and its certificates; PuppetDB for real."""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from typing import Any
import uuid

import jsonschema
from oslo_config import cfg
import requests

from upgrade_service import conf as options
from upgrade_service.conductor.discovery import puppet as inventory
from upgrade_service.engine import runner
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import puppet
from upgrade_service.tests import base

PUPPET = shutil.which('puppet') or ''
SERVER = os.environ.get('UPGRADE_TEST_PUPPETSERVER', '')
DATABASE = os.environ.get('UPGRADE_TEST_PUPPETDB', '')
#: where Debian's facter looks for facts of the host
FACTS = pathlib.Path('/etc/facter/facts.d')
MANIFEST = """
file {{ '{target}':
  content => "{environment} ${{facts['{fact}']}}\\n",
}}
"""
BROKEN = """
file {{ '{target}': content => "half\\n" }}
-> exec {{ '/bin/false': }}
"""


class PuppetTest(base.TestCase):
    """Two environments of each test's own; each writes its name and a pinned version."""

    def setUp(self) -> None:
        super().setUp()
        if not PUPPET or not SERVER:
            self.skipTest('no Puppet here: tools/run_tests.sh strategies')
        port, _, self.server = SERVER.partition(':')
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        # the file of facts is the machine's: one test at a time
        lock = open('/var/tmp/upgrade-test-facts.lock', 'w')
        self.addCleanup(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.addCleanup((FACTS / 'upgrade_service.json').unlink, missing_ok=True)
        for name in ('conf', 'var', 'state'):
            (self.dir / name).mkdir()
        self.target = self.dir / 'target'
        mine = f'n{uuid.uuid4().hex[:8]}'
        self.old, self.new = f'{mine}_2026_1', f'{mine}_2026_2'
        self.fact = f'upgrade_test_{mine}'
        for name in (self.old, self.new):
            self.environment(name, MANIFEST)
        name = f'{mine}.upgrade.test'
        (self.dir / 'conf/puppet.conf').write_text(
            f'[main]\nserver = localhost\nserverport = {port}\ncertname = {name}\n'
        )
        self.settings: dict[str, Any] = {
            'puppet': PUPPET,
            'environments': {'2026.1': self.old, '2026.2': self.new},
            'facts': {'nova': self.fact},
            'facts_dir': str(FACTS),
            'confdir': str(self.dir / 'conf'),
            'vardir': str(self.dir / 'var'),
            'covered': sorted(puppet.COVERED),
            'patience': 0,
        }
        self.strategy = puppet.PuppetUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0

    def environment(self, name: str, manifest: str) -> None:
        place = pathlib.Path(self.server) / 'code/environments' / name / 'manifests'
        place.mkdir(parents=True, exist_ok=True)
        text = manifest.format(target=self.target, environment=name, fact=self.fact)
        (place / 'site.pp').write_text(text)

    def task(self, kind: str = 'upgrade_service', **params: Any) -> strategies.Task:
        self.count += 1
        wanted = {
            'version': '34.0.0', 'from_version': '33.0.2',
            'release': '2026.2', 'from_release': '2026.1', **params,
        }  # fmt: skip
        return strategies.Task(
            step=f's{self.count}', attempt=1, kind=kind, host='h', project='nova', params=wanted,
            timeout=900,
        )  # fmt: skip

    def run_task(self, task: strategies.Task, how: str = 'run') -> dict[str, Any]:
        jsonschema.validate(self.settings, puppet.SETTINGS_SCHEMA)
        site = strategies.Site(host='h', settings=self.settings, state_dir=str(self.dir / 'state'))
        job = getattr(self.strategy, how)(task, site)
        process = self.runner.start(task, job, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        self.output = self.runner.output(task.step, 1)
        outcome = self.runner.outcome(task.step, 1)
        assert outcome is not None
        return outcome

    def test_there_and_back(self) -> None:
        outcome = self.run_task(self.task('check_host'))
        self.assertEqual('succeeded', outcome['result'], f'{outcome} {self.output}')
        self.assertFalse(self.target.exists())
        outcome = self.run_task(self.task())
        self.assertEqual('succeeded', outcome['result'], f'{outcome} {self.output}')
        self.assertEqual('34.0.0', outcome['data']['version'])
        self.assertEqual(f'{self.new} 34.0.0\n', self.target.read_text())
        # the next run of the agent by itself keeps what was pinned
        subprocess.run(
            [PUPPET, 'agent', '--test', '--confdir', f'{self.dir}/conf', '--vardir',
             f'{self.dir}/var'], check=True, capture_output=True,
        )  # fmt: skip
        self.assertEqual(f'{self.new} 34.0.0\n', self.target.read_text())
        self.assertEqual('succeeded', self.run_task(self.task('verify_host'))['result'])
        back = {'version': '33.0.2', 'from_version': '34.0.0', 'release': '2026.1'}
        outcome = self.run_task(self.task(**back), 'undo')
        self.assertEqual('succeeded', outcome['result'], f'{outcome} {self.output}')
        self.assertEqual('33.0.2', outcome['data']['version'])
        self.assertEqual(f'{self.old} 33.0.2\n', self.target.read_text())
        outcome = self.run_task(self.task('verify_host'))
        self.assertEqual('failed', outcome['result'])
        self.assertIn(f'{self.old}, not {self.new}', outcome['error'])

    def test_resources_that_fail(self) -> None:
        self.environment(self.new, BROKEN)
        outcome = self.run_task(self.task())
        self.assertEqual(('failed', 6), (outcome['result'], outcome['rc']), self.output)
        self.assertIn('some resources were changed and others failed', outcome['error'])
        self.environment(self.new, MANIFEST)
        self.assertEqual('succeeded', self.run_task(self.task())['result'], self.output)

    def test_a_catalogue_that_does_not_compile(self) -> None:
        self.environment(self.new, 'file {{ ')
        outcome = self.run_task(self.task('check_host'))
        self.assertEqual(('failed', 1), (outcome['result'], outcome['rc']), self.output)
        self.assertIn('the run failed', outcome['error'])
        self.assertIn(f'environment {self.new}', outcome['error'])

    def test_disabled_agent(self) -> None:
        where = ['--confdir', f'{self.dir}/conf', '--vardir', f'{self.dir}/var']
        subprocess.run(
            [PUPPET, 'agent', '--disable', 'a colleague repairs it', *where], check=True
        )
        for kind in ('check_host', 'upgrade_service'):
            outcome = self.run_task(self.task(kind))
            self.assertEqual(('failed', 74), (outcome['result'], outcome['rc']))
            self.assertIn('puppet agent --enable', outcome['error'])
            self.assertIn('a colleague repairs it', outcome['error'])
        self.assertFalse((FACTS / 'upgrade_service.json').exists())

    def test_another_run_holds_the_lock(self) -> None:
        said = subprocess.run(
            [PUPPET, 'config', 'print', 'agent_catalog_run_lockfile', '--section', 'agent',
             '--confdir', f'{self.dir}/conf', '--vardir', f'{self.dir}/var'],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        lock = pathlib.Path(said.stdout.strip())
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text(str(os.getpid()))
        outcome = self.run_task(self.task('check_host'))
        self.assertEqual(('failed', 75), (outcome['result'], outcome['rc']))
        self.assertIn(f'pid {os.getpid()}', outcome['error'])

    def test_unreachable_server(self) -> None:
        self.settings['server'] = 'nowhere.upgrade.test'
        outcome = self.run_task(self.task('check_host'))
        self.assertEqual(('failed', 1), (outcome['result'], outcome['rc']))


class PuppetDBTest(base.TestCase):
    """The facts, classes and packages that a real PuppetDB was given."""

    def setUp(self) -> None:
        super().setUp()
        if not DATABASE:
            self.skipTest('no PuppetDB here: tools/run_tests.sh strategies')

    def submit(self, command: str, version: int, certname: str, payload: dict[str, Any]) -> None:
        answer = requests.post(
            f'{DATABASE}/pdb/cmd/v1',
            params={
                'command': command, 'version': str(version), 'certname': certname,
                'secondsToWaitForCompletion': '60',
            },
            json=payload,
            timeout=90,
        )  # fmt: skip
        answer.raise_for_status()
        self.assertFalse(answer.json().get('timed_out'), answer.text)

    def test_hosts_classes_and_packages(self) -> None:
        now = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime())
        facts = json.loads(
            subprocess.run(
                ['facter', '--json', 'os', 'networking'], check=True, capture_output=True,
                text=True,
            ).stdout
        )  # fmt: skip
        facts['networking']['fqdn'] = 'cmp1.upgrade.test'
        common = {'certname': 'cert-of-cmp1', 'producer_timestamp': now}
        packages = [
            ['python3-nova', '3:33.0.2-1', 'apt'],
            ['nova-compute', '3:33.0.2-1', 'apt'],
            ['bash', '5.2', 'apt'],
        ]
        self.submit(
            'replace_facts', 5, 'cert-of-cmp1',
            {**common, 'environment': 'production', 'producer': None, 'values': facts,
             'package_inventory': packages},
        )  # fmt: skip
        resources: list[dict[str, Any]] = [
            {'type': 'Class', 'title': title, 'exported': False, 'file': None, 'line': None,
             'tags': ['class'], 'aliases': [], 'parameters': {}}
            for title in ('Nova::Compute', 'Neutron::Agents::Ml2::Ovs', 'Main')
        ]  # fmt: skip
        self.submit(
            'replace_catalog', 9, 'cert-of-cmp1',
            {**common, 'environment': 'production', 'version': '1', 'transaction_uuid': None,
             'catalog_uuid': None, 'code_id': None, 'producer': None, 'job_id': None,
             'edges': [], 'resources': resources},
        )  # fmt: skip
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf([], default_config_files=[])
        conf.set_override('sources', {'prod': DATABASE}, 'puppetdb')
        found = inventory.PuppetInventory().collect(conf, {'name': 'prod'})
        self.assertEqual(
            [
                ('cmp1.upgrade.test', 'neutron-openvswitch-agent', None),
                ('cmp1.upgrade.test', 'nova-compute', '33.0.2'),
            ],
            [(s.host, s.binary, s.version) for s in found.services],
        )
        self.assertEqual({'cmp1.upgrade.test'}, set(found.names))
