"""Where a process touches the world outside it, counted; and death at any such place.

Between two of these places nothing that happens can be seen from outside, so a process that
dies before and after each of them has died everywhere. A place is named by what is done,
whether it is about to be or was just done, and the function of ours that does it.
"""

from collections import Counter
from collections.abc import Callable
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from upgrade_service.tests.chaos import place

OURS = f'{os.sep}upgrade_service{os.sep}'
TESTS = f'{OURS}tests{os.sep}'
WRITES = ('UPDATE', 'INSERT', 'DELETE')


class Boundaries:
    """Wraps the calls; counts, and kills this process where it is told to."""

    def __init__(self, told: place.Told) -> None:
        self._told = told
        self._counts: Counter[str] = Counter()
        self._total = 0
        self._lock = threading.Lock()
        self._log = told.path(f'{told.name}.boundaries')

    def hit(self, what: str) -> None:
        """Come to a place."""
        name = f'{what} @ {_where()}'
        told = self._told
        with self._lock:
            self._total += 1
            self._counts[name] += 1
            if told.count:
                place.append(self._log, name=name)
            here = told.kill_at == (name, self._counts[name])
            if here or told.kill_after == self._total:
                place.append(
                    told.path('faults'), kind='kill', role=told.role, name=told.name,
                    host=told.host, where=name, n=self._counts[name],
                )  # fmt: skip
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, what: str) -> None:
        """Count before and after each call of a function."""
        function = getattr(owner, name)

        def wrapped(*args: Any, **kw: Any) -> Any:
            self.hit(f'{what} before')
            done = function(*args, **kw)
            self.hit(f'{what} after')
            return done

        setattr(owner, name, wrapped)

    def after(self, owner: Any, name: str, what: str, counts: Callable[..., bool]) -> None:
        """Count after the calls that `counts` says count."""
        function = getattr(owner, name)

        def wrapped(*args: Any, **kw: Any) -> Any:
            done = function(*args, **kw)
            if counts(*args):
                self.hit(f'{what} after')
            return done

        setattr(owner, name, wrapped)


def _where() -> str:
    """Name the innermost function of ours."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if OURS in path and TESTS not in path:
            module = path.rpartition(OURS)[2].removesuffix('.py').replace(os.sep, '.')
            return f'{module}.{frame.f_code.co_name}'
        if frame.f_back is None:
            break
        frame = frame.f_back
    return 'a library'


def install(told: place.Told) -> None:
    """Count what this process does to database, bus, disk, processes and cloud."""
    from cheroot import server as cheroot_server
    from oslo_messaging import transport
    from oslo_messaging.rpc import server
    from pymysql import connections

    made = Boundaries(told)
    made.around(connections.Connection, 'commit', 'commit')
    made.after(
        connections.Connection, 'query', 'write',
        lambda _, sql, *rest: str(sql).lstrip().upper().startswith(WRITES),
    )  # fmt: skip
    made.around(transport.Transport, '_send', 'publish')
    made.around(server.RPCServer, '_process_incoming', 'receive')
    if told.role == 'conductor':
        from upgrade_service.conductor.cloud import connect

        made.around(connect.GuardedAdapter, 'send', 'cloud')
    if told.role == 'api':
        made.around(cheroot_server.HTTPRequest, 'respond', 'answer')
    if told.role == 'engine':
        for name in ('write', 'fdatasync', 'fsync', 'replace', 'mkdir', 'open'):
            _disk(made, name)
        made.around(subprocess.Popen, '_execute_child', 'spawn')


def _disk(made: Boundaries, name: str) -> None:
    """Count a call of the engine's own to the disk; not those of libraries and pipes."""
    function = getattr(os, name)

    def wrapped(*args: Any, **kw: Any) -> Any:
        path = sys._getframe(1).f_code.co_filename
        if name != 'mkdir' and (OURS not in path or TESTS in path):
            return function(*args, **kw)
        made.hit(f'{name} before')
        done = function(*args, **kw)
        made.hit(f'{name} after')
        return done

    setattr(os, name, wrapped)
