"""How strategy `source` brings a version onto a host: built beside the old one, and proved.

Nothing that serves is touched here. Switching to what was built is the matter of
`source_jobs`, and of `source_in_place` where a site has one environment for a project.
"""

import json
import os
from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base
from upgrade_service.strategies import source_layout as layouts

Layout = layouts.Layout
Op = base.Op

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


def prefetch(task: base.Task, layout: Layout, site: base.Site) -> base.Job:
    """Install the new version beside the old one and prove that it works there."""
    project, version = layout.data(task.project), layouts.version_of(task)
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
        install(task, layout, site, target),
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


def install(task: base.Task, layout: Layout, site: base.Site, target: str) -> Op:
    """Install the version of a step, with what the settings add, into an environment."""
    project = layout.data(task.project)
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
            (p for d in layouts.SYSTEM_PATH.split(':') if os.access(p := f'{d}/uv', os.X_OK)), ''
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
    python, env = f'{target}/bin/python', layout.environment(project.name, target)
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
