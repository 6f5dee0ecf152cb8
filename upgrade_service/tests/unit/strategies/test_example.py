"""The worked example of the manual, by the contract that it shows."""

import importlib
import pathlib
import shutil
import sys
import tempfile

import jsonschema

from upgrade_service import exception
from upgrade_service.engine import runner
from upgrade_service.strategies import base as strategies
from upgrade_service.tests import base

EXAMPLE = pathlib.Path(__file__).parents[4] / 'doc/source/contributor/example'


class ExampleTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        sys.path.insert(0, str(EXAMPLE))
        self.addCleanup(sys.path.remove, str(EXAMPLE))
        self.module = importlib.import_module('upgrade_strategy_tags.strategy')
        self.strategy = self.module.TagsUpgradeStrategy()
        (self.dir / 'tags').mkdir()
        (self.dir / 'tags/nova.env').write_text('NOVA_TAG=33.0.2\n')
        for name in ('systemctl', 'podman'):
            tool = self.dir / name
            tool.write_text(f'#!/bin/sh\necho {name} "$@" >>{self.dir}/calls\n')
            tool.chmod(0o755)
        self.settings = {
            'directory': str(self.dir / 'tags'),
            'systemctl': str(self.dir / 'systemctl'),
            'podman': str(self.dir / 'podman'),
            'projects': {
                'nova': {
                    'image': 'registry.example.org/nova',
                    'units': {'nova-api': 'nova-api.service', 'nova-compute': 'compute.service'},
                }
            },
        }
        self.runner = runner.Runner(self.dir / 'attempts', self.dir / 'lock')
        self.count = 0

    def site(self):
        jsonschema.validate(self.settings, self.strategy.settings_schema)
        return strategies.Site(host='h', settings=self.settings, state_dir=str(self.dir))

    def do(self, kind, version='34.0.0', how='run', **params):
        self.count += 1
        task = strategies.Task(
            step=f's{self.count}', attempt=1, kind=kind, host='h', project='nova',
            params={'version': version, **params}, timeout=60,
        )  # fmt: skip
        self.assertIsNone(self.strategy.refusal(task, self.site()))
        made = getattr(self.strategy, how)(task, self.site())
        if isinstance(made, strategies.Outcome):
            return {'result': made.result, 'error': made.error, 'data': made.data}
        process = self.runner.start(task, made, 'u')
        self.runner.wait(task.step, 1, process, lambda p: None, lambda: False)
        return self.runner.outcome(task.step, 1)

    def calls(self):
        return (self.dir / 'calls').read_text().splitlines()

    def test_there_and_back(self):
        self.assertEqual('succeeded', self.do('check_host')['result'])
        self.do('prefetch')
        self.assertEqual('succeeded', self.do('upgrade_service', units=['nova-compute'])['result'])
        self.assertEqual('34.0.0', self.strategy.facts(self.site())['projects']['nova']['version'])
        self.assertEqual('succeeded', self.do('verify_host')['result'])
        self.do('upgrade_service', '33.0.2', 'undo', units=['nova-compute'])
        self.assertIn('says 33.0.2, not 34.0.0', self.do('verify_host')['error'])
        restart = 'systemctl restart -- compute.service'
        pull = 'podman pull --quiet registry.example.org/nova:34.0.0'
        self.assertEqual([pull, restart, restart], self.calls())

    def test_found_before_anything_changed(self):
        (self.dir / 'tags/nova.env').unlink()
        self.assertIn('NOVA_TAG=VERSION', self.do('check_host')['error'])
        self.assertRaises(exception.Refused, self.do, 'restart_service', units=['other'])
