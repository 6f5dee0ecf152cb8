"""What a host says of the quorums it belongs to, and how an upgrade of a quorum is made final.

A member of a quorum (MariaDB's Galera, RabbitMQ) says who else belongs to it and whether all
are there. The key `members` of a strategy's file in ``engine.d`` allows an engine to ask; it
reads through the servers' own clients and keeps the answer for a while, for they are slow.
"""

from collections.abc import Mapping
import json
import sys
import time
from typing import Any

from oslo_log import log

from upgrade_service import exception
from upgrade_service.strategies import base
from upgrade_service.strategies.programs import members as program

LOG = log.getLogger(__name__)
Op = base.Op
KEPT = 60.0  #: seconds for which an answer is good enough
WORK = '/run/upgrade-members'
#: how long a quorum may take to be whole again after a member was restarted (s, turns)
PAUSE, TURNS = 2.0, 300
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


_kept: dict[str, tuple[float, program.Facts]] = {}


def facts(settings: Mapping[str, Any]) -> program.Facts:
    """Return {name: facts} of every server that the settings name; kept for a minute."""
    found = {}
    for name, own in (settings.get('members') or {}).items():
        key = f'{name} {json.dumps(own, sort_keys=True)}'
        at, said = _kept.get(key, (-KEPT, {}))
        if time.monotonic() - at >= KEPT or not said:
            said = _read(name, own or {})
            _kept[key] = time.monotonic(), said
        found[name] = said
    return found


def _read(name: str, settings: Mapping[str, Any]) -> program.Facts:
    try:
        return program.READERS[name](settings)
    except (program.Silent, ValueError, KeyError) as e:
        LOG.warning('%s does not say how it is: %s', name, e)
        return {'version': None, 'size': 0, 'faults': [f'does not answer: {e}'[:300]]}


# -- steps -------------------------------------------------------------------------------------


def check(task: base.Task, places: Any, site: base.Site) -> base.Job:
    """Wait until the quorum of this host is whole."""
    _kept.clear()
    ops = _look(task, places, Op(do='run', title='', limit=TURNS, pause=PAUSE, timeout=900))
    return base.Job(ops=ops, timeout=900, interruptible=True, roots=(WORK,))


def finish(task: base.Task, places: Any, site: base.Site) -> base.Job:
    """Make the upgrade of a quorum final: every member there, and of one version."""
    _kept.clear()
    name, project = str(task.project), places.data(task.project)
    settings = _settings(name, places)
    first = _look(task, places, Op(do='run', title='', limit=1), '--one-version')
    ops = tuple(
        Op(
            do='run',
            title=' '.join(command.argv),
            argv=_command(name, settings, command.argv),
            env=dict(settings.get('env') or {}),
            exits=command.exits,
            timeout=3600,
        )
        for command in project.commands['finish_members']
    )
    return base.Job(ops=(*first, *ops), timeout=3600, roots=(WORK,))


JOBS = {'check_members': check, 'finish_members': finish}


def _settings(name: str, places: Any) -> Mapping[str, Any]:
    """Return how a server is asked.

    :raises Refused: the settings do not allow it.
    """
    allowed = places.settings.get('members') or {}
    if name not in allowed or name not in program.READERS:
        raise exception.Refused(reason=f'the settings name no members.{name}')
    return allowed[name] or {}


def _look(task: base.Task, places: Any, how: Op, *options: str) -> tuple[Op, ...]:
    """Return the operations that ask a quorum, until it is whole or `how` gives up."""
    name = str(task.project)
    spec = f'{WORK}/{name}.json'
    argv = (sys.executable, '-I', '-S', program.__file__, name, spec, *options)
    again = {0: 'done', 1: 'again'} if how.limit > 1 else {0: 'done'}
    ask = {**vars(how), 'title': f'ask whether {name} is whole', 'argv': argv, 'exits': again}
    text = json.dumps(dict(_settings(name, places)))
    return (
        Op(do='mkdir', title=f'make {WORK}', path=WORK, mode=0o700),
        Op(do='write', title='say how it is asked', path=spec, text=text, mode=0o600),
        Op(**ask),
    )


def _command(name: str, settings: Mapping[str, Any], argv: tuple[str, ...]) -> tuple[str, ...]:
    if name == 'mariadb':
        return (*program.client(settings, argv[0]), *argv[1:])
    return (f'{settings.get("bin", "/usr/sbin")}/{argv[0]}', *argv[1:])
