"""Services in containers that systemd units start: the image's tag stands in a file.

Each project has an environment file, ``NOVA_TAG=33.0.2``, which its units read when they
start their container. An upgrade writes the new tag and restarts the units; undoing it is
the same with the old tag.
"""

import pathlib
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import base

KINDS = frozenset({'check_host', 'prefetch', 'upgrade_service', 'restart_service', 'verify_host'})


class TagsUpgradeStrategy(base.UpgradeStrategy):
    """Changes tags in files and restarts units."""

    name = 'tags'
    summary = 'containers whose tags stand in files that systemd units read'
    kinds = KINDS
    #: done at once by the engine itself: they only read
    in_process = frozenset({'check_host', 'verify_host'})
    settings_schema = {
        'type': 'object',
        'additionalProperties': False,
        'required': ['directory', 'projects'],
        'properties': {
            'directory': {'type': 'string', 'pattern': '^/'},
            'podman': {'type': 'string', 'pattern': '^/'},
            'systemctl': {'type': 'string', 'pattern': '^/'},
            # project -> its image, and the systemd units that run it
            'projects': {
                'type': 'object',
                'additionalProperties': {
                    'type': 'object',
                    'additionalProperties': False,
                    'required': ['image', 'units'],
                    'properties': {
                        'image': {'type': 'string', 'pattern': '^[a-z0-9][a-z0-9./:_-]*$'},
                        'units': {'type': 'object', 'additionalProperties': {'type': 'string'}},
                    },
                },
            },
        },
    }

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report the tag of each project, and the units by their binaries."""
        projects = site.settings['projects']
        return {
            'projects': {
                name: {
                    'version': _tag(site, name),
                    'how': 'container',
                    'path': str(_file(site, name)),
                    'services': [
                        {'binary': binary, 'unit': unit, 'state': 'active'}
                        for binary, unit in one['units'].items()
                    ],
                }
                for name, one in projects.items()
                if _file(site, name).exists()
            }
        }

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow the projects of the settings."""
        if task.kind == 'check_host' or task.project in site.settings['projects']:
            return None
        return f'tags.yaml does not name {task.project}: add its image and units'

    def check(self, task: base.Task, site: base.Site) -> bool:
        """A restart cannot be seen in a file: it is done whenever it is asked for."""
        return False

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Look, or return the job of a step."""
        return {
            'check_host': _check,
            'verify_host': _verify,
            'prefetch': _prefetch,
            'upgrade_service': _upgrade,
            'restart_service': _restart,
        }[task.kind](task, site)

    def undo(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Do it again: on the way back `version` is the one that ran before."""
        return self.run(task, site)


def _file(site: base.Site, project: str) -> pathlib.Path:
    return pathlib.Path(site.settings['directory']) / f'{project}.env'


def _tag(site: base.Site, project: str) -> str | None:
    for line in _file(site, project).read_text().splitlines():
        name, _, value = line.partition('=')
        if name == f'{project.upper()}_TAG':
            return value
    return None


def _done(wrong: list[str], **data: Any) -> base.Outcome:
    result = base.Result.FAILED if wrong else base.Result.SUCCEEDED
    return base.Outcome(result=result, error='; '.join(wrong), data=data)


def _check(task: base.Task, site: base.Site) -> base.Outcome:
    """Find out before anything is changed whether every file is there."""
    return _done(
        [
            f'{_file(site, name)} is not there: write {name.upper()}_TAG=VERSION into it'
            for name in site.settings['projects']
            if not _file(site, name).exists()
        ]
    )


def _verify(task: base.Task, site: base.Site) -> base.Outcome:
    """Read the tag back."""
    tag, wanted = _tag(site, str(task.project)), task.params['version']
    wrong = [] if tag == wanted else [f'{_file(site, str(task.project))} says {tag}, not {wanted}']
    return _done(wrong, version=tag)


def _prefetch(task: base.Task, site: base.Site) -> base.Job:
    """Pull the image while the old one still serves."""
    image = site.settings['projects'][task.project]['image']
    podman = site.settings.get('podman', '/usr/bin/podman')
    pull = base.Op(
        do='run',
        title=f'pull {image}:{task.params["version"]}',
        argv=(podman, 'pull', '--quiet', f'{image}:{task.params["version"]}'),
        timeout=3600,
    )
    return base.Job(ops=(pull,), timeout=3600, interruptible=True)


def _upgrade(task: base.Task, site: base.Site) -> base.Job:
    """Write the tag, then restart; on the way back `version` is the old one."""
    version = task.params.get('version')
    if not version:
        raise exception.Refused(reason='upgrade_service needs a version')
    write = base.Op(
        do='write',
        title=f'set the tag of {task.project} to {version}',
        path=str(_file(site, str(task.project))),
        text=f'{str(task.project).upper()}_TAG={version}\n',
        mode=0o644,
    )
    return base.Job(
        ops=(write, *_restarts(task, site)),
        timeout=1800,
        interruptible=True,
        data={'version': version},
    )


def _restart(task: base.Task, site: base.Site) -> base.Job:
    return base.Job(ops=_restarts(task, site), timeout=900, interruptible=True)


def _restarts(task: base.Task, site: base.Site) -> tuple[base.Op, ...]:
    """Restart the units of the binaries that the step names, in one command."""
    known = site.settings['projects'][task.project]['units']
    units = [known[b] for b in task.params.get('units') or sorted(known) if b in known]
    systemctl = site.settings.get('systemctl', '/usr/bin/systemctl')
    if not units:
        raise exception.Refused(reason=f'tags.yaml names no unit of {task.project} to restart')
    return (
        base.Op(
            do='run',
            title=f'restart {", ".join(units)}',
            argv=(systemctl, 'restart', '--', *units),
            timeout=600,
        ),
    )
