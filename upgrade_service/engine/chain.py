"""Carries out the steps of one order, one after the other, in a worker thread.

In-process actions run here; anything longer runs under a shim, and this thread only
watches it. When a step does not succeed, what follows it in the order is given back.
"""

from collections.abc import Callable
import dataclasses
import fcntl
import os
import pathlib
import subprocess
import threading
import time
from typing import Any

from oslo_log import log

from upgrade_service import exception
from upgrade_service.engine import facts, journal, reporter, restart, runner, settings
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
Item = dict[str, Any]

ACCEPTED_AFTER = 1.0  #: seconds a step runs before it is said to run
PROGRESS_EVERY = 5.0


class HostLock:
    """The lock that every step of a host holds: here for in-process actions."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether we hold it."""
        return self._fd is not None

    def take(self, patience: float = 0.0) -> bool:
        """Take the lock; False if another step has it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= give_up:
                    os.close(fd)
                    return False
                time.sleep(0.05)
            else:
                self._fd = fd
                return True

    def leave(self) -> None:
        """Let go of it, if it is held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@dataclasses.dataclass(kw_only=True)
class Parts:
    """What the chains of one engine share."""

    book: journal.Journal
    runner: runner.Runner
    reporter: reporter.Reporter
    allowed: settings.Allowed
    guard: threading.RLock  #: between what messages change and what chains do
    stopping: threading.Event


@dataclasses.dataclass(kw_only=True)
class Link:
    """A step in its chain."""

    task: base.Task
    strategy: str
    in_process: bool
    upgrade: str

    @property
    def key(self) -> journal.Attempt:
        """(step, attempt)."""
        return self.task.step, self.task.attempt

    def item(self, what: str, **more: Any) -> Item:
        """Make an item of a report about it."""
        step, attempt = self.key
        return {'upgrade': self.upgrade, 'step': step, 'attempt': attempt, 'what': what, **more}


class Chain:
    """The steps of one order that were accepted."""

    def __init__(self, links: list[Link], parts: Parts, lock: HostLock) -> None:
        self.links, self._parts, self._lock = links, parts, lock
        #: the step under way (of a run for several hosts: each), and since when (monotonic)
        self.current: list[Link] = []
        self.began = 0.0
        self._said = False
        self._progress: Item = {}
        self._progress_at = 0.0

    def run(self, done: Callable[['Chain'], None]) -> None:
        """Do the steps; never raises."""
        items: list[Item] = []
        try:
            for at, link in enumerate(self.links):
                if not self._begin(link):
                    break
                item = self._do(link)
                self.current = []
                if item is None:
                    return  # the engine stops; whoever comes next finds the attempt
                self._note(link, item)
                items.append(item)
                if not succeeded(item) and self._depends(at):
                    items += self.give_back(at + 1)
                    break
                if not self._in_process_follows(at):
                    self._report(items)
        except Exception:
            LOG.exception('a chain of steps broke')
        finally:
            self.current = []
            self._lock.leave()
            done(self)
            self._report(items)

    def adopt(self, link: Link, done: Callable[['Chain'], None]) -> None:
        """Watch a step that an earlier process of this engine has started."""
        items: list[Item] = []
        try:
            self._begin(link)
            item = self._watch(link, None)
            self.current = []
            if item is not None:
                self._note(link, item)
                items.append(item)
        except Exception:
            LOG.exception('watching a step broke')
        finally:
            self.current = []
            done(self)
            self._report(items)

    def _begin(self, link: Link) -> bool:
        with self._parts.guard:
            entry = self._parts.book.attempts[link.key]
            if not entry.open or self._parts.stopping.is_set():
                return False
            self.current.append(link)
            self.began, self._said, self._progress = time.monotonic(), False, {}
            return True

    def _depends(self, at: int) -> bool:
        """Whether what follows a step waits for it: the steps of one host do."""
        return {n.task.host for n in self.links[at + 1 :]} == {self.links[at].task.host}

    def _in_process_follows(self, at: int) -> bool:
        return at + 1 < len(self.links) and self.links[at + 1].in_process

    def _report(self, items: list[Item]) -> None:
        if items:
            self._parts.reporter.say(*items)
            items.clear()
            self._parts.reporter.flush()

    def _note(self, link: Link, item: Item) -> None:
        """Write the result down.

        It need not reach the disk at once: the slot of a shim did already, and an in-process
        action may be done again.
        """
        kept = item
        if item['what'] == 'outcome' and not link.in_process:
            short = {k: v for k, v in item['outcome'].items() if k != 'output'}
            kept = {**item, 'outcome': short}
        record = {'r': 'ended', 't': facts.now(), 'items': [kept]}
        try:
            self._parts.book.append([record], sync=False)
        except OSError as e:
            LOG.warning('the journal takes no outcome (%s); the result is reported anyway', e)
            self._parts.book.note(record)

    def give_back(self, start: int) -> list[Item]:
        """Promise never to begin the steps from `start` on; return items that say so."""
        with self._parts.guard:
            book = self._parts.book
            rest = [n for n in self.links[start:] if book.attempts[n.key].open]
            if rest:
                revoke(book, rest[0].upgrade, 0, 0, [n.key for n in rest])
        return [n.item('revoked') for n in rest]

    def revocable(self, key: journal.Attempt) -> int | None:
        """Return the place of a step that has not begun; call it under the guard."""
        for at, link in enumerate(self.links):
            if link.key == key and link not in self.current:
                return at if self._parts.book.attempts[key].open else None
        return None

    # -- one step ------------------------------------------------------------------------------

    def _do(self, link: Link) -> Item | None:
        begun = facts.now()
        made: base.Outcome | base.Job
        try:
            made = self._make(link)
            if isinstance(made, base.Job):
                return self._shim(link, made)
        except exception.Refused as e:
            made = failed(str(e), final=True)
        except Exception as e:
            LOG.exception('step %s (%s) broke', link.task.step, link.task.kind)
            made = failed(f'{type(e).__name__}: {e}')
        return self._outcome(link, made, begun)

    def _make(self, link: Link) -> base.Outcome | base.Job:
        """Do an in-process action; of any other, make the job unless its goal is met."""
        strategy = self._parts.allowed.strategy(link.strategy)
        site = self._parts.allowed.site(link.strategy)
        if link.in_process:
            if not self._lock.held and not self._lock.take(patience=30.0):
                return failed('another step holds the lock of this host; nothing was done')
        elif strategy.check(link.task, site):
            return _already()
        do = strategy.undo if link.task.direction == 'back' else strategy.run
        made = do(link.task, site)
        if link.in_process and isinstance(made, base.Job):
            raise TypeError(f'{link.task.kind} is declared in_process but made a job')
        return made

    def _outcome(self, link: Link, made: base.Outcome, begun: int) -> Item:
        return link.item(
            'outcome',
            outcome=runner.of_outcome(made),
            started_at=begun,
            finished_at=facts.now(),
        )

    def _shim(self, link: Link, job: base.Job) -> Item | None:
        self._lock.leave()  # the shim takes it for itself
        begun = facts.now()
        try:
            self._parts.runner.prepare(link.task, job, link.upgrade, strategy=link.strategy)
        except OSError as e:
            why = f'cannot be written down ({e}); nothing was done'
            return self._outcome(link, failed(why), begun)
        try:
            process = self._parts.runner.spawn(link.task)
        except (OSError, subprocess.SubprocessError) as e:
            LOG.warning('step %s: %s', link.task.step, e)
            process = None  # whether it began, its directory tells
        return self._watch(link, process)

    def _watch(self, link: Link, process: 'subprocess.Popen[bytes] | None') -> Item | None:
        standing = self._parts.runner.wait(
            *link.key, process, self._see, self._parts.stopping.is_set
        )
        if standing is None:
            return None
        if standing is runner.Standing.INTERRUPTED and self._parts.runner.told(*link.key).get(
            'reboots'
        ):
            return restart.settle(link, self._parts)
        return ended(link, standing, self._parts)

    def _see(self, progress: Item) -> None:
        self._progress = {k: progress.get(k) for k in ('text', 'done', 'total')}
        if progress.get('overdue'):
            self._progress['overdue'] = True

    # -- while it runs -------------------------------------------------------------------------

    def tick(self, now: float) -> list[Item]:
        """Return what is to be said of what is under way."""
        links = list(self.current)
        if not links or now - self.began < ACCEPTED_AFTER:
            return []
        items = []
        if not self._said:
            self._said = True
            items += [n.item('accepted') for n in links]
        if self._progress and now - self._progress_at >= PROGRESS_EVERY:
            self._progress_at = now
            items += [n.item('progress', progress=self._progress) for n in links]
            self._progress = {}
        return items


def ended(link: Link, standing: runner.Standing, parts: Parts, boot_changed: bool = False) -> Item:
    """Make the result of an attempt that is over from its directory."""
    if standing is runner.Standing.INTERRUPTED:
        return link.item('interrupted', boot_changed=boot_changed)
    if standing is runner.Standing.NEVER_BEGUN:
        made = runner.of_outcome(failed('the shim did not start; nothing was done'))
        return link.item('outcome', outcome=dict(made), started_at=None, finished_at=facts.now())
    found = parts.runner.outcome(*link.key) or {}
    times = {k: found.pop(k, None) for k in ('started_at', 'finished_at')}
    found['error'] = runner.masked(str(found.get('error') or ''))
    return link.item('outcome', outcome=found, **times)


def revoke(
    book: journal.Journal, upgrade: str, epoch: int, nbf: int, keys: list[journal.Attempt]
) -> None:
    """Promise, on disk, that attempts never begin.

    :raises OSError: the disk does not take the promise.
    """
    record = {
        'r': 'revoked',
        't': facts.now(),
        'upgrade': upgrade,
        'epoch': epoch,
        'nbf': nbf,
        'steps': [list(k) for k in keys],
    }
    book.append([record], sync=True)


def succeeded(item: Item) -> bool:
    """Whether the next step may begin."""
    return bool(item['what'] == 'outcome' and item['outcome']['result'] == 'succeeded')


def failed(error: str, final: bool = False) -> base.Outcome:
    """Make the outcome of something that failed; `final`: trying again cannot help."""
    data = {'final': True} if final else {}
    return base.Outcome(result=base.Result.FAILED, rc=1, error=error[:1500], data=data)


def _already() -> base.Outcome:
    return base.Outcome(result=base.Result.SUCCEEDED, data={'already': True})
