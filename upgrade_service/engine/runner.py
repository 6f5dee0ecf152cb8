"""Starts shims, watches them, and finds them again after the engine was restarted.

Of an attempt's directory exactly one thing is true: it was never begun (no ``started``),
it is under way (``started`` is locked), it has ended (the outcome slot is filled), or it
was interrupted. The engine can close the first case for good by making ``started`` itself:
a shim that comes later finds it and ends.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import enum
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from oslo_log import log
from oslo_utils import strutils

from upgrade_service.engine import journal, shim
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)

MAX_OUTPUT = 8 * 1024  #: bytes of output that ride in an outcome
START_GRACE = 20.0  #: seconds in which a shim that was spawned must show up
_SYSTEMD = pathlib.Path('/run/systemd/system')


class Standing(enum.Enum):
    """How an attempt's directory stands."""

    NEVER_BEGUN = 'never begun'
    RUNNING = 'running'
    ENDED = 'ended'
    INTERRUPTED = 'interrupted'


class Runner:
    """The attempts of one engine identity."""

    def __init__(self, directory: pathlib.Path, lock: pathlib.Path) -> None:
        self._dir = directory
        self._lock = lock
        self._dir.mkdir(mode=0o700, exist_ok=True)

    def directory(self, step: str, attempt: int) -> pathlib.Path:
        """Return where an attempt is kept."""
        return self._dir / f'{step}.{attempt}'

    # -- starting ------------------------------------------------------------------------------

    def start(
        self,
        task: base.Task,
        job: base.Job,
        upgrade: str,
        members: Sequence[base.Task] = (),
        strategy: str = '',
    ) -> 'subprocess.Popen[bytes] | None':
        """Write the job down and start its shim."""
        self.prepare(task, job, upgrade, members, strategy)
        return self.spawn(task)

    def prepare(
        self,
        task: base.Task,
        job: base.Job,
        upgrade: str,
        members: Sequence[base.Task] = (),
        strategy: str = '',
    ) -> None:
        """Write down what the shim is to do, and make the room for its outcome.

        :param members: tasks of other hosts that the job does as well; each attempt has a
            place and an outcome of its own.
        :raises OSError: the disk does not take it; nothing can begin.
        """
        told = {
            **dataclasses.asdict(job),
            'timeout': min(job.timeout, task.timeout),
            'lock': str(self._lock),
            'upgrade': upgrade,
            'task': dataclasses.asdict(task),
            'strategy': strategy,
            'host': task.host,
            'members': [
                {'place': str(self.directory(m.step, m.attempt)), 'host': m.host} for m in members
            ],
        }
        for member in members:
            self._place(member, {'upgrade': upgrade, 'led_by': task.step})
        self._place(task, told)
        journal.sync_directory(self._dir)

    def _place(self, task: base.Task, told: Mapping[str, Any]) -> None:
        """Make the place of an attempt, with room for its outcome."""
        place = self.directory(task.step, task.attempt)
        place.mkdir(mode=0o700)
        for name, data in (
            ('job.json', json.dumps(told).encode()),
            ('outcome', b'\0' * shim.SLOT),
        ):
            with open(place / name, 'wb') as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        journal.sync_directory(place)

    def spawn(self, task: base.Task) -> 'subprocess.Popen[bytes] | None':
        """Start the shim of an attempt that was prepared.

        :raises OSError, SubprocessError: it is not sure that one was started.
        """
        place = self.directory(task.step, task.attempt)
        # never the venv's own launcher by name: -I -S leaves only the standard library
        argv = [sys.executable, '-I', '-S', shim.__file__, str(place)]
        if _SYSTEMD.is_dir() and os.geteuid() == 0:
            unit = f'upgrade-step-{task.step[:8]}-{task.attempt}'
            wrap = ['/usr/bin/systemd-run', f'--unit={unit}', '--collect', '--quiet', '--no-block']
            limits = [
                '--property=TasksMax=4096',
                '--property=MemoryMax=75%',
                '--property=KillMode=control-group',
                f'--property=TimeoutStopSec={shim.GRACE:.0f}',
            ]
            subprocess.run(
                [*wrap, *limits, '--', *argv], check=True, timeout=30, stdin=subprocess.DEVNULL
            )
            return None
        with open(place / 'shim.log', 'wb') as said:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd='/',
                env={'PATH': shim.PATH, 'LANG': 'C.UTF-8'},
            )

    # -- watching ------------------------------------------------------------------------------

    def wait(
        self,
        step: str,
        attempt: int,
        process: 'subprocess.Popen[bytes] | None',
        progress: Callable[[dict[str, Any]], None],
        stop: Callable[[], bool],
    ) -> Standing | None:
        """Wait until an attempt is over; None if `stop` became true before that."""
        pause, began, shown = 0.005, time.monotonic(), ''
        while not stop():
            standing = self.standing(step, attempt)
            gone = process is not None and process.poll() is not None
            if standing in (Standing.ENDED, Standing.INTERRUPTED):
                self._reap(process)
                return standing
            late = gone or time.monotonic() - began > START_GRACE
            if standing is Standing.NEVER_BEGUN and late and self._ruled_out(step, attempt, gone):
                return Standing.NEVER_BEGUN
            text = self._text(step, attempt, 'progress')
            if text and text != shown:
                shown = text
                with contextlib.suppress(ValueError):
                    progress(json.loads(text))
            time.sleep(pause)
            pause = min(pause * 1.3, 0.2)
        return None

    def _ruled_out(self, step: str, attempt: int, gone: bool) -> bool:
        try:
            return self.forbid(step, attempt)
        except OSError as e:
            LOG.warning('attempt %s of step %s cannot be closed: %s', attempt, step, e)
            return gone  # without its process it cannot begin any more

    def _reap(self, process: 'subprocess.Popen[bytes] | None') -> None:
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)

    def standing(self, step: str, attempt: int) -> Standing:
        """Tell how an attempt stands, from its directory alone."""
        started = self.directory(step, attempt) / 'started'
        if not started.exists():
            return Standing.NEVER_BEGUN
        # first the lock, then the slot: the shim fills the slot before it lets go
        if _locked(started):
            return Standing.RUNNING
        done = self.outcome(step, attempt) is not None
        return Standing.ENDED if done else Standing.INTERRUPTED

    def forbid(self, step: str, attempt: int) -> bool:
        """Make sure that an attempt never begins; False if it has begun."""
        place = self.directory(step, attempt)
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(place / 'started', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        journal.sync_directory(place)
        return True

    def abort(self, step: str, attempt: int) -> None:
        """Ask the shim of an attempt to end, if its job may be interrupted."""
        with contextlib.suppress(OSError):
            (self.directory(step, attempt) / 'abort').touch(mode=0o600)

    def outcome(self, step: str, attempt: int) -> dict[str, Any] | None:
        """Read the outcome slot; None if it is not filled."""
        try:
            raw = (self.directory(step, attempt) / 'outcome').read_bytes()
        except FileNotFoundError:
            return None
        return journal.unframe(raw.rstrip(b'\0')[:-1])

    def output(self, step: str, attempt: int) -> str:
        """Return the end of what an attempt printed, secrets masked."""
        return masked(self._text(step, attempt, 'output'))

    def _text(self, step: str, attempt: int, name: str) -> str:
        try:
            return (self.directory(step, attempt) / name).read_text(errors='replace')
        except FileNotFoundError:
            return ''

    def remove(self, attempts: list[journal.Attempt]) -> None:
        """Remove the directories of attempts that are settled."""
        for step, attempt in attempts:
            shutil.rmtree(self.directory(step, attempt), ignore_errors=True)

    def told(self, step: str, attempt: int) -> dict[str, Any]:
        """Return what the shim of an attempt was told; {} if that cannot be read."""
        try:
            found = json.loads(self._text(step, attempt, 'job.json'))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def found(self) -> list[journal.Attempt]:
        """List the attempts that have a directory."""
        split = [p.name.rpartition('.') for p in self._dir.iterdir()]
        return [(step, int(n)) for step, _, n in split if step and n.isdigit()]


def _locked(path: pathlib.Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def masked(text: str) -> str:
    """Return the last 8 KiB of a text without the secrets that can be recognised."""
    said: str = strutils.mask_password(text)
    return said.encode()[-MAX_OUTPUT:].decode(errors='ignore')


def of_outcome(outcome: base.Outcome) -> Mapping[str, Any]:
    """Give an in-process outcome the form that reports have."""
    return {
        'result': outcome.result.value,
        'rc': outcome.rc,
        'error': masked(outcome.error),
        'output': masked(outcome.output),
        'data': dict(outcome.data),
    }
