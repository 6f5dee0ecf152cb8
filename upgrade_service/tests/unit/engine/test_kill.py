"""An engine killed with SIGKILL around each thing it does for a step, and started again."""

import json
import signal
import subprocess
import sys

from upgrade_service import rpc
from upgrade_service.tests.unit.engine import test_manager


class TestKill(test_manager.EngineCase):
    #: point -> what the next start may say of the attempt. A shim that was just spawned may
    #: be too late: then it never begins.
    EXPECTED = {
        'before accept': set(),
        'after accept': {'revoked'},
        'before spawn': {'revoked'},
        'after spawn': {'outcome', 'revoked'},
        'in run': {'outcome'},
        'after outcome': {'outcome'},
        'after report': {'outcome'},
    }

    ENDS = ('outcome', 'interrupted', 'revoked')

    def killed_at(self, point):
        """Have an engine take an order and die; return once it is dead."""
        self.scripts['prefetch'] = f'sleep 0.3; echo x >> {self.dir}/ran'
        self.write_scripts()
        engine = self.engine(start=False)
        order = self.signer.seal(
            self.message(
                engine,
                'order',
                digest=engine.allowed.projects.digest,
                recorded=[],
                steps=[self.step('a', kind='prefetch', strategy='shell')],
            )
        )
        engine.stop()
        told = {
            'state': str(self.dir / 'state'),
            'settings': str(self.settings),
            'host': self.HOST,
            'bundle': self.bundle,
            'projects_dir': str(self.dir / 'none'),
            'order': order,
            'point': point,
        }
        done = subprocess.run(
            [sys.executable, '-m', 'upgrade_service.tests.unit.engine.victim'],
            input=json.dumps(told).encode(),
            capture_output=True,
            timeout=60,
        )
        self.assertEqual(-signal.SIGKILL, done.returncode, done.stderr.decode()[-2000:])
        return order

    def ran(self):
        path = self.dir / 'ran'
        return len(path.read_text().split()) if path.exists() else 0

    def _try(self, point):
        order = self.killed_at(point)
        engine = self.engine()
        said = ''
        if self.EXPECTED[point]:
            item = self.until(lambda: [i for i in self.items('a') if i['what'] in self.ENDS])[0]
            said = item['what']
            self.assertIn(said, self.EXPECTED[point])
            if said == 'outcome':
                self.assertEqual('succeeded', item['outcome']['result'])
        # the conductor says it again: a step that was accepted is never begun twice
        heard = len(self.items('a'))
        self.api.order(engine.id, order)
        self.until(lambda: len(self.items('a')) > heard)
        self.assertEqual(0 if said == 'revoked' else 1, self.ran())

    def test_before_accept(self):
        self._try('before accept')

    def test_after_accept(self):
        self._try('after accept')

    def test_before_spawn(self):
        self._try('before spawn')

    def test_after_spawn(self):
        self._try('after spawn')

    def test_in_run(self):
        self._try('in run')

    def test_after_outcome(self):
        self._try('after outcome')

    def test_after_report(self):
        self._try('after report')


class TestSurface(test_manager.EngineCase):
    def test_nothing_else_is_called(self):
        engine = self.engine()
        topic = rpc.engine_topic(engine.id)
        client = rpc.get_client(self.conf, topic, topic, '1.0')
        for method in ('stop', '_take', 'tell_facts', 'tick', '__init__'):
            client.cast({}, method)
        self.order(engine, self.step('a'))
        self.hear('a', 'outcome')
