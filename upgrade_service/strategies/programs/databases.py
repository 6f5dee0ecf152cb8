"""Restore dumps into scratch databases, to prove a dump and rehearse an upgrade; read records.

    databases.py restore|config|rows|drop|records SPEC

SPEC is a JSON file without secrets: {server: mariadb | postgresql, bin: directory of the clients,
live: option file of an account that may read, or null, scratch: option file of the scratch
account, databases: {live name: scratch name}, prefix, dumps: {live name: file}, out: file,
config: [files], cells: {database, table, column, bus} or null, records: [...]}. Option files are
MariaDB's ([client]) or PostgreSQL's service files ([upgrade]) with host, user and password.

What is written is written with the scratch account, which must reach none of the live
databases: a dump that names another database, or a mistake here, then fails and does no harm.
"""

# ruff: noqa: S608 -- names in SQL come from root's files and from the server, and are quoted
import configparser
import json
import os
import re
import subprocess
import sys
from typing import Any
from urllib import parse

Spec = dict[str, Any]
Counts = dict[str, int]
#: what a rehearsal must not do: talk to the real message bus, write into the real logs
ALONE = {
    'DEFAULT': {
        'transport_url': 'fake:/',
        'log_file': '',
        'log_dir': '',
        'log_config_append': '',
        'use_syslog': 'false',
        'use_journal': 'false',
    },
    'oslo_messaging_notifications': {'driver': 'noop', 'transport_url': 'fake:/'},
}
SHOWN = 8


class Wrong(Exception):
    """It cannot be done; the text says why."""


class Server:
    """A database server, by its own clients."""

    section = ''
    visible = ''  #: the databases that an account could change, a line each
    tables = ''  #: the tables of the database in use

    def __init__(self, spec: Spec) -> None:
        self._bin = spec['bin']
        self._files = {'live': spec['live'], 'scratch': spec['scratch']}

    def account(self) -> dict[str, str]:
        """Read who the scratch account is."""
        parser = configparser.ConfigParser(allow_no_value=True, interpolation=None)
        parser.read(self._files['scratch'])
        found = dict(parser[self.section]) if parser.has_section(self.section) else {}
        missing = [k for k in ('host', 'user', 'password') if not found.get(k)]
        if missing:
            where = f'[{self.section}] of {self._files["scratch"]}'
            raise Wrong(f'{where} names no {", ".join(missing)}')
        return {k: (v or '').strip('\'"') for k, v in found.items()}

    def sql(self, who: str, database: str, text: str) -> list[list[str]]:
        """Run statements; return the rows."""
        argv, env = self.client(who, database)
        said = self.run(argv, env, input=text)
        return [line.split('\t') for line in said.splitlines() if line]

    def run(self, argv: list[str], env: dict[str, str], **more: Any) -> Any:
        """Run a client; what it complains of becomes the error."""
        whole = {**os.environ, **env}
        done = subprocess.run(argv, env=whole, capture_output=True, text=True, **more)
        if done.returncode:
            raise Wrong(f'{os.path.basename(argv[0])}: {done.stderr.strip()[-600:]}')
        return done.stdout

    def client(self, who: str, database: str) -> tuple[list[str], dict[str, str]]:
        """Return the command and environment that run SQL from stdin."""
        raise NotImplementedError

    def make(self, name: str) -> None:
        """Make a scratch database, empty."""
        raise NotImplementedError

    def drop(self, name: str) -> None:
        """Drop a scratch database if it is there."""
        raise NotImplementedError

    def load(self, name: str, dump: str) -> None:
        """Restore a dump into a scratch database."""
        raise NotImplementedError

    def quoted(self, name: str) -> str:
        """Quote an identifier."""
        raise NotImplementedError

    def counts(self, name: str) -> Counts:
        """Count the rows of every table of a scratch database."""
        tables = [row[0] for row in self.sql('scratch', name, self.tables)]
        if not tables:
            return {}
        asked = [f"SELECT '{t}', COUNT(*) FROM {self.quoted(t)}" for t in tables]
        rows = self.sql('scratch', name, ' UNION ALL '.join(asked) + ';')
        return {table: int(amount) for table, amount in rows}


class MariaDB(Server):
    """MariaDB or MySQL."""

    section = 'client'
    visible = 'SHOW DATABASES;'
    tables = (
        'SELECT table_name FROM information_schema.tables '
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE';"
    )

    def client(self, who: str, database: str) -> tuple[list[str], dict[str, str]]:
        own = [f'--defaults-file={self._files[who]}'] if self._files[who] else []
        argv = [f'{self._bin}/mariadb', *own, '--batch', '--skip-column-names', '--raw']
        return [*argv, '--', database] if database else argv, {}

    def make(self, name: str) -> None:
        self.sql('scratch', '', f'CREATE DATABASE {self.quoted(name)} CHARACTER SET utf8mb4;')

    def drop(self, name: str) -> None:
        self.sql('scratch', '', f'DROP DATABASE IF EXISTS {self.quoted(name)};')

    def load(self, name: str, dump: str) -> None:
        argv, env = self.client('scratch', name)
        with open(dump, 'rb') as f:
            self.run(argv, env, stdin=f)

    def quoted(self, name: str) -> str:
        return f'`{name}`'


class PostgreSQL(Server):
    """PostgreSQL."""

    section = 'upgrade'
    visible = (
        'SELECT datname FROM pg_database WHERE NOT datistemplate AND '
        '(pg_has_role(datdba, $$MEMBER$$) OR '
        '(SELECT rolsuper FROM pg_roles WHERE rolname = current_user));'
    )
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public';"

    def client(self, who: str, database: str) -> tuple[list[str], dict[str, str]]:
        argv = [f'{self._bin}/psql', '-X', '-q', '-A', '-t', '-F', '\t', '-v', 'ON_ERROR_STOP=1']
        return [*argv, '-d', database or 'postgres', '-f', '-'], self._env(who)

    def _env(self, who: str) -> dict[str, str]:
        return {'PGSERVICEFILE': self._files[who] or '', 'PGSERVICE': self.section}

    def make(self, name: str) -> None:
        self.sql('scratch', '', f'CREATE DATABASE {self.quoted(name)};')

    def drop(self, name: str) -> None:
        self.sql('scratch', '', f'DROP DATABASE IF EXISTS {self.quoted(name)};')

    def load(self, name: str, dump: str) -> None:
        argv = [f'{self._bin}/pg_restore', '--no-owner', '--no-privileges', '--exit-on-error']
        self.run([*argv, '-d', name, '--', dump], self._env('scratch'))

    def quoted(self, name: str) -> str:
        return f'"{name}"'


SERVERS: dict[str, type[Server]] = {'mariadb': MariaDB, 'postgresql': PostgreSQL}


# -- what is done ------------------------------------------------------------------------------


def check(server: Server, spec: Spec) -> None:
    """Refuse to begin where a mistake could reach a live database."""
    prefix = spec['prefix']
    for live, scratch in spec['databases'].items():
        if not re.fullmatch(r'[a-z][a-z0-9_]{0,63}', scratch) or not scratch.startswith(prefix):
            raise Wrong(f'{scratch} is no name for a scratch database of {prefix}')
        if live.startswith(prefix):
            raise Wrong(f'{live} is a live database, but is named like a scratch one')
    there = {row[0] for row in server.sql('scratch', '', server.visible)}
    reached = sorted(there & {*spec['databases'], 'mysql'})
    if reached:
        raise Wrong(
            f'the account of {spec["scratch"]} can reach {", ".join(reached)}: '
            f'give it rights on databases {prefix}* only'
        )


def restore(server: Server, spec: Spec) -> None:
    """Restore every dump and see that all tables are there."""
    check(server, spec)
    found = {}
    for live, scratch in spec['databases'].items():
        server.drop(scratch)
        server.make(scratch)
        server.load(scratch, spec['dumps'][live])
        found[scratch] = counts = server.counts(scratch)
        wanted = {row[0] for row in server.sql('live', live, server.tables)}
        missing = sorted(wanted - set(counts))
        if missing:
            raise Wrong(
                f'{live}: the dump lacks {len(missing)} tables: {", ".join(missing[:SHOWN])}'
            )
        print(f'{live}: {len(counts)} tables, {sum(counts.values())} rows restored')
    with open(f'{os.path.dirname(spec["out"])}/counts.json', 'w') as f:
        json.dump(found, f)


def connections(files: list[str]) -> list[tuple[str, str, str]]:
    """List the database URLs that configuration files hold: (group, option, URL)."""
    found, group = [], 'DEFAULT'
    for path in files:
        with open(path, encoding='utf-8', errors='replace') as f:
            for line in f:
                if line.startswith('['):
                    group = line.strip().strip('[]')
                name, sep, value = line.partition('=')
                if sep and name.strip() in ('connection', 'slave_connection'):
                    found.append((group, name.strip(), value.strip()))
    return found


def scratch_url(url: str, name: str, account: dict[str, str]) -> str:
    """Turn a live URL into that of a scratch database: same driver, other account."""
    old = parse.urlsplit(url)
    who = f'{parse.quote(account["user"], "")}:{parse.quote(account["password"], "")}'
    port = f':{account["port"]}' if account.get('port') else ''
    return parse.urlunsplit(
        (old.scheme, f'{who}@{account["host"]}{port}', f'/{name}', old.query, '')
    )


def database_of(url: str) -> str:
    """Return the name of the database that a URL leads to."""
    return parse.urlsplit(url).path.lstrip('/').partition('?')[0]


def config(server: Server, spec: Spec) -> None:
    """Write the configuration that leads every connection to a scratch database."""
    account, groups = server.account(), {g: dict(o) for g, o in ALONE.items()}
    urls, reached = connections(spec['config']), set()
    for group, name, url in urls:
        live = database_of(url)
        reached.add(live)
        # a connection to what is not rehearsed must lead nowhere
        scratch = spec['databases'].get(live)
        new = scratch_url(url, scratch, account) if scratch else 'sqlite://'
        groups.setdefault(group, {})[name] = new
    _cells(server, spec, account, urls, reached)
    left = sorted(set(spec['databases']) - reached)
    if left:
        raise Wrong(f'no connection in {", ".join(spec["config"])} leads to {", ".join(left)}')
    lines = [f'[{g}]\n' + ''.join(f'{n} = {v}\n' for n, v in o.items()) for g, o in groups.items()]
    _write(spec['out'], ''.join(lines), spec.get('owner'))


def _cells(
    server: Server,
    spec: Spec,
    account: dict[str, str],
    urls: list[tuple[str, str, str]],
    reached: set[str],
) -> None:
    """Lead the cells that a database maps (nova) to scratch databases as well."""
    cells = spec.get('cells')
    if not cells:
        return
    scratch, column = spec['databases'][cells['database']], cells['column']
    table, scheme = (
        server.quoted(cells['table']),
        parse.urlsplit(urls[0][2]).scheme if urls else '',
    )
    for number, url in server.sql('scratch', scratch, f'SELECT id, {column} FROM {table};'):
        live = database_of(url)
        if live not in spec['databases']:
            raise Wrong(
                f'{cells["table"]} {number} leads to database {live!r}, which is not dumped here: '
                'name it in `databases` of the project, or rehearse without it'
            )
        reached.add(live)
        new = scratch_url(url.replace('{scheme}', scheme), spec['databases'][live], account)
        change = f"{column} = '{new}', {cells['bus']} = 'none:///'"
        server.sql('scratch', scratch, f'UPDATE {table} SET {change} WHERE id = {int(number)};')


def _write(path: str, text: str, owner: str | None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, 'w') as f:
        f.write(text)
    if owner:
        import pwd

        entry = pwd.getpwnam(owner)
        for one in (path, os.path.dirname(path)):
            os.chown(one, entry.pw_uid, entry.pw_gid)


def rows(server: Server, spec: Spec) -> None:
    """Say what the rehearsal changed: tables and rows."""
    with open(f'{os.path.dirname(spec["out"])}/counts.json') as f:
        before = json.load(f)
    for live, scratch in spec['databases'].items():
        old, new = before[scratch], server.counts(scratch)
        changes = [f'new table {t}' for t in sorted(set(new) - set(old))]
        changes += [f'table {t} is gone' for t in sorted(set(old) - set(new))]
        moved = {t: new[t] - old[t] for t in new if t in old and new[t] != old[t]}
        changes += [f'{t} {by:+d} rows' for t, by in sorted(moved.items())]
        said = ', '.join(changes) or 'no table and no number of rows changed'
        print(f'{live}: {sum(new.values())} rows in {len(new)} tables; {said}')


def records(server: Server, spec: Spec) -> None:
    """See that the records of services of a kind agree, each with each."""
    wrong = []
    for rule in spec['records']:
        agree = rule['agree']
        columns = ', '.join(map(server.quoted, (rule['by'], *agree)))
        asked = (
            f'SELECT {columns}, COUNT(*), MIN({server.quoted(rule["host"])}) '
            f'FROM {server.quoted(rule["table"])} '
            f'WHERE {rule["where"]} GROUP BY {columns} ORDER BY {columns};'
        )
        found: dict[str, list[str]] = {}
        for name, *values, amount, host in server.sql('live', rule['database'], asked):
            said = ', '.join(f'{c} {v}' for c, v in zip(agree, values, strict=True))
            found.setdefault(name, []).append(f'{said} in {amount} records (such as {host})')
        for name, groups in found.items():
            print(f'{rule["database"]}.{rule["table"]}: {name}: {"; ".join(groups)}')
            if len(groups) > 1:
                wrong.append(f'{name}: {"; ".join(groups)}')
    if wrong:
        raise Wrong(f'records do not agree: {" | ".join(wrong)}')


def drop(server: Server, spec: Spec) -> None:
    """Drop the scratch databases."""
    for scratch in spec['databases'].values():
        if not scratch.startswith(spec['prefix']):
            raise Wrong(f'{scratch} is no scratch database')
        server.drop(scratch)
    if os.path.exists(spec['out']):
        os.unlink(spec['out'])


ACTIONS = {'restore': restore, 'config': config, 'rows': rows, 'drop': drop, 'records': records}


def main() -> int:
    """Do one action."""
    action, path = sys.argv[1:]
    with open(path) as f:
        spec = json.load(f)
    try:
        ACTIONS[action](SERVERS[spec['server']](spec), spec)
    except (Wrong, OSError) as e:
        print(e)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
