"""Strategy `grenade` on real checkouts, as far as the machine carries it.

``UPGRADE_TEST_GRENADE_DIR`` names a directory with checkouts ``grenade`` and ``devstack`` (of
openstack/grenade and openstack/devstack), ``UPGRADE_TEST_GRENADE_USER`` a user who may use
sudo without a password, on a machine that may be changed: grenade makes ``STACK_ROOT`` there.
Without a cloud on the machine grenade.sh ends in the first phase that needs one; with
``UPGRADE_TEST_GRENADE_MODE=full`` it installs the base with stack.sh first.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

import jsonschema

from upgrade_service.engine import runner
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import grenade, grenade_run
from upgrade_service.tests import base

CHECKOUTS = os.environ.get('UPGRADE_TEST_GRENADE_DIR', '')
USER = os.environ.get('UPGRADE_TEST_GRENADE_USER', 'stack')
MODE = os.environ.get('UPGRADE_TEST_GRENADE_MODE', 'external')
TIMEOUT = int(os.environ.get('UPGRADE_TEST_GRENADE_TIMEOUT', '600'))


class GrenadeTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if not CHECKOUTS or os.geteuid():
            self.skipTest('UPGRADE_TEST_GRENADE_DIR names no checkouts, or this is not root')
        # the user must reach it: not below the directory of the tests
        self.dir = pathlib.Path(tempfile.mkdtemp(dir='/var/tmp'))
        self.addCleanup(shutil.rmtree, self.dir)
        self.dir.chmod(0o755)
        self.stack = self.dir / 'stack'
        self.stack.mkdir()
        for name, to in (
            ('grenade', 'grenade'),
            ('devstack', 'stack/old/devstack'),
            ('devstack', 'stack/new/devstack'),
        ):
            shutil.copytree(f'{CHECKOUTS}/{name}', self.dir / to, symlinks=True)
        subprocess.run(['chown', '-R', f'{USER}:', self.stack, self.dir / 'grenade'], check=True)
        self.settings: dict[str, Any] = {
            'mode': MODE,
            'directory': str(self.dir / 'grenade'),
            'user': USER,
            'stack_root': str(self.stack),
            'branches': {'2026.1': 'stable/2026.1', '2026.2': 'master'},
            'env': {
                'BASE_RUN_SMOKE': 'False', 'TARGET_RUN_SMOKE': 'False', 'ENABLE_TEMPEST': 'False',
                'GIT_BASE': os.environ.get('UPGRADE_TEST_GRENADE_GIT', 'https://opendev.org'),
            },
        }  # fmt: skip
        (self.dir / 'state').mkdir()
        self.strategy = grenade.GrenadeUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')

    def run_task(self, kind: str) -> tuple[dict[str, Any], str, list[str]]:
        jsonschema.validate(self.settings, grenade.SETTINGS_SCHEMA)
        site = strategies.Site(host='h', settings=self.settings, state_dir=str(self.dir / 'state'))
        task = strategies.Task(
            step=kind, attempt=1, kind=kind, host='h', project='keystone',
            params={'version': '30.0.0', 'release': '2026.2', 'from_release': '2026.1'},
            timeout=TIMEOUT,
        )  # fmt: skip
        said: list[str] = []
        process = self.runner.start(task, self.strategy.run(task, site), 'u')
        self.runner.wait(kind, 1, process, lambda p: said.append(p['text']), lambda: False)
        outcome = self.runner.outcome(kind, 1)
        assert outcome is not None
        return outcome, self.runner.output(kind, 1), said

    def test_checkouts_and_run(self) -> None:
        outcome, output, _ = self.run_task('check_host')
        self.assertEqual('succeeded', outcome['result'], output)
        outcome, output, said = self.run_task('upgrade_service')
        phases = grenade_run.Phases()
        known = [text for text in said if phases.line(text)]
        print(f'grenade: {outcome["result"]}, {outcome["error"][:300]}; phases: {known}')
        self.assertNotEqual([], known, output)
        if outcome['result'] != 'succeeded':
            self.assertIn('in phase: ', outcome['error'])
            self.assertIn('--- the end of', output)

    def test_what_is_not_as_it_was_named(self) -> None:
        self.settings['commits'] = {'grenade': 'a' * 40}
        with open(self.stack / 'new/devstack/stack.sh', 'a') as f:
            f.write('\n# changed by hand\n')
        for kind in ('check_host', 'upgrade_service'):
            outcome, output, _ = self.run_task(kind)
            self.assertEqual('failed', outcome['result'])
            self.assertIn(f'not at {"a" * 40}', output)
            self.assertIn('has changes (stack.sh)', output)
