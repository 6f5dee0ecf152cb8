"""The jobs about databases: dump, prove the dump, rehearse the upgrade, migrate, read records.

Every strategy that has a project's commands at hand can use them. Which server, which accounts
and which directory stand in the key `backup` of its file in ``engine.d``; accounts are option
files that only root can read, and no password is ever part of a command. Whatever is tried out
is tried out in scratch databases, with an account that can reach no other.
"""

from collections.abc import Callable, Mapping
import dataclasses
import datetime
import glob
import itertools
import json
import os
import sys
from typing import Any, Protocol

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base
from upgrade_service.strategies.programs import databases as program
from upgrade_service.strategies.programs import options, reaches

Op = base.Op
NICE = ('/usr/bin/nice', '-n', '10')
#: where rehearsals have their files; gone at the next boot, and no other user's
WORK = '/run/upgrade-rehearsal'
#: kinds of commands in the order in which an upgrade runs them
REHEARSED = ('db_expand', 'db_migrate', 'online_migrations', 'db_contract', 'upgrade_check')
#: kinds whose commands may be ended at their deadline; a migration never is
_ENDABLE = frozenset({'upgrade_check'})
HOURS = 3600

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
#: schema (JSON) of the key `backup`
SETTINGS_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        'dir': _PATH,
        'command': {
            'type': 'array',
            'minItems': 1,
            'items': {'type': 'string'},
            'prefixItems': [_PATH],
        },
        'complete': {'type': 'string', 'minLength': 4},
        'server': {'enum': sorted(program.SERVERS)},
        'bin': _PATH,
        'credentials': _PATH,
        'scratch': {
            'type': 'object',
            'additionalProperties': False,
            'required': ['prefix', 'credentials'],
            'properties': {
                'prefix': {'type': 'string', 'pattern': r'^[a-z][a-z0-9_]{3,30}_\Z'},
                'credentials': _PATH,
                'work': _PATH,
            },
        },
    },
}


class Places(Protocol):
    """What a strategy knows of a host: `source_layout.Layout` is one."""

    settings: Mapping[str, Any]

    def of(self, project: str) -> Mapping[str, Any]:
        """Return the settings of a project."""

    def data(self, project: str | None) -> loader.Project:
        """Return what is known of a project."""

    def code(self, project: str, version: str | None, whose: str) -> str:
        """Return the environment whose commands a step is to use."""

    def environment(self, project: str, code: str) -> dict[str, str]:
        """Return the environment variables of commands of a project's code."""


# -- what the settings say ---------------------------------------------------------------------


def _backup(places: Places) -> Mapping[str, Any]:
    backup: Mapping[str, Any] = places.settings.get('backup') or {}
    if not backup.get('dir') or not (backup.get('server') or backup.get('command')):
        raise exception.Refused(reason='the settings name no backup dir and server')
    return backup


def _scratch(places: Places) -> Mapping[str, Any]:
    backup = _backup(places)
    if not backup.get('server') or not backup.get('scratch'):
        raise exception.Refused(
            reason='the settings name no backup server and scratch: a dump cannot be restored'
        )
    scratch: Mapping[str, Any] = backup['scratch']
    return scratch


def databases(places: Places, project: loader.Project) -> list[str]:
    """Name the databases of a project on this site."""
    return list(places.of(project.name).get('databases', project.databases))


def _arguments(places: Places, project: loader.Project) -> list[str]:
    settings = places.settings.get('config') or {}
    return list(settings.get(project.name, project.config.get('args', ())))


def config_files(places: Places, project: loader.Project) -> list[str]:
    """List the configuration files of a project that are there, in the order they are read."""
    said = itertools.pairwise(_arguments(places, project))
    named = [value for option, value in said if option == '--config-file']
    named = named or list(
        project.config.get('files', (f'/etc/{project.name}/{project.name}.conf',))
    )
    more = [f for name in named for f in sorted(glob.glob(f'{glob.escape(name)}.d/*.conf'))]
    return [f for f in [*named, *more] if os.path.isfile(f)]


def readiness(places: Places) -> dict[str, Any]:
    """Say whether dumps can be made here: {ready, reason, provable}; reads, runs nothing."""
    try:
        backup = _backup(places)
    except exception.Refused as e:
        return {'ready': False, 'reason': str(e), 'provable': False}
    tools = [backup['command'][0]] if not backup.get('server') else _clients(backup)
    files = [backup.get('credentials'), (backup.get('scratch') or {}).get('credentials')]
    wrong = [f'{p} is not there' for p in tools if not os.access(p, os.X_OK)]
    wrong += [fault for path in files if path and (fault := _open_to_others(path))]
    return {
        'ready': not wrong,
        'reason': '; '.join(wrong),
        'provable': bool(backup.get('server') and backup.get('scratch')),
    }


def disks(places: Places) -> dict[str, Any]:
    """Return {path: {free_mb, min_mb}} of where new code and dumps go."""
    least = int(places.settings.get('min_free_mb', 1024))
    backup = places.settings.get('backup') or {}
    paths = [p for p in (places.settings.get('root'), backup.get('dir')) if p]
    return {path: {'free_mb': _free_mb(path), 'min_mb': least} for path in paths}


def _free_mb(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize // 2**20


def _clients(backup: Mapping[str, Any]) -> list[str]:
    names = {
        'mariadb': ('mariadb', 'mariadb-dump'),
        'postgresql': ('psql', 'pg_dump', 'pg_restore'),
    }
    return [f'{_bin(backup)}/{name}' for name in names[backup['server']]]


def _bin(backup: Mapping[str, Any]) -> str:
    return str(backup.get('bin', '/usr/bin'))


def _open_to_others(path: str) -> str | None:
    try:
        found = os.stat(path)
    except OSError as e:
        return f'{path}: {e.strerror}'
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o077:
        return f'{path} must belong to root and be readable by nobody else'
    return None


# -- dumps -------------------------------------------------------------------------------------


def manifest_path(task: base.Task, places: Places) -> str:
    """Return the file that says that the dump of a step is whole; each step has its own."""
    return f'{_backup(places)["dir"]}/{task.project}-{task.step}.json'


def backup_database(task: base.Task, places: Places, site: base.Site) -> base.Job:
    """Dump the databases of a project, each into a file that says that it is whole."""
    project, backup = places.data(task.project), _backup(places)
    manifest = manifest_path(task, places)
    stem = manifest.removesuffix('.json')
    make = _dump if backup.get('server') else _own_dump
    dumps, ops = make(backup, databases(places, project), stem)
    kept = json.dumps({'project': project.name, 'step': task.step, 'dumps': dumps})
    marks = (
        (manifest, 'say that it is whole'),
        (_latest(backup, project), 'say which is the last'),
    )
    return base.Job(
        ops=(
            Op(do='mkdir', title='make the directory', path=backup['dir'], mode=0o700),
            *ops,
            *(Op(do='write', title=t, path=p, text=kept, mode=0o600) for p, t in marks),
        ),
        timeout=4 * HOURS,
        interruptible=True,
    )


def _latest(backup: Mapping[str, Any], project: loader.Project) -> str:
    return f'{backup["dir"]}/{project.name}-latest.json'


def _own_dump(
    backup: Mapping[str, Any], names: list[str], stem: str
) -> tuple[dict[str, str], list[Op]]:
    """Dump with a site's own command, which gets the names of the databases."""
    argv, path = (*backup['command'], *names), f'{stem}.sql'
    return {}, _kept(', '.join(names), argv, {}, path, backup.get('complete', 'Dump completed'))


def _dump(
    backup: Mapping[str, Any], names: list[str], stem: str
) -> tuple[dict[str, str], list[Op]]:
    """Dump each database by itself and without its name, so that any other can take it."""
    dumps, ops = {}, []
    for name in names:
        argv, env, mark = _DUMPERS[backup['server']](backup, name)
        dumps[name] = path = f'{stem}-{name}.dump'
        ops += _kept(name, argv, env, path, mark)
    return dumps, ops


def _mariadb_dump(
    backup: Mapping[str, Any], name: str
) -> tuple[tuple[str, ...], dict[str, str], str | None]:
    own = [f'--defaults-file={backup["credentials"]}'] if backup.get('credentials') else []
    how = ('--single-transaction', '--quick', '--routines', '--triggers', '--no-tablespaces')
    return (f'{_bin(backup)}/mariadb-dump', *own, *how, '--', name), {}, 'Dump completed'


def _pg_dump(
    backup: Mapping[str, Any], name: str
) -> tuple[tuple[str, ...], dict[str, str], str | None]:
    if not backup.get('credentials'):
        raise exception.Refused(reason='the settings name no service file as backup credentials')
    env = {'PGSERVICEFILE': backup['credentials'], 'PGSERVICE': program.PostgreSQL.section}
    return (f'{_bin(backup)}/pg_dump', '--format=custom', '-d', name), env, None


_DUMPERS: dict[str, Callable[..., tuple[tuple[str, ...], dict[str, str], str | None]]] = {
    'mariadb': _mariadb_dump,
    'postgresql': _pg_dump,
}


def _kept(
    what: str, argv: tuple[str, ...], env: dict[str, str], path: str, mark: str | None
) -> list[Op]:
    part = f'{path}.part'
    run = Op(
        do='run',
        title=f'dump {what}',
        argv=argv,
        env=env,
        stdout=part,
        mode=0o600,
        timeout=4 * HOURS,
    )
    look = Op(do='expect', title='look whether the dump is whole', path=part, text=mark)
    rename = Op(do='rename', title=f'keep it as {path}', path=part, target=path)
    return [run, *([look] if mark else []), rename]


# -- scratch databases -------------------------------------------------------------------------


def verify_backup(task: base.Task, places: Places, site: base.Site) -> base.Job:
    """Restore the last dump of a project once: what cannot be restored is no backup."""
    project = places.data(task.project)
    return _tried(project, places, [_tool('restore', 'restore the dump', _work(places, project))])


def rehearse_database(task: base.Task, places: Places, site: base.Site) -> base.Job:
    """Do to a copy of the databases what the upgrade will do to them."""
    project, work = places.data(task.project), _work(places, places.data(task.project))
    files = config_files(places, project)
    if not files:
        raise exception.Refused(reason=f'no configuration file of {project.name} is here')
    args = [a for f in files for a in ('--config-file', f)] + ['--config-dir', work]
    ops = [
        _tool('restore', 'restore the dump', work),
        _tool('config', 'lead its configuration to the copy', work),
        _reaches(task, places, project, args),
        *_rehearsed(task, places, project, args),
        _tool('rows', 'compare with what was restored', work),
    ]
    return _tried(project, places, ops)


def _work(places: Places, project: loader.Project) -> str:
    return f'{_scratch(places).get("work", WORK)}/{project.name}'


def _tried(project: loader.Project, places: Places, ops: list[Op]) -> base.Job:
    """Put what is tried out between the making and the end of its databases and files."""
    work = _work(places, project)
    drop, above = _tool('drop', 'drop the scratch databases', work), os.path.dirname(work)
    remove = Op(do='remove', title='remove the files', path=work)
    before = [
        Op(do='mkdir', title=f'make {above}', path=above, mode=0o711),
        remove,
        Op(do='mkdir', title=f'make {work}', path=work, mode=0o700),
        Op(
            do='write',
            title='say what is tried',
            path=f'{work}/spec.json',
            text=_spec(project, places),
        ),
    ]
    return base.Job(
        ops=(*before, *ops, drop, remove),
        timeout=4 * HOURS,
        interruptible=True,  # only a copy is half done then
        roots=(above,),
        diagnose=(drop,),
    )


def _spec(project: loader.Project, places: Places) -> str:
    backup, scratch, work = _backup(places), _scratch(places), _work(places, project)
    try:
        with open(_latest(backup, project)) as f:
            dumps = json.load(f)['dumps']
    except (OSError, ValueError, KeyError) as e:
        raise exception.Refused(reason=f'there is no dump of {project.name}: {e}') from e
    names = databases(places, project)
    if set(names) - set(dumps):
        raise exception.Refused(reason=f'the last dump of {project.name} lacks a database')
    return json.dumps(
        {
            **_accounts(backup),
            'scratch': scratch['credentials'],
            'prefix': scratch['prefix'],
            'databases': {name: f'{scratch["prefix"]}{name}'[:64] for name in names},
            'dumps': {name: dumps[name] for name in names},
            'config': config_files(places, project),
            'cells': project.rehearse.get('cells'),
            'out': f'{work}/scratch.conf',
            'owner': places.of(project.name).get('user'),
        }
    )


def _accounts(backup: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'server': backup['server'],
        'bin': _bin(backup),
        'live': backup.get('credentials'),
        'scratch': None,
    }


def _tool(action: str, title: str, work: str) -> Op:
    argv = (*NICE, sys.executable, '-I', '-S', program.__file__, action, f'{work}/spec.json')
    return Op(do='run', title=title, argv=argv, timeout=4 * HOURS)


def _reaches(task: base.Task, places: Places, project: loader.Project, args: list[str]) -> Op:
    code = places.code(project.name, task.params.get('version'), 'target')
    found = program.connections(config_files(places, project))
    names = [f'{_scratch(places)["prefix"]}{name}' for name in databases(places, project)]
    which = sorted({f'{group}:{option}' for group, option, _ in found})
    argv = (f'{code}/bin/python', reaches.__file__, project.name, ','.join(which), ','.join(names))
    return Op(
        do='run',
        title='see that only the copy can be reached',
        argv=(*argv, *args),
        env=places.environment(project.name, code),
        user=places.of(project.name).get('user'),
    )


def _rehearsed(
    task: base.Task, places: Places, project: loader.Project, args: list[str]
) -> list[Op]:
    """Return the commands of the upgrade, the old code's own migrations first."""
    target, old = task.params.get('version'), task.params.get('from_version')
    ops = []
    if project.before.get('online_migrations') == 'current' and old:
        ops += _commands(places, project, 'online_migrations', old, args)
    for kind in REHEARSED:
        if kind in ('online_migrations', 'db_contract') and not project.finish.get(
            kind.removeprefix('db_')
        ):
            continue
        ops += _commands(places, project, kind, target, args)
    return ops


# -- the project's own commands ----------------------------------------------------------------


def commands(task: base.Task, places: Places, site: base.Site) -> base.Job:
    """Run the project's own commands for a kind of step."""
    project, version = places.data(task.project), task.params.get('version')
    words = _dates(task.params.get('days'))
    ops = [
        dataclasses.replace(op, argv=tuple(words.get(word, word) for word in op.argv))
        for op in _commands(places, project, task.kind, version)
    ]
    return base.Job(
        ops=tuple(ops),
        timeout=24 * HOURS,
        interruptible=task.kind in _ENDABLE,
        data={'version': version} if version else {},
    )


def _dates(days: int | None) -> dict[str, str]:
    """Return what stands for an age in a command: days, or the date so many days ago."""
    if days is None:
        return {}
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return {'{days}': str(days), '{date}': then.date().isoformat()}


def _commands(
    places: Places,
    project: loader.Project,
    kind: str,
    version: str | None,
    args: list[str] | None = None,
) -> list[Op]:
    """Return the commands of a kind; `args` take the place of the site's own configuration."""
    return [_command(places, project, c, version, args) for c in project.commands.get(kind, ())]


def _command(
    places: Places,
    project: loader.Project,
    command: loader.Command,
    version: str | None,
    args: list[str] | None,
) -> Op:
    code = places.code(project.name, version, command.code)
    script, *rest = command.argv
    if args is not None and '{config}' not in rest:
        rest = ['{config}', *rest]
    config = _arguments(places, project) if args is None else args
    return Op(
        do='run',
        title=' '.join(command.argv).replace(' {config}', '').partition('\n')[0],
        argv=(
            f'{code}/bin/{script}',
            *(a for one in rest for a in (config if one == '{config}' else (one,))),
        ),
        env=places.environment(project.name, code),
        user=places.of(project.name).get('user'),
        exits=command.exits,
        timeout=24 * HOURS,
        limit=1000,
    )


# -- configuration and records -----------------------------------------------------------------


def rehearse_config(task: base.Task, places: Places, files: list[str]) -> base.Job | base.Outcome:
    """Hold the configuration files of a project against the options that the target knows."""
    project, target = places.data(task.project), str(task.params.get('version'))
    if not files:
        said = f'no configuration file of {project.name} is here'
        return base.Outcome(result=base.Result.SUCCEEDED, output=said)
    code, old = places.code(project.name, target, 'target'), task.params.get('from_version')
    before = ['--before', f'{project.name} {old}'] if old else []
    current = places.code(project.name, None, 'current')
    argv = (
        *(*NICE, f'{code}/bin/python', '-I', '-W', 'ignore', options.__file__),
        *('--current', f'{current}/bin/python', *before, f'{project.name} {target}', *files),
    )
    op = Op(
        do='run',
        title=f'hold {len(files)} files against the options of {project.name} {target}',
        argv=argv,
        user=places.of(project.name).get('user'),
        exits={0: 'done', 1: 'warning'},
        timeout=900,
    )
    return base.Job(ops=(op,), timeout=900, interruptible=True)


def check_records(task: base.Task, places: Places, site: base.Site) -> base.Job:
    """See in the live database that every record of a service has the same version."""
    project, backup = places.data(task.project), _backup(places)
    if not backup.get('server'):
        raise exception.Refused(reason='the settings name no backup server to read records from')
    work = f'{backup["dir"]}/.records-{project.name}'
    spec = {**_accounts(backup), 'records': [dict(r) for r in project.records]}
    ops = (
        Op(do='mkdir', title=f'make {work}', path=work, mode=0o700),
        Op(do='write', title='say what is read', path=f'{work}/spec.json', text=json.dumps(spec)),
        _tool('records', 'compare the records of its services', work),
        Op(do='remove', title='remove the files', path=work),
    )
    return base.Job(ops=ops, timeout=600, interruptible=True, roots=(backup['dir'],))


Maker = Callable[[base.Task, Any, base.Site], base.Job | base.Outcome]
#: kind -> what makes its job, for every strategy that can run a project's commands
JOBS: dict[str, Maker] = {
    'upgrade_check': commands,
    'backup_database': backup_database,
    'verify_backup': verify_backup,
    'db_expand': commands,
    'db_migrate': commands,
    'check_records': check_records,
    'online_migrations': commands,
    'reset_records': commands,
    'db_contract': commands,
    'db_archive': commands,
    'db_purge': commands,
}
