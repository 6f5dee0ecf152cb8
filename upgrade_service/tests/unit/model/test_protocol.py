"""The protocol holds in every history within small bounds, and no guard is there for nothing.

The larger bounds are in the tier `chaos`: ``python -m upgrade_service.tests.model``.
"""

from upgrade_service.tests import base
from upgrade_service.tests.model import explore, mutants


class TestProtocol(base.TestCase):
    def test_every_history_is_good(self):
        for rules in mutants.SMALL:
            found = explore.explore(rules)
            self.assertEqual(('', True), (found.broken, found.exhausted), (rules, found.trace))
            self.assertGreater(found.states, 1000)

    def test_each_guard_is_needed(self):
        for mutant in mutants.MUTANTS:
            found = explore.explore(mutant.rules)
            self.assertEqual(mutant.breaks, found.broken.partition(':')[0], (mutant, found))

    def test_what_another_guard_stands_behind(self):
        for mutant in mutants.DEFENCE:
            self.assertEqual('', explore.explore(mutant.rules).broken, mutant)
