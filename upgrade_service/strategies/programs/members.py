"""Ask a member of a quorum how it is: who belongs to it, which versions, what is wrong.

    members.py NAME SETTINGS [--one-version]

SETTINGS is a JSON file: {bin, credentials} for mariadb, {bin, env} for rabbitmq. Prints what was
found. Exit status: 0 the quorum is whole, 1 it is not, or not of one version where that is asked.
"""

from collections.abc import Callable, Mapping
import json
import subprocess
import sys
from typing import Any

Facts = dict[str, Any]
Settings = Mapping[str, Any]


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


def client(settings: Settings, name: str) -> list[str]:
    own = [f'--defaults-file={settings["credentials"]}'] if settings.get('credentials') else []
    return [f'{settings.get("bin", "/usr/bin")}/{name}', *own]


def mariadb(settings: Settings) -> Facts:
    """Ask a MariaDB server for its version and, if it is of a Galera cluster, for that."""
    argv = [*client(settings, 'mariadb'), '--batch', '--skip-column-names', '-e', _WSREP]
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


READERS: dict[str, Callable[[Settings], Facts]] = {'mariadb': mariadb, 'rabbitmq': rabbitmq}


def faults(said: Facts, one_version: bool) -> list[str]:
    """List what is wrong with a quorum."""
    versions = sorted({str(v) for v in said.get('versions', {}).values()})
    mixed = [f'members differ: {", ".join(versions)}'] if len(versions) > 1 else []
    return [*said['faults'], *(mixed if one_version else [])]


def main() -> int:
    """Ask once."""
    name, path = sys.argv[1:3]
    with open(path) as f:
        settings = json.load(f)
    try:
        said = READERS[name](settings)
    except (Silent, ValueError, KeyError) as e:
        print(f'{name} does not say how it is: {e}')
        return 1
    print(json.dumps(said))
    wrong = faults(said, '--one-version' in sys.argv[3:])
    print(f'{name}: {"; ".join(wrong) or "whole"}')
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
