"""The task broker: carries one upgrade out, one transaction a turn.

It is the only writer of step states. A turn reads what others changed, takes the
outcomes that have arrived, decides with :mod:`ready` what may begin, commits all of it
at once, and only then sends orders and starts cloud steps. If the rows are not what it
thought, nothing was written: it reads everything again and decides anew. A crash at any
point leaves rows from which the next owner's first turn goes on: there is no other
recovery.
"""

from collections import defaultdict
from collections.abc import Callable
import queue
import threading
import time
from typing import Any

from oslo_log import log

from upgrade_service import context, exception, states
from upgrade_service.conductor import alarms, endings, orders, outcomes, ready
from upgrade_service.conductor import board as boards
from upgrade_service.conductor import moves as transitions
from upgrade_service.db import api as db

LOG = log.getLogger(__name__)
Row = dict[str, Any]
#: seconds after which the engine of a silent running step is asked how it stands
PROBE_AFTER = 60.0
#: seconds a new owner waits before it goes on with a cloud step that another began: a
#: call that the other had under way is over by then
SETTLE_AFTER_TAKEOVER = 5.0
#: seconds for which a drained host is believed to be still disabled and empty
RECHECK_AFTER = 15.0
#: seconds between two looks at which engines, and which services of the cloud, are there
ENGINES_EVERY, SURVEY_EVERY = 5.0, 20.0
#: how often a host that is in use again is drained anew before a person is asked
MAX_DRAINS = 4


class Broker:
    """Owner of one upgrade, in a thread of its own, until it is stopped or loses it."""

    def __init__(
        self,
        row: Row,
        owner: str,
        post: orders.Post,
        cloud: Any,
        planner: Callable[[Row, 'Broker'], None],
        conf: Any,
    ) -> None:
        self.id: str = row['id']
        self.epoch: int = row['epoch']
        self.owner = owner
        self.conf = conf
        self.ctx = context.system()
        self._row = row
        self._post, self._cloud, self._planner = post, cloud, planner
        self._board: boards.Board | None = None
        self._inbox: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._items: list[Row] = []
        self._acks: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._outbox = orders.Outbox(conf.conductor.resend_after)
        self._taken_back = orders.Outbox(conf.conductor.resend_after)
        self._probed = orders.Outbox(PROBE_AFTER)
        self._release: set[str] | None = None
        self._looked: dict[str, tuple[float, str | None]] = {}
        self._looking: set[str] = set()
        self._hold = ''
        self._ear = alarms.Ear()
        self._standing: set[tuple[str, str | None, int | None]] | None = None
        self._absent: set[str] = set()
        self._down: dict[str, str] = {}
        self._due = {'engines': 0.0, 'survey': 0.0}
        self._waits_since: float | None = None
        self._stop = threading.Event()
        #: cloud steps look at it: set means stop at the next safe point
        self.stopping = threading.Event()
        taken_over = bool(row.get('previous')) and row['previous'] != owner
        self._cloud_from = time.monotonic() + (SETTLE_AFTER_TAKEOVER if taken_over else 0)
        self._thread = threading.Thread(
            target=self._run, name=f'upgrade-{self.id[:8]}', daemon=True
        )

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the rows now."""
        self._inbox.put(None)

    def deliver(self, item: Row) -> None:
        """Take one item of an engine's report, or the outcome of a cloud step."""
        self._inbox.put(item)

    def rechecked(self, host: str, wrong: str | None) -> None:
        """Take what a second look at a drained host found; None: it is as we left it."""
        self._looked[host] = (time.monotonic(), wrong)
        self._looking.discard(host)
        self.wake()

    def surveyed(self, down: Row) -> None:
        """Take {host: service} of what is down in the cloud."""
        if down != self._down:
            self._down = down
            self.wake()

    def lose(self) -> None:
        """Stop at once and write nothing more: another conductor owns the upgrade."""
        self._stop.set()
        self.stopping.set()
        self.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            self._gather(pause)
            try:
                again = not self._stop.is_set() and self._turn()
                pause = 0.0 if again else self._pause()
            except db.Mismatch as e:
                LOG.debug('upgrade %s: reading again: %s', self.id, e)
                self._board, pause = None, 0.05
            except exception.LostOwnership:
                break
            except exception.Busy as e:
                LOG.warning('upgrade %s: %s', self.id, e)
                self._board, pause = None, 1.0
            except Exception:
                # a fault in one turn must not end the upgrade: rows are as they were
                LOG.exception('upgrade %s: a turn failed; trying again', self.id)
                # nor may something an engine said: it says it again if it matters
                self._items = [i for i in self._items if not i.get('agent')]
                self._board, pause = None, 2.0
        self.stopping.set()
        LOG.info('upgrade %s: no longer owned here (epoch %s)', self.id, self.epoch)

    def _pause(self) -> float:
        """Seconds until the next look, if nobody rings."""
        wait = float(self.conf.conductor.reconcile_interval)
        if self._board is not None:
            now = self._post.now()
            soon = [t - now for t in self._board.timers() if t > now]
            wait = min([wait, *(s / 1000 for s in soon)])
        return max(wait, 0.01)

    def _gather(self, pause: float) -> None:
        try:
            item = self._inbox.get(timeout=pause) if pause else self._inbox.get_nowait()
            while True:
                if item is not None:
                    self._items.append(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    # -- one turn ------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Do one turn; return True if there is more to do at once."""
        row = db.upgrade_get(self.ctx, self.id)
        if (row['owner'], row['epoch']) != (self.owner, self.epoch):
            if row['state'] in states.OWNED:
                LOG.warning(
                    'upgrade %s: %s owns it by now (epoch %s)', self.id, row['owner'], row['epoch']
                )
            self._stop.set()
            return False
        if row['state'] == 'planning':
            self._planner(row, self)
            return False
        self._refresh(row)
        self._look_around()
        again = _STATES[row['state']](self)
        self._send_acks()
        self._tell_alarms()
        return again

    def _is_due(self, what: str, pause: float) -> bool:
        if self._due[what] > time.monotonic():
            return False
        self._due[what] = time.monotonic() + pause
        return True

    def _look_around(self) -> None:
        """See which engines and which services of the cloud are there."""
        if self._is_due('engines', ENGINES_EVERY):
            self._absent = db.agents_absent(self.ctx, self.conf.conductor.agent_timeout)
        if self._row['state'] == 'running' and self._is_due('survey', SURVEY_EVERY):
            self._cloud.survey(self, self._row)
        self.board.absent, self.board.down = self._absent, self._down
        self.board.epoch = self.epoch

    def _tell_alarms(self) -> None:
        """Write down which alarms came and which are over."""
        found = []
        if self._row['state'] in ('running', 'stopping') and self._board is not None:
            found = self._ear.alarms(self._board, self._post.now())
        if self._standing is None:
            self._standing = set(db.alarm_list(self.ctx, self.id))
        new = {a.key: a for a in found}
        raised = [a.row() for key, a in new.items() if key not in self._standing]
        cleared = self._standing - new.keys()
        if raised or cleared:
            for row in raised:
                LOG.warning('upgrade %s: %s', self.id, row['message'])
            said = found[0].message if found else ''
            db.alarms_tell(self.ctx, self.id, self.epoch, raised, cleared, said)
            self._standing = set(new)

    def _refresh(self, row: Row) -> None:
        seen, self._row = self._row.get('seq', 0), row
        if self._board is None:
            hosts = db.host_list(self.ctx, row['cluster_id'])
            self._board = self._read_board(row['direction'], {h['name']: h['az'] for h in hosts})
        elif row['seq'] != seen:
            self._board.refresh(db.steps_changed(self.ctx, self.id, seen))

    def _read_board(self, direction: str, azs: dict[str, str | None]) -> boards.Board:
        """Read the steps of the plan, or those of the way back."""
        which = {'direction': 'back' if direction == 'back' else 'forward'}
        steps = db.step_list(self.ctx, self.id, which)
        return boards.Board(steps, db.edge_list(self.ctx, self.id), azs)

    @property
    def board(self) -> boards.Board:
        """The board, once it is read."""
        if self._board is None:
            raise db.Mismatch('the board is not read yet')
        return self._board

    def _commit(self, moves: list[db.StepMove], upgrade: db.UpgradeMove | None = None) -> None:
        """Write a turn; the board already shows it. What arrived is dealt with by then."""
        if moves or upgrade is not None:
            tally = self.board.tally()
            changed = tally != self._row['counters'].get('hosts')
            self._row.update(
                db.owner_turn(
                    self.ctx,
                    self.id,
                    self.owner,
                    self.epoch,
                    moves,
                    upgrade,
                    (self._row['state'],),
                    tally if changed else None,
                )
            )
        if upgrade is not None and upgrade.state in states.TERMINAL:
            # what operators look at next is the cloud as it is now
            db.cluster_discover(self.ctx, self._row['cluster_id'])
        self._items.clear()

    def _take_items(self) -> outcomes.Taken:
        """Turn what arrived into moves; what can no longer count is only noted.

        Items stay until the commit: if it fails, the next turn takes them again.
        """
        self._ear.hear((i for i in self._items if i.get('agent')), self._post.now())
        taken = outcomes.take(self.board, self._items, self._post.now())
        for agent, attempt in taken.acks:
            self._acks[agent].append(attempt)
        if taken.late:
            db.note_late(self.ctx, self.id, taken.late)
        if taken.lost:
            db.lost_note(self.ctx, self.id, self.epoch, taken.lost, taken.lost_epoch)
        return taken

    def _running(self) -> bool:
        taken = self._take_items()
        moves = list(taken.moves.values())
        if taken.blocked:
            self._commit(moves, endings.blocked(*taken.blocked))
            return True
        if self._row['direction'] == 'release' and self._release is None:
            self._release = ready.release(self.board)
        # a failure is on record before the step is given back in the next turn
        if not moves and self._row['direction'] != 'release':
            moves = transitions.retry_failed(self.board, self._post.now())
        gates = transitions.Gates()
        if self._row['direction'] != 'release' and self._row['next'] != 'paused':
            gates = transitions.gates(self.board, self._row['approvals'], self._post.now())
        moves += gates.moves
        # what was just given back begins again in the next turn: a turn moves a step once
        given_back = any(m.new == 'pending' for m in taken.moves.values())
        picks = ready.Picks([], []) if given_back else self._pick(moves)
        returned = any(m.new == 'pending' for m in moves)
        ending = None if returned else self._conclude(gates)
        self._commit(moves, ending)
        self._send(picks)
        return bool(gates.passed or taken.moves) or returned or ending is not None

    def _pick(self, moves: list[db.StepMove]) -> ready.Picks:
        """Choose what begins now, and note the moves."""
        picks = ready.pick(
            self.board,
            self._row['policy'],
            self._post.now(),
            self.conf.conductor.max_dispatched,
            self._release,
            self.board.in_progress() if self._row['next'] == 'paused' else None,
        )
        if time.monotonic() < self._cloud_from:
            picks.cloud.clear()
        picks.chains[:] = [left for c in picks.chains if (left := self._fit(c, moves))]
        begun = [n for chain in picks.chains for n in chain]
        moves += [transitions.begin(self.board, n, 'dispatched') for n in begun]
        moves += [transitions.begin(self.board, n, 'running') for n in picks.cloud]
        return picks

    def _fit(self, chain: list[boards.Node], moves: list[db.StepMove]) -> list[boards.Node]:
        """Return what may begin of a chain, or of a run for several hosts."""
        hosts = {n.host for n in chain}
        if len(hosts) > 1:
            return [n for n in chain if self._still_empty([n], moves)]
        return chain if self._still_empty(chain, moves) else []

    def _still_empty(self, chain: list[boards.Node], moves: list[db.StepMove]) -> bool:
        """Whether a host may be touched: it was drained just now, or was looked at again.

        A host in use again goes back to being disabled and drained.
        """
        host = chain[0].host or ''
        drain = next((n for n in self.board.of_host(host) if n.kind == 'drain_host'), None)
        touched = any(n.what.disruptive for n in chain)
        if drain is None or not touched or not self.board.disabled(host):
            return True
        age = (self._post.now() - (drain.finished_at or 0)) / 1000
        at, wrong = self._looked.pop(host, (0.0, None))
        if age < RECHECK_AFTER or (wrong is None and time.monotonic() - at < RECHECK_AFTER):
            return True
        if wrong is None:
            self._looking.add(host)
            self._cloud.recheck(self, self._row, drain)
        elif drain.attempt < MAX_DRAINS:
            moves += [
                transitions.drain_anew(self.board, n, wrong)
                for n in self.board.of_host(host)
                if n.kind in ('disable_host', 'drain_host') and n.state == 'succeeded'
            ]
        else:
            self._hold = f'{wrong}, although it was drained {drain.attempt} times'
        return False

    def _conclude(self, gates: transitions.Gates) -> db.UpgradeMove | None:
        """Say what the upgrade becomes if nothing is left that goes on by itself."""
        board, now = self.board, self._post.now()
        if trip := endings.tripped(board, self._row['policy']):
            return trip
        if self._row['next'] == 'paused' and not board.in_progress():
            return db.UpgradeMove(state='stopping', event='hosts_done')
        if board.in_flight() or gates.passed or any(t > now for t in board.timers()):
            self._waits_since = None
            return None
        if self._row['direction'] == 'release':
            left = [i for i in self._release or () if board.nodes[i].state == 'pending']
            return None if left else endings.ended(board, 'cancelled')
        if end := endings.at_rest(board, gates.held, self._row['direction']):
            return end
        if board.stuck() or time.monotonic() < self._cloud_from or self._looking:
            return None
        if self._hold:
            return endings.blocked('drift', self._hold)
        if why := alarms.waits(board, now):
            self._waits_since = self._waits_since or time.monotonic()
            waited = time.monotonic() - self._waits_since
            if waited <= self.conf.conductor.control_plane_grace:
                return None
            self._waits_since = None
            return endings.blocked('stuck', why)
        return endings.blocked('stuck', 'no step can begin, is in flight or waits for a time')

    # -- the other states ----------------------------------------------------------------------

    def _stopping(self) -> bool:
        """Begin nothing; take back what has not begun; at rest, do what `next` says."""
        self.stopping.set()
        self._commit(list(self._take_items().moves.values()))
        flying = self.board.in_flight()
        if flying:
            soaking = [transitions.give_back(self.board, n) for n in flying if n.kind == 'gate']
            self._commit(soaking)
            self._take_back([n for n in flying if n.state == 'dispatched'])
            if self._row['intent'].get('now'):
                self._take_back([n for n in flying if ready.may_abort(n)], now=True)
            return bool(soaking)
        self.stopping.clear()
        return _NEXTS[self._row['next']](self)

    def _to_pause(self) -> bool:
        values: Row = {'next': None, 'intent': {}}
        self._commit([], db.UpgradeMove(state='paused', event='paused', values=values))
        return True

    def _take_back(self, nodes: list[boards.Node], now: bool = False) -> None:
        for agent, group in self._taken_back.due(nodes).items():
            self._post.revoke(self.id, self.epoch, agent, group, now)
            self._taken_back.sent(group, again=True)

    def _to_release(self) -> bool:
        keep = ready.release(self.board)
        drop = [n for n in self.board.in_state('pending') if n.id not in keep]
        moves = [transitions.drop(self.board, n) for n in drop]
        if keep:
            values: Row = {'next': None, 'direction': 'release', 'intent': {}}
            move = db.UpgradeMove(state='running', event='releasing', values=values)
        else:
            move = endings.ended(self.board, 'cancelled')
        self._commit(moves, move)
        self._release = keep
        return True

    def _to_back(self) -> bool:
        """Turn round: what was never begun needs no undoing, all else goes back."""
        back = self._read_board('back', self.board.azs)
        chosen = ready.to_undo(self.board, back, self._row['intent'].get('to', 0))
        moves = [transitions.drop(self.board, n) for n in self.board.in_state('pending')]
        left = back.in_state('pending')
        moves += [transitions.drop(back, n) for n in left if n.id not in chosen]
        turn = endings.going_back(back, chosen, self._row['counters']) if chosen else None
        self._commit(moves, turn or endings.ended(self.board, 'rolled_back'))
        self._board = None
        return True

    def _blocked(self) -> bool:
        self._commit(list(self._take_items().moves.values()))
        reason = self._row['blocked_reason']
        if reason == 'step_failed' and not self.board.stuck():
            state = 'stopping' if self._row['next'] == 'paused' else 'running'
            self._commit(
                [],
                db.UpgradeMove(
                    state=state, event='unblocked', values={'blocked_reason': None, 'message': ''}
                ),
            )
            return True
        return False

    # -- after the commit ----------------------------------------------------------------------

    def _send(self, picks: ready.Picks) -> None:
        self.stopping.clear()
        for chain in picks.chains:
            agent = chain[0].executor or ''
            self._post.order(self.id, self.epoch, agent, chain, self._acks.pop(agent, []))
            self._outbox.sent(chain)
        for node in picks.cloud:
            self._cloud.start(self, self._row, node)
        self._repeat()

    def _repeat(self) -> None:
        """Say again what has not been answered, and go on with cloud steps of a past owner."""
        waiting, orphans = transitions.whole(self.board)
        self._take_back(orphans)
        for agent, nodes in self._outbox.due(waiting).items():
            LOG.info('upgrade %s: sending %d steps to engine %s again', self.id, len(nodes), agent)
            self._post.order(self.id, self.epoch, agent, nodes, self._acks.pop(agent, []))
            self._outbox.sent(nodes, again=True)
        running = self.board.in_state('running')
        for agent, nodes in self._probed.due(
            [n for n in running if n.what.where == 'host']
        ).items():
            self._post.probe(self.id, self.epoch, agent, nodes)
            self._probed.sent(nodes, again=True)
        if time.monotonic() >= self._cloud_from:
            for node in running:
                if node.what.where == 'cloud':
                    self._cloud.start(self, self._row, node)

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, defaultdict(list)
        for agent, attempts in acks.items():
            self._post.recorded(agent, attempts)


#: what a stopping upgrade does once it is at rest
_NEXTS: dict[str, Callable[[Broker], bool]] = {
    'paused': Broker._to_pause,
    'cancelled': Broker._to_release,
    'back': Broker._to_back,
}
_STATES: dict[str, Callable[[Broker], bool]] = {
    'running': Broker._running,
    'stopping': Broker._stopping,
    'blocked': Broker._blocked,
}
