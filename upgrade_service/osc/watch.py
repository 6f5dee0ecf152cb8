"""Follow an upgrade to where it was wanted: what `--wait` and `upgrade watch` do.

The upgrade restarts the very API and keystone that are asked here, so no answer is not a
failure: :meth:`Watcher.patient` asks again until there is one. Progress goes to stderr;
stdout belongs to the command's output format.
"""

from collections.abc import Callable, Iterable
import os
import shutil
import time
from typing import Any, Protocol, TextIO, TypeVar

from upgrade_service import states
from upgrade_service.osc import progress, resources
from upgrade_service.osc import proxy as client

Row = dict[str, Any]
T = TypeVar('T')

#: exit statuses
OK, FAILED, HELD = 0, 1, 3
INTERRUPTED = 130

#: what is waited for -> states that end the wait -> exit status
GOALS: dict[str, dict[str, int]] = {
    'plan': {'draft': OK, 'cancelled': FAILED},
    'end': {
        'succeeded': OK,
        'cancelled': FAILED,
        'rolled_back': FAILED,
        'blocked': FAILED,
        'paused': HELD,
        'draft': HELD,
    },
    'pause': {'paused': OK, 'succeeded': OK, 'blocked': FAILED, 'cancelled': FAILED},
    'rollback': {
        'rolled_back': OK,
        'succeeded': FAILED,
        'cancelled': FAILED,
        'blocked': FAILED,
        'paused': HELD,
    },
    'replan': {'draft': OK, 'paused': OK, 'cancelled': FAILED},
    'cancel': {'cancelled': OK, 'succeeded': FAILED, 'blocked': FAILED, 'paused': HELD},
}
#: seconds between two looks at the events
POLL = 1.0
#: looks without an event after which the upgrade itself is read again
IDLE_LOOKS = 10
#: looks after which plain output says how far it is, if nothing else was said
QUIET_LOOKS = 60
#: seconds of refused authentication after which there is no hope of a better answer
CREDENTIALS_GRACE = 900
#: seconds a blocked upgrade may need to notice that its failed step was retried or skipped
UNBLOCK_GRACE = 15


class View(Protocol):
    """Where progress is shown."""

    live: bool

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def status(self, lines: list[str]) -> None:
        """Show how things stand now, in place of the last status."""


class Plain:
    """A log: lines that stay, no status."""

    live = False

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def say(self, line: str) -> None:
        """Write a line."""
        self.out.write(f'{line}\n')
        self.out.flush()

    def status(self, lines: list[str]) -> None:
        """Leave the status out."""


class Live(Plain):
    """A terminal: the last lines are the status and are rewritten in place."""

    live = True

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self.shown: list[str] = []

    def _erase(self) -> None:
        if self.shown:
            self.out.write(f'\x1b[{len(self.shown)}F\x1b[J')

    def say(self, line: str) -> None:
        """Write a line above the status."""
        self._erase()
        self.out.write(f'{line}\n')
        self._draw()

    def status(self, lines: list[str]) -> None:
        """Rewrite the status."""
        self._erase()
        self.shown = lines
        self._draw()

    def _draw(self) -> None:
        self.out.write(''.join(f'{line}\n' for line in self.shown))
        self.out.flush()


def view_for(out: TextIO) -> Plain:
    """Return what suits a stream: a terminal is rewritten, anything else is a log."""
    live = out.isatty() and os.environ.get('TERM', 'dumb') != 'dumb'
    return Live(out) if live else Plain(out)


class Watcher:
    """Follows one upgrade."""

    def __init__(
        self,
        api: client.Proxy,
        ref: str,
        view: View,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api, self.ref, self.view = api, ref, view
        self._sleep, self._clock = sleep, clock
        self.upgrade: Row = {}
        self._after = 0
        self._steps: dict[str, Row] = {}
        self._began: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        self._quiet = 0

    def patient(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, however long nobody answers.

        :raises Refused: an answer that will not change, or credentials that stay refused.
        """
        since: float | None = None
        while True:
            try:
                found = call()
            except client.Away as e:
                now = self._clock()
                if since is None:
                    since = now
                    self.view.say(f'No answer: {e}; the upgrade goes on meanwhile, still trying')
                elif e.status == 401 and now - since > CREDENTIALS_GRACE:
                    raise
                self._sleep(POLL)
                continue
            if since is not None:
                self.view.say(f'The API answers again after {self._clock() - since:.0f} s')
            return found

    def skip_history(self) -> None:
        """Take what happened so far as known, so that only news are told."""
        self.refresh()
        while events := self.patient(lambda: self.api.events(self.ref, self._after)):
            self._remember(events)

    def refresh(self) -> Row:
        """Read the upgrade."""
        self.upgrade = self.patient(lambda: self.api.upgrade(self.ref))
        return self.upgrade

    def follow(self, goal: str, *, unblocking: bool = False) -> int:
        """Wait until the upgrade is where `goal` ends; return the exit status.

        `unblocking`: a step was just retried or skipped, so a blocked upgrade may not have
        noticed yet.
        """
        ends = GOALS[goal]
        if not self.upgrade:
            self.refresh()
        patience = self._clock() + (UNBLOCK_GRACE if unblocking else 0)
        idle = 0
        while True:
            news = self._tell()
            idle = 0 if news else idle + 1
            if news or idle % IDLE_LOOKS == 1:
                self.refresh()
            self._show()
            state = self.upgrade['state']
            waits = state == 'blocked' and self._clock() < patience
            # events are read once more before the end, so that none stays untold
            if state in ends and not news and not waits:
                self.view.status([])
                return ends[state]
            self._sleep(0 if state in ends and news else POLL)

    def _tell(self) -> bool:
        events = self.patient(lambda: self.api.events(self.ref, self._after))
        self._name_steps(events)
        for event in events:
            self._quiet = 0
            ident = event.get('step_id') or ''
            if (event.get('detail') or {}).get('after') in states.STEP_STUCK:
                self._steps[ident] = self.patient(
                    lambda i=ident: self.api.row(  # type: ignore[misc]
                        resources.Step, i, upgrade_ref=self.ref
                    )
                )
            line = progress.event_line(event, self._steps.get(ident), self._began.get(ident))
            self._remember([event])
            if line and (not self.view.live or progress.is_loud(event)):
                self.view.say(line)
        return bool(events)

    def _remember(self, events: Iterable[Row]) -> None:
        for event in events:
            self._after = max(self._after, int(event['seq']))
            after = (event.get('detail') or {}).get('after')
            step, at = event.get('step_id'), event.get('at')
            if step and isinstance(at, int) and after in ('dispatched', 'running'):
                if after == 'dispatched' or step not in self._began:
                    self._began[step] = at
            elif step:
                self._began.pop(step, None)

    def _name_steps(self, events: list[Row]) -> None:
        named = {e['step_id'] for e in events if e.get('step_id')}
        if named - self._steps.keys():
            rows = self.patient(lambda: list(self.api.steps(self.ref)))
            self._steps.update((row['id'], row) for row in rows)

    def _show(self) -> None:
        if not self.view.live:
            self._quiet += 1
            if self._quiet >= QUIET_LOOKS:
                self._quiet = 0
                self.view.say(f'{progress.summary(self.upgrade)}')
            return
        running: list[Row] = []
        if self.upgrade['state'] in ('running', 'stopping', 'blocked'):
            running = self.patient(
                lambda: list(self.api.steps(self.ref, state='running', limit=50))
            )
        now = self._clock()
        self._seen = {s['id']: self._seen.get(s['id'], now) for s in running}
        width = shutil.get_terminal_size().columns
        self.view.status(progress.status_lines(self.upgrade, running, self._seen, now, width))

    def stuck(self) -> list[Row]:
        """Return the steps that failed or of which nobody knows."""
        return [
            s
            for state in ('failed', 'unknown')
            for s in self.patient(
                lambda s=state: list(  # type: ignore[misc]
                    self.api.steps(self.ref, state=s, limit=20)
                )
            )
        ]
