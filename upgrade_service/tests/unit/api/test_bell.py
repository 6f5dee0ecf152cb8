"""The bell: it never makes a request wait or fail."""

import threading
import time
from typing import Any

import fixtures
from oslo_config import cfg

from upgrade_service import context
from upgrade_service.api import bell
from upgrade_service.conductor import rpcapi
from upgrade_service.tests import base

CTX = context.RequestContext(user_id='alice')


class BellTest(base.TestCase):
    """The thread that rings."""

    def setUp(self) -> None:
        super().setUp()
        self.rung: list[Any] = []
        self.done = threading.Event()
        self.free = threading.Event()
        self.addCleanup(self.free.set)

        class Conductor:
            """Stands at the edge of the process: the message bus."""

            def __init__(conductor, conf: Any) -> None:
                pass

            def advance(conductor, ctx: Any, ref: str) -> None:
                self.free.wait(10)
                if ref == 'bad':
                    raise OSError('connection refused')
                self.rung.append(ref)
                self.done.set()

        self.useFixture(fixtures.MonkeyPatch(f'{rpcapi.__name__}.ConductorAPI', Conductor))
        self.bell = bell.BusBell(cfg.ConfigOpts())

    def test_a_broker_that_hangs_delays_nobody(self) -> None:
        for n in range(bell.MOST * 2):
            self.bell.advance(CTX, str(n))
        self.assertEqual([], self.rung)
        # the rings of this test must not sound in the next
        self.free.set()
        for _ in range(1000):
            if len(self.rung) >= bell.MOST:
                break
            time.sleep(0.01)

    def test_a_ring_that_fails_is_not_the_last(self) -> None:
        self.free.set()
        self.bell.advance(CTX, 'bad')
        self.bell.advance(CTX, 'good')
        self.assertTrue(self.done.wait(10))
        self.assertEqual(['good'], self.rung)
