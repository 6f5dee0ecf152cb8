"""What an engine says to the conductors, and says again until it is recorded."""

from collections.abc import Callable, Iterable
import json
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service import rpc
from upgrade_service.engine import enroll, facts, journal

LOG = log.getLogger(__name__)
Item = dict[str, Any]

VERSION = '1.0'
#: a report is closed before it comes near trust.MAX_PAYLOAD
MAX_REPORT = 48 * 1024
FIRST, LONGEST = 1.0, 60.0  #: seconds between repetitions
#: after an hour without an answer nobody waits for it
LATE_AFTER, LATE_PAUSE = 3600.0, 600.0


class Conductors:
    """Client side of the conductors' queue, for engines."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._client = rpc.get_client(
            conf,
            rpc.CONDUCTOR_EXCHANGE,
            rpc.CONDUCTOR_TOPIC,
            VERSION,
            retry=1,
            cap=conf.upgrade_levels.conductor,
        )

    def cast(self, method: str, **what: Any) -> bool:
        """Send; False if the bus does not take it."""
        try:
            self._client.cast({}, method, **what)
        except rpc.LOST as e:
            LOG.warning('%s could not be sent (%s)', method, e)
            return False
        return True


class Reporter:
    """The results of one engine identity that conductors have yet to record."""

    def __init__(
        self,
        identity: enroll.Identity,
        conductors: Conductors,
        book: journal.Journal,
        output: Callable[[str, int], str],
    ) -> None:
        self._identity, self._conductors = identity, conductors
        self._book, self._output = book, output
        self._lock = threading.Lock()
        self._waiting: list[Item] = []
        #: attempt -> (due, pause, first said), monotonic seconds
        self._due: dict[journal.Attempt, tuple[float, float, float]] = {}

    def say(self, *items: Item) -> None:
        """Put items into the next report."""
        with self._lock:
            self._waiting.extend(items)

    def flush(self) -> None:
        """Send what waits, in as few reports as it takes."""
        with self._lock:
            items, self._waiting = self._waiting, []
        now = time.monotonic()
        for item in items:
            if item['what'] in ('outcome', 'interrupted'):
                key = item['step'], item['attempt']
                self._due.setdefault(key, (now + FIRST, FIRST, now))
        for batch in batches(self._whole(i) for i in items):
            self._send(batch)

    def _send(self, items: list[Item]) -> None:
        payload = {
            'v': 1,
            'type': 'report',
            'agent': self._identity.id,
            'host': self._identity.host,
            'boot_id': facts.boot_id(),
            'at': facts.now(),
            'items': items,
        }
        self._conductors.cast('report', env=self._identity.signer.seal(payload))

    def _whole(self, item: Item) -> Item:
        """Add the output, which the journal does not repeat."""
        if item['what'] != 'outcome' or 'output' in item['outcome']:
            return item
        text = self._output(item['step'], item['attempt'])
        return {**item, 'outcome': {**item['outcome'], 'output': text}}

    def recorded(self, attempts: Iterable[journal.Attempt]) -> None:
        """Stop repeating results."""
        known = [a for a in attempts if a in self._book.attempts]
        new = [a for a in known if self._book.attempts[a].state in ('outcome', 'interrupted')]
        for attempt in known:
            self._due.pop(attempt, None)
        if new:
            # not synced: if it is lost, results are sent and acknowledged once more
            record = {'r': 'recorded', 't': facts.now(), 'steps': [list(a) for a in new]}
            try:
                self._book.append([record], sync=False)
            except OSError as e:
                LOG.warning('the journal takes no acknowledgement: %s', e)
                self._book.note(record)

    def repeat(self) -> None:
        """Say again what is due."""
        now = time.monotonic()
        again = []
        for key, (due, pause, first) in list(self._due.items()):
            if due > now:
                continue
            entry = self._book.attempts.get(key)
            if entry is None or entry.item is None:
                self._due.pop(key, None)
                continue
            pause = min(pause * 2, LONGEST) if now - first < LATE_AFTER else LATE_PAUSE
            self._due[key] = (now + pause, pause, first)
            again.append(entry.item)
        if again:
            LOG.info('%d results are not recorded yet; saying them again', len(again))
            self.say(*again)
            self.flush()


def batches(items: Iterable[Item]) -> Iterable[list[Item]]:
    """Split items into reports of a size that is accepted."""
    batch: list[Item] = []
    size = 0
    for item in items:
        # quoted once more inside the envelope, so count it as it will travel
        length = len(json.dumps(item)) + 16
        if batch and size + length > MAX_REPORT:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch
