"""Strategy `host`: operating-system packages with the real apt, and restarts up to the command."""

import json
import pathlib
import platform
import stat
import tempfile

import jsonschema

from upgrade_service import exception
from upgrade_service.engine import facts, runner, settings
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import host
from upgrade_service.tests import base
from upgrade_service.tests.unit.strategies import debs

SYSTEMCTL = """#!/usr/bin/python3 -IS
import sys
if sys.argv[1] == 'reboot':
    open({folder!r} + '/rebooted', 'a').write(' '.join(sys.argv[1:]) + chr(10))
else:
    print(open({folder!r} + '/units').read())
"""
UNIT = 'Id={}\nLoadState=loaded\nActiveState={}\nUnitFileState={}\nMainPID=1\n'


class HostCase(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(dir=debs.memory())
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        (self.dir / 'state').mkdir()
        (self.dir / 'systemctl').write_text(SYSTEMCTL.format(folder=str(self.dir)))
        (self.dir / 'systemctl').chmod(stat.S_IRWXU)
        self.units(('ssh.service', 'active', 'enabled'), ('x.service', 'inactive', 'enabled'))
        self.settings = {'backend': 'apt', 'systemctl': str(self.dir / 'systemctl')}
        self.settings |= {'min_free_mb': 1, 'root': str(self.dir / 'tree')}
        self.strategy = host.HostUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0

    def units(self, *rows):
        (self.dir / 'units').write_text('\n'.join(UNIT.format(*row) for row in rows))

    def site(self):
        jsonschema.validate(self.settings, self.strategy.settings_schema)
        return strategies.Site(
            host='h',
            settings=self.settings,
            state_dir=str(self.dir / 'state'),
            projects=loader.load_projects(),
        )

    def task(self, kind, step=None):
        self.count += 1
        return strategies.Task(
            step=step or f's{self.count}',
            attempt=1,
            kind=kind,
            host='h',
            project=None,
            params={},
            timeout=300,
        )

    def check(self, kind, step=None):
        return self.strategy.check(self.task(kind, step), self.site())

    def do(self, kind):
        task = self.task(kind)
        made = self.strategy.run(task, self.site())
        if isinstance(made, strategies.Outcome):
            return {**runner.of_outcome(made)}
        process = self.runner.start(task, made, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        return {**self.runner.outcome(task.step, 1), 'output': self.runner.output(task.step, 1)}


class TestPackages(HostCase):
    def setUp(self):
        super().setUp()
        why = debs.missing()
        if why:
            self.skipTest(why)
        self.tree = debs.Tree(self.dir)
        self.addCleanup(self.tree.close)
        for name in ('openvswitch-switch', 'libfoo1', 'nova-compute', 'python3-nova'):
            self.tree.build(name, '1.0-1')
        self.tree.index()
        self.tree.install('openvswitch-switch', 'libfoo1', 'nova-compute', 'python3-nova')
        for name in ('openvswitch-switch', 'libfoo1', 'nova-compute', 'python3-nova'):
            self.tree.build(name, '1.1-1')
        self.tree.index()

    def versions(self):
        names = ('openvswitch-switch', 'libfoo1', 'nova-compute', 'python3-nova')
        return [self.tree.version(name)[0] for name in names]

    def test_everything_but_openstack(self):
        self.assertEqual('succeeded', self.do('check_host')['result'])
        self.assertFalse(self.check('upgrade_host'))
        self.assertEqual('failed', self.do('verify_host')['result'])
        self.assertEqual('succeeded', self.do('prefetch')['result'])
        self.assertEqual(['1.0-1'] * 4, self.versions())
        done = self.do('upgrade_host')
        self.assertEqual('succeeded', done['result'], done)
        self.assertEqual(['libfoo1=1.1-1', 'openvswitch-switch=1.1-1'], done['data']['packages'])
        self.assertEqual(['1.1-1', '1.1-1', '1.0-1', '1.0-1'], self.versions())
        self.assertTrue(self.check('upgrade_host'))
        self.assertEqual('succeeded', self.do('verify_host')['result'])
        with self.assertRaises(exception.Refused):
            self.strategy.undo(self.task('upgrade_host'), self.site())

    def test_only_what_the_list_names(self):
        self.settings['packages'] = ['openvswitch-*', 'lib*']
        self.settings['exclude'] = ['libfoo*']
        self.do('check_host')
        self.do('upgrade_host')
        self.assertEqual(['1.1-1', '1.0-1', '1.0-1', '1.0-1'], self.versions())

    def test_found_by_the_check(self):
        self.tree.trust(False)
        self.assertIn('Signed-By', self.do('check_host')['error'])
        self.tree.trust()
        self.settings['min_free_mb'] = 2**40
        self.assertIn('make room', self.do('check_host')['error'])
        self.assertEqual(['1.0-1'] * 4, self.versions())


class TestRestart(HostCase):
    """The restart itself is the lab's; here is everything around it."""

    def setUp(self):
        super().setUp()
        (self.dir / 'tree' / 'boot').mkdir(parents=True)
        (self.dir / 'tree' / 'run').mkdir()

    def kernel(self, name):
        (self.dir / 'tree' / 'boot' / f'vmlinuz-{name}').touch()

    def test_facts_leave_the_name_of_the_host_alone(self):
        (self.dir / 'engine.d').mkdir(mode=0o700)
        (self.dir / 'engine.d' / 'host.yaml').write_text(json.dumps(self.settings))
        projects = loader.load_projects()
        allowed = settings.Allowed(
            'h', str(self.dir / 'engine.d'), str(self.dir), projects, {'host': self.strategy}
        )
        found = facts.collect('agent', 'h', allowed)
        self.assertEqual(('agent', 'h'), (found['agent'], found['host']))
        self.assertEqual(platform.release(), found['machine']['kernel'])
        self.assertTrue(found['strategies']['host']['ready'])

    def test_only_if_it_is_required(self):
        self.assertTrue(self.check('reboot_host'))
        (self.dir / 'tree' / 'run' / 'reboot-required').touch()
        self.assertFalse(self.check('reboot_host'))
        self.settings['reboot'] = 'never'
        self.assertTrue(self.check('reboot_host'))
        (self.dir / 'tree' / 'run' / 'reboot-required').unlink()
        self.settings['reboot'] = 'always'
        self.assertFalse(self.check('reboot_host'))

    def test_a_newer_kernel(self):
        running = platform.release()
        flavour = running.lstrip('0123456789.~+-')
        self.kernel(f'99.1.0-9{"-" * bool(flavour)}{flavour}')
        self.assertTrue(self.check('reboot_host'), 'the running one is not from here')
        self.kernel(running)
        self.assertFalse(self.check('reboot_host'))
        system = host.System(self.site())
        self.kernel(f'99.1.0-10{"-" * bool(flavour)}{flavour}')
        self.assertIn('99.1.0-10', system.newest_kernel())
        self.assertIn('is installed', system.asked())

    def test_once_and_what_must_be_up_after_it(self):
        self.settings['reboot'] = 'always'
        task = self.task('reboot_host', 'step-1')
        job = self.strategy.run(task, self.site())
        self.assertTrue(job.reboots)
        self.assertFalse(job.interruptible)
        write, restart = job.ops
        self.assertEqual(('reboot', '--no-block'), restart.argv[1:])
        told = json.loads(write.text)
        self.assertEqual(['ssh.service'], told['services'])
        # it is written down before the restart, so it is never begun twice
        pathlib.Path(write.path).write_text(write.text)
        self.assertFalse(self.check('reboot_host', 'step-1'), 'the same boot')
        with self.assertRaisesRegex(exception.Refused, 'restarted for this step already'):
            self.strategy.run(task, self.site())
        # another boot
        pathlib.Path(write.path).write_text(json.dumps({**told, 'boot_id': 'before'}))
        self.assertTrue(self.check('reboot_host', 'step-1'))
        self.units(('ssh.service', 'failed', 'enabled'))
        self.assertFalse(self.check('reboot_host', 'step-1'))
        self.units(('ssh.service', 'active', 'enabled'))
        pathlib.Path(write.path).write_text(
            json.dumps({**told, 'boot_id': 'before', 'kernel': '99.1'})
        )
        self.assertFalse(self.check('reboot_host', 'step-1'), 'the old kernel again')
        # a later step has a restart of its own
        self.assertFalse(self.check('reboot_host', 'step-2'))

    def test_order_of_kernels(self):
        names = ['6.1.0-10-amd64', '6.1.0-9-amd64', '6.12.3-1-amd64', '6.1.0-10-cloud-amd64']
        self.assertEqual('6.12.3-1-amd64', max(names, key=host._numbers))
        self.assertGreater(host._numbers('6.1.0-10-amd64'), host._numbers('6.1.0-9-amd64'))
