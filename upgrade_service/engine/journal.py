"""What an engine has promised and what came of it, in one append-only file.

A line is a record: the CRC-32 (8 hex digits) of its JSON, a blank, the JSON. An engine
writes ``accepted`` before anything starts and ``revoked`` before it says so, and both
reach the disk first (fdatasync); outcomes of in-process actions and ``recorded`` need not:
if they are lost, an idempotent action is done again, or a result is sent again.

An end of the file that is no whole line was being written when the power failed: it is
cut off. A damaged line before the end is another matter: what it said is lost. So is an end
that had reached the disk and is there no more: ``journal.size``, written after each sync,
says how long the file was at least. Attempts that are open then count as unknown, and
orders older than the discovery of the damage are not believed any more (``floor``): they may
be ones that the lost line had answered.
"""

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import threading
from typing import Any
import zlib

from oslo_log import log

LOG = log.getLogger(__name__)

Attempt = tuple[str, int]  #: (step id, number)
Record = dict[str, Any]

#: states of an attempt that will not change by themselves any more
ENDED = frozenset({'outcome', 'interrupted', 'revoked', 'recorded'})
#: how long an attempt is remembered after its result was recorded (ms)
KEEP = 24 * 3600 * 1000


@dataclasses.dataclass
class Entry:
    """One attempt, as the journal knows it."""

    step: str
    attempt: int
    upgrade: str
    at: int  #: ms; when it was last written about
    state: str = 'accepted'  #: 'accepted' or one of ENDED
    in_process: bool = False
    boot: str = ''
    item: Record | None = None  #: what is to be reported of it

    @property
    def key(self) -> Attempt:
        """(step, attempt)."""
        return self.step, self.attempt

    @property
    def open(self) -> bool:
        """Accepted and not ended."""
        return self.state not in ENDED


def frame(record: Mapping[str, Any]) -> bytes:
    """Make a record's line."""
    text = json.dumps(record, separators=(',', ':')).encode()
    return b'%08x %s\n' % (zlib.crc32(text), text)


def unframe(line: bytes) -> Record | None:
    """Read a line without its newline; None if it is not as it was written."""
    crc, _, text = line.partition(b' ')
    try:
        if crc != b'%08x' % zlib.crc32(text):
            return None
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Have the names in a directory reach the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Journal:
    """The journal of one engine identity; safe to use from several threads."""

    def __init__(self, path: pathlib.Path, now: int, expected: bool = False) -> None:
        """Read the file, or make one.

        :param now: ms since the epoch.
        :param expected: there must be a file already; if not, it was lost.
        """
        self.path = path
        self.attempts: dict[Attempt, Entry] = {}
        #: upgrade -> (highest epoch seen, `nbf` of the order that showed it)
        self.epochs: dict[str, tuple[int, int]] = {}
        #: step -> highest attempt
        self.highest: dict[str, int] = {}
        self.damaged = False
        #: orders signed before this time (ms) are not believed
        self.floor = 0
        self._lock = threading.Lock()
        self._mark = os.open(path.with_suffix('.size'), os.O_RDWR | os.O_CREAT, 0o600)
        lost = expected and not path.exists()
        self._open(now)
        if lost or self.damaged:
            LOG.error('journal %s is %s', path, 'lost' if lost else 'damaged')
            self.damaged = True
            self._repair(now)

    def _repair(self, now: int) -> None:
        """Keep a damaged file aside, go on with what could be read of it."""
        if os.fstat(self._fd).st_size:
            shutil.copyfile(self.path, self.path.with_suffix(f'.damaged-{now}'))
        self.floor = max(self.floor, now)
        self._rewrite()

    # -- reading -------------------------------------------------------------------------------

    def _open(self, now: int) -> None:
        new = not self.path.exists()
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if new:
            sync_directory(self.path.parent)
            return
        raw = self.path.read_bytes()
        end = raw.rfind(b'\n') + 1
        if end < len(raw):
            LOG.warning('journal %s: %d bytes of a torn record cut off', self.path, len(raw) - end)
            os.ftruncate(self._fd, end)
        self._measure(end)
        offset = 0
        for line in raw[:end].splitlines(keepends=True):
            record = unframe(line[:-1])
            if record is None:
                LOG.error('journal %s: damaged at byte %d', self.path, offset)
                self.damaged = True
            else:
                self._apply(record)
            offset += len(line)

    def _measure(self, size: int) -> None:
        """Find out whether the file is shorter than it was."""
        text = os.pread(self._mark, 256, 0).rstrip(b'\0 \n')
        mark = unframe(text) if text else {'size': 0}
        if mark is None or size < int(mark.get('size') or 0):
            LOG.error('journal %s: %d bytes; %s', self.path, size, mark or 'its size is damaged')
            self.damaged = True

    def _note_size(self, size: int) -> None:
        # not synced: a mark that is too low only notices less
        line = frame({'size': size})
        os.pwrite(self._mark, line.ljust(64), 0)

    def _apply(self, record: Record) -> None:
        read = _READERS.get(str(record.get('r')))
        if read is not None:
            read(self, record)

    def _accepted(self, record: Record) -> None:
        self._epoch(record)
        for step, attempt, in_process in record['steps']:
            self._set(
                Entry(
                    step=step,
                    attempt=attempt,
                    upgrade=record['upgrade'],
                    at=record['t'],
                    in_process=in_process,
                    boot=record['boot'],
                )
            )

    def _revoked(self, record: Record) -> None:
        self._epoch(record)
        for step, attempt in record['steps']:
            entry = self.attempts.get((step, attempt))
            if entry is None:
                entry = Entry(step=step, attempt=attempt, upgrade=record['upgrade'], at=0)
            entry.state, entry.at, entry.item = 'revoked', record['t'], None
            self._set(entry)

    def _ended(self, record: Record) -> None:
        for item in record['items']:
            entry = self.attempts.get((item['step'], item['attempt']))
            if entry is not None and entry.state != 'recorded':
                entry.state, entry.at = item['what'], record['t']
                entry.item = item

    def _recorded(self, record: Record) -> None:
        for step, attempt in record['steps']:
            entry = self.attempts.get((step, attempt))
            if entry is not None and entry.state in ('outcome', 'interrupted'):
                # the item stays: a database that lost commits asks again
                entry.state, entry.at = 'recorded', record['t']
                entry.item = _short(entry.item)

    def _damage(self, record: Record) -> None:
        self.floor = max(self.floor, record['t'])

    def _epoch(self, record: Record) -> None:
        seen = self.epochs.get(record['upgrade'], (0, 0))
        if record.get('epoch', 0) > seen[0]:
            self.epochs[record['upgrade']] = (record['epoch'], record.get('nbf', 0))

    def _set(self, entry: Entry) -> None:
        self.attempts[entry.key] = entry
        self.highest[entry.step] = max(entry.attempt, self.highest.get(entry.step, 0))

    # -- writing -------------------------------------------------------------------------------

    def append(self, records: Iterable[Record], sync: bool) -> None:
        """Write records, all or (but for a power failure) none, then count them.

        :raises OSError: the disk does not take them; nothing counts then.
        """
        records = list(records)
        data = b''.join(frame(r) for r in records)
        with self._lock:
            before = os.fstat(self._fd).st_size
            try:
                self._write(data)
                if sync:
                    os.fdatasync(self._fd)
                    with contextlib.suppress(OSError):
                        self._note_size(before + len(data))
            except OSError:
                os.ftruncate(self._fd, before)
                raise
            for record in records:
                self._apply(record)

    def note(self, record: Record) -> None:
        """Count a record that the disk does not take: what happened, happened."""
        with self._lock:
            self._apply(record)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def open_attempts(self) -> list[Entry]:
        """Return the attempts that were accepted and have not ended, in order of acceptance."""
        return [e for e in self.attempts.values() if e.open]

    def unrecorded(self) -> list[Entry]:
        """Return the attempts whose result nobody has acknowledged."""
        return [e for e in self.attempts.values() if e.state in ('outcome', 'interrupted')]

    # -- keeping it small ----------------------------------------------------------------------

    def compact(self, now: int) -> list[Attempt]:
        """Forget what was settled a day ago; return those attempts."""
        with self._lock:
            old = [
                e.key
                for e in self.attempts.values()
                if e.state in ('recorded', 'revoked') and e.at + KEEP < now
            ]
            if not old:
                return []
            for key in old:
                del self.attempts[key]
            self._rewrite()
        return old

    def _rewrite(self) -> None:
        live = {e.upgrade for e in self.attempts.values()}
        self.epochs = {u: e for u, e in self.epochs.items() if u in live}
        self.highest = {}
        for entry in self.attempts.values():
            self._set(entry)
        temporary = self.path.with_suffix('.new')
        with open(temporary, 'wb', opener=_private) as f:
            f.writelines(frame(r) for r in self._records())
            f.flush()
            os.fsync(f.fileno())
        self._note_size(0)
        os.replace(temporary, self.path)
        sync_directory(self.path.parent)
        os.close(self._fd)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._note_size(os.fstat(self._fd).st_size)

    def _records(self) -> Iterable[Record]:
        """Say everything that is known in as few records as it takes."""
        if self.floor:
            yield {'r': 'damage', 't': self.floor}
        for upgrade, (epoch, nbf) in self.epochs.items():
            base = {'upgrade': upgrade, 'epoch': epoch, 'nbf': nbf, 't': 0}
            yield {'r': 'revoked', 'steps': [], **base}
        for e in self.attempts.values():
            yield from _of_entry(e)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            os.close(self._fd)
            os.close(self._mark)


def _short(item: Record | None) -> Record | None:
    """Leave out what was printed."""
    if item is None or 'output' not in item.get('outcome', {}):
        return item
    return {**item, 'outcome': {k: v for k, v in item['outcome'].items() if k != 'output'}}


def _of_entry(e: Entry) -> Iterable[Record]:
    ids = {'upgrade': e.upgrade, 't': e.at}
    if e.state == 'revoked':
        yield {'r': 'revoked', 'steps': [[e.step, e.attempt]], **ids}
        return
    yield {'r': 'accepted', 'boot': e.boot, 'steps': [[e.step, e.attempt, e.in_process]], **ids}
    if e.item is not None:
        yield {'r': 'ended', 't': e.at, 'items': [e.item]}
        if e.state == 'recorded':
            yield {'r': 'recorded', 't': e.at, 'steps': [[e.step, e.attempt]]}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


_READERS = {
    'accepted': Journal._accepted,
    'revoked': Journal._revoked,
    'ended': Journal._ended,
    'recorded': Journal._recorded,
    'damage': Journal._damage,
}
