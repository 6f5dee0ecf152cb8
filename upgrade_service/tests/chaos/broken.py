"""Builds that are broken on purpose: if the suite does not catch them, the suite is the bug.

Each takes one rule away (or, where two guards stand behind one another, both) in every process
of a run, as a mistake in the code would.
"""

from collections.abc import Callable
import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import Any

from upgrade_service import model, states
from upgrade_service.conductor import board, broker, cloud, moves, outcomes, ready
from upgrade_service.db import api as db
from upgrade_service.db import asked, models, turns
from upgrade_service.engine import chain, journal, runner
from upgrade_service.strategies import base
from upgrade_service.tests.chaos import action


@dataclasses.dataclass(frozen=True)
class Build:
    """A fault in the code, and the scene in which it must show."""

    apply: Callable[[], None]
    scene: str
    breaks: tuple[str, ...]  #: invariants, any of which may show it
    tries: int = 1  #: seeds of the scene, if it takes some luck


def put(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of something of ours."""
    setattr(owner, name, value)


def state_not_checked() -> None:
    """A dispatch does not look at the state in its transaction."""
    turn = db.owner_turn

    def loose(ctx: Any, ident: str, owner: str, epoch: int, *args: Any) -> Any:
        given = list(args)
        if given and any(m.begins for m in given[0]):
            time.sleep(0.2)  # between the look and the write there is always some time
        given[2:3] = [tuple(states.OWNED)]
        return turn(ctx, ident, owner, epoch, *given)

    put(db, 'owner_turn', loose)


def timeout_makes_attempt() -> None:
    """An engine that is silent for a while gets a new attempt, without being asked."""
    repeat = broker.Broker._repeat

    def impatient(self: Any) -> None:
        silent = [n for n in self.board.in_flight() if n.what.where == 'host']
        late = [n for nodes in self._outbox.due(silent).values() for n in nodes]
        self._commit([moves.give_back(self.board, n) for n in late if n.state == 'running'])
        repeat(self)

    put(broker.Broker, '_repeat', impatient)


def journal_forgets() -> None:
    """An engine that starts anew knows nothing of what it has accepted."""
    open_ = journal.Journal._open
    start = runner.Runner.start

    def empty(self: Any, now: int) -> None:
        os.truncate(self.path, 0)
        open_(self, now)

    def anew(self: Any, task: Any, *rest: Any) -> Any:
        shutil.rmtree(self.directory(task.step, task.attempt), ignore_errors=True)
        return start(self, task, *rest)

    put(journal.Journal, '_open', empty)
    put(runner.Runner, 'start', anew)


def no_fence() -> None:
    """Neither owner and epoch nor the rows are compared; a conductor stops at the worst moment."""
    put(turns, 'owned_by', lambda owner, epoch, allowed: (models.Upgrade.state.in_(allowed),))
    put(turns, '_check_current', lambda t, moves: None)
    update, turn, commit = turns._update_steps, broker.Broker._turn, broker.Broker._commit

    def overwrite(t: Any, ids: list[str], old: str, *rest: Any) -> None:
        for ident in ids:
            found = turns.current(t.session, t.row.id, [ident])[ident][0]
            update(t, [ident], found, *rest)

    def any_owner(self: Any) -> bool:
        get = db.upgrade_get
        mine = {'owner': self.owner, 'epoch': self.epoch}
        put(db, 'upgrade_get', lambda *a: {**get(*a), **mine})
        try:
            return turn(self)
        finally:
            put(db, 'upgrade_get', get)

    def slow(self: Any, made: Any, upgrade: Any = None) -> None:
        if self.owner == 'conductor1' and any(m.begins for m in made) and not _stopped:
            _stopped.append(1)
            subprocess.Popen(['/bin/sh', '-c', f'sleep 2.5; kill -CONT {os.getpid()}'])
            os.kill(os.getpid(), signal.SIGSTOP)
        commit(self, made, upgrade)

    put(turns, '_update_steps', overwrite)
    put(broker.Broker, '_turn', any_owner)
    put(broker.Broker, '_commit', slow)
    put(turns, '_write_attempts', lambda t, moves: turns._end_attempts(t, moves))
    event = turns.Turn.event

    def any_time(self: Any, kind: str, *args: Any, **kw: Any) -> None:
        event(self, kind, *args, **{**kw, 'once': None})

    put(turns.Turn, 'event', any_time)


_stopped: list[int] = []


def attempt_not_matched() -> None:
    """An outcome counts for whatever attempt is in flight."""
    put(outcomes, '_current', lambda node, item: node.in_flight)


def verb_after_answer() -> None:
    """A verb is answered before it is written down."""
    verb = db.upgrade_verb

    def later(ctx: Any, ref: str, name: str, **kw: Any) -> Any:
        row = db.upgrade_get(ctx, ref)
        if name == 'start':
            return verb(ctx, ref, name, **kw)
        kw['asked'].answer = kw['asked'].shown(row)
        threading.Timer(0.3, verb, (ctx, ref, name), {**kw, 'asked': None}).start()
        return row

    put(db, 'upgrade_verb', later)


def key_forgotten() -> None:
    """The answer to a request is not kept with its key."""
    put(asked.Asked, 'begin', lambda self, session: None)


def no_budget() -> None:
    """Any number of hosts may be out."""
    put(ready.Budget, 'take', lambda self, host: True)


def no_parents() -> None:
    """A step does not wait for the steps before it."""
    put(board.Board, 'ready', lambda self, now: self.in_state('pending'))


def once_is_retried() -> None:
    """What must not be repeated is, when nobody knows whether it was done."""
    put(action, 'declare', lambda: None)
    model.KINDS[action.ONCE] = dataclasses.replace(model.KINDS[action.ONCE], idempotent=True)


def enable_forgotten() -> None:
    """A host is said to be enabled and is not."""
    done = base.Outcome(result=base.Result.SUCCEEDED)
    cloud.RUNNERS['enable_host'] = lambda task: done


def success_invented() -> None:
    """An interrupted step counts as done."""
    interrupted = outcomes._interrupted

    def lucky(b: Any, node: Any, item: Any, taken: Any, now: int) -> None:
        if outcomes._current(node, item):
            outcomes._move(b, node, taken, now, 'succeeded', 'succeeded')
        else:
            interrupted(b, node, item, taken, now)

    outcomes._READERS['interrupted'] = lucky


def child_forgotten() -> None:
    """An engine does not see that the step of its former self still runs."""
    put(runner, '_locked', lambda path: False)


def chain_goes_on() -> None:
    """The rest of an order is done although a step of it failed."""
    put(chain, 'succeeded', lambda item: True)


def trail_cut() -> None:
    """Events do not depend on those before them."""
    link = turns.chain
    put(turns, 'chain', lambda head, event: link('', event))


def never_again() -> None:
    """An order that was lost is not sent again."""
    put(broker.Broker, '_repeat', lambda self: None)


def unmasked() -> None:
    """What a step prints is kept as it is."""
    put(runner, 'masked', lambda text: text[-8192:])


BUILDS: dict[str, Build] = {
    f.__name__: Build(f, scene, breaks, tries)
    for f, scene, breaks, tries in (
        (no_budget, 'quiet', ('I4',), 1),
        (no_parents, 'quiet', ('I2',), 1),
        (chain_goes_on, 'quiet', ('I2',), 1),
        (enable_forgotten, 'quiet', ('I5',), 1),
        (trail_cut, 'quiet', ('I9',), 1),
        (unmasked, 'quiet', ('I12',), 1),
        (once_is_retried, 'reboot', ('I7',), 1),
        (success_invented, 'reboot', ('I6',), 1),
        (state_not_checked, 'pauses', ('I8',), 3),
        (verb_after_answer, 'pauses', ('I8',), 1),
        (key_forgotten, 'verbs', ('I8',), 2),
        (child_forgotten, 'engine', ('I1', 'I6', 'I7'), 1),
        (journal_forgets, 'engine', ('I1', 'I6', 'I7'), 2),
        (timeout_makes_attempt, 'engine', ('I3', 'I6', 'I7'), 2),
        (no_fence, 'quiet', ('I3', 'I6', 'I7', 'I9', 'I10', 'I11'), 2),
        (attempt_not_matched, 'messages', ('I3', 'I6'), 4),
        (never_again, 'partition', ('I11',), 2),
    )
}
#: caught by a run without faults: cheap enough for every change
QUICK = tuple(
    name for name, b in BUILDS.items() if b.scene in ('quiet', 'reboot') and b.tries == 1
)
