"""Strategy `package` on the real package managers: apt and dpkg again, and dnf with rpm."""

import shutil

from upgrade_service.strategies import package_dnf, package_tool
from upgrade_service.tests.unit.strategies import debs, test_package

# here the tools are installed; elsewhere these tests are skipped where they are not
TestApt, TestBadInput = test_package.TestApt, test_package.TestBadInput

SPEC = """
Name: {name}
Version: {version}
Release: 1
Epoch: 2
Summary: a little package
License: MIT
BuildArch: noarch
AutoReq: no
Provides: /bin/sh
{requires}
%description
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc/demo
cp {code} %{{buildroot}}/usr/bin/{script}
echo 'made_for = {version}' >%{{buildroot}}/etc/demo/{name}.conf
%post
systemctl restart demo-api 2>&1 | head -1 >>/scriptlets || :
{post}
%files
%attr(755, root, root) /usr/bin/{script}
%config(noreplace) /etc/demo/{name}.conf
"""
OLD_RPM, NEW_RPM = '2:1.0.0-1', '2:2.0.0-1'


class RpmTree:
    """An installation root with a repository of its own; the rest of it is this machine's."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / 'tree'
        for name in ('up', 'work', 'tree', 'build'):
            (folder / name).mkdir()
        debs.run(
            *('mount', '-t', 'overlay', 'overlay', '-o'),
            f'lowerdir=/,upperdir={folder}/up,workdir={folder}/work',
            str(self.root),
        )
        self.repo = folder / 'repo'
        self.repo.mkdir()
        for path in (
            'etc/dnf',
            'etc/yum.repos.d',
            'root/.rpmdb',
            'var/lib/rpm',
            'var/lib/dnf',
            'var/cache/dnf',
        ):
            shutil.rmtree(self.root / path, ignore_errors=True)
            (self.root / path).mkdir(parents=True)
        (self.root / 'etc/dnf/vars').mkdir()
        (self.root / 'etc/dnf/vars/releasever').write_text('1\n')
        (self.root / 'etc/dnf/dnf.conf').write_text('[main]\ngpgcheck=1\n')
        self.trust()

    def close(self):
        debs.run('umount', '--lazy', str(self.root))

    def trust(self, yes=True):
        (self.root / 'etc/yum.repos.d/demo.repo').write_text(
            f'[demo]\nname=demo\nbaseurl=file://{self.repo}\nmetadata_expire=0\n'
            f'gpgcheck={int(yes)}\ngpgkey=file://{self.folder}/key.asc\n'
        )

    def build(self, name, version, script, code, requires='', post=''):
        source = self.folder / 'build' / f'{name}-{version}.py'
        source.write_text(code)
        spec = self.folder / 'build' / f'{name}.spec'
        spec.write_text(
            SPEC.format(
                name=name, version=version, code=source, script=script,
                requires=f'Requires: {requires}' if requires else '', post=post,
            )
        )  # fmt: skip
        top = self.folder / 'build' / 'top'
        debs.run(
            'rpmbuild', '-bb', '-D', f'_topdir {top}', '-D', f'_rpmdir {self.repo}', str(spec)
        )

    def index(self, sign):
        if sign:
            home = self.folder / 'gnupg'
            gpg = ('gpg', '--homedir', str(home), '--batch', '--yes')
            if not home.exists():
                home.mkdir(mode=0o700)
                words = ('--passphrase', '', '--quick-gen-key', 'us@localhost', 'rsa2048', 'sign')
                debs.run(*gpg, *words, 'never')
                key = debs.run(*gpg, '--armor', '--export')
                (self.folder / 'key.asc').write_text(key)
            for path in self.repo.rglob('*.rpm'):
                debs.run(
                    *('rpmsign', '--addsign', '-D', '__gpg /usr/bin/gpg'),
                    *('-D', '_gpg_name us@localhost'),
                    *('-D', f'_gpg_path {home}', str(path)),
                )
        debs.run('createrepo_c', '-q', str(self.repo))

    def dnf(self, *words):
        # Debian's rpm keeps its database below HOME
        env = package_tool.ENVIRONMENT
        return debs.run('dnf', '--installroot', str(self.root), '-y', '-q', *words, env=env)

    def version(self, name):
        argv = ('rpm', '--root', str(self.root), '-q', '--qf', '%{EVR}', name)
        return debs.run(*argv, env=package_tool.ENVIRONMENT)


class TestDnf(test_package.PackageCase):
    """The same steps with the other tool."""

    def make_tree(self):
        self.tree = RpmTree(self.dir)
        self.addCleanup(self.tree.close)
        self.offer(test_package.OLD)
        self.tree.dnf('install', f'demo-api-{OLD_RPM}')

    def setUp(self):
        for tool in ('dnf', 'createrepo_c', 'rpmbuild', 'rpmsign', 'gpg'):
            if not shutil.which(tool):
                self.skipTest(f'needs {tool}')
        super().setUp()
        self.settings['backend'] = 'dnf'
        self.settings['projects']['demo']['packages'] = ['python3-demo', 'demo-api']

    def offer(self, version, post='', sign=True, **more):
        code = self.code(version)
        self.tree.build('python3-demo', version, 'demo-manage', f'{code}\nsys.exit(manage())\n')
        self.tree.build(
            'demo-api', version, 'demo-api', f'{code}\nsys.exit(api())\n',
            requires=f'python3-demo = 2:{version}', post=post,
        )  # fmt: skip
        self.tree.index(sign)

    def at(self, version):
        for name in ('demo-api', 'python3-demo'):
            self.assertEqual(version, self.tree.version(name))

    def test_there_and_back_by_history(self):
        self.offer(test_package.NEW)
        checked = self.checked()
        self.assertEqual('succeeded', checked['result'], checked)
        facts = self.strategy.facts(self.site())['projects']['demo']
        self.assertEqual(test_package.OLD, facts['version'])
        self.assertEqual([NEW_RPM, OLD_RPM], facts['available']['demo-api'])
        self.good('prefetch', project=None, projects={'demo': test_package.NEW})
        self.at(OLD_RPM)
        own = self.tree.root / 'etc/demo/demo-api.conf'
        own.write_text('the operator wrote this\n')
        done = self.good('upgrade_packages', project=None, **test_package.GOAL)
        self.at(NEW_RPM)
        self.assertEqual(test_package.OLD, self.answers())
        self.assertEqual([f'{own}.rpmnew'], done['data']['kept_configuration'])
        self.assertEqual('the operator wrote this\n', own.read_text())
        self.good('upgrade_service', version=test_package.NEW)
        self.assertEqual(test_package.NEW, self.answers())
        self.good('verify_host', version=test_package.NEW)
        undone = self.good('upgrade_packages', undo=True, project=None, **test_package.GOAL)
        self.assertIn('history undo', str(self.last_job.ops))
        self.at(OLD_RPM)
        self.assertEqual(test_package.OLD, self.answers(), undone)
        tool = package_dnf.Dnf(str(self.tree.root))
        listed = tool.look('/usr/bin/dnf', '--installroot', tool.root, 'history', 'list').out
        self.assertRegex(listed, r'3 +\|.*(D, |Downgrade|history undo)')

    def test_bad_input(self):
        self.assertIn('is in no enabled repository', self.checked()['error'])
        self.offer(test_package.NEW)
        self.tree.trust(False)
        self.assertIn('no valid signature on demo', self.checked()['error'])
        self.tree.trust()
        (self.tree.root / 'etc/dnf/plugins').mkdir()
        lock = self.tree.root / 'etc/dnf/plugins/versionlock.list'
        lock.write_text('demo-api-2:1.0.0-1.*\n')
        self.assertIn('demo-api is on hold: dnf versionlock delete', self.checked()['error'])
        lock.unlink()
        shutil.rmtree(self.tree.repo / 'repodata')
        self.assertIn('the metadata cannot be read', self.checked()['error'])
        self.at(OLD_RPM)

    def test_an_unsigned_package(self):
        self.offer(test_package.NEW, sign=False)
        self.checked()  # reads the metadata
        said = self.bad('prefetch', project=None, projects={'demo': test_package.NEW})
        self.assertIn('not signed', said['output'] + said['error'])
        self.at(OLD_RPM)

    def test_a_scriptlet_that_fails(self):
        self.offer(test_package.NEW, post='exit 1')
        self.checked()
        done = self.good('upgrade_packages', project=None, **test_package.GOAL)
        self.assertIn('scriptlet failed', done['output'])
        self.good('upgrade_packages', undo=True, project=None, **test_package.GOAL)
        self.at(OLD_RPM)
