"""How strategy `source` lays a project out on a host, and what it finds there.

``<root>/<project>-<version>`` is a virtual environment, ``<root>/<project>-current`` a link
to the one in use; systemd units start what is below the link.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import fnmatch
import itertools
import json
import os
import pathlib
import subprocess
import time
from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base

#: a unit in one of these states is to run
WANTED = frozenset({'active', 'activating', 'reloading', 'deactivating', 'failed'})
PROPERTIES = 'Id,LoadState,ActiveState,UnitFileState,MainPID'
PROVED = '.proved'
SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A systemd unit that runs a binary of a project."""

    name: str
    binary: str
    state: str  #: systemd's ActiveState
    enabled: bool
    pid: int

    @property
    def wanted(self) -> bool:
        """Whether it is to run."""
        return self.enabled or self.state in WANTED


class Layout:
    """The paths and units of a host, from its settings."""

    def __init__(self, site: base.Site) -> None:
        self._site = site
        self.settings = site.settings
        self.projects: loader.Projects = site.projects
        self.root = str(site.settings.get('root', '/'))
        self.systemctl = str(site.settings.get('systemctl', '/usr/bin/systemctl'))

    def of(self, project: str) -> Mapping[str, Any]:
        """Return the settings of a project."""
        found: Mapping[str, Any] = (self.settings.get('projects') or {}).get(project) or {}
        return found

    def data(self, project: str | None) -> loader.Project:
        """Return what is known of a project.

        :raises Refused: nothing is.
        """
        if project is None or project not in self.projects:
            raise exception.Refused(reason=f'no project data for {project}')
        return self.projects.get(project)

    # -- code ----------------------------------------------------------------------------------

    def current(self, project: str) -> str:
        """Return the link to the code in use."""
        own = self.in_place(project) or self.of(project).get('current')
        return str(own or f'{self.root}/{project}-current')

    def in_place(self, project: str) -> str | None:
        """Return the environment that is changed in its place, for sites that have only one."""
        found: str | None = self.of(project).get('in_place')
        return found

    def venv(self, project: str, version: str) -> str:
        """Return where a version of a project is installed."""
        return f'{self.root}/{project}-{version}'

    def in_use(self, project: str) -> str | None:
        """Return the real path of the code in use, or None."""
        path = self.current(project)
        return os.path.realpath(path) if os.path.isdir(path) else None

    def is_current(self, project: str, version: str) -> bool:
        """Whether the link leads to a version, or the only environment has it."""
        if self.in_place(project):
            return self.installed_version(project, self.in_use(project)) == version
        target = self.venv(project, version)
        return os.path.isdir(target) and self.in_use(project) == os.path.realpath(target)

    def installed_version(self, project: str, path: str | None) -> str | None:
        """Read the version of a project in an environment from its metadata; runs nothing.

        One that was made from a commit bears the version that the plan gave to the commit.
        """
        if path is None:
            return None
        proof = _proof(path)
        if proof and proof.get('commit'):
            return str(proof['version'])
        found = self.metadata(project, path)
        return (_metadata_version(found) or found.name.split('-')[1]) if found else None

    def metadata(self, project: str, path: str) -> pathlib.Path | None:
        """Return the dist-info directory of a project in an environment."""
        name = self.data(project).distribution.replace('-', '_').replace('.', '_').lower()
        for found in pathlib.Path(path).glob('lib/python3*/site-packages/*.dist-info'):
            stem = found.name.removesuffix('.dist-info').rpartition('-')[0]
            if stem.replace('-', '_').replace('.', '_').lower() == name:
                return found
        return None

    def proof(self, project: str, version: str) -> dict[str, Any] | None:
        """Return what the marker of a finished and proved environment says, or None."""
        return _proof(self.venv(project, version))

    def code(self, project: str, version: str | None, whose: str) -> str:
        """Return the environment whose commands a step is to use.

        :raises Refused: it is not there.
        """
        if whose == 'current' or version is None:
            path = self.current(project)
        elif os.path.isfile(f'{self.venv(project, version)}/bin/python'):
            path = self.venv(project, version)
        elif self.installed_version(project, self.in_use(project)) == version:
            path = self.current(project)
        else:
            raise exception.Refused(reason=f'{project} {version} is not installed beside the old')
        if not os.path.isdir(path):
            raise exception.Refused(reason=f'{path} is not there')
        return path

    def environment(self, project: str, code: str) -> dict[str, str]:
        """Return the environment variables of commands of a project's code."""
        extra: dict[str, str] = self.of(project).get('env') or {}
        return {'PATH': f'{code}/bin:{SYSTEM_PATH}', 'PYTHONWARNINGS': 'ignore', **extra}

    # -- units ---------------------------------------------------------------------------------

    def units(self, *names: str) -> dict[str, list[Unit]]:
        """Ask systemd once for the units of projects: {project: [unit, …]}."""
        patterns = {p: self._patterns(p) for p in names}
        found = self._show(sorted({g for gs in patterns.values() for g in gs}))
        result: dict[str, list[Unit]] = {p: [] for p in names}
        for properties in found:
            self._place(properties, patterns, result)
        return result

    def planes(self, project: loader.Project) -> set[str]:
        """Return the planes ('control', 'data') of a project's units here; without any, both."""
        found = {project.plane(u.binary) for u in self.units(project.name)[project.name]}
        return found or {'control', 'data'}

    def _patterns(self, project: str) -> list[str]:
        binaries = [f'{b}.service' for b in self.data(project).services]
        return [*binaries, *self.of(project).get('units', ())]

    def _place(
        self,
        properties: Mapping[str, str],
        patterns: Mapping[str, list[str]],
        result: dict[str, list[Unit]],
    ) -> None:
        name = properties.get('Id', '')
        if properties.get('LoadState') != 'loaded':
            return
        # the most exact pattern decides: nova-api.service before nova-*.service
        fits = [
            (len(g), p)
            for p, globs in patterns.items()
            for g in globs
            if fnmatch.fnmatchcase(name, g)
        ]
        if not fits:
            return
        project = max(fits)[1]
        binaries = self.of(project).get('binaries') or {}
        unit = Unit(
            name=name,
            binary=binaries.get(name, name.removesuffix('.service')),
            state=properties.get('ActiveState', ''),
            enabled=properties.get('UnitFileState', '').startswith('enabled'),
            pid=int(properties.get('MainPID') or 0),
        )
        if unit not in result[project]:
            result[project].append(unit)

    def _show(self, patterns: list[str]) -> list[dict[str, str]]:
        argv = [self.systemctl, 'show', '-p', PROPERTIES, '--', *patterns]
        try:
            said = subprocess.run(
                argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.SubprocessError) as e:
            raise exception.Refused(reason=f'systemd does not answer: {e}') from e
        return [_properties(block) for block in said.split('\n\n') if block.strip()]

    def chosen(self, project: str, binaries: Iterable[str] | None) -> list[Unit]:
        """Return the units that a step is about.

        :raises Refused: a binary that was named has no unit here, or there is none at all.
        """
        there = {u.binary: u for u in self.units(project)[project]}
        if binaries is None:
            chosen = [u for u in there.values() if u.wanted]
        else:
            missing = [b for b in binaries if b not in there]
            if missing:
                raise exception.Refused(reason=f'no unit here runs {", ".join(missing)}')
            chosen = [there[b] for b in binaries]
        if not chosen:
            raise exception.Refused(reason=f'no unit of {project} is to run on this host')
        return chosen

    # -- processes -----------------------------------------------------------------------------

    def runs_current(self, project: str, unit: Unit) -> bool:
        """Whether the process of a unit was started from the code in use now.

        A process shows the link, not what the link led to when it began. What it has mapped
        (extension modules) shows real paths; if there is none, it must have begun after the
        link was changed.
        """
        real = self.in_use(project)
        if not unit.pid or real is None:
            return False
        if self.in_place(project):
            installed = self.metadata(project, real)
            return installed is not None and began_after(unit.pid, installed.stat().st_mtime)
        mine, others = False, False
        for path in _mapped(unit.pid):
            if path.startswith(f'{real}/'):
                mine = True
            elif self._other_code(project, path):
                others = True
        if mine or others:
            return mine and not others
        return began_after(unit.pid, os.lstat(self.current(project)).st_mtime)

    def _other_code(self, project: str, path: str) -> bool:
        parts = pathlib.PurePath(path).parts
        return (
            any(fnmatch.fnmatchcase(part, f'{project}-[0-9]*') for part in parts)
            and 'site-packages' in parts
        )


def version_of(task: base.Task) -> str:
    """Return the version that a step is about.

    :raises Refused: the order names none.
    """
    version = task.params.get('version')
    if not version:
        raise exception.Refused(reason=f'{task.kind} needs params.version')
    return str(version)


def _properties(block: str) -> dict[str, str]:
    pairs = (line.partition('=') for line in block.splitlines())
    return {key: value for key, _, value in pairs}


def _proof(path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(pathlib.Path(path, PROVED).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _metadata_version(directory: pathlib.Path) -> str | None:
    try:
        with open(directory / 'METADATA', encoding='utf-8', errors='replace') as f:
            for line in f:
                if line.startswith('Version:'):
                    return line.partition(':')[2].strip()
                if not line.strip():
                    break
    except OSError:
        return None
    return None


def options(pid: int, name: str) -> list[str]:
    """Return the values of an option of a process's command line."""
    try:
        words = pathlib.Path(f'/proc/{pid}/cmdline').read_text(errors='replace').split('\0')
    except OSError:
        return []
    joined = [w.removeprefix(f'{name}=') for w in words if w.startswith(f'{name}=')]
    return joined + [value for word, value in itertools.pairwise(words) if word == name]


def _mapped(pid: int) -> set[str]:
    """Return the files that a process has mapped."""
    try:
        with open(f'/proc/{pid}/maps') as f:
            return {p for line in f if (p := line.split(maxsplit=5)[-1].strip()).startswith('/')}
    except OSError:
        return set()


def began_after(pid: int, moment: float) -> bool:
    """Whether a process began after a time; clocks of processes tell it to about a second."""
    began = _began(pid)
    return began is not None and began >= moment - 1.0


def _began(pid: int) -> float | None:
    """Return when a process began (seconds since the epoch), to about a second."""
    try:
        ticks = int(pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19])
        uptime = float(pathlib.Path('/proc/uptime').read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + ticks / os.sysconf('SC_CLK_TCK')


def maps_deleted(pid: int) -> bool:
    """Whether a process still has files of code mapped that were replaced on disk."""
    try:
        with open(f'/proc/{pid}/maps') as f:
            return any(
                line.rstrip().endswith('(deleted)') and ('.so' in line or '/python3' in line)
                for line in f
            )
    except OSError:
        return False


def fits(name: str, globs: Iterable[str]) -> bool:
    """Whether a name fits one of some globs."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)
