"""The servers that the functional tests stand on: there, and what we think they are.

When one of them is missing, this is the test that says so in plain words; the others would only
time out or skip.
"""

import os
import socket

import sqlalchemy

from upgrade_service.tests import base

HINT = 'run tools/run_tests.sh functional, or tools/servers.sh start and eval its env'


def admin_urls() -> dict[str, str]:
    """Connection URLs with the right to create databases, by name of the dialect."""
    urls = os.environ.get('OS_TEST_DBAPI_ADMIN_CONNECTION', '')
    return {url.split(':')[0].split('+')[0]: url for url in urls.split(';') if url}


class TestDatabases(base.TestCase):
    def check_database(self, dialect, version_sql, word):
        self.assertIn(dialect, admin_urls(), HINT)
        engine = sqlalchemy.create_engine(admin_urls()[dialect], isolation_level='AUTOCOMMIT')
        self.addCleanup(engine.dispose)
        name = f'upgrade_test_{os.getpid()}'
        with engine.connect() as connection:
            version = connection.execute(sqlalchemy.text(version_sql)).scalar()
            connection.execute(sqlalchemy.text(f'CREATE DATABASE {name}'))
            connection.execute(sqlalchemy.text(f'DROP DATABASE {name}'))
        self.assertIn(word, str(version))

    def test_mariadb_creates_a_database(self):
        self.check_database('mysql', 'SELECT VERSION()', 'MariaDB')

    def test_postgresql_creates_a_database(self):
        self.check_database('postgresql', 'SELECT version()', 'PostgreSQL')


class TestRabbit(base.TestCase):
    def test_broker_speaks_amqp(self):
        url = os.environ.get('UPGRADE_TEST_RABBIT_URL', '')
        self.assertTrue(url.startswith('rabbit://'), HINT)
        host, port = url.rstrip('/').rsplit('@', 1)[1].split(':')
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b'AMQP\0\0\x09\x01')
            # A method frame on channel 0: Connection.Start. Anything else is no such broker.
            self.assertEqual(b'\x01\x00\x00', connection.recv(3))
