"""The jobs of strategy `source`: what is run for each kind of step, in which order."""

import dataclasses
import os
from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base, source_in_place
from upgrade_service.strategies import source_layout as layouts

Layout = layouts.Layout
Op = base.Op

# -- databases and checks ----------------------------------------------------------------------

#: kinds whose commands may be ended at their deadline; a migration never is
_ENDABLE = frozenset({'upgrade_check'})


def commands(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Run the project's own commands for a kind of step."""
    project = layout.data(task.project)
    version = task.params.get('version')
    ops = [
        _project_command(layout, project, command, version)
        for command in project.commands.get(task.kind, ())
    ]
    return base.Job(
        ops=tuple(ops),
        timeout=86400,
        interruptible=task.kind in _ENDABLE,
        data={'version': version} if version else {},
    )


def _project_command(
    layout: Layout, project: loader.Project, command: loader.Command, version: str | None
) -> Op:
    code = layout.code(project.name, version, command.code)
    settings = layout.settings.get('config') or {}
    config = settings.get(project.name, project.config.get('args', ()))
    argv = [a for one in command.argv[1:] for a in (config if one == '{config}' else (one,))]
    return Op(
        do='run',
        title=' '.join(command.argv).replace(' {config}', '').partition('\n')[0],
        argv=(f'{code}/bin/{command.argv[0]}', *argv),
        env=layout.environment(project.name, code),
        user=layout.of(project.name).get('user'),
        exits=command.exits,
        timeout=86400,
        limit=1000,
    )


def backup_path(task: base.Task, layout: Layout) -> str:
    """Return where the dump of a step goes; each step has its own."""
    backup = layout.settings.get('backup') or {}
    if not backup.get('dir') or not backup.get('command'):
        raise exception.Refused(reason='the settings name no backup dir and command')
    return f'{backup["dir"]}/{task.project}-{task.step}.sql'


def backup_database(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Dump the databases of a project into a file that says that it is whole."""
    project, path = layout.data(task.project), backup_path(task, layout)
    backup = layout.settings['backup']
    databases = layout.of(project.name).get('databases', project.databases)
    mark = str(backup.get('complete', 'Dump completed'))
    part = f'{path}.part'
    ops = (
        Op(do='mkdir', title='make the directory', path=backup['dir'], mode=0o700),
        Op(
            do='run',
            title=f'dump {", ".join(databases)}',
            argv=(*backup['command'], *databases),
            stdout=part,
            mode=0o600,
            timeout=14400,
        ),
        Op(do='expect', title='look whether the dump is whole', path=part, text=mark),
        Op(do='rename', title=f'keep it as {path}', path=part, target=path),
    )
    return base.Job(ops=ops, timeout=14400, interruptible=True)


# -- services ----------------------------------------------------------------------------------


def upgrade_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Switch to a version and restart what runs: everything slow was done before."""
    project, version = layout.data(task.project), layouts.version_of(task)
    units = layout.chosen(project.name, task.params.get('units'))
    if task.direction != 'back' or not layout.in_place(project.name):
        _built(layout, project.name, version)
    if not layout.in_place(project.name):
        switch = _switch(layout, project.name, version)
        return restart_job(layout, project, units, [switch], {'version': version})
    ops = source_in_place.switch(task, layout, site, [u.name for u in units])
    job = restart_job(layout, project, units, ops, {'version': version})
    # an environment that is half written is no environment: it is never ended
    own = source_in_place.roots(layout, project.name)
    return dataclasses.replace(job, interruptible=False, roots=own)


def _built(layout: Layout, project: str, version: str) -> None:
    target = layout.venv(project, version)
    if not os.path.isfile(f'{target}/bin/python'):
        raise exception.Refused(reason=f'{target} is not there: prefetch comes first')


def _switch(layout: Layout, project: str, version: str) -> Op:
    link, target = layout.current(project), layout.venv(project, version)
    if os.path.lexists(link) and not os.path.islink(link):
        raise exception.Refused(reason=f'{link} is not a link')
    beside = os.path.dirname(link) == os.path.dirname(target)
    return Op(
        do='symlink',
        title=f'switch {link} to {version}',
        path=link,
        target=os.path.basename(target) if beside else target,
    )


def stop_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Stop units; `upgrade_service` starts them again, with the new code."""
    project = layout.data(task.project)
    names = [u.name for u in layout.chosen(project.name, task.params.get('units'))]
    stop = Op(
        do='run',
        title=f'stop {", ".join(names)}',
        argv=(layout.systemctl, 'stop', '--', *names),
        timeout=int(layout.settings.get('restart_timeout', 600)),
    )
    return base.Job(ops=(stop,), timeout=1800)


def restart_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Restart units, so that they look anew at what the others can do."""
    project = layout.data(task.project)
    units = layout.chosen(project.name, task.params.get('units'))
    return restart_job(layout, project, units, [], {})


def restart_job(
    layout: Layout,
    project: loader.Project,
    units: list[layouts.Unit],
    before: list[Op],
    data: dict[str, Any],
) -> base.Job:
    """Do something, then restart units together and wait until they serve."""
    names = [u.name for u in units]
    levels = sorted({_level(project, u) for u in units})
    ops = list(before)
    for level in levels:
        ops += _restart(layout, [u.name for u in units if _level(project, u) == level])
    ops += _ready(layout, project, units)
    tails = tuple(
        Op(
            do='run',
            title=f'last words of {name}',
            argv=('/usr/bin/journalctl', '-u', name, '-n', '30', '--no-pager', '-o', 'cat'),
        )
        for name in names
    )
    return base.Job(ops=tuple(ops), timeout=1800, interruptible=True, diagnose=tails, data=data)


def _level(project: loader.Project, unit: layouts.Unit) -> int:
    known = project.services.get(unit.binary)
    return known.start if known else 1


def _restart(layout: Layout, names: list[str]) -> list[Op]:
    """Restart units by one command: systemd stops and starts them side by side."""
    ctl = layout.systemctl
    restart = Op(
        do='run',
        title=f'restart {", ".join(names)}',
        argv=(ctl, 'restart', '--', *names),
        timeout=int(layout.settings.get('restart_timeout', 600)),
    )
    return [restart, *(_active(ctl, name) for name in names)]


def _active(systemctl: str, name: str) -> Op:
    """Wait for a unit: `restart` is content with a process that begins."""
    return Op(
        do='wait_unit',
        title=f'wait until {name} is active',
        path=systemctl,
        text=name,
        timeout=120,
    )


def _ready(layout: Layout, project: loader.Project, units: list[layouts.Unit]) -> list[Op]:
    """Wait for a real answer: an open port is not yet an API."""
    ready = (layout.settings.get('ready') or {}).get(project.name)
    apis = {b.name for b in project.services.values() if b.api}
    if not ready or not any(u.binary in apis for u in units):
        return []
    return [
        Op(
            do='wait_http',
            title=f'wait until {ready["url"]} answers',
            url=ready['url'],
            codes=tuple(ready.get('codes', (200, 300))),
            timeout=int(ready.get('timeout', 180)),
        )
    ]
