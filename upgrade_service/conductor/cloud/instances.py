"""Drain a host: live-migrate its servers to where the planner wants them.

*Drain* is a loop, not a list: while it runs, servers are deleted, stopped, and may still
arrive. It ends when the host was seen empty twice, some seconds apart. A server has
moved only when its migration record, its own document and its allocations agree. Before
each call the intent is saved with the number of the newest migration record, so that a
new owner finds out from nova whether the call was made.
"""

import collections
import dataclasses
import functools
import time
from typing import Any

from openstack import exceptions as sdk_exceptions
from oslo_log import log

from upgrade_service import model
from upgrade_service.conductor.cloud import connect, migrations, services
from upgrade_service.conductor.cloud import task as tasks
from upgrade_service.conductor.cloud.migrations import Tenant
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
TRIES = 2  #: moves of one server before a person is asked
UNANSWERED = 20.0  #: seconds after which a call that left no trace was not made
LAST_MOVES = 30.0  #: seconds given to moves under way when the owner stops
#: statuses that pass by themselves
PASSING = frozenset({'BUILD', 'REBOOT', 'HARD_REBOOT', 'RESIZE', 'REBUILD', 'PASSWORD'})
Row = dict[str, Any]


def stays(task: tasks.CloudTask, server: Tenant) -> bool:
    """Tell whether a server remains on its host: the plan says so, or it was stopped since.

    Under `drain.on_immovable: skip` what cannot be live-migrated is no reason to wait.
    """
    if server.moving:
        return False
    rests = server.status not in migrations.MOVABLE | PASSING and not server.task
    skips = task.policy['drain']['on_immovable'] == 'skip'
    return server.id in task.params.get('leave', ()) or (rests and skips)


@dataclasses.dataclass
class Watch:
    """When a move last went forward; the clock is this owner's own."""

    sign: Any = None
    at: float = 0.0
    forced: bool = False


class Drain:
    """The drain of one host by one owner."""

    def __init__(self, task: tasks.CloudTask) -> None:
        self.task = task
        self.host = task.host
        self.drain = task.policy['drain']
        #: server id -> {to, after: newest record before the call, tries, not: [hosts], state};
        #: state: 'asked', 'moving', 'moved', 'again', 'failed', 'gone'
        self.moves: dict[str, Row] = {
            i: _inherited(m) for i, m in task.progress.get('moves', {}).items()
        }
        self.watches: dict[str, Watch] = {}
        self.provider: str | None = task.progress.get('provider')
        self.empty_at: float | None = None
        self.left: set[str] = set()  #: servers that stay
        self.targets = collections.deque(task.params.get('targets', ()))
        self.saved = ''

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> base.Outcome:
        """Empty the host, or say which servers stay and why."""
        while True:
            servers = self._servers()
            self._follow(servers)
            self._start(servers)
            self._show(servers)
            if self._over(servers):
                return self._outcome()
            self._rest()

    def _servers(self) -> dict[str, Tenant]:
        listed = self.task.read(
            f'servers of {self.host}', lambda cloud: migrations.on_host(cloud, self.host)
        )
        if self.provider is None and listed:
            name = listed[0].hypervisor or self.host
            self.provider = self.task.read(
                'resource provider', lambda cloud: migrations.provider(cloud, name)
            )
        self.left = {t.id for t in listed if stays(self.task, t)}
        return {t.id: t for t in listed if t.id not in self.left}

    def _over(self, servers: dict[str, Tenant]) -> bool:
        """Tell whether all is done: seen empty twice, or nothing more can be moved."""
        under_way = self._under_way()
        failed = [i for i, m in self.moves.items() if m['state'] == 'failed']
        if failed and not under_way:
            return True
        if (
            servers
            or under_way
            or self.task.read(
                f'moves to {self.host}', lambda cloud: migrations.incoming(cloud, self.host)
            )
        ):
            self.empty_at = None
            return False
        if self.empty_at is None:
            self.empty_at = self.task.clock()
        return self.task.clock() - self.empty_at >= float(self.drain['settle_seconds'])

    def _rest(self) -> None:
        """Wait for the next look; a stopping owner sees moves under way to their end."""
        limit = self.task.clock() + LAST_MOVES
        while self.task.stopping() and self._under_way() and self.task.clock() < limit:
            time.sleep(min(self.task.poll, 1.0))  # not wait(): that returns when stopping
            servers = self._servers()
            self._follow(servers)
            self._show(servers)
        pause = self.task.poll
        if self.empty_at is not None:
            pause = min(pause, max(0.05, self.drain['settle_seconds']))
        self.task.pause(pause)

    def _under_way(self) -> list[str]:
        return [i for i, m in self.moves.items() if m['state'] in ('asked', 'moving')]

    # -- starting moves ------------------------------------------------------------------------

    def _start(self, servers: dict[str, Tenant]) -> None:
        """Begin as many moves as policy allows."""
        stop_now = any(m['state'] == 'failed' for m in self.moves.values())
        for server in servers.values():
            move = self.moves.get(server.id)
            if move and move['state'] in ('asked', 'moving', 'failed'):
                continue
            if server.moving:
                self._adopt(server)
            elif stop_now or self.task.stopping():
                continue
            elif server.status not in migrations.MOVABLE or server.task:
                self._await_movable(server)
            elif len(self._under_way()) < self.drain['parallel']:
                self._ask(server, servers)

    def _adopt(self, server: Tenant) -> None:
        """Follow a move that somebody else, or an owner before us, began."""
        record = self._latest(server.id) or {'id': 0, 'status': 'error'}
        ended = record['status'] in migrations.COMPLETED | migrations.FAILED
        move = self.moves.setdefault(server.id, {'tries': 0, 'not': []})
        move.update(
            to=None if ended else record.get('dest_compute'),
            state='moving',
            name=server.name,
            after=record['id'] - (0 if ended else 1),
        )

    def _await_movable(self, server: Tenant) -> None:
        """Wait while a server is busy; one that rests in such a state cannot be moved."""
        patience = (
            self.drain['no_progress_seconds'] if server.task or server.status in PASSING else 0
        )
        if self._idle(server.id, (server.status, server.task)) >= patience:
            self._fail(
                server,
                f'it is {server.status}'
                + (f' ({server.task})' if server.task else '')
                + ', and only ACTIVE or PAUSED '
                'servers can be live-migrated',
            )

    def _ask(self, server: Tenant, servers: dict[str, Tenant]) -> None:
        """Ask nova for one move, intent first."""
        record = self._latest(server.id)
        move = self.moves.setdefault(server.id, {'tries': 0, 'not': []})
        if move.get('state') == 'moved':  # it came back: that was another story
            move.update(tries=0, **{'not': []})
        move.update(
            to=self._target(server.id, move),
            state='asked',
            name=server.name,
            tries=move['tries'] + 1,
            after=record['id'] if record else 0,
        )
        self.watches.pop(server.id, None)
        body = {'os-migrateLive': {'host': move['to'], 'block_migration': 'auto'}}
        try:
            self.task.act(
                self._shown(servers),
                lambda cloud, timeout: connect.send(
                    cloud.compute,
                    'post',
                    f'/servers/{server.id}/action',
                    body,
                    timeout=timeout,
                    microversion=migrations.LIVE,
                ),
            )
        except sdk_exceptions.NotFoundException:
            move['state'] = 'gone'
        except sdk_exceptions.ConflictException as error:  # busy, moving or stopped just now
            LOG.info('%s of %s is busy: %s', server.id, self.host, error)
            move.update(state='again', tries=move['tries'] - 1)
            if self._idle(f'{server.id} refused', True) > self.drain['no_progress_seconds']:
                self._fail(server, str(error))
        except sdk_exceptions.BadRequestException as error:
            self._retry(server, str(error))
        except Exception as error:
            if not connect.is_away(error):
                raise
            LOG.warning('No answer to the move of %s; nova will tell: %s', server.id, error)

    def _target(self, server_id: str, move: Row) -> str | None:
        """Choose: the plan's host, else an upgraded one, else whatever the scheduler takes."""
        planned = self.task.params.get('moves', {}).get(server_id)
        if planned and planned not in move['not']:
            return str(planned)
        for _ in range(len(self.targets)):
            self.targets.rotate(-1)
            if self.targets[0] not in move['not'] and self.targets[0] != self.host:
                return str(self.targets[0])
        return None

    # -- following moves -----------------------------------------------------------------------

    def _follow(self, servers: dict[str, Tenant]) -> None:
        """Look at each move under way."""
        for server_id in self._under_way():
            move = self.moves[server_id]
            server = servers.get(server_id) or self.task.read(
                'a server on its way', functools.partial(migrations.server, server_id=server_id)
            )
            if server is None:
                move['state'] = 'gone'
                continue
            record = self._latest(server_id)
            if record is None or record['id'] <= move['after']:
                self._unanswered(server, move)
            elif record['status'] in migrations.COMPLETED:
                move['seconds'] = migrations.seconds(record)
                self._arrive(server, move)
            elif record['status'] in migrations.FAILED:
                self._broken(server, record)
            else:
                move.update(
                    state='moving',
                    to=record.get('dest_compute') or move['to'],
                    status=record['status'],
                )
                self._progress(server, move, record)

    def _unanswered(self, server: Tenant, move: Row) -> None:
        """No record yet: nova is about to write it, or never got the call."""
        if server.host != self.host:
            self._arrive(server, move)
        elif self._idle(server.id, ('asked', server.moving)) > (
            self.drain['no_progress_seconds'] if server.moving else UNANSWERED
        ):
            self._retry(server, 'nova made no migration record; is nova-conductor well?')

    def _arrive(self, server: Tenant, move: Row) -> None:
        """The record says completed: believe it when server and allocations say so too."""
        holders = self.task.read(
            'allocations', lambda cloud: migrations.allocated(cloud, server.id)
        )
        agree = self.provider not in holders and bool(holders)
        if server.host != self.host and server.status in migrations.MOVABLE and agree:
            move.update(state='moved', to=server.host)
        elif server.status == 'ERROR':
            self._fail(server, f'it is in ERROR on {server.host} after its move: {server.fault}')
        elif self._idle(server.id, ('truth', server.host, server.status, agree)) >= max(
            60, self.drain['no_progress_seconds']
        ):
            self._fail(
                server,
                f'its migration is completed, but nova has it {server.status} on '
                f'{server.host} and placement {"agrees" if agree else "does not agree"}',
            )

    def _broken(self, server: Tenant, record: Row) -> None:
        """A move ended badly: the server is where it was, or in ERROR."""
        if server.moving and self._idle(server.id, 'cleaning') < self.drain['no_progress_seconds']:
            return  # nova is still cleaning up
        if server.host != self.host and server.status in migrations.MOVABLE:
            self._arrive(server, self.moves[server.id])  # it failed so late that it did arrive
            return
        move = self.moves[server.id]
        why = self.task.read('the reason', lambda cloud: migrations.reason(cloud, server.id))
        to = record.get('dest_compute') or move['to'] or 'any host'
        said = f'{record["status"]} on its way to {to}'
        self._retry(
            server,
            f'{said} (now {server.status} on {server.host}): '
            f'{why or server.fault or "see nova-compute.log"}',
        )

    def _retry(self, server: Tenant, why: str) -> None:
        move = self.moves[server.id]
        move['not'] = sorted({*move['not'], move['to'] or ''} - {''})
        LOG.warning('Server %s of %s: %s', server.id, self.host, why)
        if move['tries'] >= TRIES or server.status not in migrations.MOVABLE:
            self._fail(server, why)
        else:
            move.update(state='again', why=why)

    def _fail(self, server: Tenant, why: str) -> None:
        move = self.moves.setdefault(server.id, {'tries': 0, 'not': [], 'to': None})
        move.update(state='failed', name=server.name, why=why)

    # -- moves that stand still ----------------------------------------------------------------

    def _idle(self, server_id: str, sign: Any) -> float:
        """Return the seconds for which `sign` has been the same."""
        watch = self.watches.setdefault(server_id, Watch(at=self.task.clock()))
        if watch.sign != sign:
            watch.sign, watch.at = sign, self.task.clock()
        return self.task.clock() - watch.at

    def _progress(self, server: Tenant, move: Row, record: Row) -> None:
        """Note how far it is; act when it has stood still for too long."""
        left = self.task.read(
            'a running migration', lambda cloud: migrations.remaining(cloud, server.id)
        )
        total = left.get('memory_total_bytes', 0) + left.get('disk_total_bytes', 0)
        rest = left.get('memory_remaining_bytes', 0) + left.get('disk_remaining_bytes', 0)
        move['percent'] = round(100 * (total - rest) / total) if total else None
        idle = self._idle(server.id, (record['status'], server.host, sorted(left.items())))
        queued = record['status'] == 'queued' and len(self._under_way()) > 1
        if idle < self.drain['no_progress_seconds'] or queued:
            return
        on_stuck = self.drain['on_stuck']
        watch = self.watches[server.id]
        stood = f'its migration ({record["status"]}) stood still for {idle:.0f} s'
        if on_stuck == 'leave' or watch.forced:
            self._fail(server, f'{stood}; it was left as it is')
        else:
            watch.forced, watch.at = True, self.task.clock()
            move['stuck'] = stood
            self._push(server, record, on_stuck)

    def _push(self, server: Tenant, record: Row, how: str) -> None:
        """Abort a stuck migration, or force it to complete; the record tells how it ends."""
        LOG.warning(
            'Server %s of %s: %s: %s', server.id, self.host, self.moves[server.id]['stuck'], how
        )
        path = f'/servers/{server.id}/migrations/{record["id"]}'
        method, path, body = {
            'abort': ('delete', path, None),
            'force_complete': ('post', f'{path}/action', {'force_complete': None}),
        }[how]
        try:
            self.task.act(
                {'moves': self.moves},
                lambda cloud, timeout: connect.send(
                    cloud.compute,
                    method,
                    path,
                    body,
                    timeout=timeout,
                    microversion=migrations.ABORT,
                ),
            )
        except sdk_exceptions.HttpException as error:  # it ended, or cannot be helped now
            LOG.warning('nova would not %s the migration of %s: %s', how, server.id, error)

    # -- what is shown and returned ------------------------------------------------------------

    def _latest(self, server_id: str) -> Row | None:
        return self.task.read(
            'migration records', lambda cloud: migrations.latest(cloud, server_id)
        )

    def _shown(self, servers: dict[str, Tenant]) -> Row:
        """Return the progress."""
        ended = sum(m['state'] in ('moved', 'gone') for m in self.moves.values())
        still = {i for i in servers if self.moves.get(i, {}).get('state') not in ('moved', 'gone')}
        total = max(
            self.task.progress.get('total', 0), ended + len(still | set(self._under_way()))
        )
        return {
            'done': ended,
            'total': total,
            'moves': self.moves,
            'provider': self.provider,
            'current': [
                {
                    'server': i,
                    'name': m.get('name'),
                    'to': m['to'],
                    'status': m.get('status'),
                    'percent': m.get('percent'),
                }
                for i, m in self.moves.items()
                if m['state'] in ('asked', 'moving')
            ],
        }

    def _show(self, servers: dict[str, Tenant]) -> None:
        """Save the progress, when it differs from what was saved."""
        shown = self._shown(servers)
        if model.canonical(shown) != self.saved:
            self.saved = model.canonical(shown)
            self.task.progress.update(shown)
            self.task.save(self.task.progress)

    def _outcome(self) -> base.Outcome:
        moved = collections.Counter(m['to'] for m in self.moves.values() if m['state'] == 'moved')
        data = {
            'moved': sum(moved.values()),
            'moved_to': dict(moved),
            'left': sorted(self.left),
        }
        bad = {i: m for i, m in self.moves.items() if m['state'] == 'failed'}
        if not bad:
            return tasks.done(**data)
        listed = '; '.join(
            f'server {i} ({m.get("name")}): {m["why"]}' for i, m in list(bad.items())[:5]
        )
        more = f' and {len(bad) - 5} more' if len(bad) > 5 else ''
        return tasks.failed(
            f'{self.host} could not be drained: {listed}{more}; put these servers right, move or '
            'delete them, then retry the step',
            servers=sorted(bad),
            **data,
        )


def _inherited(move: Row) -> Row:
    """Take over what an earlier owner or attempt noted: its failures are forgiven."""
    if move['state'] == 'failed':
        return {**move, 'state': 'again', 'tries': 0, 'not': []}
    if move['state'] == 'asked':  # perhaps it never was; nova will tell
        return {**move, 'tries': max(0, move['tries'] - 1)}
    return dict(move)


def drain_host(task: tasks.CloudTask) -> base.Outcome:
    """Move the servers of a host away and prove that it is empty but for those that stay."""
    if task.policy['drain']['instances'] == 'none':
        return tasks.done(moved=0, moved_to={})
    return Drain(task).run()


def recheck(task: tasks.CloudTask) -> str | None:
    """Look, right before the host is touched: disabled and empty? Else say what is wrong.

    Empty but for the servers that stay.
    """
    record = task.read(
        f'nova-compute of {task.host}',
        lambda cloud: services.compute_service(cloud, task.host, 'nova-compute'),
    )
    if record is None:
        return None  # no servers can be there
    if record['status'] != 'disabled':
        return f'nova-compute on {task.host} is enabled again'
    if task.policy['drain']['instances'] == 'none':
        return None
    listed = task.read(
        f'servers of {task.host}', lambda cloud: migrations.on_host(cloud, task.host)
    )
    if servers := [t for t in listed if not stays(task, t)]:
        return f'{task.host} holds servers again: ' + ', '.join(t.id for t in servers[:5])
    return None
