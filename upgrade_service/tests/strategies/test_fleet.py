"""A whole upgrade by Ansible: conductor, message bus, and one engine that acts for all hosts.

The hosts are simulated; Ansible, its playbooks and the service are real. Facts come from the
engines of the hosts, every step of theirs is done by the deployment host's.
"""

import collections
import json
import pathlib
import sys

import fixtures

from upgrade_service.db import api as db
from upgrade_service.simulator import spec
from upgrade_service.strategies import ansible
from upgrade_service.tests import base
from upgrade_service.tests.functional import service, test_database

TARGET = spec.VERSIONS['2026.2']
BIN = str(pathlib.Path(sys.executable).parent)
SWITCH = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Switch
      ansible.builtin.uri: &call
        url: "{{ cloud }}/hosts/{{ inventory_hostname }}/{{ project }}/switch"
        method: POST
        body_format: json
        body: {version: "{{ wanted }}"}
        status_code: 202
    - name: Wait until it runs
      ansible.builtin.uri:
        url: "{{ cloud }}/hosts/{{ inventory_hostname }}"
      register: host
      until: >-
        host.json.projects[project].services | map(attribute='version')
        | reject('equalto', wanted) | list == []
      retries: 60
      delay: 1
"""
NOTE = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Take note
      ansible.builtin.uri:
        url: "{{ cloud }}/hosts/{{ inventory_hostname }}/{{ project }}/run"
        method: POST
        body_format: json
        body: {kind: prefetch}
        status_code: 202
"""


class Fleet(service.Service):
    """The service, with an engine on `deploy1` that may act for every host."""

    def _configure(self):
        super()._configure()
        self.config = self.config.replace(
            '[conductor]\n', '[conductor]\ndeployment_hosts = deploy1\n'
        )
        pathlib.Path(self.folder, 'service.conf').write_text(self.config)

    def _enrol(self):
        super()._enrol()
        bundle = self.request('POST', '/v1/agents', {'host': 'deploy1'})['bundle']
        engine = self._engine('deploy1', bundle)
        self._settings(pathlib.Path(self.folder, 'deploy1-engine.d', 'ansible.yaml'))
        engine.restart()
        self.engines['deploy1'] = engine
        self.hosts.append('deploy1')

    def _settings(self, path):
        place = pathlib.Path(self.folder)
        local = {'ansible_connection': 'local', 'ansible_python_interpreter': '/usr/bin/python3'}
        inventory = {'all': {'hosts': {h: local for h in self.hosts}}}
        (place / 'inventory.json').write_text(json.dumps(inventory))
        for name, text in (('switch', SWITCH), ('note', NOTE)):
            (place / f'{name}.yaml').write_text(text)
        play = {
            'playbook': str(place / 'switch.yaml'),
            'vars': {'project': 'project', 'wanted': 'version'},
            'values': {'cloud': self.cloud_url},
        }
        settings = {
            'ansible': BIN,
            'inventory': [str(place / 'inventory.json')],
            'hosts': {'names': self.hosts},
            'playbooks': {
                **dict.fromkeys(ansible.EVERY_PLAN),
                'prefetch': {'*': {**play, 'playbook': str(place / 'note.yaml')}},
                'upgrade_service': {'*': play},
            },
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings))


class FleetTest(test_database.OnServer, base.TestCase):
    dialect = 'mysql'

    def setUp(self):
        if not service.RABBIT:
            self.skipTest('no RabbitMQ server: tools/run_tests.sh strategies')
        super().setUp()
        self.useFixture(fixtures.Timeout(3000, gentle=True))
        self.service = self.useFixture(Fleet(self.url, computes=2, servers=2))

    def wait(self, upgrade, *states):
        """Wait for a state; a run of Ansible takes its time."""
        for _ in range(30):
            try:
                return upgrade.wait(*states)
            except AssertionError as e:
                if not str(e).startswith('still '):
                    raise
        raise AssertionError(self.service.logs())

    def test_upgraded_from_the_deployment_host(self):
        upgrade = self.service.upgrade(strategy='ansible')
        steps = [
            s for s in db.step_list(self.service.ctx, upgrade.id) if s['strategy'] == 'ansible'
        ]
        agents = {a['host']: a['id'] for a in db.agent_list(self.service.ctx)}
        self.assertEqual({agents['deploy1']}, {s['executor'] for s in steps})
        self.wait(upgrade, 'paused')
        upgrade.verb('approve', gate='finish')
        self.wait(upgrade, 'succeeded')
        for host in self.service.simulated():
            for name, project in host['projects'].items():
                self.assertEqual(TARGET[name], project['version'], (host['host'], name))
        log = [e for e in self.service.cloud_log() if e['what'] in ('run', 'switch')]
        asked = collections.Counter((e['host'], e['project'], e['what']) for e in log)
        wanted = collections.Counter()
        # the way back is planned too, and nobody asked for it
        for step in (s for s in steps if s['direction'] == 'forward'):
            kind = {'prefetch': 'run', 'upgrade_service': 'switch'}.get(step['kind'])
            if kind:
                wanted[step['host'], step['project'], kind] += 1
        self.assertEqual(wanted, asked)
        # the same step for several hosts was one run: they began together
        places = pathlib.Path(self.service.folder).glob('deploy1-engines/**/job.json')
        led = [json.loads(p.read_text()) for p in places]
        together = [len(job['members']) + 1 for job in led if job.get('members')]
        self.assertIn(3, together, str(together))
