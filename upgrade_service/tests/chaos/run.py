"""One run: the processes at work, the harm that can be done to them, and what is left."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import signal
import threading
import time
from typing import Any

import sqlalchemy as sa

from upgrade_service import rpc
from upgrade_service.db import api as db
from upgrade_service.db import models
from upgrade_service.tests.chaos import checker, clients, place, process, stage
from upgrade_service.tests.functional import service

Row = dict[str, Any]
#: an upgrade that is not over so long after the last fault is stuck (seconds; I11)
PATIENCE = 60.0
#: pause before a process that died is there again
AGAIN = 0.15


class Run:
    """The whole service for one upgrade."""

    def __init__(self, scene: stage.Scene, broken: str = '', more: Row | None = None) -> None:
        self.scene, self.folder = scene, scene.folder
        self.broken = broken
        self.more: dict[str, Row] = more or {}  #: {process: what it is told besides}
        self.processes: dict[str, Any] = {}
        self._told: dict[str, place.Told] = {}
        self._again: dict[str, float] = {}
        self._frozen: dict[str, float] = {}
        self._lock = threading.RLock()
        self.healed = 0.0

    # -- processes -----------------------------------------------------------------------------

    def start(self, role: str, name: str, **more: Any) -> None:
        """Start a process."""
        told = place.Told(
            role=role, name=name, folder=str(self.folder),
            **{'broken': self.broken, **more},
        )  # fmt: skip
        self._told[name] = told
        self._spawn(told)

    def _spawn(self, told: place.Told) -> None:
        with self._lock:
            made = self.scene.stage.nursery.Process(
                target=process.main, args=(told,), name=told.name, daemon=True
            )
            made.start()
            self.processes[told.name] = made

    def start_cloud(self) -> None:
        """Start the simulated cloud; nobody harms it."""
        self.start('cloud', 'cloud', broken='', lossy=0.0)
        service.wait_for('the cloud', (self.folder / 'clouds.yaml').exists)
        self.cloud_url = (self.folder / 'cloud.url').read_text()

    def start_engines(self, **more: Any) -> None:
        """Start the engine of each host; `more`: {host: what its engine is told besides}."""
        for host in place.HOSTS:
            self.start('engine', host, host=host, **more.get(host, {}))

    def alive(self, name: str) -> bool:
        """Whether a process lives."""
        return bool(self.processes[name].is_alive())

    def tend(self) -> None:
        """Start again what died, and thaw what was frozen for long enough."""
        now = time.monotonic()
        with self._lock:
            for name, thaw in list(self._frozen.items()):
                if now > thaw:
                    self._thaw(name)
            for name in self._told:
                if self.alive(name):
                    continue
                due = self._again.setdefault(name, now + AGAIN)
                if now >= due:
                    del self._again[name]
                    self.revive(name)

    def revive(self, name: str) -> None:
        """Start a process that died; it does not die again where it did."""
        told = self._told[name]
        told.kill_at, told.kill_after = None, 0
        self._spawn(told)

    # -- harm ----------------------------------------------------------------------------------

    def fault(self, kind: str, **about: Any) -> None:
        """Write down what is done to the service."""
        place.append(self.folder / 'faults', kind=kind, **about)

    def kill(self, name: str) -> None:
        """End a process without a word."""
        with self._lock:
            self._thaw(name)
            self.fault('kill', role=self._told[name].role, name=name, host=self._told[name].host)
            self.processes[name].kill()

    def freeze(self, name: str, seconds: float) -> None:
        """Stop a process for a while; it does not notice."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if name not in self._frozen and self.alive(name):
                self.fault('freeze', name=name, seconds=seconds)
                os.kill(self.processes[name].pid, signal.SIGSTOP)
                self._frozen[name] = time.monotonic() + seconds

    def _thaw(self, name: str) -> None:
        if self._frozen.pop(name, None) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.processes[name].pid, signal.SIGCONT)

    def reboot(self, host: str) -> None:
        """End every process of a host; its next ones see another boot."""
        with self._lock:
            boot = self.folder / host / 'boot'
            boot.write_text(f'boot-{int(boot.read_text().partition("-")[2]) + 1}')
            self._thaw(host)
            self.processes[host].kill()
            pids = at_work(str(self.folder / host) + os.sep)
            self.fault('reboot', host=host, pids=len(pids))
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cut_database(self, dice: Any) -> None:
        """End a connection to the database at a moment that nobody chose: perhaps at COMMIT."""
        with db.get_engine().connect() as connection:
            mine = connection.execute(sa.text('SELECT CONNECTION_ID()')).scalar_one()
            rows = connection.execute(sa.text('SHOW PROCESSLIST')).all()
            others = [r[0] for r in rows if r[0] != mine and r[3]]
            if others:
                victim = dice.choice(others)
                self.fault('database connection cut', connection=victim)
                with contextlib.suppress(Exception):
                    connection.execute(sa.text(f'KILL CONNECTION {victim}'))

    def wipe_queue(self, host: str) -> None:
        """Throw away what waits for an engine."""
        import kombu

        url = self.scene.stage.rabbit.replace('rabbit://', 'amqp://')
        topic = rpc.engine_topic(self.scene.agents[host])
        with contextlib.suppress(Exception), kombu.Connection(url) as connection:
            self.fault('queue wiped', host=host)
            connection.channel().queue_purge(topic)

    @contextlib.contextmanager
    def cut_off(self, host: str) -> Iterator[None]:
        """Deliver nothing to an engine for a while."""
        import kombu

        topic = rpc.engine_topic(self.scene.agents[host])
        names = {'queue': topic, 'exchange': topic, 'routing_key': topic}
        with kombu.Connection(self.scene.stage.rabbit.replace('rabbit://', 'amqp://')) as bus:
            bus.channel().queue_unbind(**names)
            self.fault('partition', host=host)
            yield
            bus.channel().queue_bind(**names)

    @contextlib.contextmanager
    def full_disk(self, host: str) -> Iterator[None]:
        """Fill the disk that the state of an engine is on; see Scene.disk."""
        with open(self.folder / host / 'state' / 'filler', 'wb', buffering=0) as filler:
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b'x' * size):
                        pass
            self.fault('disk full', host=host)
        yield
        os.unlink(self.folder / host / 'state' / 'filler')

    def set_clock(self, name: str, skew: float) -> None:
        """Set the clock of a process: it starts again with another one."""
        self._told[name].skew = skew
        self.kill(name)

    def restart(self, name: str) -> None:
        """Kill the database or the broker; it is there again a little later."""
        self.fault(f'{name} restarted')
        self.scene.stage.servers.restart(name)

    # -- looking -------------------------------------------------------------------------------

    def row(self) -> Row:
        """The upgrade as it is in the database."""
        return dict(db.upgrade_get(stage.CTX, self.id))

    def steps(self) -> list[Row]:
        """Its steps."""
        return list(db.step_list(stage.CTX, self.id))

    def over(self) -> bool:
        """Whether it has ended."""
        with contextlib.suppress(Exception):
            return self.row()['state'] in checker.TERMINAL
        return False

    def open(self, **draft: Any) -> None:
        """Store the upgrade that this run is about."""
        self.id = self.scene.draft(**draft)
        self.operator = clients.Client('operator', self)

    def finish(self, patience: float = PATIENCE) -> None:
        """End all faults, then do what an operator would until the upgrade is over."""
        with self._lock:
            for name in list(self._frozen):
                self._thaw(name)
        # a server that was killed is a fault until it serves again; a broken one fails the run
        service.wait_for('the servers', self.scene.stage.servers.there, 240.0)
        self.healed = time.time()
        end = time.monotonic() + patience
        while time.monotonic() < end:
            self.tend()
            try:
                row = self.row()
                if row['state'] in checker.TERMINAL:
                    break
                self.operator.go_on(row, self.steps())
            except Exception as e:
                place.append(self.folder / 'harness', error=f'{type(e).__name__}: {e}')
            time.sleep(0.05)
        # results are sent until they are recorded: late ones are welcome
        time.sleep(0.1)

    def close(self) -> checker.History:
        """End everything and return what happened."""
        log: list[Row] = []
        with contextlib.suppress(Exception):
            log = service.call(f'{self.cloud_url}/control/log')['log']
        for made in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(made.pid, signal.SIGKILL)
        for pid in at_work(str(self.folder) + os.sep):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for made in self.processes.values():
            made.join(5)
        (self.folder / 'cloud.json').write_text(json.dumps(log))
        (self.folder / 'rows.json').write_text(json.dumps(dump(), default=str))
        return checker.History.read(self.folder, self.healed)


def dump() -> dict[str, list[Row]]:
    """Return every row of every table."""
    with db.get_engine().connect() as connection:
        return {
            table.name: [dict(r._mapping) for r in connection.execute(sa.select(table))]
            for table in models.Base.metadata.sorted_tables
        }


def at_work(prefix: str) -> list[int]:
    """Return the processes whose arguments name something below a folder, and their children."""
    found, parents = [], {}
    for entry in pathlib.Path('/proc').iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int(
                (entry / 'stat').read_text().rpartition(')')[2].split()[1]
            )
            if prefix.encode() in (entry / 'cmdline').read_bytes():
                found.append(int(entry.name))
    mine = set(found)
    for pid in sorted(parents):
        if parents[pid] in mine:
            mine.add(pid)
    return [p for p in mine if p != os.getpid()]
