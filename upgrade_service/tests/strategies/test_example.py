"""The worked example of the manual: built, installed, found by an engine, and used."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from upgrade_service.tests import base

ROOT = pathlib.Path(__file__).parents[3]
UV = os.environ.get('UPGRADE_TEST_UV', '')
#: runs where the example is installed: an engine's own way to strategies and their settings
USE = """
import json, sys
from upgrade_service.engine import settings
from upgrade_service.projects import loader
from upgrade_service.strategies import base

allowed = settings.Allowed('h', sys.argv[1], sys.argv[2], loader.load_projects())
task = base.Task(step='s', attempt=1, kind='upgrade_service', host='h', project='nova',
                 params={'version': '34.0.0', 'units': ['nova-api']}, timeout=60)
job = allowed.strategy('tags').run(task, allowed.site('tags'))
print(json.dumps({
    'facts': allowed.facts()['projects'],
    'refusal': allowed.refusal(task, 'tags'),
    'argv': [list(op.argv) for op in job.ops],
}))
"""


class ExampleTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if not UV:
            self.skipTest('no uv named: tools/run_tests.sh strategies')
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)

    def call(self, *argv: str) -> str:
        env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def test_built_installed_and_used(self) -> None:
        source = shutil.copytree(ROOT / 'doc/source/contributor/example', self.dir / 'source')
        self.call(UV, 'build', '--quiet', '--wheel', '--out-dir', str(self.dir), str(source))
        (wheel,) = self.dir.glob('*.whl')
        venv = self.dir / 'venv'
        python = str(venv / 'bin/python')
        self.call(UV, 'venv', '--quiet', '--python', sys.executable, str(venv))
        self.call(UV, 'pip', 'install', '--quiet', '--no-deps', '--python', python, str(wheel))
        # the service itself, and what it needs, from the environment of the tests
        site = next(venv.glob('lib/python*/site-packages'))
        (site / 'tests.pth').write_text(f'{sysconfig.get_path("purelib")}\n{ROOT}\n')
        for name in ('engine.d', 'tags', 'state'):
            (self.dir / name).mkdir()
        (self.dir / 'tags/nova.env').write_text('NOVA_TAG=33.0.2\n')
        settings = {
            'directory': str(self.dir / 'tags'),
            'projects': {'nova': {'image': 'nova', 'units': {'nova-api': 'nova-api.service'}}},
        }
        (self.dir / 'engine.d/tags.yaml').write_text(json.dumps(settings))
        said = json.loads(
            self.call(python, '-c', USE, str(self.dir / 'engine.d'), str(self.dir / 'state'))
        )
        self.assertEqual('33.0.2', said['facts']['nova']['version'])
        self.assertIsNone(said['refusal'])
        self.assertEqual(
            ['/usr/bin/systemctl', 'restart', '--', 'nova-api.service'], said['argv'][1]
        )
        names = 'from importlib.metadata import entry_points as e; print(*sorted(p.name for p in '
        found = self.call(python, '-c', f"{names}e(group='upgrade_service.inventories')))")
        self.assertIn('roster', found.split())
