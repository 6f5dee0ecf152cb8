"""The database layer on real MariaDB and PostgreSQL: the unit tests' stories again, and races.

The admin connections come from OS_TEST_DBAPI_ADMIN_CONNECTION; each test has a database of
its own.
"""

import os
import threading
import uuid

from oslo_db import exception as db_exc
import sqlalchemy as sa

from upgrade_service import context, exception
from upgrade_service.db import api as db
from upgrade_service.db import base as db_base
from upgrade_service.db import migration, models
from upgrade_service.tests import base, database
from upgrade_service.tests.unit.db import test_audit, test_turns


def admin_url(dialect: str) -> str | None:
    """Return the admin connection of a kind of server, if one is there."""
    urls = os.environ.get('OS_TEST_DBAPI_ADMIN_CONNECTION', '').split(';')
    return next((u for u in urls if u.startswith(dialect)), None)


class OnServer:
    """Mixin: make a database on the server of `dialect`, and use that."""

    dialect = ''

    def setUp(self):
        admin = admin_url(self.dialect)
        if admin is None:
            self.skipTest(f'no {self.dialect} server')
        engine = sa.create_engine(admin, isolation_level='AUTOCOMMIT')
        self.addCleanup(engine.dispose)
        name = f'upgrade_{uuid.uuid4().hex[:12]}'
        with engine.connect() as c:
            c.execute(sa.text(f'CREATE DATABASE {name}'))
        self.addCleanup(self._drop, engine, name)
        query = {'charset': 'utf8mb4'} if self.dialect == 'mysql' else {}
        url = sa.make_url(admin).set(database=name).update_query_dict(query)
        self.url = url.render_as_string(hide_password=False)
        super().setUp()

    def _drop(self, engine, name):
        with engine.connect() as c:
            c.execute(sa.text(f'DROP DATABASE {name}'))


class _MySQL(OnServer):
    dialect = 'mysql'


class _PostgreSQL(OnServer):
    dialect = 'postgresql'


class TestTurnsMySQL(_MySQL, test_turns.TestTurns):
    pass


class TestTurnsPostgreSQL(_PostgreSQL, test_turns.TestTurns):
    pass


class TestLeasesMySQL(_MySQL, test_turns.TestLeases):
    pass


class TestLeasesPostgreSQL(_PostgreSQL, test_turns.TestLeases):
    pass


class TestVerbsMySQL(_MySQL, test_turns.TestVerbs):
    pass


class TestVerbsPostgreSQL(_PostgreSQL, test_turns.TestVerbs):
    pass


class TestEnrolmentMySQL(_MySQL, test_turns.TestEnrolment):
    pass


class TestEnrolmentPostgreSQL(_PostgreSQL, test_turns.TestEnrolment):
    pass


class TestAuditMySQL(_MySQL, test_audit.TestAudit):
    pass


class TestAuditPostgreSQL(_PostgreSQL, test_audit.TestAudit):
    pass


class Granted:
    """Mixin: work as a database user with the rights that `db grants` prints."""

    def setUp(self):
        super().setUp()
        user = f'u{uuid.uuid4().hex[:12]}'
        admin = sa.create_engine(self.url, isolation_level='AUTOCOMMIT')
        self.addCleanup(admin.dispose)
        mysql = self.dialect == 'mysql'
        name = f"'{user}'@'%'" if mysql else user
        password = "IDENTIFIED BY 'x'" if mysql else "PASSWORD 'x'"
        statements = [f'CREATE USER {name} {password}', *db.grants(user)]
        with admin.connect() as c:
            for statement in statements:
                c.exec_driver_sql(statement.replace('%', '%%') if mysql else statement)
        self.addCleanup(self._drop_user, admin, name)
        url = sa.make_url(self.url).set(username=user, password='x')
        db.configure(self.db.conf, url.render_as_string(hide_password=False))
        self.addCleanup(db.get_engine().dispose)

    def _drop_user(self, admin, name):
        with admin.connect() as c:
            if self.dialect != 'mysql':
                c.exec_driver_sql(f'DROP OWNED BY {name}')
            c.exec_driver_sql(f'DROP USER {name}'.replace('%', '%%'))


class Rights(Granted):
    def test_everything_works_and_events_stay(self):
        epoch = self._start()['epoch']
        steps = db.step_list(self.ctx, self.ref)
        moves = [self._move(s, 'pending', 'dispatched', 0, begins=True) for s in steps]
        db.owner_turn(self.ctx, self.ref, 'me', epoch, moves)
        db.upgrade_verb(self.ctx, self.ref, 'cancel')
        self.assertEqual([], db.verify(self.ctx, self.ref).wrong)
        before = db.event_list(self.ctx, self.ref)
        errors = (db_exc.DBError, sa.exc.SQLAlchemyError)
        for statement in (
            sa.update(models.Event).values(actor='mallory'),
            sa.delete(models.Event),
        ):
            error = self.assertRaises(errors, self._write, statement)
            self.assertIn('denied', str(error))
        self.assertEqual(before, db.event_list(self.ctx, self.ref))

    def _write(self, statement):
        with db_base.writer(self.ctx) as session:
            session.execute(statement)


class TestRightsMySQL(Rights, _MySQL, test_turns.TurnsCase):
    pass


class TestRightsPostgreSQL(Rights, _PostgreSQL, test_turns.TurnsCase):
    pass


class Races(test_turns.TurnsCase):
    """Threads that want the same thing at the same time."""

    def _together(self, count, work):
        results, barrier = [], threading.Barrier(count)

        def run(n):
            barrier.wait()
            try:
                results.append(work(n))
            except Exception as e:
                results.append(e)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return results

    def test_one_of_many_conductors_gets_the_lease(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        claims = self._together(8, lambda n: db.ownership_claim(self.ctx, f'c{n}', 10))
        self.assertEqual(1, sum(len(c) for c in claims if isinstance(c, list)), claims)

    def test_one_of_two_threads_of_the_same_owner_dispatches_a_step(self):
        epoch = self._start()['epoch']
        step = db.step_list(self.ctx, self.ref)[0]
        move = self._move(step, 'pending', 'dispatched', 0, begins=True)
        done = self._together(6, lambda n: db.owner_turn(self.ctx, self.ref, 'me', epoch, [move]))
        self.assertEqual(1, sum(isinstance(d, dict) for d in done), done)
        self.assertEqual(5, sum(isinstance(d, db.Mismatch) for d in done), done)
        self.assertEqual(1, db.step_get(self.ctx, self.ref, step['id'])['attempt'])

    def test_every_event_of_a_crowd_is_in_the_chain(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        done = self._together(8, lambda n: db.upgrade_verb(self.ctx, self.ref, 'resume'))
        self.assertEqual(8, sum(isinstance(d, dict) for d in done), done)
        events = db.event_list(self.ctx, self.ref)
        self.assertEqual(list(range(1, len(events) + 1)), [e['seq'] for e in events])

    def _asked(self, **more):
        return db.Asked(shown=lambda row: {'status': 202, 'body': row['id']}, **more)

    def _repeating(self, change):
        """Make the same keyed change; return what was kept if it is a repetition."""
        asked = self._asked(key='k', request='r')
        try:
            change(asked)
        except db.Repeated:
            return db.answer_get(self.ctx, 'k')['body']
        return asked.answer

    def test_equal_creates_at_once_have_one_effect_and_one_answer(self):
        names = ('cluster_id', 'to_release', 'strategy', 'type', 'policy', 'selection')
        values = {k: self.upgrade[k] for k in names}
        done = self._together(
            6, lambda n: self._repeating(lambda a: db.upgrade_create(self.ctx, values, a))
        )
        self.assertEqual([done[0]] * 6, done)
        self.assertEqual({self.ref, done[0]['body']}, {u['id'] for u in db.upgrade_list(self.ctx)})

    def test_equal_verbs_at_once_have_one_effect_and_one_answer(self):
        done = self._together(
            6,
            lambda n: self._repeating(
                lambda a: db.upgrade_verb(self.ctx, self.ref, 'start', asked=a)
            ),
        )
        self.assertEqual([{'status': 202, 'body': self.ref}] * 6, done)
        kinds = [e['kind'] for e in db.event_list(self.ctx, self.ref)]
        self.assertEqual(1, kinds.count('start'))

    def test_a_refused_change_gives_its_key_free(self):
        refused = self._together(
            4,
            lambda n: self._repeating(
                lambda a: db.upgrade_verb(self.ctx, self.ref, 'resume', asked=a)
            ),
        )
        self.assertEqual({'IllegalVerb'}, {type(e).__name__ for e in refused})
        self.assertIsNone(db.answer_get(self.ctx, 'k'))
        done = self._repeating(lambda a: db.upgrade_verb(self.ctx, self.ref, 'start', asked=a))
        self.assertEqual(self.ref, done['body'])

    def test_changes_are_counted_by_user(self):
        db.upgrade_verb(self.ctx, self.ref, 'start')
        for _ in range(2):
            db.upgrade_verb(self.ctx, self.ref, 'pause')
        error = self.assertRaises(
            exception.TooMany,
            db.upgrade_verb, self.ctx, self.ref, 'pause', asked=self._asked(most=3),
        )  # fmt: skip
        self.assertTrue(0 < error.details['retry_after'] <= 60)
        bob = context.RequestContext(user_id='bob')
        db.upgrade_verb(bob, self.ref, 'pause', asked=self._asked(most=1))

    def test_old_answers_go(self):
        self._repeating(lambda a: db.upgrade_verb(self.ctx, self.ref, 'start', asked=a))
        db.answers_sweep(self.ctx)
        self.assertIsNotNone(db.answer_get(self.ctx, 'k'))
        with db_base.writer(self.ctx) as session:
            session.execute(sa.update(models.IdempotencyKey).values(at=1))
        db.answers_sweep(self.ctx)
        self.assertIsNone(db.answer_get(self.ctx, 'k'))


class TestRacesMySQL(_MySQL, Races):
    pass


class TestRacesPostgreSQL(_PostgreSQL, Races):
    pass


class TestRacesSQLite(Races):
    pass


class Schema(base.TestCase):
    """Migrations make exactly what the models say."""

    url: str | None = None

    def test_migrations_and_models_agree(self):
        from alembic import autogenerate
        from alembic import migration as alembic_migration

        self.useFixture(database.Database(self.url))
        self.assertTrue(migration.is_current())
        with db_base.get_engine().connect() as c:
            context = alembic_migration.MigrationContext.configure(c)
            self.assertEqual([], autogenerate.compare_metadata(context, models.Base.metadata))


class TestSchemaMySQL(_MySQL, Schema):
    pass


class TestSchemaPostgreSQL(_PostgreSQL, Schema):
    pass


class TestSchemaSQLite(Schema):
    pass


del Races, Schema
