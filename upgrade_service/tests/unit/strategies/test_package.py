"""Strategy `package` on real packages, with the real apt and dpkg, in a tree to throw away."""

import fcntl
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

import jsonschema

from upgrade_service import exception
from upgrade_service.engine import runner
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import package, package_apt, package_dnf, package_tool
from upgrade_service.tests import base
from upgrade_service.tests.unit.strategies import debs, demo
from upgrade_service.tests.unit.strategies.test_source import free_port

OLD, NEW = '1.0.0', '2.0.0'
OLD_DEB, NEW_DEB = '2:1.0.0-1', '2:2.0.0-1'
API, WORKER = 'demo-api.service', 'demo-worker.service'
GOAL = {'projects': {'demo': NEW}, 'units': ['demo-api', 'demo-worker']}
#: what a maintainer script does where nobody forbids it
STARTS = 'invoke-rc.d demo-thing restart || true; echo started >>/restarted'
POLICY = """
rc=0
/usr/sbin/policy-rc.d demo-api restart || rc=$?
echo "policy $rc" >>/policy
"""


class PackageCase(base.TestCase):
    def setUp(self):
        super().setUp()
        why = debs.missing()
        if why:
            self.skipTest(why)
        folder = tempfile.TemporaryDirectory(dir=debs.memory())
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        for path in ('projects.d', 'state'):
            (self.dir / path).mkdir()
        (self.dir / 'projects.d' / 'demo.yaml').write_text(demo.PROJECT)
        self.make_tree()
        self.port = free_port()
        self.url = f'http://127.0.0.1:{self.port}/'
        inside = ['/usr/sbin/chroot', str(self.tree.root), '/usr/bin/demo-api']
        self.systemd = demo.Systemd(
            self.dir, {API: [*inside, str(self.port)], WORKER: [*inside, '0']}
        )
        self.addCleanup(self.systemd.close)
        self.systemd.do(['restart', API, WORKER])
        self.strategy = package.PackageUpgradeStrategy()
        self.settings = {
            'backend': 'apt',
            'root': str(self.tree.root),
            'projects': {
                'demo': {
                    'packages': ['python3-demo', 'demo-*'],
                    'env': {'DEMO_STATE': f'{self.dir}/migrated'},
                }
            },
            'systemctl': str(self.systemd.systemctl),
            'ready': {'demo': {'url': self.url, 'codes': [200], 'timeout': 20}},
            'min_free_mb': 1,
        }
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0
        self.start_waits()

    def make_tree(self):
        """Make the system, with the old version of the project in it."""
        self.tree = debs.Tree(self.dir)
        self.addCleanup(self.tree.close)
        self.offer(OLD)
        self.tree.install(f'demo-api={OLD_DEB}', f'python3-demo={OLD_DEB}')

    @staticmethod
    def code(version):
        return '#!/usr/bin/python3\n' + demo.CODE.format(version=version, extra='')

    def start_waits(self):
        """Wait until the old version answers."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                return self.answers()
            except OSError:
                time.sleep(0.05)
        raise AssertionError('the old demo-api does not answer')

    def offer(self, version, epoch='2:', postinst=POLICY, **more):
        """Put a version of the project into the repository."""
        code = self.code(version)
        own = f'{epoch}{version}-1'
        self.tree.build(
            'python3-demo',
            own,
            files={'/usr/bin/demo-manage': f'{code}\nsys.exit(manage())\n'},
        )
        self.tree.build(
            'demo-api',
            own,
            files={'/usr/bin/demo-api': f'{code}\nsys.exit(api())\n'},
            conffiles={'/etc/demo/demo.conf': f'made_for = {version}\n'},
            depends=f'python3-demo (= {own})',
            postinst=postinst,
            **more,
        )
        self.tree.index()
        self.tree.sh('apt-get', 'update', '-qq')

    def site(self, **more):
        jsonschema.validate(self.settings, self.strategy.settings_schema)
        return strategies.Site(
            host='h',
            settings=self.settings,
            state_dir=str(self.dir / 'state'),
            projects=loader.load_projects(str(self.dir / 'projects.d')),
            **more,
        )

    def task(self, kind, undo=False, project='demo', **params):
        self.count += 1
        if undo and 'version' in params:  # as the planner plans the way back
            back = {'version': params.get('from_version'), 'from_version': params['version']}
            params = {k: v for k, v in {**params, **back}.items() if v}
        return strategies.Task(
            step=f's{self.count}',
            attempt=1,
            kind=kind,
            host='h',
            project=project,
            params={'release': '2026.2', **params},
            timeout=300,
            direction='back' if undo else 'forward',
        )

    def begin(self, kind, undo=False, **more):
        """Make the job of a step and start it."""
        task = self.task(kind, undo, **more)
        made = (self.strategy.undo if undo else self.strategy.run)(task, self.site())
        if isinstance(made, strategies.Outcome):
            return task, {**runner.of_outcome(made)}
        self.last_job = made
        return task, self.runner.start(task, made, 'u')

    def do(self, kind, undo=False, **more):
        """Do a step as an engine would; return its outcome with what was printed."""
        task, process = self.begin(kind, undo, **more)
        if isinstance(process, dict):
            return process
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        said = self.runner.outcome(task.step, 1)
        return {**said, 'output': self.runner.output(task.step, 1)}

    def good(self, kind, **more):
        said = self.do(kind, **more)
        self.assertEqual('succeeded', said['result'], said)
        return said

    def bad(self, kind, **more):
        said = self.do(kind, **more)
        self.assertEqual('failed', said['result'], said)
        return said

    def checked(self, **projects):
        return self.do('check_host', project=None, projects=projects or {'demo': NEW})

    def answers(self):
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            return answer.read().decode()

    def policy(self):
        return self.tree.root / 'usr/sbin/policy-rc.d'

    def at(self, version, state='ii'):
        for name in ('demo-api', 'python3-demo'):
            self.assertEqual((version, state), self.tree.version(name))


class TestApt(PackageCase):
    def test_there_and_back(self):
        self.offer(NEW)
        facts = self.strategy.facts(self.site())['projects']['demo']
        self.assertEqual((OLD, 'package'), (facts['version'], facts['how']))
        self.assertEqual([NEW_DEB, OLD_DEB], facts['available']['demo-api'])
        self.assertEqual({'demo-api', 'demo-worker'}, {s['binary'] for s in facts['services']})

        self.assertEqual('succeeded', self.checked()['result'])
        fetched = self.good('prefetch', project=None, projects={'demo': NEW})
        self.assertIn(f'demo-api={NEW_DEB}', fetched['data']['packages'])
        self.at(OLD_DEB)

        (self.tree.root / 'etc/demo/demo.conf').write_text('the operator wrote this\n')
        time.sleep(1.5)  # what began a second before its packages changed counts as begun after
        done = self.good('upgrade_packages', project=None, **GOAL)
        self.at(NEW_DEB)
        # nothing was restarted, and the policy said so to the maintainer scripts
        self.assertEqual(OLD, self.answers())
        self.assertEqual('policy 101', (self.tree.root / 'policy').read_text().split('\n')[-2])
        self.assertFalse(self.policy().exists())
        # the operator's configuration is as it was, and the new one is named
        kept = self.tree.root / 'etc/demo/demo.conf'
        self.assertEqual('the operator wrote this\n', kept.read_text())
        self.assertEqual([f'{kept}.dpkg-dist'], done['data']['kept_configuration'])
        self.assertEqual('failed', self.do('verify_host', version=NEW)['result'])

        self.assertIn(NEW, self.good('db_expand', version=NEW)['output'])
        self.good('upgrade_service', version=NEW, units=['demo-api', 'demo-worker'])
        self.assertEqual(NEW, self.answers())
        self.assertEqual(NEW, self.good('verify_host', version=NEW)['data']['version'])
        site = self.site()
        self.assertTrue(self.strategy.check(self.task('upgrade_service', version=NEW), site))

        # back, service by service: the packages of the host go together
        self.good('upgrade_service', undo=True, version=NEW, from_version=OLD)
        self.at(OLD_DEB)
        self.assertEqual(OLD, self.answers())
        before = len(self.systemd.calls)
        self.good('upgrade_packages', undo=True, project=None, **GOAL)
        self.assertNotIn('restart', {call[0] for call in self.systemd.calls[before:]})
        self.assertEqual(OLD, self.good('verify_host', version=OLD)['data']['version'])

    def test_undo_of_the_packages_alone_restarts_what_ran_them(self):
        self.offer(NEW)
        self.good('upgrade_packages', project=None, **GOAL)
        self.good('upgrade_service', version=NEW)
        self.assertEqual(NEW, self.answers())
        self.good('upgrade_packages', undo=True, project=None, **GOAL)
        self.at(OLD_DEB)
        self.assertEqual(OLD, self.answers())

    def test_what_the_repository_forgot_comes_back_from_what_was_kept(self):
        self.offer(NEW)
        kept = self.tree.root / package_apt.KEPT.lstrip('/')
        kept.mkdir(parents=True)
        for path in self.tree.repo.glob('*1.0.0*.deb'):
            name = path.name.replace('_1.0.0', '_2%3a1.0.0')
            path.rename(kept / name)
        self.tree.index()
        self.tree.sh('apt-get', 'update', '-qq')
        self.good('upgrade_packages', project=None, **GOAL)
        self.good('upgrade_packages', undo=True, project=None, **GOAL)
        self.at(OLD_DEB)
        # and without it, it says so
        self.good('upgrade_packages', project=None, **GOAL)
        for path in kept.glob('demo-api*'):
            path.unlink()
        with self.assertRaisesRegex(exception.Refused, 'no copy of demo-api 2:1.0.0-1 is left'):
            self.do('upgrade_packages', undo=True, project=None, **GOAL)

    def test_an_operators_policy_stays(self):
        self.offer(NEW)
        self.policy().write_text('#!/bin/sh\nexit 104\n')
        self.policy().chmod(0o755)
        self.good('upgrade_packages', project=None, **GOAL)
        self.assertEqual('#!/bin/sh\nexit 104\n', self.policy().read_text())
        self.assertEqual('policy 101', (self.tree.root / 'policy').read_text().split('\n')[-2])

    def test_killed_in_the_middle(self):
        """Apt goes on; what is left of us forbids nothing when it has ended."""
        pause = 'touch /paused; while [ ! -e /go ]; do sleep 0.05; done'
        self.offer(NEW, postinst=pause)
        task, process = self.begin('upgrade_packages', project=None, **GOAL)
        self.addCleanup((self.tree.root / 'go').touch)
        self.until((self.tree.root / 'paused').exists)
        self.assertEqual(101, self.asked())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.assertEqual(101, self.asked())
        standing = self.strategy.run(
            self.task('check_host', project=None, projects={'demo': NEW}), self.site()
        )
        self.assertIn('is held by process', standing.error)
        (self.tree.root / 'go').touch()
        self.until(lambda: self.tree.version('demo-api') == (NEW_DEB, 'ii'))
        self.until(lambda: self.asked() == 0)
        self.assertIs(runner.Standing.INTERRUPTED, self.runner.standing(task.step, 1))
        # what comes next clears it away
        self.good('upgrade_packages', undo=True, project=None, **GOAL)
        self.assertFalse(self.policy().exists())
        self.at(OLD_DEB)

    def asked(self):
        """Ask the policy as a maintainer script would; return its answer."""
        if not self.policy().exists():
            return None
        argv = ['/usr/sbin/chroot', str(self.tree.root), '/usr/sbin/policy-rc.d', 'x', 'start']
        return subprocess.run(argv, check=False).returncode

    def until(self, true):
        end = time.monotonic() + 60
        while not true():
            self.assertLess(time.monotonic(), end, true)
            time.sleep(0.05)


class TestBadInput(PackageCase):
    """Found by the check, before anything changed, with how to mend it."""

    def refused(self, *words):
        said = self.checked()
        self.assertEqual('failed', said['result'], said)
        for word in words:
            self.assertIn(word, said['error'])
        self.at(OLD_DEB)
        return said

    def test_no_such_version(self):
        self.refused('demo-api 2.0.0 is in no enabled repository (they have 2:1.0.0-1)', 'add')

    def test_no_package_of_the_project(self):
        self.settings['projects']['demo']['packages'] = ['openstack-demo']
        self.refused('no package of demo is installed here')

    def test_unsigned_repository(self):
        self.offer(NEW)
        self.tree.trust(False)
        self.refused('not signed', 'Signed-By')

    def test_unsigned_repository_that_was_read_before(self):
        self.offer(NEW)
        (self.tree.root / 'etc/apt/apt.conf.d/99insecure').write_text(
            'Acquire::AllowInsecureRepositories "true";\n'
        )
        self.tree.trust(False)
        self.refused('no valid signature on file:/repo/', 'Signed-By')

    def test_locked(self):
        self.offer(NEW)
        code = f"""import fcntl, sys
f = open({str(self.tree.root)!r} + '/var/lib/dpkg/lock-frontend', 'w')
fcntl.lockf(f, fcntl.LOCK_EX)
print('held', flush=True)
sys.stdin.read()"""
        holder = subprocess.Popen(
            ['/usr/bin/python3', '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.addCleanup(holder.communicate)
        holder.stdout.readline()
        self.refused(f'is held by process {holder.pid} (python3)', 'retry')

    def test_half_configured(self):
        self.tree.build('demo-broken', '1.0-1', postinst='exit 1')
        self.tree.index()
        self.assertRaises(AssertionError, self.tree.install, 'demo-broken')
        self.refused('interrupted (demo-broken)', 'dpkg --configure -a')

    def test_on_hold(self):
        self.offer(NEW)
        self.tree.sh('apt-mark', 'hold', 'demo-api')
        said = self.checked()
        self.assertIn('demo-api is on hold: apt-mark unhold demo-api', said['error'])
        with self.assertRaisesRegex(exception.Refused, 'Held packages'):
            self.do('upgrade_packages', project=None, **GOAL)
        self.assertEqual((OLD_DEB, 'hi'), self.tree.version('demo-api'))

    def test_it_would_remove_something(self):
        self.tree.build('demo-friend', '1.0-1', depends=f'demo-api (= {OLD_DEB})')
        self.offer(NEW)
        self.tree.install('demo-friend')
        self.settings['projects']['demo']['packages'] = ['python3-demo', 'demo-api']
        said = self.refused('demo-friend')
        self.assertRegex(said['error'], 'would remove demo-friend|demo-friend : Depends')

    def test_no_room(self):
        self.offer(NEW)
        self.settings['min_free_mb'] = 2**40
        self.refused('MiB are free', 'make room')

    def test_not_in_the_settings(self):
        task = self.task('upgrade_packages', project=None, projects={'nova': '34.0.0'})
        self.assertIn('names no packages of nova', self.strategy.refusal(task, self.site()))
        task = self.task('upgrade_service', project='../etc', version=NEW)
        self.assertIn('no project data', self.strategy.refusal(task, self.site()))

    def test_params_that_are_no_versions(self):
        schema = jsonschema.Draft202012Validator(self.strategy.params_schema)
        for projects in ({'demo': '1; reboot'}, {'demo': '-o'}, {'--x': '1'}, {'demo': 1}):
            self.assertFalse(schema.is_valid({'projects': projects}), projects)
        self.assertTrue(schema.is_valid({'projects': {'demo': NEW}}))

    def test_breaks_in_the_middle(self):
        """The step fails, says why, and the way back is open."""
        self.offer(NEW, postinst='echo "the database is away" >&2; exit 1')
        said = self.bad('upgrade_packages', project=None, **GOAL)
        self.assertIn('install 2 packages', said['error'])
        self.assertIn('the database is away', said['output'])
        self.assertEqual((NEW_DEB, 'iF'), self.tree.version('demo-api'))
        self.assertFalse(self.policy().exists())
        self.assertEqual(OLD, self.answers())
        self.assertIn('interrupted (demo-api)', self.checked()['error'])
        self.good('upgrade_packages', undo=True, project=None, **GOAL)
        self.at(OLD_DEB)
        self.assertEqual(OLD, self.answers())
        self.assertEqual('succeeded', self.good('verify_host', version=OLD)['result'])

    def test_undo_of_what_was_never_done(self):
        with self.assertRaisesRegex(exception.Refused, 'downgrade by hand'):
            self.do('upgrade_packages', undo=True, project=None, **GOAL)


class TestVersions(base.TestCase):
    def test_upstream(self):
        for text, wanted in {
            '2:26.0.0-2+deb12u1': '26.0.0',
            '3:29.0.1-0ubuntu1~cloud0': '29.0.1',
            '15.0.0-1': '15.0.0',
            '1:33.0.2-1.el9': '33.0.2',
            '26.1.0+dfsg1-4': '26.1.0',
            '34.0.0~rc1-1': '34.0.0~rc1',
        }.items():
            self.assertEqual(wanted, package_tool.upstream(text))

    def test_lock_holder(self):
        with tempfile.NamedTemporaryFile() as f:
            self.assertIsNone(package_tool.holder(f.name))
            code = f'import fcntl, sys; f = open({f.name!r}, "w"); fcntl.lockf(f, {fcntl.LOCK_EX})'
            code += '; print(1, flush=True); sys.stdin.read()'
            p = subprocess.Popen(
                ['/usr/bin/python3', '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            p.stdout.readline()
            self.assertIn(f'process {p.pid} ', package_tool.holder(f.name))
            p.communicate()
        self.assertIsNone(package_tool.holder('/no/such/file'))

    def test_table_of_dnf(self):
        text = (
            'Dependencies resolved.\n====\n Package   Arch   Version   Repository  Size\n====\n'
            'Upgrading:\n demo-api      noarch    2:2.0.0-1     local     6.5 k\n'
            ' python3-demo-with-a-long-name\n               noarch    2.0.0-1       local     '
            '1.2 M\nInstalling dependencies:\n demo-new      noarch    1.0-1   local     6 k\n'
            'Removing:\n gone   noarch    1.0-1   @System     6 k\n\n'
            'Transaction Summary\n===\nUpgrade  2 Packages\n'
        )
        self.assertEqual(
            [
                ('demo-api', '2:2.0.0-1'),
                ('python3-demo-with-a-long-name', '2.0.0-1'),
                ('demo-new', '1.0-1'),
                ('gone', None),
            ],
            [(c.name, c.new) for c in package_dnf._table(text)],
        )
