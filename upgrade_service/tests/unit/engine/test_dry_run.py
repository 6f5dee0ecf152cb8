"""A dry run: everything is told, nothing is done."""

import contextlib
import io
import json
import pathlib
import tempfile

import yaml

from upgrade_service import exception
from upgrade_service.cmd import dry_run as command
from upgrade_service.engine import dry_run, settings
from upgrade_service.projects import loader
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import noop
from upgrade_service.tests import base


class TouchStrategy(strategies.UpgradeStrategy):
    """Touches a file, if it is ever carried out."""

    name = 'touch'
    summary = 'touches a file'
    kinds = frozenset({'prefetch', 'upgrade_service', 'check_host', 'verify_host'})
    in_process = frozenset({'verify_host'})

    def facts(self, site):
        return {}

    def check(self, task, site):
        return task.params.get('version') == '1'

    def run(self, task, site):
        if task.kind == 'check_host':
            assert site.rehearsal
            return strategies.Outcome(result=strategies.Result.FAILED, rc=1, error='no room')
        if task.params.get('version') == '3':
            raise exception.Refused(reason='3 is not there')
        path = str(site.settings['path'])
        return strategies.Job(
            ops=(
                strategies.Op(
                    do='run',
                    title='touch it',
                    argv=('/usr/bin/touch', path),
                    env={'PASSWORD': 'a b'},
                    user='nobody',
                ),
                strategies.Op(do='write', title='write', path=f'{path}.2', text='xyz'),
            ),
            always=(strategies.Op(do='remove', title='remove', path=f'{path}.2'),),
            timeout=5,
        )

    def undo(self, task, site):
        return strategies.Job(ops=(), timeout=5)


class TestDryRun(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        (self.dir / 'd').mkdir(mode=0o700)
        self.path = self.dir / 'touched'
        (self.dir / 'd' / 'touch.yaml').write_text(yaml.dump({'path': str(self.path)}))
        (self.dir / 'd' / 'noop.yaml').write_text('{}')
        self.allowed = settings.Allowed(
            'cmp1',
            str(self.dir / 'd'),
            str(self.dir),
            loader.load_projects(),
            {'touch': TouchStrategy(), 'noop': noop.NoopUpgradeStrategy()},
        )

    def tell(self, kind, direction='forward', **params):
        step = {'kind': kind, 'strategy': 'touch', 'project': 'nova', 'params': params}
        (told,) = dry_run.tell([{**step, 'direction': direction}], self.allowed, 'cmp1')
        self.assertFalse(self.path.exists())
        return told

    def test_a_job_is_told_and_not_done(self):
        told = self.tell('upgrade_service', version='2')
        self.assertEqual('1 upgrade_service nova by touch', told.title)
        self.assertEqual(
            (
                f"$ PASSWORD='***' /usr/bin/touch {self.path}  (as nobody)",
                f'write {self.path}.2 (3 bytes, mode 0644)',
                f'remove {self.path}.2  (however it ends)',
            ),
            told.lines,
        )
        self.assertFalse(told.refused)

    def test_what_else_may_come_of_it(self):
        for kind, params, words, refused in (
            ('upgrade_service', {'version': '1'}, 'met already', False),
            ('upgrade_service', {'version': '3'}, '3 is not there', True),
            ('upgrade_service', {'version': '../x'}, 'bad_params', True),
            ('db_expand', {'version': '2'}, 'knows no db_expand', True),
            ('check_host', {}, 'failed: no room', True),
            ('verify_host', {}, 'does it itself', False),
        ):
            told = self.tell(kind, **params)
            self.assertIn(words, told.lines[0])
            self.assertEqual(refused, told.refused, kind)
        self.assertEqual(('nothing to do',), self.tell('upgrade_service', 'back').lines)

    def test_of_a_plan_only_the_own_steps(self):
        steps = [
            {'ord': 3, 'kind': 'prefetch', 'host': 'cmp1', 'strategy': 'touch', 'project': 'nova'},
            {'ord': 4, 'kind': 'prefetch', 'host': 'cmp2', 'strategy': 'touch'},
            {'ord': 5, 'kind': 'drain_host', 'host': 'cmp1', 'strategy': None},
        ]
        found = list(dry_run.steps_of({'stages': [{'name': 'prepare', 'steps': steps}]}, 'cmp1'))
        self.assertEqual([3], [s['ord'] for s in found])


class TestCommand(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        (self.dir / 'd').mkdir(mode=0o700)
        (self.dir / 'd' / 'noop.yaml').write_text('{}')
        self.config = self.dir / 'engine.conf'
        self.config.write_text(
            f'[engine]\nhost = cmp1\nconfig_dir = {self.dir}/d\nstate_dir = {self.dir}\n'
        )

    def run_it(self, *argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                rc = command.main(['--config-file', str(self.config), *argv])
            except SystemExit as e:
                rc = e.code
        return rc, out.getvalue(), err.getvalue()

    def test_one_step(self):
        rc, out, _ = self.run_it('--strategy', 'noop', '--kind', 'upgrade_host')
        self.assertEqual((0, '1 upgrade_host by noop\n'), (rc, out.partition('    ')[0]))
        rc, out, _ = self.run_it('--strategy', 'package', '--kind', 'upgrade_packages')
        self.assertEqual(1, rc)
        self.assertIn('there is no', out)

    def test_a_plan(self):
        plan = self.dir / 'plan.json'
        step = {
            'ord': 7,
            'kind': 'prefetch',
            'host': 'cmp1',
            'strategy': 'noop',
            'project': 'nova',
        }
        plan.write_text(json.dumps({'stages': [{'name': 'prepare', 'steps': [step]}]}))
        rc, out, _ = self.run_it('--plan', str(plan))
        self.assertEqual((0, '7 prefetch nova by noop'), (rc, out.splitlines()[0]))

    def test_bad_input_is_one_line(self):
        (self.dir / 'list').write_text('[]')
        (self.dir / 'other').write_text('{"stages": []}')
        one = ('--strategy', 'noop', '--kind', 'prefetch')
        for words, argv in (
            ('give --plan, or --strategy and --kind', ()),
            (
                '--params: it is not JSON',
                (*one, '--params', '{'),
            ),
            ('No such file', ('--plan', str(self.dir / 'none'))),
            ('must be a JSON object', ('--plan', str(self.dir / 'list'))),
            ('no step for host cmp1', ('--plan', str(self.dir / 'other'))),
        ):
            rc, out, err = self.run_it(*argv)
            self.assertNotEqual(0, rc)
            self.assertEqual('', out)
            self.assertIn(words, err.splitlines()[-1])
