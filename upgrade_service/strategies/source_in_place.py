"""Strategy `source` where a site has one environment for a project, changed in its place.

The new version was built and proved beside it before, for its commands are needed while the
old code still serves. The switch then copies the environment aside, stops the units, installs
into it, and starts them; undoing it puts the copy back, byte for byte, with no index at all.
"""

import os

from upgrade_service import exception
from upgrade_service.strategies import base, source_install
from upgrade_service.strategies import source_layout as layouts

Layout = layouts.Layout
Op = base.Op


def roots(layout: Layout, project: str) -> tuple[str, ...]:
    """Return the directory in which the environment and its copies lie."""
    return (os.path.dirname(layout.current(project)),)


def switch(task: base.Task, layout: Layout, site: base.Site, units: list[str]) -> list[Op]:
    """Return what comes before the start of the units, forward or back.

    :raises Refused: there would be no way back, or there is none.
    """
    if task.params.get('commit'):
        raise exception.Refused(
            reason=f'{task.project} is changed in place: a commit needs an environment of its own'
        )
    stop = Op(
        do='run',
        title=f'stop {", ".join(units)}',
        argv=(layout.systemctl, 'stop', '--', *units),
        timeout=int(layout.settings.get('restart_timeout', 600)),
    )
    return _back(task, layout, stop) if task.direction == 'back' else _on(task, layout, site, stop)


def _copy(layout: Layout, project: str, version: object) -> str:
    return f'{layout.current(project)}.{version}'


def _on(task: base.Task, layout: Layout, site: base.Site, stop: Op) -> list[Op]:
    project, env = str(task.project), layout.current(str(task.project))
    if not task.params.get('from_version'):
        raise exception.Refused(reason=f'nobody knows which version {env} has: no way back')
    kept = _copy(layout, project, task.params['from_version'])
    part = f'{kept}.part'
    keep = (
        Op(do='remove', title='remove an unfinished copy', path=part),
        Op(do='run', title=f'copy {env}', argv=('/bin/cp', '-a', '--', env, part), timeout=3600),
        Op(do='rename', title=f'keep it as {kept}', path=part, target=kept),
    )
    # a second attempt must not take what the first one left for what was there before
    known = os.path.isdir(kept)
    return [*(() if known else keep), stop, source_install.install(task, layout, site, env)]


def _back(task: base.Task, layout: Layout, stop: Op) -> list[Op]:
    project, env = str(task.project), layout.current(str(task.project))
    kept = _copy(layout, project, task.params['version'])
    if not os.path.isdir(kept):
        raise exception.Refused(reason=f'there is no {kept} to put back')
    aside = _copy(layout, project, task.params.get('from_version'))
    away = (
        Op(do='remove', title='remove what was put aside before', path=aside),
        Op(do='rename', title=f'put the new one aside as {aside}', path=env, target=aside),
    )
    put = Op(do='rename', title=f'put back {kept}', path=kept, target=env)
    # interrupted between the two renames, there is nothing to put aside any more
    return [stop, *(away if os.path.isdir(env) else ()), put]
