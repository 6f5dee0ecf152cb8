"""Strategy `package` on Debian's own packages of OpenStack, in a Debian of its own.

The system is made by debootstrap, or is the tree that ``UPGRADE_TEST_DEBIAN_DIR`` names; it is
only read. Between Debian's release and its security updates a project has two versions.
"""

import os
import pathlib
import shutil
import tempfile

from upgrade_service.engine import runner
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import package
from upgrade_service.tests import base
from upgrade_service.tests.unit.strategies import debs

SUITE = 'bookworm'
SOURCES = f"""deb http://deb.debian.org/debian {SUITE} main
deb http://deb.debian.org/debian-security {SUITE}-security main
"""
PACKAGES = ('python3-glance', 'glance-common', 'glance-api')


class TestGlance(base.TestCase):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which('debootstrap'):
            self.skipTest('needs root and debootstrap')
        folder = tempfile.TemporaryDirectory(dir=debs.memory())
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        for name in ('up', 'work', 'tree', 'state'):
            (self.dir / name).mkdir()
        lower = os.environ.get('UPGRADE_TEST_DEBIAN_DIR')
        if lower is None:
            lower = str(self.dir / 'debian')
            debs.run('debootstrap', '--variant=minbase', SUITE, lower)
        self.root = self.dir / 'tree'
        where = f'lowerdir={lower},upperdir={self.dir}/up,workdir={self.dir}/work'
        debs.run('mount', '-t', 'overlay', 'overlay', '-o', where, str(self.root))
        self.addCleanup(debs.run, 'umount', '--lazy', str(self.root))
        debs.run('mount', '-t', 'proc', 'proc', str(self.root / 'proc'))
        self.addCleanup(debs.run, 'umount', '--lazy', str(self.root / 'proc'))
        shutil.copy('/etc/resolv.conf', self.root / 'etc/resolv.conf')
        (self.root / 'etc/apt/sources.list').write_text(SOURCES)
        self.sh('apt-get', 'update', '-qq')
        versions = [
            line.split('|')[1].strip()
            for line in self.sh('apt-cache', 'madison', PACKAGES[0]).splitlines()
            if 'Sources' not in line
        ]
        if len(versions) < 2:
            self.skipTest(f'Debian has only {versions} of {PACKAGES[0]} now')
        self.new, self.old = versions[0], versions[-1]
        words = [f'{name}={self.old}' for name in PACKAGES]
        options = ('-y', '-qq', '--no-install-recommends')
        self.sh('apt-get', 'install', *options, *words)

    def sh(self, *argv):
        env = {'PATH': os.environ['PATH'], 'DEBIAN_FRONTEND': 'noninteractive', 'LC_ALL': 'C'}
        for name in ('http_proxy', 'https_proxy', 'no_proxy'):
            if name in os.environ:
                env[name] = os.environ[name]
        return debs.run('/usr/sbin/chroot', str(self.root), *argv, env=env)

    def installed(self):
        form = '${Package}=${Version} ${db:Status-Abbrev}\n'
        return self.sh('dpkg-query', '-W', '-f', form, *PACKAGES).split('\n')[:-1]

    def do(self, kind, undo=False):
        strategy = package.PackageUpgradeStrategy()
        systemctl = self.dir / 'systemctl'
        systemctl.write_text('#!/bin/sh\n')
        systemctl.chmod(0o755)
        # the upstream part is the same in both: which revision is meant is said by name
        glance = {'packages': list(PACKAGES), 'versions': {'25.1.0': self.new}}
        site = strategies.Site(
            host='h',
            settings={
                'backend': 'apt',
                'root': str(self.root),
                'projects': {'glance': glance},
                'systemctl': str(systemctl),
                'min_free_mb': 1,
            },
            state_dir=str(self.dir / 'state'),
            projects=loader.load_projects(),
        )
        task = strategies.Task(
            step=f'{kind}-{undo}',
            attempt=1,
            kind=kind,
            host='h',
            project=None,
            params={'projects': {'glance': '25.1.0'}},
            timeout=900,
            direction='back' if undo else 'forward',
        )
        made = (strategy.undo if undo else strategy.run)(task, site)
        if isinstance(made, strategies.Outcome):
            return {**runner.of_outcome(made)}
        work = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        process = work.start(task, made, 'u')
        work.wait(task.step, 1, process, lambda p: None, lambda: False)
        return {**work.outcome(task.step, 1), 'output': work.output(task.step, 1)}

    def good(self, kind, **more):
        said = self.do(kind, **more)
        self.assertEqual('succeeded', said['result'], said)
        return said

    def test_to_the_security_update_and_back(self):
        before = self.installed()
        self.assertEqual([f'{name}={self.old} ii ' for name in sorted(PACKAGES)], sorted(before))
        self.good('check_host')
        self.good('prefetch')
        # what is installed now was kept, archive by archive
        kept = {path.name.split('_')[0] for path in self.kept().glob('*.deb')}
        self.assertEqual(set(PACKAGES), kept)
        config = self.root / 'etc/glance/glance-api-paste.ini'
        config.write_text(config.read_text() + '\n# the operator wrote this\n')
        done = self.good('upgrade_packages')
        after = self.installed()
        self.assertEqual([f'{name}={self.new} ii ' for name in sorted(PACKAGES)], sorted(after))
        self.assertIn('the operator wrote this', config.read_text())
        # back, though the release's packages are in no repository any more
        sources = SOURCES.splitlines()[1]
        (self.root / 'etc/apt/sources.list').write_text(sources + '\n')
        self.sh('apt-get', 'update', '-qq')
        self.good('upgrade_packages', undo=True)
        self.assertEqual(before, self.installed(), done['output'])
        self.assertFalse((self.root / 'usr/sbin/policy-rc.d').exists())

    def kept(self):
        return self.root / 'var/cache/upgrade-service/packages'
