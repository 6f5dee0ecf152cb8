"""What a host says of the quorums it belongs to, and how an upgrade of a quorum is made final.

A member of a quorum (MariaDB's Galera, RabbitMQ) says who else belongs to it and whether all
are there. The key `members` of a strategy's file in ``engine.d`` allows an engine to ask; it
reads through the servers' own clients and keeps the answer for a while, for they are slow.
"""

from collections.abc import Callable, Mapping
import json
import subprocess
import time
from typing import Any

from oslo_log import log

from upgrade_service import exception
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
Facts = dict[str, Any]
Settings = Mapping[str, Any]
KEPT = 60.0  #: seconds for which an answer is good enough
_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
_TEXTS = {'type': 'object', 'additionalProperties': {'type': 'string'}}
#: schema (JSON) of the key `members`
SETTINGS_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        'mariadb': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {'bin': _PATH, 'credentials': _PATH},
        },
        'rabbitmq': {
            'type': 'object',
            'additionalProperties': False,
            'properties': {'bin': _PATH, 'env': _TEXTS},
        },
    },
}


class Silent(Exception):
    """The server does not answer its own client; the text says what that said."""


def _ask(argv: list[str], env: Mapping[str, str] | None = None) -> str:
    """Run a client that only reads."""
    path = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LANG': 'C.UTF-8', **(env or {})}
    try:
        done = subprocess.run(
            argv, env=path, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as e:
        raise Silent(f'{argv[0]}: {e}') from e
    if done.returncode:
        raise Silent(f'{argv[0]}: {done.stderr.strip()[-300:]}')
    return done.stdout


# -- MariaDB -----------------------------------------------------------------------------------

_WSREP = (
    'SELECT "version", @@version UNION ALL SELECT LOWER(variable_name), variable_value '
    'FROM information_schema.global_status WHERE variable_name IN ("wsrep_cluster_size", '
    '"wsrep_cluster_status", "wsrep_local_state_comment", "wsrep_ready", '
    '"wsrep_cluster_state_uuid", "wsrep_incoming_addresses")'
)


def _client(settings: Settings, name: str) -> list[str]:
    own = [f'--defaults-file={settings["credentials"]}'] if settings.get('credentials') else []
    return [f'{settings.get("bin", "/usr/bin")}/{name}', *own]


def mariadb(settings: Settings) -> Facts:
    """Ask a MariaDB server for its version and, if it is of a Galera cluster, for that."""
    argv = [*_client(settings, 'mariadb'), '--batch', '--skip-column-names', '-e', _WSREP]
    said = dict(line.partition('\t')[::2] for line in _ask(argv).splitlines())
    found: Facts = {'version': said['version'].partition('-')[0]}
    size = int(said.get('wsrep_cluster_size') or 0)
    if not size or not said.get('wsrep_cluster_state_uuid'):
        return {**found, 'cluster': None, 'size': 1, 'missing': 0, 'faults': []}
    wanted = {
        'wsrep_cluster_status': 'Primary',
        'wsrep_local_state_comment': 'Synced',
        'wsrep_ready': 'ON',
    }
    faults = [f'{k} is {said.get(k)}, not {v}' for k, v in wanted.items() if said.get(k) != v]
    return {
        **found,
        'cluster': said['wsrep_cluster_state_uuid'],
        'size': size,
        'missing': 0,  # who is gone is no member any more: hosts are counted by discovery
        'faults': faults,
    }


# -- RabbitMQ ----------------------------------------------------------------------------------


def rabbitmq(settings: Settings) -> Facts:
    """Ask a RabbitMQ node for its cluster: members, versions, alarms, partitions, flags."""
    argv = [f'{settings.get("bin", "/usr/sbin")}/rabbitmqctl', '-q', 'cluster_status']
    said = json.loads(_ask([*argv, '--formatter', 'json'], settings.get('env')))
    running = said.get('running_nodes') or []
    versions = {n: v.get('rabbitmq_version') for n, v in (said.get('versions') or {}).items()}
    everyone = {*(said.get('disk_nodes') or []), *(said.get('ram_nodes') or [])}
    missing = sorted(everyone - set(running))
    faults = [f'{node} does not run' for node in missing]
    faults += [f'partition: {p}' for p in said.get('partitions') or {}]
    faults += [f'alarm: {a.get("type", a)}' for a in said.get('alarms') or []]
    flags = said.get('feature_flags') or []
    return {
        'version': versions.get(_here(settings, argv, versions)),
        'versions': versions,
        'cluster': said.get('cluster_name'),
        'size': len(running),
        'missing': len(missing),
        'faults': faults,
        'disabled_flags': sorted(f['name'] for f in flags if f.get('state') == 'disabled'),
    }


def _here(settings: Settings, argv: list[str], versions: Facts) -> str:
    """Name this node; alone in its cluster, or in one of equals, it need not be asked."""
    if len(set(versions.values())) == 1:
        return str(next(iter(versions)))
    said = _ask([*argv[:2], 'eval', 'node().'], settings.get('env'))
    return said.strip().strip("'")


# -- what engines do with it -------------------------------------------------------------------

READERS: dict[str, Callable[[Settings], Facts]] = {'mariadb': mariadb, 'rabbitmq': rabbitmq}
_kept: dict[str, tuple[float, Facts]] = {}


def read(name: str, settings: Settings) -> Facts:
    """Ask one server now.

    :raises Silent: it does not answer.
    """
    return READERS[name](settings)


def facts(settings: Settings) -> Facts:
    """Return {name: facts} of every server that the settings name; kept for a minute."""
    found = {}
    for name, own in (settings.get('members') or {}).items():
        key = f'{name} {json.dumps(own, sort_keys=True)}'
        at, said = _kept.get(key, (-KEPT, {}))
        if time.monotonic() - at >= KEPT:
            said = _read_or_fault(name, own)
            _kept[key] = time.monotonic(), said
        found[name] = said
    return found


def forget() -> None:
    """Ask anew next time: something was changed."""
    _kept.clear()


def _read_or_fault(name: str, settings: Settings) -> Facts:
    try:
        return read(name, settings or {})
    except (Silent, ValueError, KeyError) as e:
        LOG.warning('%s does not say how it is: %s', name, e)
        return {'version': None, 'faults': [f'does not answer: {e}'[:300]], 'size': 0}


def finish(task: base.Task, places: Any, site: base.Site) -> base.Job:
    """Make the upgrade of a quorum final: every member there, and of one version.

    :raises Refused: a member is missing or is of another version; nothing was changed.
    """
    name, project = str(task.project), places.data(task.project)
    settings = (places.settings.get('members') or {}).get(name)
    if settings is None or name not in READERS:
        raise exception.Refused(reason=f'the settings name no members.{name}')
    forget()
    try:
        said = read(name, settings)
    except Silent as e:
        raise exception.Refused(reason=f'{name} does not answer: {e}') from e
    versions = sorted(set(said.get('versions', {'': said['version']}).values()))
    if said['faults']:
        raise exception.Refused(reason=f'{name} is not whole: {"; ".join(said["faults"])}')
    if len(versions) > 1:
        raise exception.Refused(reason=f'members of {name} differ: {", ".join(versions)}')
    ops = tuple(
        base.Op(
            do='run',
            title=' '.join(command.argv),
            argv=_command(name, settings, command.argv),
            env=dict(settings.get('env') or {}),
            exits=command.exits,
            timeout=3600,
        )
        for command in project.commands['finish_members']
    )
    return base.Job(ops=ops, timeout=3600, data={'version': versions[0]})


def _command(name: str, settings: Settings, argv: tuple[str, ...]) -> tuple[str, ...]:
    if name == 'mariadb':
        return (*_client(settings, argv[0]), *argv[1:])
    return (f'{settings.get("bin", "/usr/sbin")}/{argv[0]}', *argv[1:])
