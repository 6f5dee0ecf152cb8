"""The one timer of a process: many engine identities, one thread."""

import threading
import time
from typing import Protocol

from oslo_log import log

LOG = log.getLogger(__name__)
PERIOD = 0.2  #: seconds


class Ticking(Protocol):
    """What the timer calls."""

    def tick(self, now: float) -> None:
        """Do what is due at `now` (monotonic seconds)."""


class Ticker:
    """Calls everything that was added, a few times a second, while there is anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Ticking] = []
        self._thread: threading.Thread | None = None

    def add(self, one: Ticking) -> None:
        """Call it from now on."""
        with self._lock:
            self._all.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='ticker', daemon=True)
                self._thread.start()

    def remove(self, one: Ticking) -> None:
        """Call it no more."""
        with self._lock:
            if one in self._all:
                self._all.remove(one)

    def _run(self) -> None:
        while True:
            with self._lock:
                now_all = list(self._all)
                if not now_all:
                    self._thread = None
                    return
            for one in now_all:
                try:
                    one.tick(time.monotonic())
                except Exception:
                    LOG.exception('a timer failed')
            time.sleep(PERIOD)


_shared = Ticker()


def shared() -> Ticker:
    """Return the timer of this process."""
    return _shared
