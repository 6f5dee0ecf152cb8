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
        names = re.findall(r'\* ``([A-Za-z0-9_.-]+)``', self.text)
        self.assertGreater(len(names), 70)
        tiers = (TOP / 'tools/run_tests.sh').read_text()
        lost = [n for n in names if '.' not in n and f'tier_{n}()' not in tiers]
        lost += [n for n in names if '.' in n and not self._is_there(n)]
        self.assertEqual([], lost)

    def _is_there(self, name):
        """Whether a module has the class and the test: a class may have it from another one."""
        module, case, test = name.rsplit('.', 2)
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
