"""Real shim processes, on jobs of a few milliseconds."""

import dataclasses
import fcntl
import http.server
import os
import pathlib
import re
import signal
import tempfile
import threading
import time

from upgrade_service.engine import runner
from upgrade_service.strategies import base as strategies
from upgrade_service.tests import base

Op = strategies.Op


def sh(script, **more):
    return Op(do='run', title='run', argv=('/bin/sh', '-c', script), **more)


class ShimCase(base.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.lock = self.dir / 'host.lock'
        self.runner = runner.Runner(self.dir / 'attempts', self.lock)
        self.steps = 0

    def start(self, *ops, timeout=60, **more):
        self.steps += 1
        self.task = strategies.Task(
            step=f's{self.steps}',
            attempt=1,
            kind='k',
            host='h',
            project=None,
            params={},
            timeout=timeout,
        )
        job = strategies.Job(ops=ops, timeout=timeout, roots=(str(self.dir),), **more)
        return self.runner.start(self.task, job, 'u')

    def run_job(self, *ops, **more):
        process = self.start(*ops, **more)
        key = self.task.step, 1
        standing = self.runner.wait(*key, process, lambda p: None, lambda: False)
        self.assertIs(runner.Standing.ENDED, standing)
        return self.runner.outcome(*key)

    def output(self):
        return self.runner.output(self.task.step, 1)

    def until(self, what):
        end = time.monotonic() + 20
        while not what():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)


class TestOperations(ShimCase):
    def test_commands_run_in_order_with_a_clean_environment(self):
        os.environ['CANARY'] = 'leaked'
        self.addCleanup(os.environ.pop, 'CANARY')
        said = self.run_job(sh('echo one; pwd'), sh('echo "[$CANARY] $EXTRA"', env={'EXTRA': 'x'}))
        self.assertEqual('succeeded', said['result'], said)
        output = re.sub(r'[0-9.]+ s\n', 'N s\n', self.output())
        expected = '--- run\none\n/\n--- run: N s\n--- run\n[] x\n--- run: N s\n'
        self.assertEqual(expected, output)

    def test_the_first_failure_ends_the_job(self):
        said = self.run_job(sh('exit 7'), sh('echo never'), diagnose=(sh('echo why'),))
        self.assertEqual(
            ('failed', 7, 'run: exit status 7'), (said['result'], said['rc'], said['error'])
        )
        self.assertNotIn('never', self.output())
        self.assertIn('why', self.output())

    def test_meanings_of_exit_statuses(self):
        counter = self.dir / 'n'
        again = f'echo x >> {counter}; [ $(wc -l < {counter}) -ge 3 ]'
        said = self.run_job(
            sh('exit 1', exits={0: 'done', 1: 'warning'}),
            sh('exit 255', exits={255: 'broken'}),
            sh(again, exits={0: 'done', 1: 'again'}),
            sh('exit 4', exits={4: 'stop'}),
            sh('exit 1'),
        )
        self.assertEqual('succeeded', said['result'], said)
        self.assertEqual(2, len(said['data']['warnings']))
        self.assertEqual(3, len(counter.read_text().split()))

    def test_again_is_bounded(self):
        said = self.run_job(sh('exit 1', exits={1: 'again'}, limit=3))
        self.assertEqual('failed', said['result'])
        self.assertIn('3 turns', said['error'])

    def test_a_group_runs_together(self):
        a, b = self.dir / 'a', self.dir / 'b'
        wait = (
            'touch {0}; i=0; while [ ! -e {1} ] && [ $i -lt 400 ]; do '
            'i=$((i+1)); sleep .02; done; [ -e {1} ]'
        )
        said = self.run_job(
            sh(wait.format(a, b), group='g'), sh(wait.format(b, a), group='g'), sh('true')
        )
        self.assertEqual('succeeded', said['result'], said)

    def test_files(self):
        d = self.dir / 'deep' / 'er'
        link = self.dir / 'link'
        said = self.run_job(
            Op(do='mkdir', title='d', path=str(d), mode=0o700),
            Op(do='write', title='w', path=str(d / 'f'), text='all done\n', mode=0o600),
            Op(do='expect', title='e', path=str(d / 'f'), text='done'),
            Op(do='symlink', title='s', path=str(link), target='deep'),
            Op(do='symlink', title='s', path=str(link), target='deep/er'),
            sh('echo kept', stdout=str(d / 'o'), mode=0o600),
            Op(do='rename', title='r', path=str(d / 'o'), target=str(d / 'p')),
            Op(do='remove', title='rm', path=str(d / 'nothing')),
        )
        self.assertEqual('succeeded', said['result'], said)
        self.assertEqual('deep/er', os.readlink(link))
        self.assertEqual('kept\n', (d / 'p').read_text())
        self.assertEqual(0o600, (d / 'p').stat().st_mode & 0o777)
        self.assertEqual(0o600, (d / 'f').stat().st_mode & 0o777)
        failed = self.run_job(Op(do='expect', title='e', path=str(d / 'f'), text='undone'))
        self.assertEqual('failed', failed['result'])

    def test_nothing_is_removed_outside_of_the_roots(self):
        with tempfile.TemporaryDirectory() as other:
            (self.dir / 'out').symlink_to(other)
            pathlib.Path(other, 'f').touch()
            for path in (other, f'{self.dir}/out/f', f'{self.dir}/../{os.path.basename(other)}'):
                said = self.run_job(Op(do='remove', title='rm', path=path))
                self.assertEqual('failed', said['result'], path)
            self.assertTrue(os.path.exists(f'{other}/f'))

    def test_a_relative_command_is_not_run(self):
        said = self.run_job(Op(do='run', title='r', argv=('sh', '-c', 'true')))
        self.assertIn('not an absolute path', said['error'])

    def test_output_is_clean_and_bounded(self):
        self.run_job(sh(r"printf '\033[31mred\033[0m\n'; yes 0123456789abcdef | head -n 40000"))
        kept = (self.runner.directory(self.task.step, 1) / 'output').read_bytes()
        self.assertIn(b'\nred\n', kept)
        self.assertIn(b'lines left out', kept)
        self.assertLessEqual(len(kept), (64 + 192 + 1) * 1024)
        self.assertLessEqual(len(self.output().encode()), runner.MAX_OUTPUT)

    def test_waits_for_a_real_answer(self):
        answers = iter([503, 503, 300])

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(next(answers))
                self.end_headers()

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f'http://127.0.0.1:{server.server_port}/'
        wait = Op(do='wait_http', title='w', url=url, codes=(200, 300), timeout=20)
        self.assertEqual('succeeded', self.run_job(wait)['result'])
        self.assertEqual([], list(answers))


class TestProcesses(ShimCase):
    def test_nothing_runs_while_another_holds_the_host(self):
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        mark = self.dir / 'mark'
        said = self.run_job(sh(f'touch {mark}'))
        self.assertEqual(('failed', 75), (said['result'], said['rc']))
        self.assertFalse(mark.exists())

    def test_an_attempt_runs_once(self):
        mark = self.dir / 'mark'
        self.run_job(sh(f'echo x >> {mark}'))
        second = self.runner.spawn(self.task)
        self.assertEqual(3, second.wait(20))
        self.assertEqual('x\n', mark.read_text())

    def test_a_forbidden_attempt_never_begins(self):
        mark = self.dir / 'mark'
        self.run_job(sh('true'))
        place = self.runner.directory('other', 1)
        self.assertTrue(self.runner.forbid('other', 1))
        (place / 'job.json').write_bytes(
            (self.runner.directory(self.task.step, 1) / 'job.json').read_bytes()
        )
        self.assertEqual(
            3, self.runner.spawn(dataclasses.replace(self.task, step='other')).wait(20)
        )
        self.assertFalse(mark.exists())

    def test_the_deadline_ends_what_may_be_ended(self):
        said = self.run_job(sh('sleep 60'), timeout=1, interruptible=True)
        self.assertEqual(('failed', 124), (said['result'], said['rc']))
        self.assertIn('timed out', said['error'])

    def test_the_deadline_only_flags_what_must_not_be_ended(self):
        seen = []
        process = self.start(sh('sleep 2'), timeout=1)
        self.runner.wait(self.task.step, 1, process, seen.append, lambda: False)
        self.assertEqual('succeeded', self.runner.outcome(self.task.step, 1)['result'])
        self.assertTrue(any(p.get('overdue') for p in seen), seen)

    def test_nothing_is_left_behind(self):
        pid = self.dir / 'pid'
        said = self.run_job(sh(f'setsid sleep 300 & echo $! > {pid}'))
        self.assertEqual('succeeded', said['result'])
        self.assertFalse(os.path.exists(f'/proc/{pid.read_text().strip()}'))

    def test_a_killed_shim_is_an_interruption_and_the_host_stays_locked(self):
        gone, pid = self.dir / 'gone', self.dir / 'pid'
        process = self.start(sh(f'echo $$ > {pid}; while [ ! -e {gone} ]; do sleep .02; done'))
        self.until(lambda: pid.exists() and pid.read_text().strip())
        self.assertIs(runner.Standing.RUNNING, self.runner.standing(self.task.step, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertIs(runner.Standing.INTERRUPTED, self.runner.standing(self.task.step, 1))
        fd = os.open(self.lock, os.O_RDWR)
        self.addCleanup(os.close, fd)
        self.assertRaises(OSError, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone.touch()
        self.until(lambda: not os.path.exists(f'/proc/{pid.read_text().strip()}'))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
