"""Which conductor owns which upgrade: leases by the database's clock, epochs for safety.

Every conductor is a peer: it looks for upgrades that nobody owns, takes them with an
epoch one higher, and renews what it has. A lease only says whose turn it is; that a past
owner can change nothing is ensured by the epoch in each of its transactions.
"""

from collections.abc import Callable
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service import context, exception
from upgrade_service.db import api as db

LOG = log.getLogger(__name__)
Row = dict[str, Any]


class Leases:
    """The leases of one conductor, renewed in a thread of their own."""

    def __init__(self, conf: cfg.ConfigOpts, owner: str, take: Callable[[Row], Any]) -> None:
        self.owner = owner
        self._conf, self._take = conf.conductor, take
        self._ctx = context.system()
        self._brokers: dict[str, Any] = {}
        self._until: dict[str, tuple[int, float]] = {}
        self._offset = 0.0
        self._scan_now = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._loop,
                args=(self._scan, self._conf.scan_interval, self._scan_now),
                name='lease-scan',
                daemon=True,
            ),
            threading.Thread(
                target=self._loop,
                args=(self._renew, self._conf.lease_renew, self._stop),
                name='lease-renew',
                daemon=True,
            ),
        ]

    def start(self) -> None:
        """Begin to look for upgrades."""
        self._measure_clock()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10) -> None:
        """Stop every broker, then give the leases free so that a peer goes on at once."""
        self._stop.set()
        self._scan_now.set()
        for broker in list(self._brokers.values()):
            broker.lose()
        for broker in list(self._brokers.values()):
            broker.join(timeout)
        try:
            db.ownership_release(self._ctx, self.owner)
        except exception.Busy:
            LOG.warning('The database is away; peers take over when the leases end')

    def wake(self, upgrade: str) -> None:
        """Look at an upgrade now: ours, or perhaps ours soon."""
        broker = self._brokers.get(upgrade)
        if broker is not None and broker.alive:
            broker.wake()
        else:
            self._scan_now.set()

    def broker(self, upgrade: str) -> Any:
        """Return the broker of an upgrade that is owned here, or None."""
        broker = self._brokers.get(upgrade)
        return broker if broker is not None and broker.alive else None

    def now(self) -> int:
        """The database's time (ms), from the local clock and the offset last measured."""
        return int(time.time() * 1000 + self._offset)

    def remaining(self, upgrade: str, epoch: int) -> float:
        """Seconds for which the lease surely lasts: counted from before it was renewed."""
        held, until = self._until.get(upgrade, (0, 0.0))
        return until - time.monotonic() if held == epoch else 0.0

    def _loop(self, work: Callable[[], None], interval: float, event: threading.Event) -> None:
        while not self._stop.is_set():
            try:
                work()
            except exception.Busy as e:
                LOG.warning('%s', e)
            except Exception:
                LOG.exception('Looking after leases failed; trying again')
            event.wait(interval)
            if event is not self._stop:
                event.clear()

    def _scan(self) -> None:
        for ident in [i for i, b in self._brokers.items() if not b.alive]:
            del self._brokers[ident]
        asked = time.monotonic()
        for row in db.ownership_claim(self._ctx, self.owner, self._conf.lease_ttl):
            LOG.info('upgrade %s: owned here, epoch %s', row['id'], row['epoch'])
            self._until[row['id']] = (row['epoch'], asked + self._conf.lease_ttl)
            old = self._brokers.pop(row['id'], None)
            if old is not None:
                old.lose()
            broker = self._brokers[row['id']] = self._take(row)
            broker.start()

    def _renew(self) -> None:
        self._measure_clock()
        if not self._brokers:
            return
        asked = time.monotonic()
        held = db.ownership_renew(self._ctx, self.owner, self._conf.lease_ttl)
        for ident, broker in list(self._brokers.items()):
            if held.get(ident) == broker.epoch:
                self._until[ident] = (broker.epoch, asked + self._conf.lease_ttl)
            elif ident in held or self._until.get(ident, (0, 0))[1] < asked:
                broker.wake()

    def _measure_clock(self) -> None:
        before = time.time()
        remote = db.now(self._ctx)
        self._offset = remote - (before + time.time()) / 2 * 1000
