"""Quorums of three, asked and made final as the engine does it: Galera and RabbitMQ of Debian.

`tools/quorums.sh start` made them; a member that a test takes out stays out, so what needs
all three comes first (the tests run in the order of their names).
"""

import os
import pathlib
import subprocess
import tempfile

from upgrade_service.engine import runner
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import members
from upgrade_service.strategies.programs import members as program
from upgrade_service.tests import base

TOOL = pathlib.Path(__file__).parents[3] / 'tools' / 'quorums.sh'


def quorums(*words):
    return subprocess.run([TOOL, *words], capture_output=True, text=True, check=True).stdout


class Places:
    """What a strategy knows of the host of one member."""

    def __init__(self, settings):
        self.settings = {'members': settings}
        self._projects = loader.load_projects()

    def data(self, project):
        return self._projects.get(project)


class MemberCase(base.TestCase):
    name = ''

    def setUp(self):
        super().setUp()
        if not os.environ.get('UPGRADE_TEST_QUORUMS'):
            self.skipTest('tools/run_tests.sh quorums starts what this asks')
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.runner = runner.Runner(self.dir / 'attempts', self.dir / 'lock')
        self.count = 0

    def ask(self, member):
        return program.READERS[self.name](self.settings(member))

    def do(self, kind, member, **change):
        self.count += 1
        task = strategies.Task(
            step=f's{self.count}',
            attempt=1,
            kind=kind,
            host='h',
            project=self.name,
            params={},
            timeout=60,
        )
        places = Places({self.name: self.settings(member)})
        job = members.JOBS[kind](
            task, places, strategies.Site(host='h', settings={}, state_dir='/')
        )
        process = self.runner.start(task, job, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        said = self.runner.outcome(task.step, 1)
        return {**said, 'output': self.runner.output(task.step, 1)}


class TestGalera(MemberCase):
    name = 'mariadb'

    def settings(self, member):
        path = pathlib.Path(os.environ['UPGRADE_TEST_QUORUMS']) / f'sql{member}.cnf'
        socket = quorums('socket', str(member)).strip()
        path.write_text(f'[client]\nsocket = {socket}\nuser = root\n')
        return {'credentials': str(path)}

    def test_1_each_sees_all_and_is_made_final(self):
        seen = [self.ask(member) for member in (1, 2, 3)]
        self.assertEqual([3, 3, 3], [s['size'] for s in seen])
        self.assertEqual(1, len({s['cluster'] for s in seen}))
        self.assertEqual([[], [], []], [s['faults'] for s in seen])
        self.assertEqual('succeeded', self.do('check_members', 1)['result'])
        for member in (1, 2, 3):
            said = self.do('finish_members', member)
            self.assertEqual('succeeded', said['result'], said)
            self.assertIn('mariadb-upgrade', said['output'])
        self.assertEqual([3, 3, 3], [self.ask(member)['size'] for member in (1, 2, 3)])

    def test_2_without_the_majority_nothing_is_made_final(self):
        quorums('kill-member', 'sql2')
        quorums('kill-member', 'sql3')
        end = 60
        while not self.ask(1)['faults'] and end:
            end -= 1
            subprocess.run(['/bin/sleep', '1'], check=True)
        self.assertIn('wsrep_cluster_status is non-Primary, not Primary', self.ask(1)['faults'])
        said = self.do('finish_members', 1)
        self.assertEqual('failed', said['result'])
        self.assertIn('non-Primary', said['error'])
        self.assertNotIn('Phase', said['output'])


class TestRabbitMQ(MemberCase):
    name = 'rabbitmq'

    def settings(self, member):
        lines = quorums('rabbit-env', str(member)).splitlines()
        env = dict(line.split('=', 1) for line in lines)
        return {'bin': '/usr/lib/rabbitmq/bin', 'env': env}

    def test_1_flags_are_enabled_when_all_are_there(self):
        seen = self.ask(2)
        self.assertEqual((3, 0, []), (seen['size'], seen['missing'], seen['faults']))
        self.assertEqual(3, len(seen['versions']))
        self.assertNotEqual([], seen['disabled_flags'])
        self.assertEqual('succeeded', self.do('check_members', 1)['result'])
        said = self.do('finish_members', 1)
        self.assertEqual('succeeded', said['result'], said)
        self.assertEqual([], self.ask(3)['disabled_flags'])

    def test_2_without_a_member_nothing_is_made_final(self):
        quorums('kill-member', 'rabbit3')
        end = 60
        while not self.ask(1)['faults'] and end:
            end -= 1
        said = self.do('finish_members', 1)
        self.assertEqual('failed', said['result'])
        self.assertIn('rabbit3@localhost does not run', said['error'])
        self.assertNotIn('enable_feature_flag', said['output'])
