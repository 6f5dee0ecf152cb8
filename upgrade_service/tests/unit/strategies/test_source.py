"""Strategy `source` on a real package, real environments and processes."""

import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.request

import jsonschema

from upgrade_service import exception
from upgrade_service.engine import runner
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import source
from upgrade_service.tests import base
from upgrade_service.tests.unit.strategies import demo

OLD, NEW = '1.0.0', '2.0.0'
API, WORKER = 'demo-api.service', 'demo-worker.service'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class SourceCase(base.TestCase):
    #: install with the stand-in, which takes no time; else with pip
    installer = True

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.root, self.wheels = self.dir / 'stack', self.dir / 'wheels' / '2026.2'
        for path in (self.root, self.wheels, self.dir / 'projects.d', self.dir / 'state'):
            path.mkdir(parents=True)
        (self.dir / 'projects.d' / 'demo.yaml').write_text(demo.PROJECT)
        for version in (OLD, NEW):
            demo.make_wheel(self.wheels, version)
        (self.wheels / 'constraints.txt').write_text('')
        port = free_port()
        self.url = f'http://127.0.0.1:{port}/'
        bins = self.root / 'demo-current' / 'bin'
        self.systemd = demo.Systemd(
            self.dir,
            {API: [str(bins / 'demo-api'), str(port)], WORKER: [str(bins / 'demo-api'), '0']},
        )
        self.addCleanup(self.systemd.close)
        self.strategy = source.SourceUpgradeStrategy()
        self.settings = {
            'root': str(self.root),
            'python': demo.PYTHON,
            'installer': 'pip',
            'index': {'offline': True, 'find_links': f'{self.dir}/wheels/{{release}}'},
            'constraints': f'{self.dir}/wheels/{{release}}/constraints.txt',
            'projects': {'demo': {'env': {'DEMO_STATE': f'{self.dir}/migrated'}}},
            'systemctl': str(self.systemd.systemctl),
            'ready': {'demo': {'url': self.url, 'codes': [200], 'timeout': 20}},
            'min_free_mb': 1,
        }
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0
        if self.installer:
            self.settings['installer'] = str(self.dir / 'uv')
            (self.dir / 'uv').write_text(demo.INSTALLER)
            (self.dir / 'uv').chmod(0o755)

    def site(self):
        jsonschema.validate(self.settings, self.strategy.settings_schema)
        return strategies.Site(
            host='h',
            settings=self.settings,
            state_dir=str(self.dir / 'state'),
            projects=loader.load_projects(str(self.dir / 'projects.d')),
        )

    def task(self, kind, undo=False, **params):
        self.count += 1
        if undo:  # as the planner plans the way back
            back = {'version': params.get('from_version'), 'from_version': params['version']}
            params = {k: v for k, v in {**params, **back}.items() if v and k != 'commit'}
        return strategies.Task(
            step=f's{self.count}',
            attempt=1,
            kind=kind,
            host='h',
            project='demo',
            params={'release': '2026.2', **params},
            timeout=300,
            direction='back' if undo else 'forward',
        )

    def check(self, kind, **params):
        return self.strategy.check(self.task(kind, **params), self.site())

    def do(self, kind, undo=False, **params):
        """Do a step as an engine would; return the outcome and the output."""
        task = self.task(kind, undo, **params)
        made = (self.strategy.undo if undo else self.strategy.run)(task, self.site())
        if isinstance(made, strategies.Outcome):
            return {**runner.of_outcome(made)}
        process = self.runner.start(task, made, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        said = self.runner.outcome(task.step, 1)
        return {**said, 'output': self.runner.output(task.step, 1)}

    def good(self, kind, **more):
        said = self.do(kind, **more)
        self.assertEqual('succeeded', said['result'], said)
        return said

    def install_old(self):
        """Bring the host to where an upgrade begins: the old version runs."""
        self.good('prefetch', version=OLD)
        (self.root / 'demo-current').symlink_to(f'demo-{OLD}')
        self.good('restart_service')

    def answers(self):
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            return answer.read().decode()


class TestWithPip(SourceCase):
    installer = False

    def test_there_and_back(self):
        self.install_old()
        self.assertEqual(OLD, self.answers())
        self.good('check_host')
        self.assertFalse(self.check('prefetch', version=NEW))
        self.good('prefetch', version=NEW)
        self.assertTrue(self.check('prefetch', version=NEW))
        self.assertEqual(OLD, self.answers())  # nothing was touched yet
        self.assertEqual('failed', self.do('verify_host', version=NEW)['result'])

        checked = self.good('upgrade_check', version=NEW)
        self.assertIn('broke', checked['data']['warnings'][0])
        self.assertIn(f'{NEW} --config-file /etc/demo.conf check', checked['output'])
        # the old code's own migrations, then the new one's
        self.assertIn(f'{OLD} sync', self.good('db_expand', version=OLD)['output'])
        self.assertIn(f'{NEW} sync', self.good('db_expand', version=NEW)['output'])
        self.good('online_migrations', version=NEW)
        self.assertEqual('xxx', (self.dir / 'migrated').read_text())

        self.systemd.calls.clear()
        self.assertFalse(self.check('upgrade_service', version=NEW))
        self.good('upgrade_service', version=NEW, from_version=OLD)
        self.assertIn(('restart', API, WORKER), self.systemd.calls)
        self.assertEqual(NEW, self.answers())
        self.assertEqual(f'demo-{NEW}', os.readlink(self.root / 'demo-current'))
        self.assertTrue(self.check('upgrade_service', version=NEW))
        said = self.good('verify_host', version=NEW)
        self.assertEqual({'version': NEW}, said['data'])

        self.good('upgrade_service', undo=True, version=NEW, from_version=OLD)
        self.assertEqual(OLD, self.answers())
        self.good('verify_host', version=OLD)


class TestUpgrade(SourceCase):
    def test_facts(self):
        self.install_old()
        self.systemd.stop(WORKER)
        found = self.strategy.facts(self.site())['projects']
        self.assertEqual({'demo'}, set(found))
        services = sorted((s['binary'], s['state']) for s in found['demo']['services'])
        self.assertEqual([('demo-api', 'active'), ('demo-worker', 'failed')], services)
        self.assertEqual((OLD, 'venv'), (found['demo']['version'], found['demo']['how']))

    def test_only_the_units_of_the_step_restart(self):
        self.install_old()
        before = self.systemd.pid(API)
        self.good('prefetch', version=NEW)
        self.good('upgrade_service', version=NEW, units=['demo-worker'])
        self.assertEqual(before, self.systemd.pid(API))
        said = self.do('verify_host', version=NEW, units=['demo-worker'])
        self.assertEqual('succeeded', said['result'], said)
        self.assertRaises(
            exception.Refused, self.do, 'upgrade_service', version=NEW, units=['demo-other']
        )

    def test_stopped_until_it_is_upgraded_or_the_stop_is_undone(self):
        self.install_old()
        self.good('prefetch', version=NEW)
        self.systemd.calls.clear()
        for undo in (False, True):
            self.good('stop_service', version=NEW, units=['demo-api', 'demo-worker'])
            self.assertEqual(('stop', API, WORKER), self.systemd.calls[-1])
            self.assertRaises(OSError, self.answers)
            if undo:
                self.good('stop_service', undo=True, version=NEW, from_version=OLD)
                self.assertEqual(OLD, self.answers())
        self.good('stop_service', version=NEW, units=['demo-api'])
        self.good('upgrade_service', version=NEW, from_version=OLD)
        self.assertEqual(NEW, self.answers())

    def test_an_api_restarts_after_the_others(self):
        self.install_old()
        known = self.dir / 'projects.d' / 'demo.yaml'
        known.write_text(
            demo.PROJECT.replace(
                'demo-api: {plane: control, start: 1', 'demo-api: {plane: control, start: 2'
            )
        )
        self.systemd.calls.clear()
        self.good('restart_service')
        restarts = [call for call in self.systemd.calls if call[0] == 'restart']
        self.assertEqual([('restart', WORKER), ('restart', API)], restarts)

    def test_old_processes_are_seen_after_a_switch(self):
        self.install_old()
        self.good('prefetch', version=NEW)
        link = self.root / 'demo-current'
        link.unlink()
        link.symlink_to(f'demo-{NEW}')
        # the link was changed, long after the processes began
        late = os.lstat(link).st_mtime + 60
        os.utime(link, (late, late), follow_symlinks=False)
        said = self.do('verify_host', version=NEW)
        self.assertIn('runs older code', said['error'])
        self.assertFalse(self.check('upgrade_service', version=NEW))

    def test_a_unit_that_does_not_start(self):
        self.install_old()
        # imported and asked for help it is fine: only a real start shows it
        extra = 'sys.exit(9) if len(sys.argv) == 2 and sys.argv[1].isdigit() else None'
        demo.make_wheel(self.wheels, '3.0.0', extra)
        self.good('prefetch', version='3.0.0')
        self.settings['ready']['demo']['timeout'] = 1
        said = self.do('upgrade_service', version='3.0.0')
        self.assertEqual('failed', said['result'])
        self.assertIn('last words of demo-api.service', said['output'])
        self.good('upgrade_service', version=OLD, from_version='3.0.0')
        self.assertEqual(OLD, self.answers())


class TestPrefetch(SourceCase):
    def test_code_that_cannot_be_imported_is_found_before_anything_stops(self):
        self.install_old()
        demo.make_wheel(self.wheels, '3.0.0', extra='import pyroute_not_declared')
        said = self.do('prefetch', version='3.0.0')
        self.assertEqual('failed', said['result'])
        self.assertIn('pyroute_not_declared', said['output'])
        self.assertIn('No module named', said['error'])
        self.assertFalse(self.check('prefetch', version='3.0.0'))
        # what it left is not taken for an environment, and is built anew
        demo.make_wheel(self.wheels, '3.0.0')
        self.good('prefetch', version='3.0.0')
        self.assertEqual(OLD, self.answers())

    def test_what_is_in_use_is_never_built_anew(self):
        self.install_old()
        (self.root / f'demo-{OLD}' / '.proved').unlink()
        self.assertTrue(self.check('prefetch', version=OLD))
        self.assertRaises(exception.Refused, self.do, 'prefetch', version=OLD)

    def test_a_version_that_is_not_there(self):
        said = self.do('prefetch', version='9.9.9')
        self.assertEqual('failed', said['result'])
        self.assertFalse(self.check('prefetch', version='9.9.9'))
        self.assertRaises(exception.Refused, self.do, 'upgrade_service', version='8.8.8')


class TestCommit(SourceCase):
    """A real checkout, built by its own backend and installed by the real pip."""

    installer = False

    def setUp(self):
        super().setUp()
        self.mirror = self.dir / 'mirror'
        demo.make_source(self.mirror, '2.0.1.dev7')
        self.git('init', '-q')
        self.commit = self.committed()
        self.settings['git'] = {'demo': str(self.mirror)}

    def git(self, *command):
        git = ['/usr/bin/git', '-C', str(self.mirror), '-c', 'user.name=t', '-c', 'user.email=t@t']
        return subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout

    def committed(self):
        self.git('add', '-A')
        self.git('commit', '-qm', 'change')
        return self.git('rev-parse', 'HEAD').strip()

    def test_the_commit_and_no_other(self):
        self.install_old()
        demo.make_source(self.mirror, '2.0.1.dev8')
        self.committed()
        wanted = {'version': f'{NEW}+g{self.commit[:12]}', 'commit': self.commit}
        self.good('prefetch', **wanted)
        self.assertTrue(self.check('prefetch', **wanted))
        self.good('upgrade_service', from_version=OLD, **wanted)
        self.assertEqual('2.0.1.dev7', self.answers())
        self.good('verify_host', **wanted)
        self.assertEqual('failed', self.do('verify_host', version=NEW)['result'])
        seen = self.strategy.facts(self.site())['projects']['demo']
        self.assertEqual(wanted['version'], seen['version'])
        self.good('upgrade_service', undo=True, from_version=OLD, **wanted)
        self.assertEqual(OLD, self.answers())

    def test_a_commit_that_the_mirror_does_not_have(self):
        said = self.do('prefetch', version=NEW, commit='a' * 40)
        self.assertEqual('failed', said['result'])
        self.assertIn('check out', said['error'])
        self.settings['git'] = {}
        self.assertRaises(exception.Refused, self.do, 'prefetch', version=NEW, commit='a' * 40)


class TestInPlace(SourceCase):
    def setUp(self):
        super().setUp()
        self.env = self.dir / 'demo-env'
        self.settings['projects']['demo']['in_place'] = str(self.env)
        port = self.url.rsplit(':', 1)[1].strip('/')
        bins = self.env / 'bin'
        for unit, argument in ((API, port), (WORKER, '0')):
            self.systemd.units[unit] = [str(bins / 'demo-api'), argument]
        python = self.settings['python']
        subprocess.run([python, '-m', 'venv', '--without-pip', str(self.env)], check=True)
        uv, links = self.settings['installer'], f'{self.dir}/wheels/2026.2'
        argv = [
            uv,
            '--python',
            f'{bins}/python',
            '--find-links',
            links,
            '--',
            f'demo-service=={OLD}',
        ]
        subprocess.run(argv, check=True)
        self.good('restart_service')

    def test_there_and_back(self):
        wanted = {'version': NEW, 'from_version': OLD}
        self.assertEqual(OLD, self.answers())
        self.good('prefetch', **wanted)
        self.assertIn(f'{NEW} sync', self.good('db_expand', **wanted)['output'])
        self.assertEqual(OLD, self.answers())
        self.assertFalse(self.check('upgrade_service', **wanted))
        self.good('upgrade_service', **wanted)
        self.assertEqual(NEW, self.answers())
        self.assertTrue(self.check('upgrade_service', **wanted))
        self.good('verify_host', **wanted)
        before = sorted(p.name for p in self.dir.iterdir())
        self.assertIn(f'demo-env.{OLD}', before)

        self.good('upgrade_service', undo=True, **wanted)
        self.assertEqual(OLD, self.answers())
        self.good('verify_host', version=OLD)
        self.assertFalse((self.dir / f'demo-env.{OLD}').exists())

    def test_old_processes_are_seen(self):
        self.good('prefetch', version=NEW)
        later = time.time() + 60
        (info,) = self.env.glob('lib/python3*/site-packages/demo_service-*.dist-info')
        os.utime(info, (later, later))
        self.assertIn('runs older code', self.do('verify_host', version=OLD)['error'])

    def test_an_install_that_breaks_off(self):
        wanted = {'version': '3.0.0', 'from_version': OLD}
        demo.make_wheel(self.wheels, '3.0.0')
        self.good('prefetch', **wanted)
        (self.wheels / 'demo_service-3.0.0-py3-none-any.whl').unlink()
        self.assertEqual('failed', self.do('upgrade_service', **wanted)['result'])
        # what was kept is what was there before, also after a second attempt
        self.assertEqual('failed', self.do('upgrade_service', **wanted)['result'])
        self.env.rename(self.dir / 'lost')  # as if killed between the two renames
        task = self.task('upgrade_service', undo=True, **wanted)
        self.assertIsNone(self.strategy.refusal(task, self.site()))
        self.good('upgrade_service', undo=True, **wanted)
        self.assertEqual(OLD, self.answers())

    def test_no_way_back_no_way_on(self):
        self.good('prefetch', version=NEW)
        self.assertRaises(exception.Refused, self.do, 'upgrade_service', version=NEW)
        for more in ({'from_version': OLD, 'commit': 'a' * 40}, {'from_version': '0.1'}):
            undo = 'commit' not in more
            self.assertRaises(
                exception.Refused, self.do, 'upgrade_service', undo=undo, version=NEW, **more
            )


class TestBackup(SourceCase):
    def backup(self, script):
        self.settings['backup'] = {
            'dir': str(self.dir / 'backups'),
            'command': ['/bin/sh', '-c', script, 'dump'],
        }
        return self.do('backup_database')

    def test_a_whole_dump_is_kept(self):
        said = self.backup('echo "databases $*"; echo "-- Dump completed"')
        self.assertEqual('succeeded', said['result'], said)
        (kept,) = (self.dir / 'backups').glob('*.sql')
        self.assertEqual('databases demo\n-- Dump completed\n', kept.read_text())
        self.assertEqual(0o600, kept.stat().st_mode & 0o777)
        self.assertEqual(0o700, kept.parent.stat().st_mode & 0o777)

    def test_a_dump_that_broke_off_is_not(self):
        for script in ('echo half', 'echo "-- Dump completed"; exit 3'):
            self.assertEqual('failed', self.backup(script)['result'])
        self.assertEqual([], list((self.dir / 'backups').glob('*.sql')))


class TestRefusals(SourceCase):
    def test_projects(self):
        site = self.site()
        known = self.task('prefetch', version=NEW)
        self.assertIn('not installed here', self.strategy.refusal(known, site))
        other = strategies.Task(**{**vars(known), 'project': '../etc'})
        self.assertIn('no project data', self.strategy.refusal(other, site))

    def test_settings_that_are_no_settings(self):
        for key, value in (
            ('root', 'relative'),
            ('python', 'python3'),
            ('extra', ['--index-url=http://evil']),
            ('surprise', 1),
            ('backup', {'command': ['mysqldump']}),
        ):
            self.settings[key] = value
            self.assertRaises(jsonschema.ValidationError, self.site)
            del self.settings[key]
            self.settings['root'] = str(self.root)
