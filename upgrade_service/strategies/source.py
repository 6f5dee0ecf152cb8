"""Upgrades from source: a virtual environment for each project and version.

The new version is installed and proved beside the old one while that still serves; the
upgrade itself is a link that is switched and units that are restarted together. Undoing it
is the same, backwards. What may be installed, from where and for whom stands in
``engine.d/source.yaml``; an order only names projects and versions.
"""

from collections.abc import Callable, Mapping
import os
import shutil
from typing import Any

from upgrade_service.strategies import base, database, members, source_install, source_jobs
from upgrade_service.strategies import source_layout as layouts

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
_TEXTS = {'type': 'array', 'items': {'type': 'string', 'pattern': r'^[^-\n][^\n]*\Z'}}


def _object(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'additionalProperties': False, 'properties': properties}


def _map(value: Mapping[str, Any]) -> dict[str, Any]:
    return {'type': ['object', 'null'], 'additionalProperties': value}


SETTINGS_SCHEMA: dict[str, Any] = {
    **_object(
        root=_PATH,
        python=_PATH,
        installer={'anyOf': [{'enum': ['uv', 'pip']}, _PATH]},
        index=_object(
            offline={'type': 'boolean'},
            find_links={'type': 'string'},
            index_url={'type': 'string', 'pattern': '^https?://'},
        ),
        constraints=_PATH,
        extra=_TEXTS,
        projects=_map(
            {
                **_object(
                    extra=_TEXTS,
                    units=_TEXTS,
                    binaries=_map({'type': 'string'}),
                    current=_PATH,
                    in_place=_PATH,
                    env=_map({'type': 'string'}),
                    user={'type': 'string'},
                    databases=_TEXTS,
                ),
                'type': ['object', 'null'],
            }
        ),
        git=_map({'type': 'string', 'pattern': '^[^-]'}),
        git_command=_PATH,
        config=_map({'type': 'array', 'items': {'type': 'string'}}),
        backup=database.SETTINGS_SCHEMA,
        members=members.SETTINGS_SCHEMA,
        ready=_map(
            _object(
                url={'type': 'string', 'pattern': '^https?://'},
                codes={'type': 'array', 'items': {'type': 'integer'}},
                timeout={'type': 'integer', 'minimum': 1},
            )
        ),
        systemctl=_PATH,
        restart_timeout={'type': 'integer', 'minimum': 1},
        min_free_mb={'type': 'integer', 'minimum': 0},
    ),
    'required': ['root'],
}

_Maker = Callable[[base.Task, layouts.Layout, base.Site], base.Job | base.Outcome]
#: kind -> what makes its job
_JOBS: dict[str, _Maker] = {
    'prefetch': source_install.prefetch,
    **database.JOBS,
    **members.JOBS,
    'rehearse_config': source_jobs.rehearse_config,
    'rehearse_database': database.rehearse_database,
    'stop_service': source_jobs.stop_service,
    'upgrade_service': source_jobs.upgrade_service,
    'restart_service': source_jobs.restart_service,
}


class SourceUpgradeStrategy(base.UpgradeStrategy):
    """Virtual environments from PyPI or git, a link, and systemd units."""

    name = 'source'
    summary = 'a virtual environment per project and version, switched by a link'
    in_process = frozenset({'check_host', 'verify_host'})
    kinds = frozenset(_JOBS) | in_process
    settings_schema = SETTINGS_SCHEMA

    # -- what is there -------------------------------------------------------------------------

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report each project that has a link to code in use, with its units."""
        layout = layouts.Layout(site)
        there = [p for p in layout.projects.names() if layout.in_use(p)]
        units = layout.units(*there) if there else {}
        return {
            'projects': {
                p: {
                    'version': layout.installed_version(p, layout.in_use(p)),
                    'how': 'venv',
                    'path': layout.current(p),
                    'services': [
                        {'binary': u.binary, 'unit': u.name, 'state': u.state}
                        for u in units[p]
                        if u.wanted
                    ],
                }
                for p in there
            },
            'backup': database.readiness(layout),
            'members': members.facts(site.settings),
            'disks': database.disks(layout),
        }

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow only projects that are known, and that are on this host."""
        if task.kind == 'check_host' and task.project is None:
            return None
        if task.kind in members.JOBS:
            return None  # the settings say whom it may ask
        layout = layouts.Layout(site)
        if task.project is None or task.project not in layout.projects:
            return f'no project data for {str(task.project)[:64]}'
        half_back = task.direction == 'back' and layout.in_place(task.project)
        if not layout.in_use(task.project) and not half_back:
            return f'{task.project} is not installed here: no {layout.current(task.project)}'
        return None

    def check(self, task: base.Task, site: base.Site) -> bool:
        """Tell whether nothing is left to do."""
        layout = layouts.Layout(site)
        project, version = str(task.project), str(task.params.get('version'))
        if task.kind == 'prefetch':
            proof = layout.proof(project, version)
            done = proof is not None and proof.get('commit') == task.params.get('commit')
            return done or layout.is_current(project, version)
        if task.kind == 'upgrade_service':
            return layout.is_current(project, version) and not self._wrong_units(task, layout)
        if task.kind == 'backup_database':
            return os.path.isfile(database.manifest_path(task, layout))
        return False

    # -- doing ---------------------------------------------------------------------------------

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Make the job of a step; check and verify at once."""
        layout = layouts.Layout(site)
        if task.kind == 'verify_host':
            return self._verify(task, layout)
        if task.kind == 'check_host':
            return self._check_host(task, layout)
        return _JOBS[task.kind](task, layout, site)

    def undo(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Switch back to the version that it came from, or start what was stopped."""
        if task.kind == 'stop_service':
            return source_jobs.restart_service(task, layouts.Layout(site), site)
        return self.run(task, site)

    def _wrong_units(self, task: base.Task, layout: layouts.Layout) -> list[str]:
        project = str(task.project)
        return [
            f'{u.name} is {u.state}' if u.state != 'active' else f'{u.name} runs older code'
            for u in layout.chosen(project, task.params.get('units'))
            if u.state != 'active' or not layout.runs_current(project, u)
        ]

    def _verify(self, task: base.Task, layout: layouts.Layout) -> base.Outcome:
        """Read back what is installed and what really runs."""
        project, wanted = str(task.project), task.params.get('version')
        found = layout.installed_version(project, layout.in_use(project))
        wrong = self._wrong_units(task, layout)
        if wanted and found != wanted:
            wrong.insert(0, f'{layout.current(project)} is {project} {found}, not {wanted}')
        return verdict(wrong, {'version': found})

    def _check_host(self, task: base.Task, layout: layouts.Layout) -> base.Outcome:
        """See what would keep the next steps from succeeding."""
        settings, release = layout.settings, str(task.params.get('release') or '')
        needed = [layout.root, str(settings.get('python', '/usr/bin/python3')), layout.systemctl]
        if release and settings.get('constraints'):
            needed.append(str(settings['constraints']).replace('{release}', release))
        links = str((settings.get('index') or {}).get('find_links') or '')
        if release and links.startswith('/'):
            needed.append(links.replace('{release}', release))
        wrong = [f'{path} is not there' for path in needed if not os.path.exists(path)]
        if os.path.isdir(layout.root):
            free = shutil.disk_usage(layout.root).free // 2**20
            if free < settings.get('min_free_mb', 1024):
                wrong.append(f'only {free} MiB are free in {layout.root}')
        return verdict(wrong, {})


def verdict(wrong: list[str], data: Mapping[str, Any]) -> base.Outcome:
    """Return the outcome of a look: failed if anything is wrong."""
    if wrong:
        return base.Outcome(
            result=base.Result.FAILED, rc=1, error='; '.join(wrong)[:1500], data=data
        )
    return base.Outcome(result=base.Result.SUCCEEDED, data=data)
