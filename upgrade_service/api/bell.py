"""Rings the conductors' bell without making a caller wait for the message bus.

The rows are committed by then and conductors look at them by themselves: a ring that is
lost costs seconds, but a request that hangs on a dead broker has failed.
"""

import queue
import threading
from typing import Protocol

from oslo_config import cfg
from oslo_log import log

from upgrade_service import context
from upgrade_service.conductor import rpcapi

LOG = log.getLogger(__name__)
#: rings that may wait while the broker is away; more would say nothing new
MOST = 100


class Bell(Protocol):
    """What controllers ring."""

    def advance(self, ctx: context.RequestContext, upgrade: str) -> None:
        """Say that an upgrade's rows have changed."""

    def discover(self, ctx: context.RequestContext, cluster: str) -> None:
        """Say that a discovery is wanted."""


class BusBell:
    """A bell that one thread of this process rings; it begins with the first ring."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._rings: queue.Queue[tuple[str, context.RequestContext, str]] = queue.Queue(MOST)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def advance(self, ctx: context.RequestContext, upgrade: str) -> None:
        """Say that an upgrade's rows have changed."""
        self._put('advance', ctx, upgrade)

    def discover(self, ctx: context.RequestContext, cluster: str) -> None:
        """Say that a discovery is wanted."""
        self._put('discover', ctx, cluster)

    def _put(self, method: str, ctx: context.RequestContext, ref: str) -> None:
        with self._lock:
            # not earlier: a WSGI server may have forked since this object was made
            if self._thread is None:
                self._thread = threading.Thread(target=self._ring, name='bell', daemon=True)
                self._thread.start()
        try:
            self._rings.put_nowait((method, ctx, ref))
        except queue.Full:
            LOG.warning('The message bus does not answer; conductors will find the change')

    def _ring(self) -> None:
        conductor: rpcapi.ConductorAPI | None = None
        while True:
            method, ctx, ref = self._rings.get()
            try:
                conductor = conductor or rpcapi.ConductorAPI(self._conf)
                getattr(conductor, method)(ctx, ref)
            except Exception as e:
                # drivers raise what their libraries raise; the thread must survive all of it
                LOG.warning(
                    'Conductors were not told of %s (%s: %s); they will find it by themselves',
                    ref,
                    type(e).__name__,
                    e,
                )
                LOG.debug('The ring that failed', exc_info=True)
