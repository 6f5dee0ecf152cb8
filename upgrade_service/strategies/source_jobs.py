"""The jobs of strategy `source`: what is run for each kind of step, in which order."""

import json
import os
from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base
from upgrade_service.strategies import source_layout as layouts

Layout = layouts.Layout
Op = base.Op

SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
#: what is prepared beside a running cloud leaves the processor to the cloud
NICE = ('/usr/bin/nice', '-n', '10')
#: argv: distribution, version or '', module … Most modules share one process; one that
#: cannot (nova's commands choose their kind of concurrency when they are imported) gets
#: its own before it counts as broken.
_IMPORT = """
import importlib, subprocess, sys
from importlib import metadata
found = metadata.version(sys.argv[1])
if sys.argv[2] and found != sys.argv[2]:
    sys.exit(f'installed is {found}')
broken = 0
for name in sys.argv[3:]:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit):
        broken |= subprocess.call([sys.executable, '-c', f'import {name}'])
sys.exit(broken)
"""
#: compile the project's own package, without its tests, below the tree of argv[1]
_COMPILE = (
    'import compileall, pathlib, re, sys\n'
    'for found in pathlib.Path(sys.argv[1]).glob("python*/site-packages/" + sys.argv[2]):\n'
    '    compileall.compile_dir(found, quiet=2, rx=re.compile("/tests?/"))\n'
)


def _text(value: str, release: str) -> str:
    return value.replace('{release}', release)


def _version(task: base.Task) -> str:
    version = task.params.get('version')
    if not version:
        raise exception.Refused(reason=f'{task.kind} needs params.version')
    return str(version)


def _environment(layout: Layout, project: str, code: str) -> dict[str, str]:
    extra: dict[str, str] = layout.of(project).get('env') or {}
    return {'PATH': f'{code}/bin:{SYSTEM_PATH}', 'PYTHONWARNINGS': 'ignore', **extra}


# -- prefetch ----------------------------------------------------------------------------------


def prefetch(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Install the new version beside the old one and prove that it works there."""
    project, version = layout.data(task.project), _version(task)
    target = layout.venv(project.name, version)
    if layout.in_use(project.name) == os.path.realpath(target):
        raise exception.Refused(reason=f'{target} is in use: it is not built anew')
    commit = task.params.get('commit')
    planes = layout.planes(project)
    ops = [
        Op(do='mkdir', title=f'make {layout.root}', path=layout.root, mode=0o755),
        Op(do='remove', title='remove an unfinished environment', path=target),
        _make_venv(layout, target),
        *_checkout(layout, project.name, target, commit),
        _install(task, layout, site, project, target),
        *_prove(layout, project, target, version if not commit else None, planes),
        Op(
            do='write',
            title='mark it as proved',
            path=f'{target}/{layouts.PROVED}',
            text=json.dumps({'project': project.name, 'version': version, 'commit': commit}),
        ),
    ]
    return base.Job(
        ops=tuple(ops),
        timeout=3600,
        interruptible=True,
        roots=(layout.root,),
        data={'version': version},
    )


def _nice(title: str, *argv: str, **more: Any) -> Op:
    return Op(do='run', title=title, argv=(*NICE, *argv), **more)


def _make_venv(layout: Layout, target: str) -> Op:
    python = str(layout.settings.get('python', '/usr/bin/python3'))
    bare = () if _installer(layout) == 'pip' else ('--without-pip',)
    return _nice(f'make {target}', python, '-m', 'venv', *bare, target)


def _installer(layout: Layout) -> str:
    return str(layout.settings.get('installer', 'uv'))


def _checkout(layout: Layout, project: str, target: str, commit: str | None) -> list[Op]:
    """Get the source at exactly one commit; its name is the hash of its content."""
    if not commit:
        return []
    mirror = (layout.settings.get('git') or {}).get(project)
    if not mirror:
        raise exception.Refused(reason=f'the settings name no git mirror of {project}')
    git = str(layout.settings.get('git_command', '/usr/bin/git'))
    tree = f'{target}/src/{project}'
    return [
        _nice(f'clone {project}', git, 'clone', '--quiet', '--no-checkout', '--', mirror, tree),
        _nice('check out', git, '-C', tree, 'checkout', '--quiet', '--detach', commit),
        _nice('compare', git, '-C', tree, 'diff', '--quiet', commit, '--'),
    ]


def _install(
    task: base.Task, layout: Layout, site: base.Site, project: loader.Project, target: str
) -> Op:
    release = str(task.params.get('release') or '')
    settings, own = layout.settings, layout.of(project.name)
    arguments = _sources(settings.get('index') or {}, release)
    if settings.get('constraints'):
        arguments += ['-c', _text(settings['constraints'], release)]
    wanted = f'{project.distribution}=={task.params["version"]}'
    if task.params.get('commit'):
        wanted = f'{target}/src/{project.name}'
    packages = [wanted, *settings.get('extra', ()), *own.get('extra', ())]
    return Op(
        do='run',
        title=f'install {wanted}',
        argv=(*NICE, *_command(layout, target), *arguments, '--', *packages),
        env={
            'HOME': site.state_dir,
            # on the same file system: an environment is made of links to what is there
            'UV_CACHE_DIR': f'{layout.root}/.uv-cache',
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            'PIP_CACHE_DIR': f'{site.state_dir}/pip-cache',
        },
        timeout=3600,
    )


def _command(layout: Layout, target: str) -> tuple[str, ...]:
    """Return the installer's command; what is needed is compiled when it is proved."""
    installer = _installer(layout)
    if installer == 'pip':
        return (f'{target}/bin/python', '-m', 'pip', 'install', '--no-input', '--no-compile')
    if installer == 'uv':
        installer = next(
            (p for d in SYSTEM_PATH.split(':') if os.access(p := f'{d}/uv', os.X_OK)), ''
        )
    if not installer.startswith('/'):
        raise exception.Refused(reason='uv is not installed: say `installer: /path` or `pip`')
    python = f'{target}/bin/python'
    return (installer, 'pip', 'install', '--python', python)


def _sources(index: dict[str, Any], release: str) -> list[str]:
    found = ['--no-index'] if index.get('offline') else []
    for option in ('find_links', 'index_url'):
        if index.get(option):
            found += [f'--{option.replace("_", "-")}', _text(index[option], release)]
    return found


def _prove(
    layout: Layout, project: loader.Project, target: str, version: str | None, planes: set[str]
) -> list[Op]:
    """Import the new code that this host needs and have its commands answer.

    The imports leave bytecode behind; an API loads much more by name, so on control hosts
    the rest of the project's own is compiled as well: its first start is not the slow one.
    """
    python, env = f'{target}/bin/python', _environment(layout, project.name, target)
    extra = [m for plane in sorted(planes) for m in project.prove.get(plane, ())]
    head = (python, '-c', _IMPORT, project.distribution, version or '')
    modules = (*project.prove.get('imports', ()), *extra)
    proofs = [
        ('import the new code', (*head, *modules), {}),
        *(
            (f'{s} answers', (f'{target}/bin/{s}', '--help'), {'stdout': '/dev/null'})
            for s in project.prove.get('scripts', ())
            if _needed(project, s, planes)
        ),
    ]
    ops = [
        _nice(title, *argv, env=env, timeout=300, group='prove', **more)
        for title, argv, more in proofs
    ]
    if 'control' in planes:
        compile_all = (python, '-c', _COMPILE, f'{target}/lib', project.module)
        ops.append(_nice('compile it', *compile_all, env=env, timeout=600))
    return ops


def _needed(project: loader.Project, script: str, planes: set[str]) -> bool:
    """Whether a host uses a command: a service's where it runs, others on control hosts."""
    known = project.services.get(script)
    return (known.plane if known else 'control') in planes


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
        env=_environment(layout, project.name, code),
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
    project, version = layout.data(task.project), _version(task)
    target = layout.venv(project.name, version)
    if not os.path.isfile(f'{target}/bin/python'):
        raise exception.Refused(reason=f'{target} is not there: prefetch comes first')
    units = layout.chosen(project.name, task.params.get('units'))
    link = layout.current(project.name)
    if os.path.lexists(link) and not os.path.islink(link):
        raise exception.Refused(reason=f'{link} is not a link')
    beside = os.path.dirname(link) == os.path.dirname(target)
    switch = Op(
        do='symlink',
        title=f'switch {link} to {version}',
        path=link,
        target=os.path.basename(target) if beside else target,
    )
    return _restart_job(layout, project, units, [switch], {'version': version})


def restart_service(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Restart units, so that they look anew at what the others can do."""
    project = layout.data(task.project)
    units = layout.chosen(project.name, task.params.get('units'))
    return _restart_job(layout, project, units, [], {})


def _restart_job(
    layout: Layout,
    project: loader.Project,
    units: list[layouts.Unit],
    before: list[Op],
    data: dict[str, Any],
) -> base.Job:
    names = [u.name for u in units]
    ctl = layout.systemctl
    timeout = int(layout.settings.get('restart_timeout', 600))
    ops = [
        *before,
        # one command: systemd stops and starts them side by side
        Op(
            do='run',
            title=f'restart {", ".join(names)}',
            argv=(ctl, 'restart', '--', *names),
            timeout=timeout,
        ),
        *(_active(ctl, name) for name in names),
        *_ready(layout, project, units),
    ]
    tails = tuple(
        Op(
            do='run',
            title=f'last words of {name}',
            argv=('/usr/bin/journalctl', '-u', name, '-n', '30', '--no-pager', '-o', 'cat'),
        )
        for name in names
    )
    return base.Job(ops=tuple(ops), timeout=1800, interruptible=True, diagnose=tails, data=data)


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
