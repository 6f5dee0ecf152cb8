"""What strategies `package` and `host` need of a package manager, whichever it is.

A *tool* looks (it runs read-only commands at once and returns what they say) and makes
operations for the shim; it never changes a package itself.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import fcntl
import os
import pathlib
import re
import struct
import subprocess
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import base

PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
ENVIRONMENT = {'PATH': PATH, 'LANG': 'C.UTF-8', 'LC_ALL': 'C.UTF-8', 'HOME': '/root'}
#: seconds that another user of the package database is waited for
LOCK_WAIT = 120
_REVISION = re.compile(r'-[^-]*\Z')


@dataclasses.dataclass(frozen=True)
class Said:
    """The end of a command that only looks."""

    rc: int
    out: str
    err: str

    @property
    def why(self) -> str:
        """The line that tells best what went wrong."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(('E:', 'Error', 'error'))]
        found = (errors or lines or [f'exit status {self.rc}'])[0]
        return found.removeprefix('E: ').removeprefix('Error: ')[:300]


@dataclasses.dataclass(frozen=True)
class Change:
    """What a transaction does to one package; `new` is None for one that is removed."""

    name: str
    old: str | None
    new: str | None


class Tool(abc.ABC):
    """A package manager on this host, or in the tree `root`."""

    name: str
    #: where it keeps what it installs and downloads; both must have room
    places: tuple[str, ...]
    #: marks new configuration files that lie beside the operator's own
    kept_marks: tuple[str, ...]

    def __init__(self, root: str = '/') -> None:
        self.root = root.rstrip('/') or '/'
        self._chroot = () if self.root == '/' else ('/usr/sbin/chroot', self.root)

    def inside(self, path: str) -> str:
        """Return where a path of the tree is, seen from this process."""
        return path if self.root == '/' else f'{self.root}{path}'

    def look(self, *argv: str, timeout: int = 120) -> Said:
        """Run a command that changes nothing.

        :raises Refused: it cannot be run, or does not end.
        """
        try:
            done = subprocess.run(
                [*self._chroot, *argv],
                capture_output=True,
                text=True,
                errors='replace',
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                env=ENVIRONMENT,
                cwd='/',
            )
        except (OSError, subprocess.SubprocessError) as e:
            raise exception.Refused(reason=f'{argv[0]} does not answer: {e}') from e
        return Said(done.returncode, done.stdout, done.stderr)

    # -- looking -------------------------------------------------------------------------------

    @abc.abstractmethod
    def installed(self, patterns: Iterable[str]) -> dict[str, str]:
        """Return {name: version} of the installed packages that fit one of the globs."""

    @abc.abstractmethod
    def available(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return {name: [version, …]} of the enabled repositories, newest first."""

    @abc.abstractmethod
    def installed_at(self, names: Iterable[str]) -> float:
        """Return when the newest of some packages was put in place (seconds, epoch)."""

    @abc.abstractmethod
    def standing(self) -> list[str]:
        """Say what keeps any transaction from succeeding now, and how to mend it."""

    @abc.abstractmethod
    def held(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that an operator has put on hold."""

    @abc.abstractmethod
    def unhold(self, names: Sequence[str]) -> str:
        """Return the command that lets held packages go, for people."""

    @abc.abstractmethod
    def refresh(self) -> str | None:
        """Read the lists of the repositories anew; say why that failed."""

    @abc.abstractmethod
    def rehearse(self, wanted: Mapping[str, str], back: bool = False) -> list[Change]:
        """Simulate a transaction and return all that it would change.

        :raises Refused: it is not possible; the tool says why.
        """

    @abc.abstractmethod
    def untrusted(self, wanted: Mapping[str, str]) -> list[str]:
        """Return the repositories that have no valid signature but would be used."""

    @abc.abstractmethod
    def upgradable(self) -> dict[str, str]:
        """Return {name: version} of all that the enabled repositories have newer."""

    # -- operations ----------------------------------------------------------------------------

    @abc.abstractmethod
    def fetch(self, wanted: Mapping[str, str], before: Mapping[str, str]) -> list[base.Op]:
        """Download what is wanted, and keep what is there now for the way back."""

    @abc.abstractmethod
    def change(self, wanted: Mapping[str, str], mark: str) -> base.Job:
        """Install exactly these versions of packages that are there; restart nothing."""

    @abc.abstractmethod
    def back(self, before: Mapping[str, str | None], mark: str) -> base.Job:
        """Bring packages back to versions they had; None: they were not there."""

    def report(self, since: str) -> base.Op:
        """Gather the names of new configuration files that were not put in place."""
        names = [word for mark in self.kept_marks for word in ('-o', '-name', f'*{mark}')][1:]
        return base.Op(
            do='run',
            title='configuration files that were kept',
            argv=(
                *('/usr/bin/find', self.inside('/etc'), '-xdev', '-cnewer', since),
                *('(', *names, ')'),
            ),
            gather='kept_configuration',
            exits={0: 'done', 1: 'warning'},
        )


def upstream(version: str) -> str:
    """Return a project's own version out of a package's: '2:26.0.0-2+deb12u1' -> '26.0.0'."""
    text = version.partition(':')[2] if ':' in version else version
    text = _REVISION.sub('', text)
    # a Debian tree says '26.1.0+dfsg1' for a repacked source; PyPI versions have '+' for locals
    return re.sub(r'[+~](dfsg|ds|repack|git|really)[^-]*\Z', '', text)


def choose(root: str, settings: Mapping[str, Any]) -> Tool:
    """Return the tool that the settings name, or that this host has.

    :raises Refused: it has none.
    """
    from upgrade_service.strategies import package_apt, package_dnf

    tools: dict[str, tuple[str, type[Tool]]] = {
        'apt': ('/usr/bin/apt-get', package_apt.Apt),
        'dnf': ('/usr/bin/dnf', package_dnf.Dnf),
    }
    wanted = settings.get('backend')
    for name, (program, tool) in tools.items():
        if name == wanted or (wanted is None and os.path.exists(program)):
            return tool(root)
    raise exception.Refused(reason='neither apt-get nor dnf is on this host')


def holder(path: str) -> str | None:
    """Say who holds the lock that a file is (fcntl's), or None."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    if kind == fcntl.F_UNLCK:
        return None
    try:
        name = pathlib.Path(f'/proc/{pid}/comm').read_text().strip()
    except OSError:
        name = 'a process that cannot be seen'
    return f'process {pid} ({name})'
