"""Carries out the job of one attempt, whatever becomes of the engine that started it.

Run as ``python -I -S shim.py ATTEMPT_DIR``; standard library only, so that it starts in a
few milliseconds and an upgrade of our own packages cannot break it. The directory holds
``job.json`` and the pre-allocated ``outcome`` slot; the shim makes ``started`` (once: a
second shim for the attempt ends at once) and keeps a lock on it while it lives, so that
anyone can tell. Before anything else it takes the lock of the host: while another step
runs there, nothing is done.
"""

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any
import urllib.error
import urllib.request
import zlib

SLOT = 4096
HEAD, TAIL, LINE = 64 * 1024, 192 * 1024, 8 * 1024
HEARTBEAT = 10.0
MARK = b'\x1e'  #: begins a line that is an event (strategies/events.py)
GRACE = 30.0  #: seconds between TERM and KILL
LOCK_WAIT = 2.0
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
_ESCAPES = re.compile(
    rb'\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x08\x0b-\x1f\x7f]'
)
Op = dict[str, Any]


class Failed(Exception):
    """An operation did not end well; the text says why."""

    def __init__(self, text: str, rc: int = 1) -> None:
        super().__init__(text)
        self.rc = rc


class Output:
    """What was printed: the beginning, and the end, of lines without control characters."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._head = bytearray()
        self._tail: collections.deque[bytes] = collections.deque()
        self._size = self._cut = 0
        self._changed = False
        self._lock = threading.Lock()
        self.last = b''

    def add(self, line: bytes) -> None:
        """Take a line."""
        line = _ESCAPES.sub(b'', line.rstrip(b'\r\n').rpartition(b'\r')[2])[:LINE] + b'\n'
        with self._lock:
            self._changed = True
            self.last = line if line.strip() else self.last
            if not self._tail and len(self._head) + len(line) <= HEAD:
                self._head += line
                return
            self._tail.append(line)
            self._size += len(line)
            while self._size > TAIL:
                self._cut += 1
                self._size -= len(self._tail.popleft())

    def save(self) -> None:
        """Write what there is; a full disk costs the output, never the step."""
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            gap = b'[... %d lines left out ...]\n' % self._cut if self._cut else b''
            text = bytes(self._head) + gap + b''.join(self._tail)
        with contextlib.suppress(OSError):
            replace(self._path, text)


def replace(path: str, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = f'{path}.tmp'
    with open(temporary, 'wb', opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(data)
    os.replace(temporary, path)


def write_slot(path: str, outcome: dict[str, Any]) -> None:
    """Fill the outcome slot: its blocks are there already, a full disk does not matter."""
    text = json.dumps(outcome).encode()
    data = b'%08x %s\n' % (zlib.crc32(text), text)
    if len(data) > SLOT:
        short = {**outcome, 'error': outcome['error'][:500], 'data': {}}
        text = json.dumps(short).encode()
        data = b'%08x %s\n' % (zlib.crc32(text), text)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data.ljust(SLOT, b'\0'), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


class Shim:
    """One attempt."""

    def __init__(self, directory: str) -> None:
        self._dir = directory
        with open(self._at('job.json'), 'rb') as f:
            self.job = json.load(f)
        self._output = Output(self._at('output'))
        self._progress: dict[str, Any] = {'done': 0, 'total': len(self.job['ops']), 'text': ''}
        self._warnings: list[str] = []
        self._gathered: dict[str, list[str]] = {}
        #: host -> what an event said became of it
        self._hosts: dict[str, dict[str, Any]] = {}
        #: other attempts, each of another host, that this job does as well
        self._members: list[dict[str, str]] = self.job.get('members') or []
        self._running: set[int] = set()
        self._deadline = time.monotonic() + self.job['timeout']
        self._over = threading.Event()
        self._why_over = f'timed out after {self.job["timeout"]} s'
        self._ended = threading.Event()

    def _at(self, name: str) -> str:
        return os.path.join(self._dir, name)

    # -- the attempt ---------------------------------------------------------------------------

    def main(self) -> int:
        """Do the job once; return the exit status of the process."""
        if not self._begin():
            return 3
        begun = _now()
        if not self._begin_members():
            why = 'the step of another host that belongs to this run was given up'
            self._end('failed', 75, f'{why}; nothing was done', begun)
            return 75
        held = self._take_host()
        if held is None:
            why = 'another step holds the lock of this host; nothing was done'
            self._end('failed', 75, why, begun)
            return 75
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            self._operations()
            if self.job.get('reboots'):
                self._await_restart()
        except Failed as e:
            self._diagnose()
            result = ('failed', e.rc, str(e))
        except Exception as e:
            result = ('failed', 1, f'{type(e).__name__}: {e}')
        else:
            result = ('succeeded', 0, '')
        self._always()
        self._ended.set()
        self._end_descendants()
        self._end(*result, begun)
        os.close(held)
        return 0

    def _begin(self) -> bool:
        """Make `started`, locked from the first moment it is there; False if it was there."""
        mine = self._at(f'started.{os.getpid()}')
        self._alive = os.open(mine, os.O_WRONLY | os.O_CREAT, 0o600)
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        try:
            os.link(mine, self._at('started'))
        except FileExistsError:
            return False
        finally:
            os.unlink(mine)
        return True

    def _begin_members(self) -> bool:
        """Begin the attempts of the other hosts: one file, one lock, a name in each place.

        One that cannot begin any more forbids all of it; nothing was done yet.
        """
        begun: list[dict[str, str]] = []
        for member in self._members:
            try:
                os.link(self._at('started'), os.path.join(member['place'], 'started'))
            except FileExistsError:
                self._members = begun
                return False
            begun.append(member)
        return True

    def _take_host(self) -> int | None:
        """Take the lock of the host; what we start inherits it, and keeps it if we are killed."""
        fd = os.open(self.job['lock'], os.O_RDWR | os.O_CREAT, 0o600)
        give_up = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = fd
                return fd
            except OSError:
                if time.monotonic() > give_up:
                    return None
                time.sleep(0.05)

    def _end(self, result: str, rc: int, error: str, begun: int) -> None:
        self._output.save()
        warnings = {'warnings': self._warnings[:20]} if self._warnings else {}
        outcome = {
            'result': result,
            'rc': rc,
            'error': error[:1500],
            'data': {**self._gathered, **warnings},
            'started_at': begun,
            'finished_at': _now(),
        }
        for member in self._members:
            said = self._hosts.get(member['host'], {})
            with contextlib.suppress(OSError):
                output = said.get('output') or self._output.last.decode(errors='replace')
                replace(os.path.join(member['place'], 'output'), output.encode())
            self._fill(member['place'], outcome, said)
        self._fill(self._dir, outcome, self._hosts.get(self.job.get('host') or '', {}))

    def _fill(self, place: str, outcome: dict[str, Any], said: dict[str, Any]) -> None:
        """Fill the slot of an attempt: what was said of its host goes over the job's own."""
        one = dict(outcome)
        if said:
            result = said.get('result')
            one['result'] = result if result in ('succeeded', 'failed') else 'unknown'
            one['error'] = str(said.get('error') or '')[:1500]
            one['rc'] = int(result != 'succeeded')
        ours = self.job.get('data') or {} if one['result'] == 'succeeded' else {}
        one['data'] = {**one['data'], **ours, **(said.get('data') or {})}
        write_slot(os.path.join(place, 'outcome'), one)

    def _beat(self) -> None:
        """Save output and progress; watch the deadline."""
        due = 0.0
        while not self._ended.wait(0.2):
            if self.job['interruptible'] and not self._over.is_set() and self._aborted():
                self._why_over = 'aborted because the upgrade is'
                self._deadline = 0.0
            if time.monotonic() >= self._deadline and not self._over.is_set():
                self._over.set()
                self._progress['overdue'] = True
                due = 0.0
                if self.job['interruptible']:
                    threading.Thread(target=self._kill_running, daemon=True).start()
            if time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT
                self._output.save()
                self._note()

    def _aborted(self) -> bool:
        """Whether the engine was told that nobody waits for this any more."""
        return os.path.exists(self._at('abort'))

    def _note(self, **changes: Any) -> None:
        self._progress.update(changes, at=_now())
        text = json.dumps(self._progress).encode()
        for place in (self._dir, *(m['place'] for m in self._members)):
            with contextlib.suppress(OSError):
                replace(os.path.join(place, 'progress'), text)

    def _event(self, line: bytes) -> None:
        """Take what a program of ours tells of its progress, or of a host."""
        try:
            said = json.loads(line)
        except ValueError:
            return
        if isinstance(said.get('progress'), dict):
            told = said['progress']
            self._note(
                **{k: told[k] for k in ('text', 'done', 'total') if told.get(k) is not None}
            )
        elif isinstance(said.get('host'), str):
            before = self._hosts.get(said['host'], {})
            # of several runs in one job the one that went wrong counts
            if before.get('result', 'succeeded') == 'succeeded':
                self._hosts[said['host']] = said

    # -- operations ----------------------------------------------------------------------------

    def _operations(self) -> None:
        ops: list[Op] = self.job['ops']
        at = 0
        while at < len(ops):
            group = [ops[at]]
            while (
                ops[at].get('group')
                and at + len(group) < len(ops)
                and ops[at + len(group)].get('group') == ops[at]['group']
            ):
                group.append(ops[at + len(group)])
            self._note(done=at, text=ops[at]['title'])
            for op in group:
                self._say(op['title'])
            began = time.monotonic()
            said = self._together(group)
            self._say(f'{op["title"]}: {time.monotonic() - began:.1f} s')
            if 'stop' in said:
                return
            at += len(group)
            if self._over.is_set() and self.job['interruptible']:
                raise Failed(self._why_over, 124)

    def _await_restart(self) -> None:
        """Be ended by the restart that was asked for: what came of it, the next boot tells."""
        self._note(done=len(self.job['ops']), text='waiting for the host to restart')
        while not self._over.wait(1.0):
            pass
        raise Failed(f'the host did not restart in {self.job["timeout"]} s', 124)

    def _together(self, group: list[Op]) -> list[str]:
        if len(group) == 1:
            return [self._operation(group[0])]
        said: list[str | BaseException] = [''] * len(group)

        def work(i: int) -> None:
            try:
                said[i] = self._operation(group[i])
            except BaseException as e:
                said[i] = e

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(group))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for one in said:
            if isinstance(one, BaseException):
                raise one
        return [one for one in said if isinstance(one, str)]

    def _operation(self, op: Op) -> str:
        if op.get('gather'):
            return self._gather(op)
        if op['do'] == 'run':
            return self._repeat(op)
        try:
            _DOERS[op['do']](self, op)
        except OSError as e:
            raise Failed(f'{op["title"]}: {e}') from e
        return 'done'

    def _gather(self, op: Op) -> str:
        kept = self._at('gathered')
        said = self._repeat({**op, 'stdout': kept, 'mode': 0o600})
        with open(kept, encoding='utf-8', errors='replace') as f:
            lines = [line.strip()[:200] for line in f if line.strip()]
        for line in lines:
            self._output.add(line.encode())
        self._gathered.setdefault(op['gather'], []).extend(lines[:20])
        return said

    def _repeat(self, op: Op) -> str:
        exits = {int(k): v for k, v in op['exits'].items()}
        until = time.monotonic() + op['timeout']
        for _ in range(op['limit']):
            status = self._run(op, until)
            meaning = exits.get(status, 'failed')
            if meaning == 'again':
                if time.monotonic() > until or self._over.is_set():
                    break
                time.sleep(op['pause'])
                continue
            if meaning in ('warning', 'broken'):
                broke = 'the check itself broke' if meaning == 'broken' else 'has warnings'
                self._warnings.append(f'{op["title"]}: {broke} (status {status})')
                return 'done'
            if meaning == 'failed':
                raise Failed(f'{op["title"]}: {self._why(op, status)}', status)
            return str(meaning)
        raise Failed(f'{op["title"]}: not finished in {op["timeout"]} s or {op["limit"]} turns')

    def _why(self, op: Op, status: int) -> str:
        """Say why a command failed: by its exit status, and by the last thing it said."""
        words = (op.get('words') or {}).get(str(status))
        said = self._output.last.decode(errors='replace').strip()[:300]
        more = f': {said}' if said and not said.startswith('---') else ''
        return f'{words or _ending(status)}{more}'

    def _run(self, op: Op, until: float) -> int:
        argv = op['argv']
        if not os.path.isabs(argv[0]):
            raise Failed(f'{op["title"]}: {argv[0]} is not an absolute path')
        env = {'PATH': PATH, 'LANG': 'C.UTF-8', 'LC_ALL': 'C.UTF-8', 'HOME': '/', **op['env']}
        try:
            with self._sink(op) as sink:
                p = subprocess.Popen(
                    argv,
                    env=env,
                    cwd=op['cwd'],
                    stdin=subprocess.DEVNULL,
                    stdout=sink or subprocess.PIPE,
                    stderr=subprocess.PIPE if sink else subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o022,
                    pass_fds=(self._held,),
                    **_identity(op.get('user') or self.job.get('user')),
                )
        except OSError as e:
            raise Failed(f'{op["title"]}: {e}', 127) from e
        return self._watch(p, op, until)

    def _sink(self, op: Op) -> Any:
        if not op.get('stdout'):
            return contextlib.nullcontext()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        return os.fdopen(os.open(op['stdout'], flags, op['mode']), 'wb')

    def _watch(self, p: 'subprocess.Popen[bytes]', op: Op, until: float) -> int:
        self._running.add(p.pid)
        pipe = p.stderr if op.get('stdout') else p.stdout
        events = bool(op.get('events'))
        reader = threading.Thread(target=self._read, args=(pipe, events), daemon=True)
        reader.start()
        late = False
        try:
            while True:
                try:
                    p.wait(timeout=max(0.05, min(until - time.monotonic(), 1.0)))
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > until and not late and self.job['interruptible']:
                        late = True
                        threading.Thread(target=_end_group, args=(p.pid,), daemon=True).start()
        finally:
            self._running.discard(p.pid)
        # a child that was left behind may hold the pipe open: do not wait for it for ever
        reader.join(2.0)
        if late:
            raise Failed(f'{op["title"]}: timed out after {op["timeout"]} s', 124)
        if self._over.is_set() and self.job['interruptible']:
            raise Failed(f'{op["title"]}: {self._why_over}', 124)
        return p.returncode

    def _read(self, pipe: Any, events: bool) -> None:
        while line := pipe.readline(LINE):
            if events and line.startswith(MARK):
                self._event(line[1:])
            else:
                self._output.add(line)

    def _say(self, text: str) -> None:
        self._output.add(f'--- {text}'.encode())

    def _diagnose(self) -> None:
        for op in self.job.get('diagnose') or ():
            self._say(op['title'])
            with contextlib.suppress(Failed):
                self._run(op, time.monotonic() + 20)

    def _always(self) -> None:
        """Do what is owed however the attempt ended; a failure of it is a warning."""
        for op in self.job.get('always') or ():
            try:
                self._operation(op)
            except Exception as e:
                self._warnings.append(f'{op["title"]}: {e}'[:300])

    # -- the end of processes ------------------------------------------------------------------

    def _kill_running(self) -> None:
        for pid in list(self._running):
            _end_group(pid)

    def _end_descendants(self) -> None:
        """End what operations left behind: orphans are our children (subreaper)."""
        for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            until = time.monotonic() + patience
            while (left := _children()) and time.monotonic() < until:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                _reap()
                time.sleep(0.02)

    # -- simple operations ---------------------------------------------------------------------

    def _symlink(self, op: Op) -> None:
        temporary = f'{op["path"]}.{os.getpid()}'
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(op['target'], temporary)
        os.replace(temporary, op['path'])
        _sync(os.path.dirname(op['path']))

    def _mkdir(self, op: Op) -> None:
        os.makedirs(op['path'], mode=op['mode'], exist_ok=True)

    def _remove(self, op: Op) -> None:
        path = os.path.normpath(op['path'])
        parent = os.path.realpath(os.path.dirname(path))
        roots = [os.path.realpath(r) for r in self.job.get('roots') or ()]
        if not any(parent == r or parent.startswith(f'{r}/') for r in roots):
            raise Failed(f'{op["title"]}: {path} is outside of the trees of this job')
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
        elif os.path.isdir(path):
            shutil.rmtree(path)

    def _write(self, op: Op) -> None:
        temporary = f'{op["path"]}.tmp'
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, op['mode'])
        with os.fdopen(fd, 'w') as f:
            f.write(op['text'])
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, op['path'])
        _sync(os.path.dirname(op['path']))

    def _rename(self, op: Op) -> None:
        fd = os.open(op['path'], os.O_RDONLY)  # a file or a directory
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(op['path'], op['target'])
        _sync(os.path.dirname(op['target']))

    def _expect(self, op: Op) -> None:
        with open(op['path'], 'rb') as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 4096))
            if op['text'].encode() not in f.read():
                raise Failed(f'{op["title"]}: "{op["text"]}" is not at the end of {op["path"]}')

    def _wait_http(self, op: Op) -> None:
        until, last = time.monotonic() + op['timeout'], 'no answer'
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        while time.monotonic() < until and not self._over.is_set():
            try:
                with opener.open(op['url'], timeout=5) as answer:
                    code = answer.status
            except urllib.error.HTTPError as e:
                code = e.code
            except (OSError, ValueError) as e:
                code, last = 0, str(e)
            if code in op['codes']:
                return
            last = f'status {code}' if code else last
            time.sleep(0.1)
        raise Failed(f'{op["title"]}: {op["url"]} not ready in {op["timeout"]} s ({last})')

    def _wait_unit(self, op: Op) -> None:
        until, state = time.monotonic() + op['timeout'], 'unknown'
        argv = [op['path'], 'show', '-p', 'ActiveState', '--value', '--', op['text']]
        while time.monotonic() < until and not self._over.is_set():
            try:
                said = subprocess.run(
                    argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
                )
            except subprocess.SubprocessError as e:
                raise Failed(f'{op["title"]}: {e}') from e
            state = said.stdout.strip()
            if state == 'active':
                return
            if state == 'failed':
                break
            time.sleep(0.1)
        raise Failed(f'{op["title"]}: it is {state}')


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_DOERS = {
    'symlink': Shim._symlink,
    'mkdir': Shim._mkdir,
    'remove': Shim._remove,
    'write': Shim._write,
    'rename': Shim._rename,
    'expect': Shim._expect,
    'wait_http': Shim._wait_http,
    'wait_unit': Shim._wait_unit,
}


def _now() -> int:
    return time.time_ns() // 1_000_000


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _identity(user: str | None) -> dict[str, Any]:
    if not user or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Failed(f'there is no user {user}') from None
    groups = os.getgrouplist(user, entry.pw_gid)
    return {'user': entry.pw_uid, 'group': entry.pw_gid, 'extra_groups': groups}


def _ending(status: int) -> str:
    if status < 0:
        return f'killed by signal {-status}'
    return f'exit status {status}'


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            time.sleep(0.05)
            os.killpg(pid, 0)
        os.killpg(pid, signal.SIGKILL)


def _children() -> list[int]:
    try:
        with open(f'/proc/self/task/{os.getpid()}/children') as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> int:
    """Run the attempt whose directory is the only argument."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    os.umask(0o022)
    return Shim(sys.argv[1]).main()


if __name__ == '__main__':
    sys.exit(main())
