"""The jobs of strategy `source`: what is run for each kind of step, in which order."""

import dataclasses
import os
from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base, database, source_in_place
from upgrade_service.strategies import source_layout as layouts

Layout = layouts.Layout
Op = base.Op

# -- configuration -----------------------------------------------------------------------------


def rehearse_config(task: base.Task, layout: Layout, site: base.Site) -> base.Job | base.Outcome:
    """Hold every file that the commands or the running units of a project read."""
    project = layout.data(task.project)
    files = database.config_files(layout, project)
    for unit in layout.units(project.name)[project.name]:
        files += [f for f in layouts.options(unit.pid, '--config-file') if f not in files]
    return database.rehearse_config(task, layout, [f for f in files if os.path.isfile(f)])


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
