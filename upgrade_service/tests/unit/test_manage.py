"""upgrade-service-manage, as root on a controller types it; nothing else of the service is up."""

import contextlib
import io
import os
import pathlib
import pwd
import tempfile

from oslo_config import cfg
import sqlalchemy as sa

from upgrade_service.cmd import manage
from upgrade_service.db import api as db
from upgrade_service.db import base as db_base
from upgrade_service.db import models
from upgrade_service.tests import base, database

#: nobody listens at port 1: neither keystone nor the bus answers
CONFIG = """\
[DEFAULT]
transport_url = rabbit://u:p@127.0.0.1:1/
[keystone_authtoken]
auth_url = http://127.0.0.1:1/v3
[database]
connection = {url}
"""


class ManageCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.db = self.useFixture(database.Database())
        self.ctx = self.db.ctx
        self.ref = database.draft(self.db, database.chain_plan(['check_host'] * 2))['id']
        db.upgrade_verb(self.ctx, self.ref, 'start')
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.config = pathlib.Path(folder.name, 'service.conf')
        self.config.write_text(CONFIG.format(url=self.db.url))

    def manage(self, *argv, status=0):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            found = manage.main(['--config-file', str(self.config), *argv], cfg.ConfigOpts())
        self.assertEqual(status, found, out.getvalue())
        return out.getvalue()


class TestBreakGlass(ManageCase):
    def test_pause(self):
        said = self.manage('local', 'pause', self.ref, '--reason', 'keystone is gone')
        self.assertIn('running -> stopping, next paused', said)
        row = db.upgrade_get(self.ctx, self.ref)
        self.assertEqual(('stopping', 'paused'), (row['state'], row['next']))
        event = db.event_list(self.ctx, self.ref)[-1]
        actor = f'local:{pwd.getpwuid(os.getuid()).pw_name}'
        self.assertEqual(('pause', actor), (event['kind'], event['actor']))
        self.assertEqual('keystone is gone', event['detail']['reason'])
        self.assertEqual('running', event['detail']['before'])
        self.assertEqual([], db.verify(self.ctx, self.ref).wrong)

    def test_cancel(self):
        self.manage('local', 'cancel', self.ref)
        self.assertEqual('cancelled', db.upgrade_get(self.ctx, self.ref)['next'])

    def test_status(self):
        said = self.manage('local', 'status', self.ref)
        self.assertIn('state running, direction forward', said)
        self.assertIn('2 pending', said)

    def test_what_the_state_forbids(self):
        self.manage('local', 'cancel', self.ref)
        before = db.event_list(self.ctx, self.ref)
        said = self.manage('local', 'pause', self.ref, status=1)
        self.assertIn('pause is not possible now', said)
        # nothing changed but the trail, which says who asked
        (refused,) = db.event_list(self.ctx, self.ref)[len(before) :]
        self.assertEqual('cancelled', db.upgrade_get(self.ctx, self.ref)['next'])
        self.assertIn('refused', str(refused['kind']))

    def test_what_is_not_there(self):
        self.assertIn('There is no upgrade x', self.manage('local', 'pause', 'x', status=1))


class TestAuditVerify(ManageCase):
    def test_a_whole_trail(self):
        said = self.manage('audit', 'verify')
        head = db.verify(self.ctx, self.ref).head
        self.assertIn(f'upgrade {self.ref}: 3 events, whole; head {head}', said)
        self.manage('audit', 'verify', self.ref, '--head', f'3:{head}')
        said = self.manage('audit', 'verify', self.ref, '--head', f'2:{head}', status=1)
        self.assertIn('event 2: not the one whose hash was noted', said)

    def test_a_changed_event(self):
        with db_base.writer(self.ctx) as session:
            session.execute(sa.update(models.Event).filter_by(seq=2).values(actor='mallory'))
        said = self.manage('audit', 'verify', self.ref, status=1)
        self.assertIn('NOT as they were written', said)
        self.assertIn('event 2: changed', said)

    def test_bad_arguments(self):
        self.assertIn('NUMBER:HASH', self.manage('audit', 'verify', '--head', 'x', status=1))
        self.assertIn('There is no upgrade x', self.manage('audit', 'verify', 'x', status=1))


class TestGrants(ManageCase):
    def test_events_can_only_be_added_and_read(self):
        said = self.manage('db', 'grants', 'upgrade').splitlines()
        (events,) = [line for line in said if ' ON events ' in line]
        self.assertTrue(events.startswith('GRANT SELECT, INSERT ON events TO '), events)
        tables = {line.split(' ON ')[1].split()[0] for line in said}
        self.assertEqual({*models.Base.metadata.tables, 'alembic_version'}, tables)

    def test_a_name_that_is_none(self):
        said = self.manage('db', 'grants', "x'; DROP TABLE events; --", status=1)
        self.assertIn('letters, digits and _ only', said)
