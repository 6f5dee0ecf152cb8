"""Strategy `grenade` on a tree with grenade's contract: summaries, phases, exit statuses."""

import dataclasses
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import jsonschema
import yaml

from upgrade_service.engine import runner
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import grenade, grenade_run
from upgrade_service.tests import base

#: grenade.sh in small: what it says, in its order, and where it may fail
GRENADE = r"""#!/bin/bash
set -eu
summary() { echo "2026-11-25 10:00:00.000 | $*"; }
mkdir -p "$STACK_ROOT/logs"
log=$STACK_ROOT/logs/grenade.sh.log
[ "${1:-}" = -q ]
summary "grenade.sh log $log"
for phase in 'Running base stack.sh' 'Running resource phase: create' \
    'Running resource phase: verify pre-upgrade' 'Saving current state information' \
    'Shutting down all services on base devstack...' 'Preparing the target devstack environment' \
    'Upgrading keystone...' 'Upgrading nova...' 'Running resource phase: verify post-upgrade' \
    "Dumping new databases" 'Grenade has completed the pre-programmed upgrade scripts.'; do
    [ "${STOP_BEFORE:-}" != "$phase" ] || exit 0
    summary "$phase"
    if [ "${FAIL_AT:-}" = "$phase" ]; then
        echo "[Call Trace] die: $TARGET_DEVSTACK_BRANCH is broken" >>"$log"
        exit 1
    fi
done
echo run >>"$STACK_ROOT/runs"
"""
SCRIPT = """#!/bin/bash
set -eu
echo "$(basename $(dirname $0))/$(basename $0) $* $TOP_DIR" >>$STACK_ROOT/scripts
echo "summary of $0" >&6
[ ! -e "$STACK_ROOT/fail-$(basename $0)" ] || { echo 'a resource is gone'; exit 3; }
"""


def git(path, *words):
    subprocess.run(
        ['git', '-c', 'user.name=t', '-c', 'user.email=t@example.org', '-C', str(path), *words],
        check=True,
        capture_output=True,
    )


class GrenadeCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.grenade, self.stack = self.dir / 'grenade', self.dir / 'stack'
        (self.dir / 'state').mkdir()
        for side in ('old', 'new'):
            self.checkout(self.stack / side / 'devstack', stackrc='', functions='')
        scripts = {
            f'projects/60_nova/{n}.sh': SCRIPT for n in ('shutdown', 'upgrade', 'resources')
        }
        scripts['projects/15_placement/upgrade.sh'] = SCRIPT
        self.checkout(self.grenade, **{'grenade.sh': GRENADE, **scripts})
        self.settings = {
            'mode': 'external',
            'directory': str(self.grenade),
            'user': 'stack',
            'stack_root': str(self.stack),
            'branches': {'2026.1': 'stable/2026.1', '2026.2': 'stable/2026.2'},
        }
        self.strategy = grenade.GrenadeUpgradeStrategy()
        self.runner = runner.Runner(self.dir / 'state' / 'attempts', self.dir / 'state' / 'lock')
        self.count = 0

    def checkout(self, path, **files):
        for name, text in files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        git(path, 'init', '-q')
        git(path, 'add', '-A')
        git(path, 'commit', '-qm', 'all')

    def site(self):
        jsonschema.validate(self.settings, grenade.SETTINGS_SCHEMA)
        # the tests' user stands for the one that owns the checkouts
        settings = {**self.settings, 'user': None}
        return strategies.Site(host='h', settings=settings, state_dir=str(self.dir / 'state'))

    def task(self, kind='upgrade_service', project='nova', **more):
        self.count += 1
        params = {'version': '34.0.0', 'release': '2026.2', 'from_release': '2026.1'}
        return strategies.Task(
            step=f's{self.count}', attempt=1, kind=kind, host='h', project=project, params=params,
            timeout=60, **more,
        )  # fmt: skip

    def run_task(self, task, fit=False):
        """Do a task; without its look at the checkouts, which asks for another user than root."""
        job = self.strategy.run(task, self.site())
        if not fit and task.kind == 'upgrade_service':
            job = dataclasses.replace(job, ops=job.ops[1:])
        self.seen = []
        process = self.runner.start(task, job, 'u')
        self.runner.wait(task.step, 1, process, self.seen.append, lambda: False)
        self.output = self.runner.output(task.step, 1)
        return self.runner.outcome(task.step, 1)


class TestWhole(GrenadeCase):
    def runs(self):
        path = self.stack / 'runs'
        return len(path.read_text().split()) if path.exists() else 0

    def test_once_for_all_projects_of_the_host(self):
        outcome = self.run_task(self.task())
        self.assertEqual('succeeded', outcome['result'], outcome)
        self.assertEqual('34.0.0', outcome['data']['version'])
        self.assertTrue(self.strategy.check(self.task(project='glance'), self.site()))
        self.assertEqual(1, self.runs())
        # another commit of grenade is another run
        self.settings['commits'] = {'grenade': 'a' * 40}
        self.assertFalse(self.strategy.check(self.task(), self.site()))

    def test_the_phase_it_failed_in(self):
        self.settings['env'] = {'FAIL_AT': 'Upgrading nova...'}
        outcome = self.run_task(self.task())
        self.assertEqual('failed', outcome['result'])
        self.assertIn('in phase: Upgrading nova...', outcome['error'])
        self.assertIn('stable/2026.2 is broken', self.output)
        self.assertFalse(self.strategy.check(self.task(), self.site()))

    def test_an_exit_status_of_0_is_not_enough(self):
        for before, missing in (
            ('Running resource phase: verify post-upgrade', 'verify post-upgrade, done'),
            ('Grenade has completed the pre-programmed upgrade scripts.', 'done'),
        ):
            self.settings['env'] = {'STOP_BEFORE': before}
            outcome = self.run_task(self.task())
            self.assertEqual('failed', outcome['result'])
            self.assertIn(f'never came to: {missing}', outcome['error'])

    def test_phases_are_progress(self):
        phases, said = grenade_run.Phases(), io.StringIO()
        with mock.patch.object(sys, 'stdout', said):
            self.assertTrue(phases.line('2026-11-25 10:00:00.000 | Upgrading nova...\n'))
            self.assertFalse(phases.line('++ echo Upgrading nova\n'))
        self.assertEqual(['upgrade'], phases.seen)
        self.assertIn('"done": 10, "total": 17', said.getvalue())

    def test_what_grenade_does_itself(self):
        outcome = self.run_task(self.task('db_expand'))
        self.assertEqual(('succeeded', {'covered': True}), (outcome['result'], outcome['data']))

    def test_no_way_back_and_no_other_release(self):
        self.assertIn(
            'no way back', self.strategy.refusal(self.task(direction='back'), self.site())
        )
        del self.settings['branches']['2026.2']
        self.assertIn('no branch for release 2026.2',
                      self.strategy.refusal(self.task(), self.site()))  # fmt: skip


class TestScripts(GrenadeCase):
    def setUp(self):
        super().setUp()
        self.settings['mode'] = 'scripts'

    def scripts(self):
        return (self.stack / 'scripts').read_text().splitlines()

    def test_shutdown_then_upgrade_then_resources(self):
        self.assertEqual('succeeded', self.run_task(self.task())['result'])
        self.assertEqual('succeeded', self.run_task(self.task('verify_host'))['result'])
        target = self.stack / 'new' / 'devstack'
        self.assertEqual(
            [
                f'60_nova/shutdown.sh  {target}',
                f'60_nova/upgrade.sh  {target}',
                f'60_nova/resources.sh verify post-upgrade {target}',
            ],
            self.scripts(),
        )

    def test_a_project_without_some_of_them(self):
        self.assertEqual('succeeded', self.run_task(self.task(project='placement'))['result'])
        outcome = self.run_task(self.task('verify_host', project='placement'))
        self.assertEqual('succeeded', outcome['result'])
        self.assertIn('verifies nothing of placement', self.output)

    def test_failures(self):
        (self.stack / 'fail-upgrade.sh').touch()
        outcome = self.run_task(self.task())
        self.assertEqual(('failed', 3), (outcome['result'], outcome['rc']))
        self.assertIn('upgrade.sh ended with status 3', outcome['error'])
        (self.stack / 'fail-resources.sh').touch()
        self.assertIn('verify post-upgrade ended with status 3',
                      self.run_task(self.task('verify_host'))['error'])  # fmt: skip
        self.assertIn('no projects/*_heat', self.run_task(self.task(project='heat'))['error'])


class TestFit(GrenadeCase):
    """What is found before anything was changed."""

    def check(self):
        outcome = self.run_task(self.task('check_host', project=None), fit=True)
        self.assertEqual('failed' if os.geteuid() == 0 else outcome['result'], outcome['result'])
        return self.output

    def test_dirty_checkout(self):
        (self.grenade / 'grenade.sh').write_text('#!/bin/sh\nreboot\n')
        said = self.check()
        self.assertIn('has changes (grenade.sh)', said)
        self.assertIn('commit them or git -C', said)

    def test_another_commit(self):
        self.settings['commits'] = {'target': 'a' * 40}
        self.assertIn(f'not at {"a" * 40}', self.check())

    def test_no_devstack(self):
        shutil.rmtree(self.stack / 'old')
        said = self.check()
        self.assertIn('old/devstack is no git checkout', said)
        self.assertIn('old/devstack/stackrc is not there', said)

    def test_root_is_refused(self):
        self.assertIn('refuses to run as root', self.check() if os.geteuid() == 0 else
                      'refuses to run as root')  # fmt: skip
        self.settings['user'] = 'root'
        self.assertRaises(jsonschema.ValidationError, self.site)

    def test_it_is_looked_at_again_before_the_run(self):
        (self.grenade / 'grenade.sh').write_text('#!/bin/sh\nreboot\n')
        outcome = self.run_task(self.task(), fit=True)
        self.assertEqual('failed', outcome['result'])
        self.assertIn('has changes', outcome['error'])

    def test_the_sample_is_legal(self):
        sample = pathlib.Path(__file__).parents[4] / 'etc/upgrade-service/engine.d'
        text = (sample / 'grenade.yaml.sample').read_text()
        jsonschema.validate(yaml.safe_load(text), grenade.SETTINGS_SCHEMA)
