"""Upgrades by the packages of a distribution: apt, or dnf.

Packages have one version on a host at a time and share libraries there, so a host's projects
change together, in one transaction; the services go on with the code they have loaded until
the plan restarts them. What is installed before is written down, and kept, for the way back.
Which packages carry a project stands in ``engine.d/package.yaml``.
"""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any

from upgrade_service import model
from upgrade_service.strategies import base, database, package_jobs, source_jobs
from upgrade_service.strategies import package_layout as layouts
from upgrade_service.strategies import source as sources

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
#: globs of packages; nothing that a package manager could take for an option
_NAMES = {
    'type': 'array',
    'items': {'type': 'string', 'pattern': r'^[a-z0-9*?][A-Za-z0-9+._*?\[\]-]*\Z'},
}
_SHARED = ('config', 'backup', 'ready', 'systemctl', 'restart_timeout', 'min_free_mb')

SETTINGS_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        **{key: sources.SETTINGS_SCHEMA['properties'][key] for key in _SHARED},
        'backend': {'enum': ['apt', 'dnf']},
        'root': _PATH,
        'may_remove': _NAMES,
        'projects': {
            'type': 'object',
            'additionalProperties': {
                'type': 'object',
                'additionalProperties': False,
                'required': ['packages'],
                'properties': {
                    'packages': {**_NAMES, 'minItems': 1},
                    'versions': {'type': 'object', 'additionalProperties': {'type': 'string'}},
                    'prefix': _PATH,
                    'units': {'type': 'array', 'items': {'type': 'string'}},
                    'binaries': {'type': 'object', 'additionalProperties': {'type': 'string'}},
                    'env': {'type': 'object', 'additionalProperties': {'type': 'string'}},
                    'user': {'type': 'string'},
                    'databases': {'type': 'array', 'items': {'type': 'string'}},
                },
            },
        },
    },
    'required': ['projects'],
}

_Maker = Callable[[base.Task, layouts.Layout, base.Site], base.Job | base.Outcome]
#: kind -> what makes its job
_JOBS: dict[str, _Maker] = {
    'prefetch': package_jobs.prefetch,
    **database.JOBS,
    'upgrade_packages': package_jobs.upgrade_packages,
    'stop_service': source_jobs.stop_service,
    'upgrade_service': package_jobs.upgrade_service,
    'restart_service': source_jobs.restart_service,
}
_UNDO: dict[str, _Maker] = {
    'upgrade_packages': package_jobs.undo_packages,
    'stop_service': source_jobs.restart_service,
    'upgrade_service': package_jobs.undo_service,
}
#: most versions that the facts list of one package
_LISTED = 5


class PackageUpgradeStrategy(base.UpgradeStrategy):
    """Packages of apt or dnf, and systemd units."""

    name = 'package'
    summary = "the distribution's packages, a host's projects together, by apt or dnf"
    unit_of_change = 'host'
    in_process = frozenset({'verify_host'})
    kinds = frozenset(_JOBS) | in_process | {'check_host'}
    settings_schema = SETTINGS_SCHEMA

    def steps(
        self,
        services: Sequence[model.Service],
        facts: Mapping[str, Any],
        target: Mapping[str, Any],
    ) -> list[str]:
        """Name what a project on a host takes; the packages are the host's."""
        return ['prefetch', 'upgrade_packages', 'upgrade_service', 'verify_host']

    # -- what is there -------------------------------------------------------------------------

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report each project that has packages here, with what the repositories offer."""
        layout = layouts.Layout(site)
        there = {p: layout.packages(p) for p in self._projects(layout)}
        there = {p: found for p, found in there.items() if found}
        units = layout.units(*there) if there else {}
        offered = layout.tool.available([name for found in there.values() for name in found])
        return {
            'projects': {
                p: {
                    'version': layout.version(p),
                    'how': 'package',
                    'path': layout.current(p),
                    'packages': found,
                    'available': {name: offered.get(name, [])[:_LISTED] for name in found},
                    'services': [
                        {'binary': u.binary, 'unit': u.name, 'state': u.state}
                        for u in units[p]
                        if u.wanted
                    ],
                }
                for p, found in there.items()
            },
            'backup': database.readiness(layout),
        }

    @staticmethod
    def _projects(layout: layouts.Layout) -> list[str]:
        return [p for p in layout.settings['projects'] if p in layout.projects]

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow only projects whose packages the settings name."""
        layout = layouts.Layout(site)
        named = [task.project] if task.project else list(task.params.get('projects') or ())
        for project in named:
            if project not in layout.projects:
                return f'no project data for {str(project)[:64]}'
            if not layout.patterns(project):
                return f'package.yaml of this host names no packages of {project}'
        if not named and task.kind != 'check_host':
            return f'{task.kind} names no project'
        return None

    def check(self, task: base.Task, site: base.Site) -> bool:
        """Tell whether nothing is left to do."""
        layout = layouts.Layout(site)
        if task.direction == 'back':
            return False  # the record of the transaction says what is left to undo
        if task.kind == 'backup_database':
            return os.path.isfile(database.manifest_path(task, layout))
        if task.kind not in ('upgrade_packages', 'upgrade_service') or layout.tool.standing():
            return False
        if layout.wanted(layouts.goal(task)):
            return False
        return task.kind == 'upgrade_packages' or not self._wrong_units(task, layout)

    # -- doing ---------------------------------------------------------------------------------

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Make the job of a step; look at once."""
        layout = layouts.Layout(site)
        if task.kind == 'verify_host':
            return self._verify(task, layout)
        if task.kind == 'check_host':
            goal = dict(task.params.get('projects') or {})
            return sources.verdict(package_jobs.hurdles(layout, goal, site.rehearsal), {})
        return _JOBS[task.kind](task, layout, site)

    def undo(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Bring the packages back to the versions that were written down."""
        if task.kind not in _UNDO:
            return self.run(task, site)
        return _UNDO[task.kind](task, layouts.Layout(site), site)

    def _wrong_units(self, task: base.Task, layout: layouts.Layout) -> list[str]:
        project = str(task.project)
        return [
            f'{u.name} is {u.state}' if u.state != 'active' else f'{u.name} runs older code'
            for u in layout.chosen(project, task.params.get('units'))
            if u.state != 'active' or not layout.runs_current(project, u)
        ]

    def _verify(self, task: base.Task, layout: layouts.Layout) -> base.Outcome:
        """Read back what the package database says and what really runs."""
        project, wanted = str(task.project), task.params.get('version')
        found = layout.version(project)
        wrong = [*layout.tool.standing(), *self._wrong_units(task, layout)]
        if wanted and found != wanted:
            wrong.insert(0, f'the packages of {project} are {found}, not {wanted}')
        return sources.verdict(wrong, {'version': found, 'packages': layout.packages(project)})
