"""Bounds how fast one user may change things, so that a runaway script is noticed early.

Counted in each API process by itself.
"""

import collections
import math
import threading
import time

from webob import exc

WINDOW = 60.0
#: users remembered; the one who asked longest ago is forgotten first
MOST_USERS = 10_000


class Pace:
    """A sliding window of one minute for each user."""

    def __init__(self, per_minute: int) -> None:
        """Allow `per_minute` requests; 0: any number."""
        self._most = per_minute
        self._lock = threading.Lock()
        self._asked: collections.OrderedDict[str, collections.deque[float]] = (
            collections.OrderedDict()
        )

    def step(self, user: str, now: float | None = None) -> None:
        """Count a request.

        :raises HTTPTooManyRequests: it is one too many; Retry-After says when it is not.
        """
        if not self._most:
            return
        at = time.monotonic() if now is None else now
        with self._lock:
            times = self._asked.setdefault(user, collections.deque())
            self._asked.move_to_end(user)
            if len(self._asked) > MOST_USERS:
                self._asked.popitem(last=False)
            while times and times[0] <= at - WINDOW:
                times.popleft()
            if len(times) < self._most:
                times.append(at)
                return
            wait = math.ceil(times[0] + WINDOW - at)
        raise exc.HTTPTooManyRequests(
            f'more than {self._most} changes in a minute; try again in {wait} s',
            headers={'Retry-After': str(wait)},
        )
