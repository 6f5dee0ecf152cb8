"""The real rows and journal in a few histories; thousands are made in the tier `chaos`."""

import hypothesis
from hypothesis import stateful
from testtools import content

from upgrade_service.tests import base
from upgrade_service.tests.model import machine

EXAMPLES, LENGTH = 12, 50


class TestMachine(base.TestCase):
    url: str | None = None

    def test_histories(self):
        ground = machine.Ground(self.url)
        self.addCleanup(ground.cleanup.close)

        class Here(machine.Machine):
            pass

        Here.ground = ground
        rules = hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=LENGTH,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        stateful.run_state_machine_as_test(Here, settings=rules)
        self.addDetail('steps', content.text_content(f'{Here.steps_taken} steps'))
        self.assertGreater(Here.steps_taken, EXAMPLES * 10)
