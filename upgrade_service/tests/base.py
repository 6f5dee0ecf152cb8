"""The base class of all tests: what oslotest isolates, and a place for what we must.

oslotest gives each test its own temporary home, captures stdout, stderr and logs, and times a
test out when OS_TEST_TIMEOUT is set. Tests use the real thing (a real SQLite file, a real HTTP
server on loopback) and put mocks at the edges of the process only.
"""

from oslotest import base


class TestCase(base.BaseTestCase):
    """A test without any of our services running."""
