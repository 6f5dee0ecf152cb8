"""The jobs of strategy `package`: what is run for each kind of step, in which order."""

import dataclasses
import os
import shutil

from upgrade_service import exception
from upgrade_service.strategies import base, source_jobs
from upgrade_service.strategies import package_layout as layouts
from upgrade_service.strategies import source_layout as units_of

Layout = layouts.Layout
Op = base.Op


def hurdles(layout: Layout, goal: dict[str, str], rehearsal: bool) -> list[str]:
    """Say what would keep the packages of a host from getting to their versions."""
    tool = layout.tool
    wrong = tool.standing()
    if not goal or wrong:
        return wrong
    if not rehearsal and (why := tool.refresh()):
        return [why]
    try:
        wanted = layout.wanted(goal)
        record = layout.begin(goal, wanted) if wanted else None
    except exception.Refused as e:
        held = tool.held(layout.packages(*goal))
        return [_on_hold(layout, held)] if held else [str(e)]
    if held := tool.held(wanted):
        wrong.append(_on_hold(layout, held))
    if repositories := tool.untrusted(wanted):
        wrong.append(
            f'no valid signature on {", ".join(repositories[:3])}: sign it, or install its key '
            'and name that with Signed-By'
        )
    return wrong + (_room(layout) if record else [])


def _on_hold(layout: Layout, held: list[str]) -> str:
    return (
        f'{", ".join(held[:5])} is on hold: {layout.tool.unhold(held[:5])}, or leave the project '
        'out with skip_projects'
    )


def _room(layout: Layout) -> list[str]:
    wanted, wrong = int(layout.settings.get('min_free_mb', 1024)), []
    for place in layout.tool.places:
        path = layout.tool.inside(place)
        free = shutil.disk_usage(path).free // 2**20 if os.path.isdir(path) else wanted
        if free < wanted:
            wrong.append(f'only {free} MiB are free in {path}, {wanted} are wanted: make room')
    return wrong


# -- packages ----------------------------------------------------------------------------------


def prefetch(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Download exactly what is planned, and keep what is there for the way back."""
    goal = layouts.goal(task)
    wanted = layout.wanted(goal)
    before = layout.tool.installed(wanted)
    ops = layout.tool.fetch(wanted, before) if wanted else []
    return base.Job(
        ops=(*ops, *_noted(layout, goal, wanted)),
        timeout=3600,
        interruptible=True,
        data={'packages': [f'{n}={v}' for n, v in sorted(wanted.items())][:40]},
    )


def _noted(layout: Layout, goal: dict[str, str], wanted: dict[str, str]) -> list[Op]:
    """Write down what the transaction starts from, on disk before it starts."""
    if not wanted:
        return []
    record = layout.begin(goal, wanted)
    return [
        Op(do='mkdir', title='make room for the record', path=layout.records, mode=0o700),
        Op(
            do='write',
            title=f'write down the versions of {len(record.before)} packages',
            path=layout.path_of(goal),
            text=record.text(),
            mode=0o600,
        ),
    ]


def upgrade_packages(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Put the new packages of several projects in place, in one transaction."""
    return _replace(task, layout, layouts.goal(task))


def _replace(task: base.Task, layout: Layout, goal: dict[str, str]) -> base.Job:
    wanted = layout.wanted(goal)
    noted = _noted(layout, goal, wanted)
    job = layout.tool.change(wanted, layout.mark(goal))
    since = layout.path_of(goal)
    return dataclasses.replace(
        job,
        ops=(*noted, *job.ops, layout.tool.report(since)) if wanted else (),
        always=job.always if wanted else (),
        data={'packages': [f'{n}={v}' for n, v in sorted(wanted.items())][:40]},
    )


def upgrade_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Restart what runs older code; put its packages in place first if nothing did."""
    project, goal = layout.data(task.project), layouts.goal(task)
    units = layout.chosen(project.name, task.params.get('units'))
    first = _replace(task, layout, goal)
    job = source_jobs.restart_job(
        layout, project, units, [*first.ops, _reload(layout)], {'version': goal[project.name]}
    )
    return dataclasses.replace(
        job, interruptible=not first.ops, always=first.always, roots=first.roots
    )


def _reload(layout: Layout) -> Op:
    return Op(do='run', title='read the units anew', argv=(layout.systemctl, 'daemon-reload'))


# -- the way back ------------------------------------------------------------------------------


def undo_packages(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Bring every package of the transaction back, then restart what runs the newer code."""
    return _back(task, layout, None)


def undo_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Bring the packages of the host back, and restart the units of this project.

    Packages share libraries: those that went together go back together.
    """
    return _back(task, layout, task.project)


def _back(task: base.Task, layout: Layout, project: str | None) -> base.Job:
    goal = layouts.goal(task)
    record = layout.record(goal)
    if record is None:
        raise exception.Refused(
            reason=f'nothing is written down in {layout.records} of what was here before '
            f'{", ".join(f"{p} {v}" for p, v in goal.items())}: downgrade by hand'
        )
    now = layout.tool.installed(record.before)
    before = {n: v for n, v in record.before.items() if now.get(n) != v}
    job = (
        layout.tool.back(before, layout.mark(record.projects))
        if before
        else base.Job(ops=(), timeout=3600)
    )
    names = [project] if project else sorted(record.projects)
    units = [u for name in names for u in _units(task, layout, name, bool(before))]
    known = layout.data(names[0])
    restart = (
        source_jobs.restart_job(layout, known, units, [_reload(layout)], {}) if units else None
    )
    return dataclasses.replace(
        job,
        ops=(*job.ops, *(restart.ops if restart else ())),
        diagnose=restart.diagnose if restart else (),
        data={'packages': [f'{n}={v}' for n, v in sorted(before.items()) if v][:40]},
    )


def _units(task: base.Task, layout: Layout, project: str, every: bool) -> list[units_of.Unit]:
    """Return the units of a project that have to be restarted after the way back."""
    there = [u for u in layout.units(project)[project] if u.wanted]
    if task.project == project and task.params.get('units'):
        there = layout.chosen(project, task.params['units'])
    return [u for u in there if every or not layout.runs_current(project, u)]
