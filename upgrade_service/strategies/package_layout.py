"""Which packages carry a project on this host, which versions they are to have, and what
a transaction was begun with, so that there is a way back.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

from upgrade_service import exception, model
from upgrade_service.strategies import base, package_tool
from upgrade_service.strategies import source_layout as layouts


@dataclasses.dataclass(frozen=True)
class Record:
    """What one set of project versions meant on this host, kept in the state directory."""

    projects: Mapping[str, str]  #: project -> version
    before: Mapping[str, str | None]  #: package -> version, None: was not there
    after: Mapping[str, str | None]

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + '\n'


class Layout(layouts.Layout):
    """Packages in place of environments; the units are the same."""

    def __init__(self, site: base.Site) -> None:
        super().__init__(site)
        self.tool = package_tool.choose(self.root, site.settings)
        self.records = f'{site.state_dir}/packages'

    # -- code ----------------------------------------------------------------------------------

    def prefix(self, project: str) -> str:
        """Return the directory whose bin/ holds the commands of a project."""
        return str(self.of(project).get('prefix') or '/usr')

    def current(self, project: str) -> str:
        """Name the code in use, for people."""
        return self.tool.inside(self.prefix(project))

    def in_use(self, project: str) -> str | None:
        """Return where the code in use is, or None if no package of the project is here."""
        return self.current(project) if self.packages(project) else None

    def code(self, project: str, version: str | None, whose: str) -> str:
        """Return the code in use; packages have no other.

        :raises Refused: it is not the version that the step wants.
        """
        found = self.version(project)
        if found is None or (whose != 'current' and version is not None and found != version):
            raise exception.Refused(
                reason=f'{project} is {found} here, not {version}: its packages come first'
            )
        return self.current(project)

    # -- packages ------------------------------------------------------------------------------

    def packages(self, *projects: str) -> dict[str, str]:
        """Return {package: version} of what is installed of some projects."""
        return self.tool.installed([g for p in projects for g in self.patterns(p)])

    def patterns(self, project: str) -> list[str]:
        """Return the globs of a project's packages; without settings it has none."""
        return list(self.of(project).get('packages') or ())

    def version(self, project: str) -> str | None:
        """Return the project's version, as the package says that comes first in the settings."""
        for pattern in self.patterns(project):
            for version in self.tool.installed([pattern]).values():
                return self.upstream(project, version)
        return None

    def upstream(self, project: str, version: str) -> str:
        """Return the project's version that a package version stands for."""
        explicit: Mapping[str, str] = self.of(project).get('versions') or {}
        named = {wanted: own for own, wanted in explicit.items()}
        return named.get(version) or package_tool.upstream(version)

    def wanted(self, projects: Mapping[str, str]) -> dict[str, str]:
        """Return {package: version} that brings projects to versions; what is there is left out.

        :raises Refused: a package, or the version of one, is not in the repositories.
        """
        there = {p: self.packages(p) for p in projects}
        names = [name for found in there.values() for name in found]
        available = self.tool.available(names)
        wanted, missing = {}, []
        for project, version in projects.items():
            if not there[project]:
                missing.append(f'no package of {project} is installed here')
            for name, current in there[project].items():
                choice = self._choice(project, version, [current, *available.get(name, [])])
                if choice is None:
                    has = ', '.join(available.get(name, [])[:3]) or 'none at all'
                    missing.append(
                        f'{name} {version} is in no enabled repository (they have {has})'
                    )
                elif choice != current:
                    wanted[name] = choice
        if missing:
            raise exception.Refused(
                reason=f'{"; ".join(missing[:5])}: add the repository of the target release, or '
                'correct `projects` in package.yaml'
            )
        return wanted

    def _choice(self, project: str, version: str, there: list[str]) -> str | None:
        """Return the best of the package versions that stand for a version of the project."""
        explicit = (self.of(project).get('versions') or {}).get(version)
        fits = [v for v in there if v == explicit or self.upstream(project, v) == version]
        if explicit is not None:
            return explicit if explicit in fits else None
        # `there` begins with what is installed, and goes on with the newest
        return fits[0] if fits[:1] == there[:1] else next(iter(fits), None)

    # -- the way back --------------------------------------------------------------------------

    def path_of(self, projects: Mapping[str, str]) -> str:
        """Return where the record of a set of project versions is kept."""
        name = hashlib.sha256(model.canonical(dict(projects)).encode()).hexdigest()[:16]
        return f'{self.records}/{name}.json'

    def mark(self, projects: Mapping[str, str]) -> str:
        """Return what a transaction is known by, there and back."""
        return f'upgrade-service-{os.path.basename(self.path_of(projects)).removesuffix(".json")}'

    def record(self, wanted: Mapping[str, str]) -> Record | None:
        """Find the newest record of a transaction that led to these versions."""
        try:
            paths = sorted(pathlib.Path(self.records).glob('*.json'), key=os.path.getmtime)
        except OSError:
            return None
        for path in reversed(paths):
            found = _read(path)
            if found and wanted.items() <= found.projects.items():
                return found
        return None

    def begin(self, projects: Mapping[str, str], wanted: Mapping[str, str]) -> Record:
        """Return what is to be remembered of a transaction before it begins.

        What an attempt before this one changed already keeps the version it had before that.

        :raises Refused: it is not possible, or it removes packages.
        """
        changes = self.tool.rehearse(wanted)
        lost = [c.name for c in changes if c.new is None]
        allowed = self.settings.get('may_remove') or ()
        lost = [name for name in lost if not layouts.fits(name, allowed)]
        if lost:
            raise exception.Refused(
                reason=f'it would remove {", ".join(lost[:5])}: name them in `may_remove` of '
                'package.yaml if that is meant'
            )
        before = {c.name: c.old for c in changes}
        after = {c.name: c.new for c in changes}
        earlier = _read(pathlib.Path(self.path_of(projects)))
        if earlier is not None:
            now = self.tool.installed(earlier.after)
            done = [n for n, v in earlier.after.items() if v is not None and now.get(n) == v]
            before |= {n: earlier.before.get(n) for n in done if n not in before}
            after |= {n: earlier.after[n] for n in done if n not in after}
        return Record(dict(projects), before, after)

    # -- processes -----------------------------------------------------------------------------

    def runs_current(self, project: str, unit: layouts.Unit) -> bool:
        """Whether the process of a unit began after the packages were put in place."""
        if not unit.pid or layouts.maps_deleted(unit.pid):
            return False
        return layouts.began_after(unit.pid, self.tool.installed_at(self.packages(project)))


def goal(task: base.Task) -> dict[str, str]:
    """Return {project: version} that a step is about, or that the step it undoes led to.

    :raises Refused: it names none.
    """
    projects: dict[str, Any] = dict(task.params.get('projects') or {})
    undone = task.direction == 'back' and task.kind == 'upgrade_service'
    version = task.params.get('from_version' if undone else 'version')
    if task.project is not None and version:
        projects = {task.project: version}
    if not projects:
        raise exception.Refused(reason=f'{task.kind} needs a project and a version')
    return {str(p): str(v) for p, v in projects.items()}


def _read(path: pathlib.Path) -> Record | None:
    try:
        found = json.loads(path.read_text())
        return Record(found['projects'], found['before'], found['after'])
    except (OSError, ValueError, KeyError, TypeError):
        return None
