"""An engine identity on an in-process bus, with a conductor that only listens."""

import contextlib
import json
import os
import pathlib
import tempfile
import time

from oslo_config import cfg
from oslo_messaging import conffixture

from upgrade_service import conf as options
from upgrade_service import exception, rpc, trust
from upgrade_service.engine import facts, manager, rpcapi
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import noop
from upgrade_service.tests import base


class Shell(noop.NoopUpgradeStrategy):
    """Runs shell scripts that its settings name, under the shim."""

    name = 'shell'
    in_process = frozenset({'verify_host'})
    settings_schema = {'type': 'object'}

    def check(self, task, site):
        return os.path.exists(f'{site.state_dir}/already')

    def run(self, task, site):
        if task.kind in self.in_process:
            return super().run(task, site)
        if task.kind == 'db_contract':
            raise exception.Refused(reason='not here')
        script = site.settings['scripts'][task.kind]
        op = strategies.Op(do='run', title=task.kind, argv=('/bin/sh', '-c', script))
        return strategies.Job(ops=(op,), timeout=60)


class Listener:
    """Stands where conductors listen."""

    def __init__(self):
        self.items, self.hosts, self.enrolled, self.beats = [], [], [], 0

    @rpc.expose
    def report(self, ctxt, env):
        self.items += trust.peek(env)['items']

    @rpc.expose
    def facts(self, ctxt, env):
        self.hosts.append(trust.peek(env))

    @rpc.expose
    def enroll(self, ctxt, token, host, pubkey):
        self.enrolled.append((token, host, pubkey))

    @rpc.expose
    def heartbeat(self, ctxt, agent, boot_id, version):
        self.beats += 1


class EngineCase(base.TestCase):
    HOST = 'cmp1'
    SHELL = Shell

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.conf = cfg.CONF
        options.register_opts(self.conf)
        fixture = self.useFixture(conffixture.ConfFixture(self.conf))
        fixture.transport_url = 'fake:/'
        self.conf([], project='upgrade-service', default_config_files=[])
        self.conf.set_override('projects_dir', str(self.dir / 'none'), 'conductor')
        self.addCleanup(self.conf.clear_override, 'projects_dir', 'conductor')
        rpc.reset()
        self.addCleanup(rpc.reset)
        self.listener = Listener()
        server = rpc.get_server(
            self.conf, rpc.CONDUCTOR_EXCHANGE, rpc.CONDUCTOR_TOPIC, 'c', self.listener
        )
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        self.signer = trust.Signer.generate('k1')
        self.api = rpcapi.EngineAPI(self.conf)
        self.trace = self.dir / 'trace'
        settings = self.dir / 'engine.d'
        settings.mkdir()
        (settings / 'noop.yaml').write_text(json.dumps({'trace': str(self.trace)}))
        self.scripts = {'prefetch': f'echo $$ > {self.dir}/pid; exec sleep 300'}
        self.settings = settings
        self.write_scripts()
        self.bundle = {'token': 'once', 'host': self.HOST, 'keys': {'k1': self.signer.public}}

    def write_scripts(self):
        (self.settings / 'shell.yaml').write_text(json.dumps({'scripts': self.scripts}))

    def engine(self, start=True):
        made = manager.AgentManager(
            self.conf,
            self.HOST,
            str(self.dir / 'state'),
            str(self.settings),
            bundle=self.bundle,
            strategies={'noop': noop.NoopUpgradeStrategy(), 'shell': self.SHELL()},
        )
        if start:
            made.start()
        self.addCleanup(self._stop, made)
        return made

    def _stop(self, made):
        with contextlib.suppress(OSError):
            made.stop()

    # -- what a conductor says -----------------------------------------------------------------

    def step(self, step, attempt=1, kind='verify_host', strategy='noop', **params):
        return {
            'step': step,
            'attempt': attempt,
            'kind': kind,
            'strategy': strategy,
            'host': self.HOST,
            'project': None,
            'params': params,
            'timeout': 60,
        }

    def message(self, engine, kind, **body):
        now = facts.now()
        common = {'v': 1, 'type': kind, 'aud': engine.id}
        if kind in ('order', 'revoke', 'probe'):
            common |= {'upgrade': 'u', 'epoch': 1}
        return {**common, 'nbf': now - 1000, 'exp': now + 60_000, **body}

    def order(self, engine, *steps, signer=None, **body):
        digest = engine.allowed.projects.digest
        message = self.message(
            engine, 'order', **{'digest': digest, 'recorded': [], 'steps': list(steps), **body}
        )
        envelope = (signer or self.signer).seal(message)
        self.api.order(engine.id, envelope)
        return envelope

    def about(self, engine, kind, *attempts):
        message = self.message(engine, kind, steps=[list(a) for a in attempts])
        getattr(self.api, kind)(engine.id, self.signer.seal(message))

    # -- what it hears -------------------------------------------------------------------------

    def until(self, what, seconds=20):
        end = time.monotonic() + seconds
        while not (found := what()):
            self.assertLess(time.monotonic(), end, str(self.listener.items))
            time.sleep(0.01)
        return found

    def items(self, step=None, what=None):
        return [
            i
            for i in self.listener.items
            if step in (None, i['step']) and what in (None, i['what'])
        ]

    def hear(self, step, what):
        return self.until(lambda: self.items(step, what))[-1]

    def traced(self):
        if not self.trace.exists():
            return []
        return [json.loads(line) for line in self.trace.read_text().splitlines()]

    def begun(self):
        return [t['step'] for t in self.traced() if t['what'] == 'begin']


class TestOrders(EngineCase):
    def test_a_chain_is_done_in_order_and_reported_together(self):
        engine = self.engine()
        self.order(engine, self.step('a'), self.step('b', version='2.0'), self.step('c'))
        self.hear('c', 'outcome')
        self.assertEqual(['a', 'b', 'c'], self.begun())
        self.assertEqual(['outcome'] * 3, [i['what'] for i in self.items()])
        said = self.items('b')[0]
        self.assertEqual(
            ('succeeded', {'version': '2.0'}), (said['outcome']['result'], said['outcome']['data'])
        )
        self.assertEqual(('u', 1), (said['upgrade'], said['attempt']))

    def test_what_follows_a_failure_is_given_back(self):
        engine = self.engine()
        self.order(engine, self.step('a', fail=True), self.step('b'), self.step('c'))
        self.hear('c', 'revoked')
        self.assertEqual(['a'], self.begun())
        self.assertEqual('failed', self.items('a')[0]['outcome']['result'])
        # the attempt that was given back is refused for good, a new one is taken
        self.order(engine, self.step('b'))
        self.until(lambda: len(self.items('b', 'revoked')) > 1)
        self.order(engine, self.step('b', attempt=2))
        self.hear('b', 'outcome')
        self.assertEqual(['a', 'b'], self.begun())

    def test_results_are_repeated_until_they_are_recorded(self):
        engine = self.engine()
        self.order(engine, self.step('a'))
        self.until(lambda: len(self.items('a', 'outcome')) > 1)
        told = self.message(engine, 'recorded', attempts=[['a', 1]])
        self.api.recorded(engine.id, self.signer.seal(told))
        self.until(lambda: engine.parts.book.attempts['a', 1].state == 'recorded')
        self.assertEqual({}, engine.parts.reporter._due)

    def test_a_doubled_order_runs_once_and_is_answered(self):
        engine = self.engine()
        envelope = self.order(engine, self.step('a'))
        self.hear('a', 'outcome')
        heard = len(self.items('a', 'outcome'))
        self.api.order(engine.id, envelope)
        self.until(lambda: len(self.items('a', 'outcome')) > heard)
        self.assertEqual(['a'], self.begun())

    def test_a_step_that_takes_longer_is_said_to_run(self):
        engine = self.engine()
        self.order(engine, self.step('a', sleep=1.6), self.step('b'))
        self.hear('b', 'outcome')
        self.assertEqual(['accepted', 'outcome', 'outcome'], [i['what'] for i in self.items()])

    def test_untrusted_orders_do_nothing(self):
        engine = self.engine()
        now = facts.now()
        forger = trust.Signer.generate('k1')
        self.order(engine, self.step('forged'), signer=forger)
        self.order(engine, self.step('foreign'), aud='someone-else')
        self.order(engine, self.step('wrong type'), type='probe')
        tampered = self.signer.seal(self.message(engine, 'order', steps=[], recorded=[]))
        tampered['payload'] = tampered['payload'].replace('"epoch":1', '"epoch":9')
        self.api.order(engine.id, tampered)
        self.order(engine, self.step('late'), exp=now - 1)
        self.order(engine, self.step('early'), nbf=now + 200_000)
        self.order(engine, self.step('good'))
        self.hear('good', 'outcome')
        self.assertEqual(['good'], self.begun())
        refused = {i['step']: i['reason'] for i in self.items(what='refused')}
        self.assertEqual({'late': 'expired', 'early': 'clock_skew'}, refused)

    def test_orders_that_are_not_allowed(self):
        engine = self.engine()
        cases = {
            'kind': (dict(self.step('kind'), kind='format_disk'), 'not_allowed'),
            'strategy': (dict(self.step('strategy'), strategy='magic'), 'not_allowed'),
            'host': (dict(self.step('host'), host='cmp2'), 'not_allowed'),
            'param': (self.step('param', argv=['/bin/sh']), 'bad_params'),
            'path': (self.step('path', version='../../etc'), 'bad_params'),
            'option': (self.step('option', version='-rf'), 'bad_params'),
            'newline': (self.step('newline', release='2026.1\n'), 'bad_params'),
        }
        for step, _ in cases.values():
            self.order(engine, step)
        for name, (_, reason) in cases.items():
            self.assertEqual(reason, self.hear(name, 'refused')['reason'], name)
        self.assertEqual([], self.begun())

    def test_a_refused_step_takes_those_behind_it_along(self):
        engine = self.engine()
        self.order(engine, self.step('a'), self.step('b', argv='x'), self.step('c'))
        self.hear('a', 'outcome')
        self.assertEqual('bad_params', self.hear('b', 'refused')['reason'])
        self.hear('c', 'revoked')
        self.assertEqual(['a'], self.begun())

    def test_epochs_attempts_and_data(self):
        engine = self.engine()
        self.order(engine, self.step('a', attempt=2), epoch=5)
        self.hear('a', 'outcome')
        self.order(engine, self.step('a', attempt=1), epoch=5)
        said = self.until(lambda: self.items('a', 'refused'))[0]
        self.assertEqual(
            ('stale_attempt', {'attempt': 2, 'epoch': 5}), (said['reason'], said['current'])
        )
        self.order(engine, self.step('b'), epoch=4, nbf=facts.now() + 1000)
        self.assertEqual('epoch_regressed', self.hear('b', 'refused')['reason'])
        self.order(engine, self.step('c'), digest='other', epoch=5)
        self.assertEqual('project_data_mismatch', self.hear('c', 'refused')['reason'])
        self.assertEqual(['a'], self.begun())

    def test_inhibit(self):
        engine = self.engine()
        (self.dir / 'state' / 'inhibit').touch()
        self.order(engine, self.step('a'))
        self.assertEqual('inhibited', self.hear('a', 'refused')['reason'])
        self.assertEqual([], self.begun())

    def test_one_step_at_a_time(self):
        engine = self.engine()
        self.order(engine, self.step('a', sleep=1.2))
        self.until(self.begun)
        self.order(engine, self.step('b'))
        self.assertEqual('busy', self.hear('b', 'refused')['reason'])
        self.hear('a', 'outcome')
        self.order(engine, self.step('b'))
        self.hear('b', 'outcome')

    def test_revoke(self):
        engine = self.engine()
        self.order(engine, self.step('a', sleep=1), self.step('b'), self.step('c'))
        self.until(self.begun)
        self.about(engine, 'revoke', ('a', 1), ('b', 1), ('new', 3))
        self.hear('a', 'running')
        for step in ('b', 'c', 'new'):
            self.hear(step, 'revoked')
        self.hear('a', 'outcome')
        self.order(engine, self.step('new', attempt=3), self.step('b'))
        self.until(lambda: len(self.items('new', 'revoked')) > 1)
        self.assertEqual(['a'], self.begun())

    def test_probe(self):
        engine = self.engine()
        self.order(engine, self.step('a', sleep=1.2))
        self.until(self.begun)
        self.about(engine, 'probe', ('a', 1), ('b', 1))
        self.hear('a', 'running')
        self.assertFalse(self.hear('b', 'not_running')['done'])

    def test_without_a_journal_nothing_is_begun(self):
        engine = self.engine()

        def full(records, sync):
            raise OSError(28, 'No space left on device')

        engine.parts.book.append = full
        self.order(engine, self.step('a'))
        self.assertEqual('journal', self.hear('a', 'refused')['reason'])
        self.assertEqual([], self.begun())


class TestLife(EngineCase):
    def test_enrolment_facts_and_heartbeat(self):
        engine = self.engine()
        token, host, public = self.until(lambda: self.listener.enrolled)[0]
        self.assertEqual(('once', self.HOST), (token, host))
        self.assertEqual(engine.identity.signer.public, public)
        said = self.until(lambda: self.listener.hosts)[0]
        self.assertEqual(engine.id, said['agent'])
        self.assertEqual({'ready': True, 'reason': ''}, said['strategies']['noop'])
        self.until(lambda: self.listener.beats)
        describe = self.signer.seal(self.message(engine, 'describe'))
        heard = len(self.listener.hosts)
        self.api.describe(engine.id, describe)
        self.until(lambda: len(self.listener.hosts) > heard)
        self.assertIsNone(engine.identity.token)
        engine.stop()
        self.bundle = None
        self.assertEqual(engine.id, self.engine().id)

    def test_keys_rotate(self):
        engine = self.engine()
        new = trust.Signer.generate('k2')
        told = self.message(engine, 'keys', keys={'k1': self.signer.public, 'k2': new.public})
        self.api.keys(engine.id, self.signer.seal(told))
        self.until(lambda: 'k2' in engine.identity.keys)
        self.order(engine, self.step('a'), signer=new)
        self.hear('a', 'outcome')

    def test_no_bundle_no_engine(self):
        self.bundle = str(self.dir / 'nothing')
        self.assertRaises(exception.Untrusted, self.engine)

    def test_a_bundle_that_others_can_read_is_refused(self):
        path = self.dir / 'bundle'
        path.write_text(json.dumps(self.bundle))
        path.chmod(0o644)
        self.bundle = str(path)
        self.assertRaises(exception.Untrusted, self.engine)
        path.chmod(0o600)
        self.engine()

    def test_an_identity_has_one_process(self):
        self.engine()
        self.assertRaises(exception.Untrusted, self.engine)

    def test_settings_that_others_can_write_are_refused(self):
        (self.settings / 'noop.yaml').chmod(0o666)
        self.write_scripts()
        (self.settings / 'shell.yaml').rename(self.settings / 'elsewhere')
        (self.settings / 'shell.yaml').symlink_to(self.settings / 'elsewhere')
        engine = self.engine()
        self.order(engine, self.step('a'), self.step('b'))
        self.assertEqual('not_allowed', self.hear('a', 'refused')['reason'])
        self.order(engine, self.step('c', strategy='shell'))
        self.assertEqual('not_allowed', self.hear('c', 'refused')['reason'])
        said = self.until(lambda: self.listener.hosts)[0]
        self.assertFalse(said['strategies']['noop']['ready'])


class TestShimSteps(EngineCase):
    def shell(self, step, kind, attempt=1):
        return self.step(step, attempt, kind=kind, strategy='shell')

    def test_a_job_between_in_process_steps(self):
        self.scripts['backup_database'] = 'echo password=hunter2; echo done'
        self.write_scripts()
        engine = self.engine()
        first, last = self.step('a'), self.step('c')
        self.order(engine, first, self.shell('b', 'backup_database'), last)
        said = self.hear('b', 'outcome')
        self.hear('c', 'outcome')
        self.assertEqual('succeeded', said['outcome']['result'], said)
        self.assertIn('done', said['outcome']['output'])
        self.assertNotIn('hunter2', said['outcome']['output'])
        self.assertEqual(['a', 'c'], self.begun())

    def test_what_is_done_already_is_not_done_again(self):
        engine = self.engine()
        (self.dir / 'state' / 'already').touch()
        self.order(engine, self.shell('a', 'prefetch'))
        self.assertTrue(self.hear('a', 'outcome')['outcome']['data']['already'])
        self.assertFalse((self.dir / 'pid').exists())

    def test_what_the_strategy_refuses_is_not_tried_again(self):
        engine = self.engine()
        self.order(engine, self.shell('a', 'db_contract'))
        said = self.hear('a', 'outcome')['outcome']
        self.assertEqual(('failed', True), (said['result'], said['data']['final']))

    def test_a_step_outlives_its_engine(self):
        self.scripts['prefetch'] = (
            f'echo $$ > {self.dir}/pid; while [ ! -e {self.dir}/end ]; do sleep .02; done'
        )
        self.write_scripts()
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'), self.step('b'))
        self.until(lambda: (self.dir / 'pid').exists())
        engine.stop()
        engine = self.engine()
        # what had not begun is given back; the host stays busy with what has
        self.hear('b', 'revoked')
        self.order(engine, self.step('x'))
        self.assertEqual('busy', self.hear('x', 'refused')['reason'])
        (self.dir / 'end').touch()
        self.assertEqual('succeeded', self.hear('a', 'outcome')['outcome']['result'])
        self.assertEqual([], self.begun())

    def test_a_step_that_ended_while_nobody_looked(self):
        self.scripts['prefetch'] = 'echo quick'
        self.write_scripts()
        self._crashed(spawn=True)
        self.engine()
        said = self.hear('a', 'outcome')
        self.assertEqual('succeeded', said['outcome']['result'])
        self.assertIn('quick', said['outcome']['output'])

    def test_accepted_but_never_begun(self):
        self._crashed(spawn=False)
        self.engine()
        self.hear('a', 'revoked')

    def _crashed(self, spawn):
        """Leave behind what an engine leaves that was killed around the spawn."""
        engine = self.engine(start=False)
        book = engine.parts.book
        record = {
            'r': 'accepted',
            't': facts.now(),
            'upgrade': 'u',
            'epoch': 1,
            'nbf': 1,
            'boot': facts.boot_id(),
            'steps': [['a', 1, False]],
        }
        book.append([record], sync=True)
        if spawn:
            task = strategies.Task(
                step='a',
                attempt=1,
                kind='prefetch',
                host=self.HOST,
                project=None,
                params={},
                timeout=60,
            )
            job = engine.allowed.strategy('shell').run(task, engine.allowed.site('shell'))
            engine.parts.runner.start(task, job, 'u').wait()
        engine.stop()

    def test_a_damaged_journal_runs_nothing_again(self):
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'))
        pid = self.until(
            lambda: (self.dir / 'pid').exists() and (self.dir / 'pid').read_text().strip()
        )
        engine.stop()
        self._kill_tree(int(pid))
        path = self.dir / 'state' / 'journal'
        raw = bytearray(path.read_bytes())
        raw[30] ^= 1  # inside the record that accepted the step
        path.write_bytes(raw)
        engine = self.engine()
        said = self.hear('a', 'outcome')
        self.assertEqual('unknown', said['outcome']['result'])
        (self.dir / 'pid').unlink()
        self.order(engine, self.shell('a', 'prefetch'))
        self.until(lambda: len(self.items('a', 'outcome')) > 1)
        self.assertFalse((self.dir / 'pid').exists())

    def test_a_killed_step_is_interrupted(self):
        engine = self.engine()
        self.order(engine, self.shell('a', 'prefetch'), self.step('b'))
        pid = self.until(
            lambda: (self.dir / 'pid').exists() and (self.dir / 'pid').read_text().strip()
        )
        self._kill_tree(int(pid))
        self.assertFalse(self.hear('a', 'interrupted')['boot_changed'])
        self.hear('b', 'revoked')

    def _kill_tree(self, pid):
        """Kill a command and, first, the shim that waits for it."""
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
        parent = int(stat.rpartition(')')[2].split()[1])
        for one in (parent, pid):
            os.kill(one, 9)


class TestRests(EngineCase):
    def test_what_follows_a_step_that_was_given_back_alone_never_begins(self):
        engine = self.engine()
        # as after a crash between the two: the order itself comes late
        self.about(engine, 'revoke', ('a', 1))
        self.hear('a', 'revoked')
        self.order(engine, self.step('a'), self.step('b'), self.step('c'))
        self.hear('c', 'revoked')
        self.hear('b', 'revoked')
        self.assertEqual([], self.begun())
