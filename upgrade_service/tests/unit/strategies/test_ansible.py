"""Strategy `ansible` with the real ansible-runner and ansible-playbook, on local connections."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import jsonschema
import yaml

from upgrade_service import exception
from upgrade_service.engine import runner
from upgrade_service.strategies import ansible, trusted
from upgrade_service.strategies import base as strategies
from upgrade_service.tests import base

#: the test environment's own Ansible, as an operator would have one in /opt
BIN = str(pathlib.Path(sys.executable).parent)
INVENTORY = """
compute:
  hosts:
    cmp1: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}
    cmp2: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}
    cmp3: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
    'evil;name': {}
control:
  hosts:
    ctl1: {ansible_connection: local}
"""
UPGRADE = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Install
      ansible.builtin.copy:
        dest: "{{ place }}/{{ inventory_hostname }}"
        content: "{{ nova_version }}"
        mode: "0644"
    - name: Break
      ansible.builtin.command: /bin/sh -c 'echo disk is full >&2; exit 3'
      when: inventory_hostname == broken | default('')
    - name: Wait
      ansible.builtin.command: sleep {{ wait | default(0) }}
      when: wait | default(0) | int > 0
"""


class AnsibleCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        for name in ('state', 'plays', 'place'):
            (self.dir / name).mkdir(mode=0o755)
        self.write('inventory.yaml', INVENTORY)
        self.playbook = self.write('plays/nova.yaml', UPGRADE)
        self.play = {
            'playbook': str(self.playbook),
            'vars': {'nova_version': 'version'},
            'values': {'place': str(self.dir / 'place')},
        }
        self.settings = {
            'ansible': BIN,
            'inventory': [str(self.dir / 'inventory.yaml')],
            'hosts': {'names': ['ctl1'], 'groups': ['compute']},
            'playbooks': {
                **dict.fromkeys(ansible.EVERY_PLAN),
                'upgrade_service': {'nova': self.play},
            },
            'env': {'ANSIBLE_SSH_ARGS': '-o ConnectTimeout=2 -o BatchMode=yes'},
        }
        self.strategy = ansible.AnsibleUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0

    def write(self, name, text, mode=0o644):
        path = self.dir / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def site(self):
        jsonschema.validate(self.settings, self.strategy.settings_schema)
        return strategies.Site(
            host='deploy1', settings=self.settings, state_dir=str(self.dir / 'state')
        )

    def task(self, host='cmp1', kind='upgrade_service', project='nova', **more):
        self.count += 1
        params = {'version': '34.0.0', 'from_version': '33.0.2', **more.pop('params', {})}
        return strategies.Task(
            step=f's{self.count}', attempt=1, kind=kind, host=host, project=project,
            params=params, timeout=120, **more,
        )  # fmt: skip

    def start(self, *tasks):
        job = self.strategy.run_together(tasks, self.site())
        return self.runner.start(tasks[0], job, 'u', tasks[1:])

    def run_tasks(self, *tasks):
        process = self.start(*tasks)
        self.seen = []
        for task in tasks:
            self.runner.wait(task.step, 1, process, self.seen.append, lambda: False)
        return {t.host: self.runner.outcome(t.step, 1) for t in tasks}

    def results(self, outcomes):
        return {h: o['result'] for h, o in outcomes.items()}

    def installed(self):
        return {p.name: p.read_text() for p in (self.dir / 'place').iterdir()}


class TestRuns(AnsibleCase):
    def test_two_hosts_there_and_back(self):
        tasks = [self.task('cmp1'), self.task('cmp2')]
        found = self.run_tasks(*tasks)
        self.assertEqual({'cmp1': 'succeeded', 'cmp2': 'succeeded'}, self.results(found))
        self.assertEqual({'cmp1': '34.0.0', 'cmp2': '34.0.0'}, self.installed())
        self.assertEqual('34.0.0', found['cmp2']['data']['version'])
        self.assertEqual(1, found['cmp2']['data']['changed'])
        self.assertIn('TASK [Install]', self.runner.output(tasks[0].step, 1))
        self.assertIn('cmp2', self.runner.output(tasks[1].step, 1))
        back = {'version': '33.0.2', 'from_version': '34.0.0'}
        found = self.run_tasks(self.task('cmp1', direction='back', params=back))
        self.assertEqual('33.0.2', found['cmp1']['data']['version'])
        self.assertEqual({'cmp1': '33.0.2', 'cmp2': '34.0.0'}, self.installed())
        # nothing of what ansible-runner writes is left behind
        self.assertEqual([], [p for p in (self.dir / 'state/ansible').iterdir() if p.is_dir()
                              and not p.name.startswith('.')])  # fmt: skip

    def test_each_host_has_its_own_outcome(self):
        self.play['values']['broken'] = 'cmp2'
        found = self.run_tasks(*[self.task(h) for h in ('cmp1', 'cmp2', 'cmp3', 'stranger')])
        self.assertEqual(
            {'cmp1': 'succeeded', 'cmp2': 'failed', 'cmp3': 'failed', 'stranger': 'failed'},
            self.results(found),
        )
        self.assertIn('task "Break"', found['cmp2']['error'])
        self.assertIn('unreachable, nothing was done', found['cmp3']['error'])
        self.assertIn('no task was run on it', found['stranger']['error'])

    def test_tasks_are_progress(self):
        self.play['values']['wait'] = 3
        self.run_tasks(self.task())
        self.assertIn('task 3: Wait', [p.get('text') for p in self.seen])

    def test_ended_from_outside(self):
        self.play['values']['wait'] = 100
        task = self.task()

        def end_it(progress):
            if 'Wait' in progress['text']:
                for pid in self.pids():
                    os.kill(pid, signal.SIGTERM)

        process = self.start(task)
        self.runner.wait(task.step, 1, process, end_it, lambda: False)
        found = self.runner.outcome(task.step, 1)
        self.assertEqual('unknown', found['result'])
        self.assertIn('the run was ended during task "Wait"', found['error'])

    def pids(self):
        """The processes that run our playbook."""
        for entry in pathlib.Path('/proc').iterdir():
            with contextlib.suppress(OSError):
                words = (entry / 'cmdline').read_bytes() if entry.name.isdigit() else b''
                if b'ansible_play\0' in words and str(self.playbook).encode() in words:
                    yield int(entry.name)

    def test_a_play_that_is_ended_early_succeeds_for_nobody(self):
        text = UPGRADE.replace(
            'gather_facts: false', 'gather_facts: false\n  any_errors_fatal: true'
        )
        self.write('plays/nova.yaml', text)
        self.play['values']['broken'] = 'cmp2'
        found = self.run_tasks(self.task('cmp1'), self.task('cmp2'))
        self.assertEqual({'cmp1': 'failed', 'cmp2': 'failed'}, self.results(found))

    def test_a_kind_that_another_playbook_does(self):
        found = self.run_tasks(self.task(kind='db_expand'))
        self.assertEqual('succeeded', found['cmp1']['result'])
        self.assertTrue(found['cmp1']['data']['covered'])
        self.assertEqual({}, self.installed())

    def test_vault_and_files_of_variables(self):
        word = self.write('vault-password', 'secret\n', 0o600)
        secret = self.write('secret.yaml', 'place: %s\n' % (self.dir / 'place'))
        subprocess.run(
            [f'{BIN}/ansible-vault', 'encrypt', '--vault-password-file', word, secret],
            check=True,
            env={**os.environ, 'LC_ALL': 'C.UTF-8', 'HOME': str(self.dir)},
            capture_output=True,
        )
        self.settings.update(vault_password_file=str(word), vars_files=[str(secret)])
        self.play['values'] = {}
        found = self.run_tasks(self.task())
        self.assertEqual('succeeded', found['cmp1']['result'], found)
        self.assertEqual({'cmp1': '34.0.0'}, self.installed())

    def test_a_playbook_of_its_own_for_the_way_back(self):
        other = self.write('plays/back.yaml', UPGRADE.replace('nova_version', 'came_from'))
        play = {**self.play, 'playbook': str(other), 'vars': {'came_from': 'from_version'}}
        self.settings['undo'] = {'nova': play}
        self.run_tasks(self.task('cmp1', direction='back'))
        self.assertEqual({'cmp1': '33.0.2'}, self.installed())

    def test_pinned_playbook(self):
        self.play['sha256'] = trusted.digest(str(self.playbook))
        self.assertIsNone(self.strategy.refusal(self.task(), self.site()))
        self.write('plays/nova.yaml', UPGRADE + '\n')
        self.assertIn(
            'not the one that was pinned', self.strategy.refusal(self.task(), self.site())
        )


class TestCheck(AnsibleCase):
    def check(self, *hosts):
        return self.run_tasks(*[self.task(h, kind='check_host', project=None) for h in hosts])

    def test_reach_of_each_host(self):
        found = self.check('cmp1', 'cmp3', 'stranger')
        self.assertEqual(
            {'cmp1': 'succeeded', 'cmp3': 'failed', 'stranger': 'failed'}, self.results(found)
        )
        self.assertIn('unreachable', found['cmp3']['error'])

    def test_syntax(self):
        self.write('plays/nova.yaml', '- hosts: all\n  tasks: [{nonsense.module: {}}]\n')
        (outcome,) = self.check('cmp1').values()
        self.assertEqual('failed', outcome['result'])
        self.assertIn('nova.yaml', outcome['error'])

    def test_dry_run_as_check(self):
        self.play.update(
            dry_run=True, values={'place': str(self.dir / 'place'), 'nova_version': '1'}
        )
        (outcome,) = self.check('cmp1').values()
        self.assertEqual('succeeded', outcome['result'], outcome)
        self.assertEqual({}, self.installed())
        self.play.update(dry_run=True, values={'place': str(self.dir / 'place')})
        (outcome,) = self.check('cmp1').values()
        self.assertEqual({}, self.installed())
        self.assertEqual('failed', outcome['result'], outcome)
        self.assertIn("'nova_version' is undefined", outcome['error'])

    def test_files_that_others_can_write(self):
        (self.dir / 'plays' / 'roles').mkdir(mode=0o755)
        role = self.write('plays/roles/main.yaml', '')
        role.chmod(0o666)
        e = self.assertRaises(exception.Refused, self.check, 'cmp1')
        self.assertIn('roles/main.yaml can be written by group or others', str(e))
        self.playbook.chmod(0o664)
        self.assertIn('can be written', self.strategy.refusal(self.task(), self.site()))

    def test_link(self):
        link = self.dir / 'plays' / 'link.yaml'
        link.symlink_to(self.playbook)
        self.play['playbook'] = str(link)
        self.assertIn('symbolic link', self.strategy.refusal(self.task(), self.site()))

    def test_what_is_not_named_is_refused(self):
        site = self.site()
        self.assertIn('names no playbook for reboot_host',
                      self.strategy.refusal(self.task(kind='reboot_host'), site))  # fmt: skip
        self.assertIn('upgrade_service of glance',
                      self.strategy.refusal(self.task(project='glance'), site))  # fmt: skip
        self.assertIn('no name of a host', self.strategy.refusal(self.task('a;b'), site))

    def test_a_kind_of_which_nothing_is_said(self):
        del self.settings['playbooks']['db_contract']
        e = self.assertRaises(exception.Refused, self.check, 'cmp1')
        self.assertIn('says nothing of db_contract', str(e))

    def test_template_characters(self):
        for value in ('{{ lookup("pipe", "id") }}', {'deep': ['{% raw %}']}, 'a{#b'):
            self.play['values']['place'] = value
            self.assertIn('template characters', self.strategy.refusal(self.task(), self.site()))
        self.play['values'] = {}
        task = self.task(params={'version': '{{x}}'})
        self.assertIn('nova_version holds template', self.strategy.refusal(task, self.site()))

    def test_readable_vault_password(self):
        word = self.write('vault-password', 'secret\n', 0o644)
        self.settings['vault_password_file'] = str(word)
        self.assertIn('can be read', self.strategy.refusal(self.task(), self.site()))

    def test_hosts_of_names_and_groups(self):
        # a name that no host can have is left out
        self.assertEqual({'ctl1', 'cmp1', 'cmp2', 'cmp3'}, set(self.strategy.hosts(self.site())))

    def test_an_inventory_that_is_none(self):
        self.write('inventory.yaml', 'x: [')
        e = self.assertRaises(exception.Refused, self.strategy.hosts, self.site())
        self.assertIn('inventory cannot be read', str(e))

    def test_settings_that_say_nonsense(self):
        for key, value in (
            ('playbooks', {'rm': {}}),
            ('playbooks', {'upgrade_service': {'nova': {'playbook': 'relative.yaml'}}}),
            ('env', {'LD_PRELOAD': '/tmp/x.so'}),
            ('hosts', ['cmp1']),
        ):
            settings = {**self.settings, key: value}
            self.assertRaises(
                jsonschema.ValidationError, jsonschema.validate, settings, ansible.SETTINGS_SCHEMA
            )

    def test_the_sample_is_legal(self):
        root = pathlib.Path(__file__).parents[4]
        for sample in (root / 'etc/upgrade-service/engine.d').glob('ansible*.sample'):
            jsonschema.validate(yaml.safe_load(sample.read_text()), ansible.SETTINGS_SCHEMA)
