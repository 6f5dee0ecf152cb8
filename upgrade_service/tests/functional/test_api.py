"""The API as clients see it: one class of tests for each file in api/gabbits."""

import os
import unittest

from gabbi import driver

from upgrade_service.tests.functional.api import fixtures

GABBITS = os.path.join(os.path.dirname(__file__), 'api', 'gabbits')


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Make a suite of the files."""
    suite: unittest.TestSuite = driver.build_tests(
        GABBITS,
        loader,
        host=None,
        intercept=fixtures.application,
        fixture_module=fixtures,
        test_loader_name='upgrade_service.tests.functional.test_api',
        safe_yaml=True,
    )
    return suite
