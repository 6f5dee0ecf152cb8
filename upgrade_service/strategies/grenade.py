"""Upgrades of a devstack by grenade, the upgrade harness of the gate.

Two ways, by `mode` in ``engine.d/grenade.yaml``: `full` and `external` run the whole of
grenade.sh (which upgrades every project of its host) once for a release; `scripts` runs the
scripts that grenade has for each project, one step each. In `external` mode both devstacks
were prepared beforehand, as the gate's native jobs do.
"""

from collections.abc import Mapping
import json
import os
import sys
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import base, grenade_run

Op = base.Op

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
_COMMIT = {'type': 'string', 'pattern': r'^[0-9a-f]{40}\Z'}
_BRANCH = {'type': 'string', 'pattern': r'^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}\Z'}


def _object(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'additionalProperties': False, 'properties': properties}


SETTINGS_SCHEMA: dict[str, Any] = {
    **_object(
        mode={'enum': ['full', 'external', 'scripts']},
        directory=_PATH,
        user={'type': 'string', 'pattern': r'^[a-z_][a-z0-9_-]{0,31}\Z', 'not': {'const': 'root'}},
        stack_root=_PATH,
        base_devstack=_PATH,
        target_devstack=_PATH,
        # release -> branch of devstack
        branches={'type': 'object', 'additionalProperties': _BRANCH},
        commits=_object(grenade=_COMMIT, base=_COMMIT, target=_COMMIT),
        env={
            'type': 'object',
            'propertyNames': {'pattern': r'^[A-Z][A-Z0-9_]*\Z'},
            'additionalProperties': {'type': 'string'},
        },
        timeout={'type': 'integer', 'minimum': 60, 'maximum': 86400},
    ),
    'required': ['mode', 'directory', 'user', 'branches'],
}
#: kinds that grenade does by itself within the upgrade of a project
COVERED = frozenset({
    'prefetch', 'upgrade_check', 'backup_database', 'verify_backup', 'db_expand', 'db_migrate',
    'db_contract', 'online_migrations', 'stop_service', 'restart_service',
})  # fmt: skip
WORDS = {
    grenade_run.UNFIT: 'not fit for grenade',
    grenade_run.INCOMPLETE: 'grenade did not do all of it',
}


class GrenadeUpgradeStrategy(base.UpgradeStrategy):
    """A devstack, upgraded by grenade."""

    name = 'grenade'
    summary = 'a devstack, by grenade.sh or the scripts it has for each project'
    kinds = COVERED | {'check_host', 'upgrade_service', 'verify_host'}
    settings_schema = SETTINGS_SCHEMA

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report nothing: what runs is a devstack's business."""
        directory = site.settings['directory']
        if not os.path.isfile(f'{directory}/grenade.sh'):
            raise exception.Refused(reason=f'there is no grenade.sh in {directory}')
        return {}

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow releases whose branches the settings name."""
        if task.direction == 'back':
            return 'grenade knows no way back: restore the host'
        release = str(task.params.get('release') or '')
        branches = site.settings['branches']
        if task.kind == 'upgrade_service' and release not in branches:
            known = ', '.join(sorted(branches))
            return f'grenade.yaml names no branch for release {release}; it has {known}'
        return None

    def check(self, task: base.Task, site: base.Site) -> bool:
        """A run of grenade.sh has upgraded every project of the host."""
        if task.kind != 'upgrade_service' or site.settings['mode'] == 'scripts':
            return False
        try:
            with open(_mark(task, site)) as f:
                return bool(json.load(f) == _done(task, site))
        except (OSError, ValueError):
            return False

    def run(self, task: base.Task, site: base.Site) -> base.Job:
        """Check, upgrade, or have the resources verified."""
        if task.kind in COVERED:
            return base.Job(ops=(), timeout=task.timeout, data={'covered': True})
        return _JOBS[task.kind](task, site)


def _mark(task: base.Task, site: base.Site) -> str:
    return f'{site.state_dir}/grenade/{task.params.get("release")}.json'


def _done(task: base.Task, site: base.Site) -> dict[str, Any]:
    """What the mark of a run says: the release, from the same checkouts."""
    return {
        'release': task.params.get('release'),
        'commits': site.settings.get('commits') or {},
        'directory': site.settings['directory'],
    }


def environment(task: base.Task, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what grenaderc reads from its environment."""
    root = settings.get('stack_root', '/opt/stack')
    branches, params = settings['branches'], task.params
    found = {
        'STACK_ROOT': root,
        'BASE_DEVSTACK_DIR': settings.get('base_devstack', f'{root}/old/devstack'),
        'TARGET_DEVSTACK_DIR': settings.get('target_devstack', f'{root}/new/devstack'),
        **(settings.get('env') or {}),
    }
    if settings['mode'] != 'full':
        found['GRENADE_USE_EXTERNAL_DEVSTACK'] = 'True'
    for side, key in (('BASE', 'from_release'), ('TARGET', 'release')):
        branch = branches.get(str(params.get(key) or ''))
        if branch:
            found[f'{side}_DEVSTACK_BRANCH'] = branch
    return found


def _spec(what: str, task: base.Task, site: base.Site) -> dict[str, Any]:
    settings = site.settings
    env, commits = environment(task, settings), settings.get('commits') or {}
    checkouts = [{'path': settings['directory'], 'commit': commits.get('grenade')}]
    needed = [f'{settings["directory"]}/grenade.sh']
    if settings['mode'] != 'full':
        for side in ('base', 'target'):
            path = env[f'{side.upper()}_DEVSTACK_DIR']
            checkouts.append({'path': path, 'commit': commits.get(side)})
            needed += [f'{path}/stackrc', f'{path}/functions']
    return {
        'what': what,
        'directory': settings['directory'],
        'env': env,
        'project': task.project,
        'checkouts': checkouts,
        'needed': needed,
    }


def _child(title: str, what: str, task: base.Task, site: base.Site) -> Op:
    spec = _spec(what, task, site)
    timeout = int(site.settings.get('timeout', 14400))
    return Op(
        do='run',
        title=title,
        argv=(sys.executable, '-m', 'upgrade_service.strategies.grenade_run', json.dumps(spec)),
        env={'PYTHONUNBUFFERED': '1', 'PYTHONSAFEPATH': '1'},
        user=site.settings['user'],
        timeout=timeout,
        words=WORDS,
        events=True,
    )


def _check_job(task: base.Task, site: base.Site) -> base.Job:
    op = _child('look at the checkouts', 'check', task, site)
    return base.Job(ops=(op,), timeout=600, interruptible=True)


def _upgrade_job(task: base.Task, site: base.Site) -> base.Job:
    timeout = int(site.settings.get('timeout', 14400))
    data = {'version': task.params['version']} if task.params.get('version') else {}
    fit = _child('look at the checkouts', 'check', task, site)
    if site.settings['mode'] == 'scripts':
        op = _child(f"run grenade's scripts for {task.project}", 'project', task, site)
        return base.Job(ops=(fit, op), timeout=timeout, data=data)
    mark = _mark(task, site)
    ops = (
        fit,
        _child('run grenade.sh', 'run', task, site),
        Op(do='mkdir', title='make the directory', path=os.path.dirname(mark), mode=0o700),
        Op(do='write', title='note that it ran', path=mark, text=json.dumps(_done(task, site))),
    )
    return base.Job(ops=ops, timeout=timeout, data=data)


def _verify_job(task: base.Task, site: base.Site) -> base.Job:
    if site.settings['mode'] != 'scripts' or task.project is None:
        # grenade.sh has verified the resources itself: without that phase its run failed
        return base.Job(ops=(), timeout=task.timeout, data={'covered': True})
    op = _child(f'verify the resources of {task.project}', 'verify', task, site)
    return base.Job(ops=(op,), timeout=task.timeout, interruptible=True)


_JOBS = {
    'check_host': _check_job,
    'upgrade_service': _upgrade_job,
    'verify_host': _verify_job,
}
