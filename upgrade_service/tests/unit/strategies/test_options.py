"""Configuration rehearsal: two releases of a little project, real oslo.config, real files."""

import pathlib
import subprocess
import sys
import tempfile

import oslo_config

from upgrade_service.strategies.programs import options
from upgrade_service.tests import base

OLD = """
from oslo_config import cfg
def list_opts():
    return [('DEFAULT', [cfg.IntOpt('workers'), cfg.StrOpt('colour'), cfg.StrOpt('plain')]),
            ('paint', [cfg.StrOpt('tin')]), (cfg.OptGroup('Brush'), [cfg.StrOpt('hair-kind')])]
"""
NEW = """
from oslo_config import cfg
def list_opts():
    return [('DEFAULT', [cfg.StrOpt('plain', deprecated_for_removal=True, deprecated_since='2.0',
                                    deprecated_reason='nobody wants it')]),
            ('paint', [cfg.StrOpt('color', secret=True, deprecated_opts=[
                cfg.DeprecatedOpt('colour', group='DEFAULT')])]),
            ('Brush', [cfg.StrOpt('hair-kind')])]
"""
NEEDS_MORE = 'import hardware_nobody_has.driver as d\nclass Driver(d.Base): pass\n' + NEW
CONFIG = """\
# a comment
plain = yes
[DEFAULT]
workers = 4
colour = s3cret
  and more of it
other=1
[paint]
tin : big
[brush]
hair_kind = badger
[own_backend]
tin = mine
"""


class TestOptions(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.config = self.dir / 'demo.conf'
        self.config.write_text(CONFIG)
        # the libraries without what says which of them are installed: `demo` is alone
        (self.dir / 'libraries').mkdir()
        for path in pathlib.Path(oslo_config.__file__).parent.parent.iterdir():
            if path.suffix != '.dist-info':
                (self.dir / 'libraries' / path.name).symlink_to(path)

    def environment(self, name, code):
        """Return the interpreter of an environment in which a release is installed."""
        place = self.dir / name
        info = place / 'demo-1.dist-info'
        info.mkdir(parents=True)
        (place / 'demo_opts.py').write_text(code)
        (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: demo\nVersion: 1\n')
        (info / 'entry_points.txt').write_text('[oslo.config.opts]\ndemo = demo_opts:list_opts\n')
        python = self.dir / f'{name}-python'
        # -I would not see the directories; everything else is as it is called for real
        python.write_text(
            f'#!/bin/bash\nexport PYTHONPATH={place}:{self.dir}/libraries\n'
            f'exec {sys.executable} "${{@/#-I/-S}}"\n'
        )
        python.chmod(0o755)
        return str(python)

    def judge(self, old, new, *files):
        argv = [
            *(self.environment('new', new), '-I', options.__file__),
            *('--current', self.environment('old', old), '--before', 'demo 1', 'demo 2'),
        ]
        return subprocess.run(
            [*argv, *(files or [self.config])], capture_output=True, text=True, check=False
        )

    def test_what_is_gone_new_or_going_is_named_with_its_line(self):
        said = self.judge(OLD, NEW)
        self.assertEqual(2, said.returncode, said.stderr)
        expected = f"""\
{self.config}:2 [DEFAULT] plain: deprecated: since 2.0: nobody wants it
{self.config}:4 [DEFAULT] workers: removed: demo 1 knew it, demo 2 does not
{self.config}:5 [DEFAULT] colour: renamed: is now [paint] color
{self.config}:7 [DEFAULT] other: unknown: neither demo 1 nor demo 2 lists it
{self.config}:9 [paint] tin: removed: demo 1 knew it, demo 2 does not
{self.config}:13 [own_backend] tin: removed: demo 1 knew it, demo 2 does not
7 options in 1 files: 3 removed, 1 renamed, 1 deprecated, 1 unknown
removed in demo 2: """
        self.assertTrue(said.stdout.startswith(expected), said.stdout)
        self.assertNotIn('s3cret', said.stdout + said.stderr)

    def test_what_is_only_renamed_is_a_warning(self):
        self.config.write_text('[DEFAULT]\ncolour = red\n')
        self.assertEqual(1, self.judge(OLD, NEW).returncode)

    def test_drivers_whose_libraries_are_missing_are_listed_all_the_same(self):
        said = self.judge(OLD, NEEDS_MORE)
        self.assertEqual(2, said.returncode, said.stderr)
        self.assertIn('workers: removed', said.stdout)

    def test_what_cannot_be_listed_is_not_called_removed(self):
        said = self.judge(OLD, 'raise RuntimeError("broken")')
        self.assertEqual(0, said.returncode, said.stderr)
        self.assertIn('the options of demo cannot be listed: RuntimeError: broken', said.stdout)
