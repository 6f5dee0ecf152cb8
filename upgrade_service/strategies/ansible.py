"""Upgrades by the operator's own Ansible playbooks, for many hosts in one run.

The engine of a deployment host carries them out. ``engine.d/ansible.yaml`` says which
playbook does which kind of step for which project, with which tags and variables, on which
hosts; an order only names kind, project, version and host. What a playbook may be handed of
an order is listed there too, by name.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import re
import sys
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import ansible_listing, base, trusted

Op = base.Op

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
_PATHS = {'type': 'array', 'items': _PATH}
_TAGS = {'type': 'array', 'items': {'type': 'string', 'pattern': r'^[A-Za-z0-9_][\w.-]*\Z'}}
_PATTERN = {'type': 'string', 'pattern': r'^[A-Za-z0-9_*.:&!{}\[\]-]+\Z'}
_VARIABLE = {'type': 'string', 'pattern': r'^[A-Za-z_][A-Za-z0-9_]*\Z'}
#: what of an order may become a variable
PARAMS = ('project', 'version', 'from_version', 'release', 'from_release', 'commit', 'units')


def _object(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'additionalProperties': False, 'properties': properties}


_PLAY: dict[str, Any] = {
    **_object(
        playbook=_PATH,
        sha256={'type': 'string', 'pattern': r'^[0-9a-f]{64}\Z'},
        inventory=_PATHS,
        limit=_PATTERN,
        tags=_TAGS,
        skip_tags=_TAGS,
        vars={
            'type': 'object',
            'propertyNames': _VARIABLE,
            'additionalProperties': {'enum': list(PARAMS)},
        },
        values={'type': 'object', 'propertyNames': _VARIABLE},
        vars_files=_PATHS,
        interruptible={'type': 'boolean'},
        dry_run={'type': 'boolean'},
    ),
    'type': ['object', 'null'],
    'if': {'type': 'object'},
    'then': {'required': ['playbook']},
}
_PLAYS = {'type': ['object', 'null'], 'additionalProperties': _PLAY}
#: kinds that every plan may have, so that the settings must say something of each
EVERY_PLAN = (
    'prefetch', 'upgrade_check', 'backup_database', 'verify_backup', 'db_expand', 'db_migrate',
    'db_contract', 'online_migrations', 'stop_service', 'upgrade_service', 'restart_service',
    'verify_host',
)  # fmt: skip
KINDS = frozenset({'check_host', 'upgrade_host', 'reboot_host', *EVERY_PLAN})

SETTINGS_SCHEMA: dict[str, Any] = {
    **_object(
        ansible=_PATH,
        inventory={**_PATHS, 'minItems': 1},
        directory=_PATH,
        hosts=_object(
            names={'type': 'array', 'items': {'type': 'string'}},
            groups={'type': 'array', 'items': {'type': 'string'}},
        ),
        names={'type': 'array', 'minItems': 1, 'items': {**_PATTERN, 'pattern': r'^[\w{}.*-]+\Z'}},
        vault_password_file=_PATH,
        vars_files=_PATHS,
        forks={'type': 'integer', 'minimum': 1, 'maximum': 500},
        env={
            'type': 'object',
            'propertyNames': {'pattern': r'^ANSIBLE_[A-Z0-9_]+\Z'},
            'additionalProperties': {'type': 'string'},
        },
        playbooks={
            'type': 'object',
            'propertyNames': {'enum': sorted(KINDS - {'check_host'})},
            'additionalProperties': _PLAYS,
        },
        undo=_PLAYS,
    ),
    'required': ['ansible', 'inventory', 'hosts', 'playbooks'],
}

#: Ansible would run what stands between these, wherever the value ends up
TEMPLATES = ('{{', '{%', '{#')
_HOST = re.compile(r'^(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z')
#: kinds that do not change anything: they may be ended half-way
_READING = frozenset({'check_host', 'verify_host', 'upgrade_check', 'prefetch'})


@dataclasses.dataclass(frozen=True)
class Play:
    """The settings of one playbook, for one kind of step of one project."""

    of: Mapping[str, Any]

    def get(self, key: str, default: Any) -> Any:
        """Return a setting."""
        return self.of.get(key, default)

    @property
    def playbook(self) -> str:
        """Its path."""
        return str(self.of['playbook'])


class AnsibleUpgradeStrategy(base.UpgradeStrategy):
    """The operator's playbooks, run by the engine of a deployment host."""

    name = 'ansible'
    summary = "the operator's own Ansible playbooks, from a deployment host"
    kinds = together = KINDS
    settings_schema = SETTINGS_SCHEMA

    def __init__(self) -> None:
        self._listings = ansible_listing.Cache()

    # -- what may be done ----------------------------------------------------------------------

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report nothing of this host: versions are for the engines or inventories to tell."""
        for path in _files(site.settings):
            if why := trusted.fault(path):
                raise exception.Refused(reason=why)
        return {}

    def hosts(self, site: base.Site) -> frozenset[str]:
        """Name the hosts of the settings: those named, and those of the named groups."""
        wanted = site.settings['hosts']
        found = set(wanted.get('names') or ())
        if wanted.get('groups'):
            listing = self._listing(site)
            found |= {h for g in wanted['groups'] for h in ansible_listing.members(listing, g)}
        return frozenset(h for h in found if _HOST.match(h))

    def _listing(self, site: base.Site) -> dict[str, Any]:
        settings = site.settings
        return self._listings.read(
            settings['ansible'],
            settings['inventory'],
            _options(settings, {})[: _vault_words(settings)],
            dict(settings.get('env') or {}),
        )

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow what a playbook is named for, if nobody else can have written that."""
        if not _HOST.match(task.host):
            return f'{task.host[:64]} is no name of a host'
        if task.kind == 'check_host':
            return None
        try:
            play = play_of(task, site.settings)
            if play is not None:
                _trusted(play, site.settings)
                values_of(play, task)
        except exception.Refused as e:
            return str(e)
        return None

    # -- jobs ----------------------------------------------------------------------------------

    def run(self, task: base.Task, site: base.Site) -> base.Job:
        """Run the playbook of a step for its host."""
        return self.run_together([task], site)

    def undo(self, task: base.Task, site: base.Site) -> base.Job:
        """Run the playbook for the way back: `version` is the one that ran before."""
        return self.run_together([dataclasses.replace(task, direction='back')], site)

    def run_together(self, tasks: Sequence[base.Task], site: base.Site) -> base.Job:
        """Run the playbook of steps that differ in their host only."""
        first = tasks[0]
        hosts = [t.host for t in tasks]
        if first.kind == 'check_host':
            return check_job(hosts, site)
        play = play_of(first, site.settings)
        if play is None:
            # said in the settings: the playbook of another step does this as well
            return base.Job(ops=(), timeout=first.timeout, data={'covered': True})
        _trusted(play, site.settings)
        ops = [play_op(play, first, hosts, site)]
        version = first.params.get('version')
        return base.Job(
            ops=tuple(ops),
            timeout=first.timeout,
            interruptible=bool(play.get('interruptible', first.kind in _READING)),
            data={'version': version} if version else {},
        )


# -- from the settings to a run ----------------------------------------------------------------


def play_of(task: base.Task, settings: Mapping[str, Any]) -> Play | None:
    """Return the playbook for a step; None if the settings say that it needs none.

    :raises Refused: the settings do not speak of such a step.
    """
    back = task.direction == 'back'
    kinds = settings['playbooks']
    if task.kind not in kinds:
        raise exception.Refused(
            reason=f'ansible.yaml names no playbook for {task.kind}: add it to `playbooks`, '
            f'or say `{task.kind}: null` if the playbook of another step does it'
        )
    plays = kinds[task.kind]
    if back and settings.get('undo') is not None:
        plays = {**(plays or {}), **settings['undo']}
    if plays is None:
        return None
    for name in (task.project or '*', '*'):
        if name in plays:
            return Play(plays[name]) if plays[name] is not None else None
    raise exception.Refused(
        reason=f'ansible.yaml names no playbook for {task.kind} of {task.project}: add it to '
        f'`playbooks: {task.kind}`'
    )


def _trusted(play: Play, settings: Mapping[str, Any]) -> None:
    files = [play.playbook, *play.get('vars_files', ()), *play.get('inventory', ())]
    for path in (*files, *_files(settings)):
        if why := trusted.fault(path):
            raise exception.Refused(reason=why)
    if (vault := settings.get('vault_password_file')) and (why := trusted.secret_fault(vault)):
        raise exception.Refused(reason=why)
    wanted = play.get('sha256', None)
    if wanted and trusted.digest(play.playbook) != wanted:
        raise exception.Refused(
            reason=f'{play.playbook} is not the one that was pinned: read what changed, then set '
            'its sha256 in ansible.yaml anew'
        )


def _files(settings: Mapping[str, Any]) -> list[str]:
    """Return the files that every run depends on."""
    command = f'{settings["ansible"]}/ansible-playbook'
    return [command, *settings['inventory'], *settings.get('vars_files', ())]


def values_of(play: Play, task: base.Task) -> dict[str, Any]:
    """Return the variables of a run; nothing that Ansible would take for a template.

    :raises Refused: names the variable.
    """
    params = {**task.params, 'project': task.project}
    found = dict(play.get('values', {}))
    for variable, param in play.get('vars', {}).items():
        if params.get(param) is not None:
            found[variable] = params[param]
    for variable, value in found.items():
        if any(mark in json.dumps(value) for mark in TEMPLATES):
            raise exception.Refused(
                reason=f'variable {variable} holds template characters ({{{{, {{% or {{#): '
                'Ansible would run them; give a plain value'
            )
    return found


def _vault_words(settings: Mapping[str, Any]) -> int:
    return 2 if settings.get('vault_password_file') else 0


def _options(settings: Mapping[str, Any], play: Mapping[str, Any]) -> list[str]:
    words = []
    if settings.get('vault_password_file'):
        words += ['--vault-password-file', settings['vault_password_file']]
    for path in (*settings.get('vars_files', ()), *play.get('vars_files', ())):
        words += ['-e', f'@{path}']
    return words


def names_of(settings: Mapping[str, Any], host: str) -> list[str]:
    """Return the patterns of a host's names in the inventory."""
    return [n.replace('{host}', host) for n in settings.get('names', ['{host}'])]


def spec_of(
    play: Mapping[str, Any], hosts: Sequence[str], site: base.Site, check: bool = False
) -> dict[str, Any]:
    """Return what `ansible_play` is told."""
    settings = site.settings
    names = {host: names_of(settings, host) for host in hosts}
    joined = ':'.join(n for patterns in names.values() for n in patterns)
    playbook = play.get('playbook')
    folder = settings.get('directory') or (playbook or '/').rpartition('/')[0] or '/'
    return {
        'bin': settings['ansible'],
        'playbook': playbook,
        'directory': folder,
        'inventory': play.get('inventory') or settings['inventory'],
        'limit': play.get('limit', '{hosts}').replace('{hosts}', joined),
        'hosts': names,
        'tags': play.get('tags', []),
        'skip_tags': play.get('skip_tags', []),
        'vars': {},
        'forks': settings.get('forks', 5),
        'options': [*_options(settings, play), *(['--check', '--diff'] if check else [])],
        'env': dict(settings.get('env') or {}),
        'scratch': f'{site.state_dir}/ansible',
    }


def _child(title: str, spec: Mapping[str, Any]) -> Op:
    argv = (sys.executable, '-m', 'upgrade_service.strategies.ansible_play', json.dumps(spec))
    return Op(
        do='run',
        title=title,
        argv=argv,
        cwd=spec['directory'],
        env={'HOME': spec['scratch'], 'PYTHONUNBUFFERED': '1', 'PYTHONSAFEPATH': '1'},
        events=True,
        timeout=86400,
        words={4: 'the run could not begin', 2: 'the run failed', 1: 'the run could not begin'},
    )


def play_op(
    play: Play, task: base.Task, hosts: Sequence[str], site: base.Site, check: bool = False
) -> Op:
    """Return the operation that runs a playbook."""
    spec = {**spec_of(play.of, hosts, site, check), 'vars': values_of(play, task)}
    how = ' (check only)' if check else ''
    return _child(f'run {play.playbook} on {spec["limit"]}{how}', spec)


# -- the check of hosts ------------------------------------------------------------------------


def plays_of(settings: Mapping[str, Any]) -> list[Play]:
    """Return every playbook of the settings once, in their order."""
    found: dict[str, Play] = {}
    for plays in (*settings['playbooks'].values(), settings.get('undo')):
        for one in (plays or {}).values():
            if one is not None:
                found.setdefault(one['playbook'], Play(one))
    return list(found.values())


def check_job(hosts: Sequence[str], site: base.Site) -> base.Job:
    """Look at everything before anything is changed: files, syntax, reach, and a dry run.

    :raises Refused: a file is not there, or is not root's alone.
    """
    settings = site.settings
    if unsaid := [kind for kind in EVERY_PLAN if kind not in settings['playbooks']]:
        raise exception.Refused(
            reason=f'ansible.yaml says nothing of {", ".join(unsaid)}: name a playbook for each '
            'in `playbooks`, or null if the playbook of another step does it'
        )
    ops = []
    for play in plays_of(settings):
        _trusted(play, settings)
        folder = play.playbook.rpartition('/')[0]
        if why := trusted.tree_fault(folder):
            raise exception.Refused(reason=why)
        ops.append(_syntax_op(play, site))
    dry = [p for p in plays_of(settings) if p.get('dry_run', False)]
    for play in dry:
        task = base.Task(
            step='', attempt=0, kind='check_host', host='', project=None, params={}, timeout=0
        )
        ops.append(play_op(play, task, hosts, site, check=True))
    ops.append(_child(f'reach {", ".join(hosts[:5])}', spec_of({}, hosts, site)))
    return base.Job(ops=tuple(ops), timeout=600, interruptible=True)


def _syntax_op(play: Play, site: base.Site) -> Op:
    settings = site.settings
    spec = spec_of(play.of, [], site)
    inventory = [word for path in spec['inventory'] for word in ('-i', path)]
    return Op(
        do='run',
        title=f'read {play.playbook}',
        argv=(
            f'{settings["ansible"]}/ansible-playbook',
            '--syntax-check',
            *inventory,
            *_options(settings, play.of),
            *(['-e', json.dumps(play.get('values', {}))] if play.get('values', {}) else []),
            play.playbook,
        ),
        cwd=spec['directory'],
        env={'HOME': spec['scratch'], 'PATH': f'{settings["ansible"]}:{ansible_listing.PATH}',
             **spec['env']},
        timeout=300,
        words={4: 'Ansible does not understand it'},
    )  # fmt: skip
