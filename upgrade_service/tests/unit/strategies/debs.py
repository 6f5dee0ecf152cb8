"""A Debian system that may be broken at will, and little packages for it.

The system is this machine's own tree under an overlay, with an empty package database: apt and
dpkg are the real ones, what they change is forgotten. The packages are made by dpkg-deb, the
repository by apt-ftparchive.
"""

import os
import pathlib
import shutil
import subprocess

TOOLS = ('/usr/bin/apt-get', '/usr/bin/apt-ftparchive', '/usr/bin/dpkg-deb', '/usr/bin/flock')


def run(*argv, **more):
    """Run a command and insist that it succeeds."""
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **more
    )
    if done.returncode:
        raise AssertionError(f'{argv}: {done.stdout}{done.stderr}')
    return done.stdout


def missing():
    """Say why such a system cannot be had here, or None."""
    if os.geteuid() != 0:
        return 'needs root, for an overlay file system and chroot'
    lacking = [tool for tool in TOOLS if not os.path.exists(tool)]
    return f'needs {", ".join(lacking)}' if lacking else None


def memory():
    """Return a directory in memory, where what dpkg insists to have on disk costs nothing."""
    return '/dev/shm' if os.access('/dev/shm', os.W_OK) else None


class Tree:
    """The tree, with a repository of its own at /repo and no other."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / 'tree'
        for name in ('up', 'work', 'tree', 'build'):
            (folder / name).mkdir()
        run(
            *('mount', '-t', 'overlay', 'overlay', '-o'),
            f'lowerdir=/,upperdir={folder}/up,workdir={folder}/work',
            str(self.root),
        )
        self.repo = self.root / 'repo'
        self.repo.mkdir()
        for path in ('etc/apt', 'var/lib/apt', 'var/lib/dpkg'):  # a package database of its own
            shutil.rmtree(self.root / path, ignore_errors=True)
        for path in ('etc/apt/apt.conf.d', 'var/lib/apt/lists/partial', 'var/lib/dpkg/info',
                     'var/lib/dpkg/updates', 'var/lib/dpkg/triggers'):  # fmt: skip
            (self.root / path).mkdir(parents=True)
        for path in ('status', 'available'):
            (self.root / 'var/lib/dpkg' / path).touch()
        (self.root / 'usr/sbin/policy-rc.d').unlink(missing_ok=True)
        self.trust()

    def close(self):
        """Forget everything that was done in it."""
        run('umount', '--lazy', str(self.root))

    def trust(self, yes=True):
        """Have apt believe the repository, which nobody signed, or not."""
        mark = '[trusted=yes] ' if yes else ''
        (self.root / 'etc/apt/sources.list').write_text(f'deb {mark}file:/repo ./\n')

    def sh(self, *argv):
        """Run a command inside."""
        env = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive', 'LC_ALL': 'C.UTF-8'}
        return run('/usr/sbin/chroot', str(self.root), *argv, env=env)

    def build(self, name, version, files=None, conffiles=None, depends='', postinst=''):
        """Make a package and put it into the repository."""
        place = self.folder / 'build' / name
        shutil.rmtree(place, ignore_errors=True)
        (place / 'DEBIAN').mkdir(parents=True)
        for path, text in {**(files or {}), **(conffiles or {})}.items():
            (place / path.lstrip('/')).parent.mkdir(parents=True, exist_ok=True)
            (place / path.lstrip('/')).write_text(text)
            if '/bin/' in path:
                (place / path.lstrip('/')).chmod(0o755)
        control = (
            f'Package: {name}\nVersion: {version}\nArchitecture: all\n'
            f'Maintainer: us <us@localhost>\nDescription: a little package\n'
        )
        (place / 'DEBIAN/control').write_text(control + (f'Depends: {depends}\n' * bool(depends)))
        if conffiles:
            (place / 'DEBIAN/conffiles').write_text('\n'.join(conffiles) + '\n')
        if postinst:
            (place / 'DEBIAN/postinst').write_text(f'#!/bin/sh\nset -e\n{postinst}\n')
            (place / 'DEBIAN/postinst').chmod(0o755)
        run('dpkg-deb', '--root-owner-group', '-Znone', '-b', str(place), str(self.repo))

    def index(self):
        """Describe what is in the repository."""
        packages = run('apt-ftparchive', 'packages', '.', cwd=self.repo)
        pathlib.Path(self.repo, 'Packages').write_text(packages)
        pathlib.Path(self.repo, 'Release').unlink(missing_ok=True)
        release = run('apt-ftparchive', 'release', '.', cwd=self.repo)
        pathlib.Path(self.repo, 'Release').write_text(release)

    def install(self, *words):
        """Install by hand, as the operator did once."""
        self.sh('apt-get', 'update', '-qq')
        self.sh('apt-get', 'install', '-y', '-qq', *words)

    def version(self, name):
        """Return what dpkg says of a package: (version, state)."""
        form = '${Version} ${db:Status-Abbrev}'
        return tuple(self.sh('dpkg-query', '-W', '-f', form, name).split())
