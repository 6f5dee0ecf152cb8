"""The table of faults in the documentation names tests that exist."""

import ast
import pathlib
import re

import upgrade_service
from upgrade_service.tests import base

TESTS = pathlib.Path(upgrade_service.__file__).parent / 'tests'
TOP = TESTS.parents[1]
#: rows of the fault table that are not proven yet
MISSING = {27}


class TestFaultsTable(base.TestCase):
    def setUp(self):
        super().setUp()
        self.text = (TOP / 'doc/source/contributor/faults.rst').read_text()

    def test_every_row_is_there(self):
        rows = {int(n) for n in re.findall(r'^F(\d+): ', self.text, re.MULTILINE)}
        self.assertEqual(set(range(1, 28)) - MISSING, rows)

    def test_every_test_is_there(self):
        names = re.findall(r'\* ``(\w+)\.(\w+)``\s+in ``([a-z_.]+)``', self.text)
        self.assertGreater(len(names), 70)
        self.assertEqual([], [n for n in names if not self._is_there(*n)])
        tiers = (TOP / 'tools/run_tests.sh').read_text()
        for name in set(re.findall(r'\* the tier ``([a-z-]+)``', self.text)):
            self.assertIn(f'tier_{name}()', tiers)

    def _is_there(self, case, test, module):
        """Whether a module has the class and the test: a class may have it from another one."""
        tree = ast.parse((TESTS / f'{module.replace(".", "/")}.py').read_text())
        classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
        own = {
            f.name
            for c in self._with_bases(classes, case)
            for f in c.body
            if isinstance(f, ast.FunctionDef)
        }
        return test in own

    def _with_bases(self, classes, name):
        if name not in classes:
            return []
        names = [b.id for b in classes[name].bases if isinstance(b, ast.Name)]
        return [classes[name], *(c for b in names for c in self._with_bases(classes, b))]
