"""Dumps that are restored and upgrades that are rehearsed, on the real database servers.

The project is a small one of our own, whose command reads its connection with oslo.config and
changes its schema with SQLAlchemy, as the projects' commands do.
"""

import os
import pathlib
import secrets
import sys
import tempfile
import textwrap

import sqlalchemy

from upgrade_service.engine import runner
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import source
from upgrade_service.tests import base
from upgrade_service.tests.functional import test_servers

PROJECT = """
project: demo
distribution: demo-service
module: demo
summary: A little project
sources: [{id: us, ref: 'this test'}]
upgrade: {rolling: true, skip_level: false, source: us, proof: doc}
services: {demo-api: {plane: control, start: 1}}
commands:
  db_expand: [{argv: [demo-manage, expand], code: target}]
  online_migrations: [{argv: [demo-manage, migrate], code: target, exits: {0: done, 1: again}}]
prove: {imports: [demo]}
databases: [LIVE_api, LIVE]
config: {args: [--config-file, CONF]}
finish: {online_migrations: true}
rehearse: {cells: {database: LIVE_api, table: cells, column: url, bus: bus}}
records:
  - {database: LIVE, table: services, by: binary, agree: [version], host: host,
     where: 'deleted = 0'}
"""
MANAGE = """#!{python}
import sys
import sqlalchemy
from oslo_config import cfg
conf = cfg.ConfigOpts()
conf.register_opts([cfg.StrOpt('connection')], group='database')
conf.register_opts([cfg.StrOpt('connection')], group='api_database')
conf.register_cli_opt(cfg.StrOpt('action', positional=True))
conf(project='demo')
cells = sqlalchemy.create_engine(conf.api_database.connection)
with cells.connect() as found:
    url, bus = found.execute(sqlalchemy.text('SELECT url, bus FROM cells')).one()
print('the cell is', sqlalchemy.engine.make_url(url).database, 'at', bus)
with sqlalchemy.create_engine(url).begin() as c:
    if conf.action == 'expand':
        c.execute(sqlalchemy.text('CREATE UNIQUE INDEX uniq_name ON things (name)'))
    else:
        least = c.execute(sqlalchemy.text('SELECT MIN(id) FROM things WHERE old = 1')).scalar()
        c.execute(sqlalchemy.text(f'DELETE FROM things WHERE id = {{least or 0}}'))
if conf.action == 'migrate' and least:
    sys.exit(1)
"""


class RehearsalCase(base.TestCase):
    dialect = ''
    server = ''

    def setUp(self):
        super().setUp()
        url = test_servers.admin_urls().get(self.dialect)
        self.assertIsNotNone(url, test_servers.HINT)
        self.admin = sqlalchemy.create_engine(url, isolation_level='AUTOCOMMIT')
        self.addCleanup(self.admin.dispose)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.live = f'live{os.getpid()}'
        self.prefix = f'scratch{os.getpid()}_'
        self.passwords = {name: secrets.token_hex(8) for name in ('dump', 'scratch')}
        self.make_databases()
        self.make_files()
        self.strategy = source.SourceUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'attempts', self.dir / 'lock')
        self.count = 0

    def sql(self, text, database=None):
        target = self.admin
        if database:
            target = sqlalchemy.create_engine(self.admin.url.set(database=database))
            self.addCleanup(target.dispose)
        with target.begin() as c:
            found = c.execute(sqlalchemy.text(text))
            return found.all() if found.returns_rows else []

    def url(self, database):
        shown = self.admin.url.set(database=database, query={})
        return shown.render_as_string(hide_password=False)

    def make_databases(self):
        for name in (self.live, f'{self.live}_api'):
            self.sql(f'CREATE DATABASE {name}')
            self.addCleanup(self.sql, f'DROP DATABASE {name}')
        self.sql(
            'CREATE TABLE things (id INTEGER PRIMARY KEY, name VARCHAR(50), old INTEGER)',
            self.live,
        )
        self.sql(
            "INSERT INTO things VALUES (1, 'one', 1), (2, 'two', 1), (3, 'three', 0)", self.live
        )
        quote = self.admin.dialect.identifier_preparer.quote
        columns = (
            f'{quote("binary")} VARCHAR(20), host VARCHAR(20), version INTEGER, deleted INTEGER'
        )
        self.sql(f'CREATE TABLE services ({columns})', self.live)
        self.sql(
            "INSERT INTO services VALUES ('demo-api', 'a', 2, 0), ('demo-api', 'b', 2, 0)",
            self.live,
        )
        self.sql("INSERT INTO services VALUES ('demo-api', 'c', 1, 7)", self.live)
        self.sql(
            'CREATE TABLE cells (id INTEGER, url VARCHAR(255), bus VARCHAR(255))',
            f'{self.live}_api',
        )
        cell = f"INSERT INTO cells VALUES (1, '{self.url(self.live)}', 'rabbit://x')"  # noqa: S608
        self.sql(cell, f'{self.live}_api')
        for name, password in self.passwords.items():
            self.make_account(name, f'{name}{os.getpid()}', password)

    def make_files(self):
        conf = self.dir / 'demo.conf'
        conf.write_text(
            f'[database]\nconnection = {self.url(self.live)}\n'
            f'[api_database]\nconnection = {self.url(self.live + "_api")}\n'
        )
        for version in ('1.0.0', '2.0.0'):
            bins = self.dir / 'stack' / f'demo-{version}' / 'bin'
            bins.mkdir(parents=True)
            # a link would not find the packages of this environment
            (bins / 'python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            (bins / 'python').chmod(0o755)
            (bins / 'demo-manage').write_text(MANAGE.format(python=sys.executable))
            (bins / 'demo-manage').chmod(0o755)
        (self.dir / 'stack' / 'demo-current').symlink_to('demo-1.0.0')
        (self.dir / 'projects.d').mkdir()
        text = PROJECT.replace('LIVE', self.live).replace('CONF', str(conf))
        (self.dir / 'projects.d' / 'demo.yaml').write_text(text)
        for name, password in self.passwords.items():
            self.credentials(name, f'{name}{os.getpid()}', password)

    def credentials(self, name, user, password):
        section = {'mariadb': 'client', 'postgresql': 'upgrade'}[self.server]
        path = self.dir / name
        path.write_text(
            textwrap.dedent(f"""\
            [{section}]
            host={self.admin.url.host}
            port={self.admin.url.port}
            user={user}
            password={password}
            """)
        )
        path.chmod(0o600)

    def site(self, **project):
        settings = {
            'root': str(self.dir / 'stack'),
            'projects': {'demo': project},
            'backup': {
                'dir': str(self.dir / 'backups'),
                'server': self.server,
                'credentials': str(self.dir / 'dump'),
                'scratch': {
                    'prefix': self.prefix,
                    'credentials': str(self.dir / 'scratch'),
                    'work': str(self.dir / 'work'),
                },
            },
        }
        return strategies.Site(
            host='h',
            settings=settings,
            state_dir=str(self.dir),
            projects=loader.load_projects(str(self.dir / 'projects.d')),
        )

    def do(self, kind, **project):
        self.count += 1
        task = strategies.Task(
            step=f's{self.count}',
            attempt=1,
            kind=kind,
            host='h',
            project='demo',
            params={'version': '2.0.0', 'from_version': '1.0.0'},
            timeout=300,
        )
        job = self.strategy.run(task, self.site(**project))
        process = self.runner.start(task, job, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        said = self.runner.outcome(task.step, 1)
        place = self.runner.directory(task.step, 1)
        for secret in self.passwords.values():
            kept = (place / 'job.json').read_text() + (place / 'output').read_text()
            self.assertNotIn(secret, kept)
        return {**said, 'output': self.runner.output(task.step, 1)}

    def good(self, kind, **project):
        said = self.do(kind, **project)
        self.assertEqual('succeeded', said['result'], said)
        return said['output']

    def databases(self):
        names = sqlalchemy.inspect(self.admin).get_schema_names()
        if self.server == 'postgresql':
            names = [r[0] for r in self.sql('SELECT datname FROM pg_database')]
        return names

    def nothing_is_left(self):
        self.assertEqual([], [n for n in self.databases() if n.startswith(self.prefix)])
        self.assertEqual([], list((self.dir / 'work').glob('*/scratch.conf')))
        self.assertEqual(3, len(self.sql('SELECT * FROM things', self.live)))


class Cases:
    def test_a_dump_is_proved(self):
        self.good('backup_database')
        output = self.good('verify_backup')
        self.assertIn(f'{self.live}: 2 tables, 6 rows restored', output)
        self.nothing_is_left()

    def test_a_dump_that_lacks_a_table_is_none(self):
        self.good('backup_database')
        self.sql('CREATE TABLE more (id INTEGER)', self.live)
        said = self.do('verify_backup')
        self.assertEqual('failed', said['result'])
        self.assertIn('the dump lacks 1 tables: more', said['error'])
        self.nothing_is_left()

    def test_an_upgrade_is_rehearsed_on_a_copy(self):
        self.good('backup_database')
        output = self.good('rehearse_database')
        self.assertIn('only', output)
        self.assertIn(f'the cell is {self.prefix}{self.live} at none:///', output)
        self.assertIn('things -2 rows', output)
        self.nothing_is_left()

    def test_a_broken_row_is_found_beforehand(self):
        self.sql("INSERT INTO things VALUES (4, 'two', 0)", self.live)
        self.good('backup_database')
        said = self.do('rehearse_database')
        self.assertEqual('failed', said['result'])
        self.assertIn('demo-manage expand', said['error'])
        self.assertIn('two', said['output'])
        self.sql('DELETE FROM things WHERE id = 4', self.live)
        self.nothing_is_left()

    def test_an_account_that_can_reach_the_live_data_is_refused(self):
        self.good('backup_database')
        self.credentials('scratch', self.admin.url.username, self.admin.url.password)
        said = self.do('verify_backup')
        self.assertEqual('failed', said['result'])
        self.assertIn(f'can reach {self.live}', said['error'])
        self.nothing_is_left()

    def test_a_connection_from_elsewhere_is_seen(self):
        self.good('backup_database')
        said = self.do('rehearse_database', env={'OS_DATABASE__CONNECTION': self.url(self.live)})
        self.assertEqual('failed', said['result'])
        self.assertIn(f'[database] connection leads to {self.live}', said['error'])
        self.nothing_is_left()

    def test_records_agree_or_not(self):
        self.assertIn('demo-api: version 2 in 2 records', self.good('check_records'))
        self.sql("UPDATE services SET version = 1 WHERE host = 'b'", self.live)
        said = self.do('check_records')
        self.assertEqual('failed', said['result'])
        self.assertIn('version 1 in 1 records (such as b)', said['error'])


class TestMariaDB(Cases, RehearsalCase):
    dialect, server = 'mysql', 'mariadb'

    def make_account(self, name, user, password):
        user = f"'{user}'@'%%'"
        self.sql(f"CREATE USER {user} IDENTIFIED BY '{password}'")
        self.addCleanup(self.sql, f'DROP USER {user}')
        pattern = self.prefix.replace('_', '\\_')
        rights, where = {
            'dump': ('SELECT, SHOW VIEW, TRIGGER, LOCK TABLES, EVENT', '*.*'),
            'scratch': ('ALL', f'`{pattern}%%`.*'),
        }[name]
        self.sql(f'GRANT {rights} ON {where} TO {user}')


class TestPostgreSQL(Cases, RehearsalCase):
    dialect, server = 'postgresql', 'postgresql'

    def make_account(self, name, user, password):
        self.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        self.addCleanup(self.sql, f'DROP ROLE {user}')
        rights = {
            'dump': f'GRANT pg_read_all_data TO {user}',
            'scratch': f'ALTER ROLE {user} CREATEDB',
        }
        self.sql(rights[name])
