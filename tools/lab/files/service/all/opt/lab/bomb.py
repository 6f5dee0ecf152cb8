"""A step that multiplies: does it end, with all it started, in a unit of systemd's?

First at its deadline; then because its shim is killed, which leaves nobody but systemd to end
the rest. Prints what was seen; exit status 1 if anything was left.
"""

import os
import pathlib
import signal
import sys
import tempfile
import time

from upgrade_service.engine import runner
from upgrade_service.strategies import base

#: each makes two more in sessions of their own, all deaf to TERM, six deep
BOMB = (
    'trap "" TERM; echo x >> "$0.count"; [ "$1" -gt 0 ] || exec sleep 600; n=$(($1 - 1)); '
    'for i in 1 2; do setsid /bin/sh "$0" $n & done; wait; sleep 600'
)


def left(mark: str) -> int:
    """Count the processes whose command line has a mark."""
    found = 0
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            found += mark in path.read_text() and path.parent.name != str(os.getpid())
        except OSError:
            continue
    return found


def start(folder: pathlib.Path, step: str, timeout: int) -> runner.Runner:
    """Begin the step in a unit of its own."""
    attempts = runner.Runner(folder / 'attempts', folder / f'{step}.lock')
    task = base.Task(
        step=step,
        attempt=1,
        kind='bomb',
        host='h',
        project=None,
        params={},
        timeout=timeout,
    )
    bomb = folder / f'{step}.sh'
    bomb.write_text(BOMB)
    op = base.Op(do='run', title='bomb', argv=('/bin/sh', str(bomb), '6'))
    attempts.start(task, base.Job(ops=(op,), timeout=timeout, interruptible=True), 'u')
    return attempts


def wait(what: str, look: object, seconds: float = 120) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not look():  # type: ignore[operator]
        if time.monotonic() > end:
            sys.exit(f'it never came: {what}')
        time.sleep(0.2)


def main() -> int:
    """Try both ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        attempts = start(folder, 'deadline', 5)
        wait('the end', lambda: attempts.standing('deadline', 1) is runner.Standing.ENDED)
        made = len((folder / 'deadline.sh.count').read_text().split())
        wait('the end of the rest', lambda: not left(f'{folder}/deadline.sh'), 10)
        print('at the deadline:', made, 'processes;', attempts.outcome('deadline', 1))
        attempts = start(folder, 'killed', 600)
        wait('all of them', lambda: left(f'{folder}/killed.sh') > 60)
        made = left(f'{folder}/killed.sh')
        for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
            if path.read_text().endswith(f'shim.py\0{folder}/attempts/killed.1\0'):
                os.kill(int(path.parent.name), signal.SIGKILL)
        wait('the end of the rest', lambda: not left(f'{folder}/killed.sh'))
        print('shim killed:', made, 'processes;', attempts.standing('killed', 1).value)
        return int(attempts.standing('killed', 1) is not runner.Standing.INTERRUPTED)


if __name__ == '__main__':
    sys.exit(main())
