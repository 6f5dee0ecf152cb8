"""An engine whose host, disk, clock or conductor is not what it should be (rows F6 to F25)."""

import os
import pathlib
import signal
import subprocess
from typing import Any

import hypothesis
from hypothesis import strategies as st

from upgrade_service import trust
from upgrade_service.conductor import orders
from upgrade_service.engine import accept, facts, journal, messages, restart
from upgrade_service.strategies import base as strategies
from upgrade_service.tests.unit.engine import test_journal, test_manager

NOW = test_journal.NOW


class Shell(test_manager.Shell):
    """As the other one; `upgrade_service` restarts the host, as far as a test can have that."""

    def check(self, task, site):
        return os.path.exists(f'{site.state_dir}/goal')

    def run(self, task, site):
        script = site.settings['scripts'][task.kind]
        op = strategies.Op(do='run', title=task.kind, argv=('/bin/sh', '-c', script))
        reboots = task.kind == 'upgrade_service'
        return strategies.Job(ops=(op,), timeout=task.timeout, reboots=reboots)


class FaultCase(test_manager.EngineCase):
    SHELL = Shell

    def setUp(self):
        super().setUp()
        self.scripts['upgrade_service'] = f'echo x >> {self.dir}/restarts'
        self.write_scripts()
        self.patch_boot('boot-1')

    def patch_boot(self, name):
        real = facts.boot_id
        self.addCleanup(setattr, facts, 'boot_id', real)
        facts.boot_id = lambda: name

    def shell(self, step, kind, **more):
        return {**self.step(step, kind=kind, strategy='shell'), **more}

    def shims(self):
        """Return the processes of the shims of this engine."""
        found = []
        for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
            try:
                if str(self.dir / 'state' / 'attempts') in path.read_text():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def power_off(self, engine):
        """End the engine and everything that it started, as a host does that loses its power."""
        engine.stop()
        for pid in self.shims():
            os.kill(pid, signal.SIGKILL)
        self.until(lambda: not self.shims())

    def ran(self, name='restarts'):
        path = self.dir / name
        return len(path.read_text().split()) if path.exists() else 0


class TestHostRestarts(FaultCase):
    def test_by_accident(self):
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'), self.step('b'))
        self.until(self.shims)
        self.until(lambda: (self.dir / 'pid').exists())
        self.power_off(engine)
        self.patch_boot('boot-2')
        self.engine()
        self.assertTrue(self.hear('a', 'interrupted')['boot_changed'])
        self.hear('b', 'revoked')

    def test_on_purpose(self):
        engine = self._restarting()
        self.power_off(engine)
        self.patch_boot('boot-2')
        (self.dir / 'state' / 'goal').touch()
        self.engine()
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual(('succeeded', 'boot-2'), (said['result'], said['data']['boot_id']))
        self.hear('b', 'revoked')
        self.assertEqual(1, self.ran())

    def _restarting(self, **more):
        engine = self.engine()
        self.envelope = self.order(
            engine, self.shell('a', 'upgrade_service', **more), self.step('b')
        )
        self.until(self.ran)
        return engine

    def test_the_same_order_never_restarts_it_again(self):
        engine = self._restarting()
        self.api.order(engine.id, self.envelope)
        self.until(lambda: self.items('a', 'running') or self.items('a', 'accepted'))
        self.power_off(engine)
        self.patch_boot('boot-2')
        engine = self.engine()
        self.api.order(engine.id, self.envelope)
        self.until(lambda: self.items('a', 'running'))
        (self.dir / 'state' / 'goal').touch()
        self.hear('a', 'outcome')
        self.api.order(engine.id, self.envelope)
        self.until(lambda: len(self.items('a', 'outcome')) > 1)
        self.assertEqual(1, self.ran())

    def test_it_comes_back_but_not_as_it_should_be(self):
        engine = self._restarting(timeout=1)
        self.power_off(engine)
        self.patch_boot('boot-2')
        self.engine()
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual(('failed', True), (said['result'], said['data']['final']))
        self.assertIn('the goal of the step is not met', said['error'])

    def test_the_shim_is_ended_first_and_then_nothing_happens(self):
        """As in a shutdown that hangs: nobody knows what comes."""
        engine = self._restarting(timeout=2)
        for pid in self.shims():
            os.kill(pid, signal.SIGTERM)
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual('unknown', said['result'], said)
        self.assertIn('has not restarted', said['error'])
        self.assertEqual(1, self.ran())
        self.assertTrue(engine.id)

    def test_a_restart_that_never_comes(self):
        self._restarting(timeout=1)
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual('failed', said['result'])
        self.assertIn('did not restart in 1 s', said['error'])

    def test_it_was_there_before(self):
        (self.dir / 'state').mkdir(mode=0o700)
        (self.dir / 'state' / 'goal').touch()
        self.order(self.engine(), self.shell('a', 'upgrade_service'))
        self.assertTrue(self.hear('a', 'outcome')['outcome']['data']['already'])
        self.assertEqual(0, self.ran())

    def setUp(self):
        super().setUp()
        self.addCleanup(setattr, restart, 'AT_LEAST', restart.AT_LEAST)
        self.addCleanup(setattr, restart, 'PAUSE', restart.PAUSE)
        restart.AT_LEAST, restart.PAUSE = 0.0, 0.05


class TestDisk(FaultCase):
    """The state directory is a file system of its own, of 256 KiB."""

    def setUp(self):
        super().setUp()
        self.state = self.dir / 'state'
        self.state.mkdir(mode=0o700)
        mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k,mode=700', 'none', str(self.state)]
        done = subprocess.run(mount, capture_output=True)
        if done.returncode:
            self.skipTest('no file system can be mounted here')
        self.addCleanup(subprocess.run, ['umount', '-l', str(self.state)], check=True)

    def fill(self):
        """Leave no room at all."""
        with open(self.state / 'ballast', 'ab', buffering=0) as f:
            for size in (4096, 1):
                try:
                    while True:
                        f.write(b'x' * size)
                except OSError:
                    pass

    def test_full_before_the_order(self):
        self.scripts['prefetch'] = f'echo x >> {self.dir}/ran'
        self.write_scripts()
        engine = self.engine()
        self.fill()
        # what is left of the journal's last page is used up first
        for n in range(200):
            self.order(engine, self.step(f's{n}', fail=True))
            self.until(lambda n=n: [i for i in self.items(f's{n}') if i['what'] != 'accepted'])
            if self.items(f's{n}', 'refused'):
                break
        self.order(engine, self.shell('a', 'prefetch'))
        self.assertEqual('journal', self.hear('a', 'refused')['reason'])
        self.assertEqual(0, self.ran('ran'))
        self._room_again(engine)

    def _room_again(self, engine):
        (self.state / 'ballast').unlink()
        self.order(engine, self.shell('a', 'prefetch'))
        self.assertEqual('succeeded', self.hear('a', 'outcome')['outcome']['result'])
        self.assertEqual(1, self.ran('ran'))

    def test_full_between_the_journal_and_the_start(self):
        self.scripts['prefetch'] = f'echo x >> {self.dir}/ran'
        self.write_scripts()
        engine = self.engine()
        real = engine.parts.runner.prepare

        def prepare(*args, **kw):
            self.fill()
            return real(*args, **kw)

        engine.parts.runner.prepare = prepare
        self.order(engine, self.shell('a', 'prefetch'))
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual('failed', said['result'])
        self.assertIn('nothing was done', said['error'])
        self.assertEqual(0, self.ran('ran'))

    def test_full_while_the_step_runs(self):
        """What came of it is on record all the same, also for the engine that starts next."""
        go = self.dir / 'go'
        self.scripts['prefetch'] = f'while [ ! -e {go} ]; do sleep .02; done; echo x >> {go}'
        self.write_scripts()
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'))
        self.until(self.shims)
        self.until(lambda: engine.parts.runner.standing('a', 1).value == 'running')
        engine.stop()
        self.fill()
        go.touch()
        self.until(lambda: not self.shims())
        self.assertEqual(1, self.ran('go'))
        self.engine()
        self.assertEqual('succeeded', self.hear('a', 'outcome')['outcome']['result'])

    def test_read_only(self):
        """The engine does not begin; once it can write again, it does."""
        self.engine().stop()
        self.remount('ro')
        self.assertRaises(OSError, self.engine)
        self.remount('rw')
        self.order(self.engine(), self.step('a'))
        self.hear('a', 'outcome')

    def remount(self, how):
        command = ['mount', '-o', f'remount,{how}', str(self.state)]
        self.until(lambda: subprocess.run(command, capture_output=True).returncode == 0)


class TestClock(FaultCase):
    def test_two_minutes_and_no_more(self):
        engine = self.engine()
        for minutes, reason in ((5, 'clock_skew'), (-5, 'clock_skew'), (-60, 'clock_skew')):
            nbf = facts.now() + minutes * 60_000
            step = f'm{minutes}'
            self.order(engine, self.step(step), nbf=nbf, exp=nbf + 600_000)
            self.assertEqual(reason, self.hear(step, 'refused')['reason'], minutes)
        for seconds in (-100, 100):
            nbf = facts.now() + seconds * 1000
            self.order(engine, self.step(f's{seconds}'), nbf=nbf, exp=nbf + 600_000)
            self.hear(f's{seconds}', 'outcome')
        self.assertEqual(['s-100', 's100'], self.begun())

    def test_what_has_not_begun_can_be_revoked_all_the_same(self):
        engine = self.engine()
        message = self.message(engine, 'revoke', steps=[['a', 1]])
        message.update(nbf=facts.now() - 3_600_000, exp=facts.now() - 3_000_000)
        self.api.revoke(engine.id, self.signer.seal(message))
        self.hear('a', 'revoked')

    def test_a_step_back_changes_nothing(self):
        """The clock goes back an hour while a step runs: it ends, once, and is reported."""
        self.scripts['prefetch'] = f'sleep 0.3; echo x >> {self.dir}/ran'
        self.write_scripts()
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'))
        self.until(self.shims)
        real = facts.now
        self.addCleanup(setattr, facts, 'now', real)
        facts.now = lambda: real() - 3_600_000
        self.assertEqual('succeeded', self.hear('a', 'outcome')['outcome']['result'])
        self.assertEqual(1, self.ran('ran'))


class TestMemory(FaultCase):
    """The database lost commits and asks for what the engine did long ago."""

    def _done(self):
        engine = self.engine()
        self.order(engine, self.step('a'), epoch=5)
        self.hear('a', 'outcome')
        told = self.message(engine, 'recorded', attempts=[['a', 1]])
        self.api.recorded(engine.id, self.signer.seal(told))
        self.until(lambda: engine.parts.book.attempts['a', 1].state == 'recorded')
        return engine, len(self.items('a'))

    def test_an_epoch_that_went_back_is_named_even_for_what_is_known(self):
        engine, _ = self._done()
        self.order(engine, self.step('a'), epoch=4, nbf=facts.now())
        said = self.hear('a', 'refused')
        self.assertEqual('epoch_regressed', said['reason'])
        self.assertEqual({'attempt': 1, 'epoch': 5}, said['current'])
        self.order(engine, self.step('a', attempt=2), epoch=6)
        self.until(lambda: len(self.begun()) == 2)

    def test_a_result_that_was_recorded_is_told_again(self):
        engine, heard = self._done()
        self.order(engine, self.step('a'), epoch=5)
        self.until(lambda: len(self.items('a', 'outcome')) > heard)
        engine.stop()
        self.order(self.engine(), self.step('a'), epoch=5)
        self.until(lambda: len(self.items('a', 'outcome')) > heard + 1)
        self.assertEqual(['a'], self.begun())


class TestUnderstanding(FaultCase):
    """A conductor of a later version says more than this engine knows: nothing is guessed."""

    CHANGES: tuple[Any, ...] = (
        ('version', {'v': 2}, {}),
        ('field', {'dry_run': True}, {}),
        ('missing', {'digest': None}, {}),
        ('type', {'epoch': '1'}, {}),
        ('truth', {'epoch': True}, {}),
        ('recorded', {'recorded': [['a']]}, {}),
        ('step-field', {}, {'argv': ['/bin/sh']}),
        ('step-type', {}, {'timeout': '60'}),
        ('step-params', {}, {'params': None}),
    )

    def test_orders(self):
        engine = self.engine()
        for name, more, of_step in self.CHANGES:
            self.order(engine, {**self.step(name), **of_step}, **more)
            said = self.hear(name, 'refused')
            self.assertEqual('not_understood', said['reason'], name)
        self.order(engine, 'no step', self.step('beside'))
        self.assertEqual('not_understood', self.hear('beside', 'refused')['reason'])
        self.order(engine, {**self.step('action'), 'kind': 'format_disk'})
        self.assertEqual('not_allowed', self.hear('action', 'refused')['reason'])
        self.order(engine, self.step('good'))
        self.hear('good', 'outcome')
        self.assertEqual(['good'], self.begun())

    def test_other_messages(self):
        engine = self.engine()
        new = {'v': 2, 'keys': {'k9': 'x'}}
        self.api.keys(engine.id, self.signer.seal(self.message(engine, 'keys', **new)))
        for steps in ([['a', '1']], [7], 'a', None):
            self.about_raw(engine, 'revoke', steps)
        self.order(engine, self.step('a'))
        self.hear('a', 'outcome')
        self.assertEqual({'k1'}, set(engine.identity.keys))

    def about_raw(self, engine, kind, steps):
        message = self.message(engine, kind, steps=steps)
        getattr(self.api, kind)(engine.id, self.signer.seal(message))

    def test_the_forms_and_the_sender_agree(self):
        """The forms and the sender agree."""
        sent = {}

        class Engines:
            def __getattr__(self, kind):
                return lambda agent, env: sent.update({kind: env})

        post = orders.Post(self.conf, self.signer, Engines(), facts.now, 'd')
        post.order('u', 1, 'a', [], [('s', 1)])
        post.revoke('u', 1, 'a', [])
        post.probe('u', 1, 'a', [])
        post.recorded('a', [('s', 1)])
        post.describe('a')
        self.assertEqual({'order', 'revoke', 'probe', 'recorded', 'describe'}, set(sent))
        for kind, env in sent.items():
            self.assertIsNone(messages.illegible(trust.peek(env), kind), kind)
        post.revoke('u', 1, 'a', [], now=True)
        self.assertIsNone(messages.illegible(trust.peek(sent['revoke']), 'revoke'))


class TestAnyDamage(test_journal.JournalCase):
    """Whatever becomes of the file: no attempt that it held can be begun again."""

    #: (step, attempt, what became of it)
    RECORDS = st.lists(
        st.tuples(st.sampled_from('abcdef'), st.integers(1, 3), st.sampled_from('aor')),
        min_size=1, max_size=12,
    )  # fmt: skip
    HARM = st.lists(
        st.tuples(st.sampled_from(('cut', 'flip', 'zero')), st.floats(0, 1), st.integers(0, 7)),
        min_size=1, max_size=4,
    )  # fmt: skip

    @hypothesis.settings(deadline=None, max_examples=200, database=None)
    @hypothesis.given(RECORDS, HARM)
    def test_unknown_and_never_again(self, records, harms):
        self._clear()
        book = journal.Journal(self.path, NOW)
        held = self._written(book, records)
        book.close()
        raw = bytearray(self.path.read_bytes())
        for how, where, bit in harms:
            self._harm(raw, how, int(where * len(raw)), bit)
        whole = bytes(raw) == self.path.read_bytes()
        self.path.write_bytes(raw)
        again = journal.Journal(self.path, NOW + 5)
        try:
            self.assertEqual(whole, not again.damaged)
            for step, attempt in held:
                self._assert_not_begun_again(again, step, attempt)
            self.assertEqual(set(), set(again.attempts) - held)
            again.append([test_journal.accepted('new')], sync=True)
        finally:
            again.close()

    def _clear(self):
        for path in self.path.parent.iterdir():
            path.unlink()

    def _written(self, book, records):
        held = set()
        for step, attempt, what in records:
            if attempt < book.highest.get(step, 0):
                continue
            held.add((step, attempt))
            if what == 'r':
                revoked = {'r': 'revoked', 't': NOW, 'upgrade': 'u', 'steps': [[step, attempt]]}
                book.append([revoked], sync=True)
                continue
            book.append([test_journal.accepted(step, attempt)], sync=True)
            if what == 'o':
                book.append([test_journal.ended(step, attempt)], sync=True)
        return held

    def _harm(self, raw, how, at, bit):
        if how == 'cut':
            del raw[at:]
        elif at < len(raw):
            raw[at] = raw[at] ^ (1 << bit) if how == 'flip' else 0

    def _assert_not_begun_again(self, book, step, attempt):
        """The order that the lost record had answered, however late it comes again."""
        if (step, attempt) in book.attempts:
            return
        situation = accept.Situation(now=NOW + 10, skew=120_000, digest='d')
        order = {'upgrade': 'u', 'epoch': 9, 'nbf': NOW, 'exp': NOW + 600_000, 'digest': 'd'}
        what = {'step': step, 'attempt': attempt}
        why = accept.judge_order(order, book, situation) or accept.judge_step(what, book)
        self.assertIn(why, ('expired', 'stale_attempt', 'busy'), (step, attempt))


class TestShimEnds(FaultCase):
    """Hung, multiplying and talkative steps: ended at the deadline, with all they started."""

    class SHELL(test_manager.Shell):
        def run(self, task, site):
            script = site.settings['scripts'][task.kind]
            op = strategies.Op(do='run', title='go', argv=('/bin/sh', '-c', script))
            return strategies.Job(ops=(op,), timeout=task.timeout, interruptible=True)

    #: each child makes two more, all deaf to TERM, in sessions of their own, five deep
    BOMB = (
        'trap "" TERM; echo x >> $0.pids; [ "$1" -gt 0 ] || exec sleep 300; '
        'n=$(($1 - 1)); for i in 1 2; do setsid /bin/sh "$0" $n & done; wait; sleep 300'
    )

    def _left(self, mark):
        found = []
        for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
            try:
                if mark in path.read_text():
                    found.append(path.parent.name)
            except OSError:
                continue
        return found

    def test_a_fork_bomb(self):
        bomb = self.dir / 'bomb'
        bomb.write_text(self.BOMB)
        self.scripts['prefetch'] = f'exec /bin/sh {bomb} 5'
        self.write_scripts()
        self.order(self.engine(), self.shell('a', 'prefetch', timeout=3))
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual(('failed', 124), (said['result'], said['rc']))
        self.assertGreater(self.ran('bomb.pids'), 30)
        self.until(lambda: not self._left(str(bomb)))

    def hear(self, step, what):
        return self.until(lambda: self.items(step, what), seconds=90)[-1]

    def test_endless_output(self):
        self.scripts['prefetch'] = 'exec yes 0123456789abcdef0123456789abcdef'
        self.write_scripts()
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch', timeout=2))
        self.assertEqual(124, self.hear('a', 'outcome')['outcome']['rc'])
        place = engine.parts.runner.directory('a', 1)
        self.assertLess((place / 'output').stat().st_size, 300 * 1024)
