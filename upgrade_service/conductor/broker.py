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
from upgrade_service.conductor import board as boards
from upgrade_service.conductor import orders, outcomes, ready
from upgrade_service.db import api as db

LOG = log.getLogger(__name__)
Row = dict[str, Any]
#: seconds after which the engine of a silent running step is asked how it stands
PROBE_AFTER = 60.0
#: seconds a new owner waits before it goes on with a cloud step that another began: a
#: call that the other had under way is over by then
SETTLE_AFTER_TAKEOVER = 5.0


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
        self._probed = orders.Outbox(PROBE_AFTER)
        self._release: set[str] | None = None
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
        again = _STATES[row['state']](self)
        self._send_acks()
        return again

    def _refresh(self, row: Row) -> None:
        seen, self._row = self._row.get('seq', 0), row
        if self._board is None:
            hosts = db.host_list(self.ctx, row['cluster_id'])
            self._board = boards.Board(
                db.step_list(self.ctx, self.id),
                db.edge_list(self.ctx, self.id),
                {h['name']: h['az'] for h in hosts},
            )
        elif row['seq'] != seen:
            self._board.refresh(db.steps_changed(self.ctx, self.id, seen))

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
        self._items.clear()

    def _take_items(self) -> outcomes.Taken:
        """Turn what arrived into moves; what can no longer count is only noted.

        Items stay until the commit: if it fails, the next turn takes them again.
        """
        taken = outcomes.take(self.board, self._items, self._post.now())
        for agent, attempt in taken.acks:
            self._acks[agent].append(attempt)
        if taken.late:
            db.note_late(self.ctx, self.id, taken.late)
        return taken

    def _running(self) -> bool:
        taken = self._take_items()
        moves = list(taken.moves.values())
        if taken.blocked:
            self._commit(moves, self._blocking(*taken.blocked))
            return True
        if self._row['direction'] == 'release' and self._release is None:
            self._release = ready.release(self.board)
        # a failure is on record before the step is given back in the next turn
        retried = moves or self._auto_retry()
        moves = list(retried)
        gates = self._gates(moves)
        picks = self._pick(moves)
        ending = self._conclude(gates)
        self._commit(moves, ending)
        self._send(picks)
        return bool(gates.passed or taken.moves) or ending is not None

    def _pick(self, moves: list[db.StepMove]) -> ready.Picks:
        """Choose what begins now, and note the moves."""
        picks = ready.pick(
            self.board,
            self._row['policy'],
            self._post.now(),
            self.conf.conductor.max_dispatched,
            self._release,
        )
        if time.monotonic() < self._cloud_from:
            picks.cloud.clear()
        begun = [n for chain in picks.chains for n in chain]
        moves += [self._begin(n, 'dispatched') for n in begun]
        moves += [self._begin(n, 'running') for n in picks.cloud]
        return picks

    def _auto_retry(self) -> list[db.StepMove]:
        moves = []
        for n in self.board.stuck():
            if ready.retries(n):
                later = self._post.now() + ready.RETRY_MS * n.attempt
                moves.append(
                    db.StepMove(
                        step=n.id,
                        old='failed',
                        new='pending',
                        attempt=n.attempt,
                        event='auto_retry',
                        not_before=later,
                        error=n.error,
                    )
                )
                self.board.apply(n.id, state='pending', not_before=later)
        return moves

    def _begin(self, node: boards.Node, state: str, not_before: int | None = None) -> db.StepMove:
        move = db.StepMove(
            step=node.id,
            old='pending',
            new=state,
            attempt=node.attempt,
            event='dispatched' if state == 'dispatched' else 'started',
            begins=True,
            agent=node.executor,
            not_before=not_before,
        )
        self.board.apply(
            node.id, state=state, attempt=node.attempt + 1, error=None, not_before=not_before
        )
        return move

    # -- gates and ends ------------------------------------------------------------------------

    def _gates(self, moves: list[db.StepMove]) -> 'Gates':
        """Pass every ready gate that nothing holds; passing one may make others ready."""
        gates = Gates()
        if self._row['direction'] != 'forward':
            return gates
        now = self._post.now()
        for node in self.board.in_state('running'):
            if node.kind == 'gate' and (node.not_before or 0) <= now:
                moves.append(self._pass(node, 'running', gates))
        waiting = True
        while waiting:
            waiting = False
            for node in [n for n in self.board.ready(now) if n.kind == 'gate']:
                if ready.gate_waits_for_person(node, self._row['approvals']):
                    gates.held = gates.held or node
                elif ready.soak_ms(node):
                    moves.append(self._begin(node, 'running', now + ready.soak_ms(node)))
                else:
                    moves.append(self._pass(node, 'pending', gates))
                    waiting = True
        return gates

    def _pass(self, node: boards.Node, old: str, gates: 'Gates') -> db.StepMove:
        gates.passed += 1
        self.board.apply(node.id, state='succeeded')
        return db.StepMove(
            step=node.id, old=old, new='succeeded', attempt=node.attempt, event='gate_passed'
        )

    def _conclude(self, gates: 'Gates') -> db.UpgradeMove | None:
        """Say what the upgrade becomes if nothing is left that goes on by itself."""
        board, now = self.board, self._post.now()
        why = ready.breaker(board, self._row['policy']) if self._settled_failures() else None
        if why:
            return self._blocking('breaker', why)
        if board.in_flight() or gates.passed:
            return None
        if any(t > now for t in board.timers()):
            return None
        return self._end(gates)

    def _settled_failures(self) -> bool:
        """Whether steps are failed or unknown and none of them will be tried again."""
        stuck = self.board.stuck()
        return bool(stuck) and not any(ready.retries(n) for n in stuck)

    def _end(self, gates: 'Gates') -> db.UpgradeMove | None:
        board = self.board
        if self._row['direction'] == 'release':
            left = [i for i in self._release or () if board.nodes[i].state == 'pending']
            return None if left else self._ended('cancelled')
        if not board.in_state('pending') and not board.stuck():
            return self._ended('succeeded')
        if board.stuck():
            if not self._settled_failures():
                return None
            n = board.stuck()[0]
            return self._blocking(
                'step_failed',
                f'step {n.ord} ({n.kind}'
                f'{" on " + n.host if n.host else ""}): {n.error or n.state}',
            )
        if gates.held:
            gate = gates.held.params['gate']
            return db.UpgradeMove(
                state='paused',
                event='gate_reached',
                detail={'gate': gate},
                values={'gate': gate, 'message': f'waits for approval of gate {gate}'},
            )
        if time.monotonic() < self._cloud_from:
            return None
        return self._blocking('stuck', 'no step can begin, is in flight or waits for a time')

    def _ended(self, state: str) -> db.UpgradeMove:
        held = sorted(h for h in self.board.hosts() if self.board.disabled(h))
        said = {'succeeded': 'every step is done', 'cancelled': 'cancelled'}[state]
        if held:
            said += f'; still disabled: {", ".join(held)}'
        return db.UpgradeMove(
            state=state,
            event=state,
            detail={'held_hosts': held},
            values={'message': said, 'next': None},
        )

    def _blocking(self, reason: str, why: str) -> db.UpgradeMove:
        LOG.warning('upgrade %s is blocked (%s): %s', self.id, reason, why)
        return db.UpgradeMove(
            state='blocked',
            event='blocked',
            detail={'reason': reason, 'why': why},
            values={'blocked_reason': reason, 'message': why},
        )

    # -- the other states ----------------------------------------------------------------------

    def _stopping(self) -> bool:
        """Begin nothing; take back what has not begun; at rest, do what `next` says."""
        self.stopping.set()
        self._commit(list(self._take_items().moves.values()))
        flying = self.board.in_flight()
        if flying:
            soaking = [self._give_back(n) for n in flying if n.kind == 'gate']
            self._commit(soaking)
            self._take_back([n for n in flying if n.state == 'dispatched'])
            return bool(soaking)
        self.stopping.clear()
        if self._row['next'] == 'cancelled':
            return self._to_release()
        self._commit([], db.UpgradeMove(state='paused', event='paused', values={'next': None}))
        return True

    def _give_back(self, node: boards.Node) -> db.StepMove:
        self.board.apply(node.id, state='pending', not_before=None)
        return db.StepMove(
            step=node.id, old='running', new='pending', attempt=node.attempt, event='interrupted'
        )

    def _take_back(self, nodes: list[boards.Node]) -> None:
        for agent, group in self._probed.due(nodes).items():
            self._post.revoke(self.id, self.epoch, agent, group)
            self._probed.sent(group)

    def _to_release(self) -> bool:
        keep = ready.release(self.board)
        drop = [n for n in self.board.in_state('pending') if n.id not in keep]
        moves = [
            db.StepMove(
                step=n.id, old='pending', new='cancelled', attempt=n.attempt, event='cancelled'
            )
            for n in drop
        ]
        for n in drop:
            self.board.apply(n.id, state='cancelled')
        if keep:
            move = db.UpgradeMove(
                state='running', event='releasing', values={'next': None, 'direction': 'release'}
            )
        else:
            move = self._ended('cancelled')
        self._commit(moves, move)
        self._release = keep
        return True

    def _blocked(self) -> bool:
        self._commit(list(self._take_items().moves.values()))
        reason = self._row['blocked_reason']
        if reason in ('step_failed', 'stuck') and not self.board.stuck():
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
        for agent, nodes in self._outbox.due(self.board.in_state('dispatched')).items():
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


class Gates:
    """What became of the gates in a turn."""

    def __init__(self) -> None:
        self.passed = 0
        self.held: boards.Node | None = None


_STATES: dict[str, Callable[[Broker], bool]] = {
    'running': Broker._running,
    'stopping': Broker._stopping,
    'blocked': Broker._blocked,
}
