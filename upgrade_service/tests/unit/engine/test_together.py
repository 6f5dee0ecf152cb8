"""One run for several hosts: an outcome for each, whatever becomes of the run."""

import contextlib
import json
import os
import signal

from upgrade_service.engine import manager
from upgrade_service.strategies import base as strategies
from upgrade_service.strategies import noop
from upgrade_service.tests.unit.engine import test_manager

HOSTS = frozenset({'cmp1', 'cmp2', 'cmp3', 'deploy1'})


class Fleet(noop.NoopUpgradeStrategy):
    """Changes other hosts: with a script that says what became of each."""

    name = 'fleet'
    in_process = frozenset({'verify_host'})
    together = frozenset({'prefetch', 'upgrade_service'})

    def hosts(self, site):
        return HOSTS

    def run(self, task, site):
        if task.kind in self.in_process:
            return super().run(task, site)
        return self.run_together([task], site)

    def run_together(self, tasks, site):
        script = site.settings['projects']['script']
        with open(f'{site.state_dir}/runs', 'a') as f:
            f.write(json.dumps([t.host for t in tasks]) + '\n')
        op = strategies.Op(do='run', title='play', argv=('/bin/sh', '-c', script), events=True)
        return strategies.Job(ops=(op,), timeout=60, data={'version': '2'})


def says(**results):
    """A script that prints an outcome of each host."""
    lines = []
    for host, (result, error) in results.items():
        event = {'host': host, 'result': result, 'error': error, 'output': f'log of {host}'}
        lines.append(f"printf '\\036%s\\n' '{json.dumps(event)}'")
    return '\n'.join(lines)


class TogetherTest(test_manager.EngineCase):
    HOST = 'deploy1'

    def engine(self, start=True, script='true'):
        self.settings_file = self.settings / 'fleet.yaml'
        self.settings_file.write_text(json.dumps({'projects': {'script': script}}))
        made = manager.AgentManager(
            self.conf,
            self.HOST,
            str(self.dir / 'state'),
            str(self.settings),
            bundle=self.bundle,
            strategies={'fleet': Fleet()},
        )
        if start:
            made.start()
        self.addCleanup(self._stop, made)
        return made

    def steps(self, *hosts, kind='prefetch', **params):
        return [
            {**self.step(f's-{h}', kind=kind, strategy='fleet', **params), 'host': h}
            for h in hosts
        ]

    def outcomes(self, *hosts):
        for host in hosts:
            self.until(lambda host=host: self.found(host))
        return {h: self.found(h)[-1]['outcome'] for h in hosts}

    def found(self, host):
        return [
            i for i in self.listener.items if i['step'] == f's-{host}' and i['what'] == 'outcome'
        ]

    def runs(self):
        with open(self.dir / 'state' / 'runs') as f:
            return [json.loads(line) for line in f]

    def test_one_run_and_an_outcome_for_each_host(self):
        script = says(
            cmp1=('succeeded', ''), cmp2=('failed', 'unreachable'), cmp3=('unknown', 'lost')
        )
        engine = self.engine(script=script)
        self.order(engine, *self.steps('cmp1', 'cmp2', 'cmp3'))
        found = self.outcomes('cmp1', 'cmp2', 'cmp3')
        self.assertEqual([['cmp1', 'cmp2', 'cmp3']], self.runs())
        self.assertEqual(
            {'cmp1': 'succeeded', 'cmp2': 'failed', 'cmp3': 'unknown'},
            {h: o['result'] for h, o in found.items()},
        )
        self.assertEqual('unreachable', found['cmp2']['error'])
        self.assertEqual({'version': '2'}, found['cmp1']['data'])
        self.assertEqual({}, found['cmp2']['data'])
        self.assertIn('log of cmp2', found['cmp2']['output'])

    def test_a_run_that_fails_without_a_word_fails_for_all(self):
        engine = self.engine(script='echo no such playbook; exit 4')
        self.order(engine, *self.steps('cmp1', 'cmp2'))
        for outcome in self.outcomes('cmp1', 'cmp2').values():
            self.assertEqual('failed', outcome['result'])
            self.assertIn('no such playbook', outcome['error'])

    def test_another_host_than_the_settings_name_is_refused_alone(self):
        engine = self.engine(script=says(cmp1=('succeeded', '')))
        self.order(engine, *self.steps('evil', 'cmp1'))
        self.assertEqual('succeeded', self.outcomes('cmp1')['cmp1']['result'])
        (item,) = [i for i in self.listener.items if i['step'] == 's-evil']
        self.assertEqual(('refused', 'not_allowed'), (item['what'], item['reason']))

    def test_kinds_that_cannot_be_one_run_follow_one_another(self):
        engine = self.engine()
        steps = self.steps('cmp1', 'cmp2', kind='verify_host')
        steps[0]['params'] = {'fail': True}
        self.order(engine, *steps)
        found = self.outcomes('cmp1', 'cmp2')
        self.assertEqual('failed', found['cmp1']['result'])
        self.assertEqual('succeeded', found['cmp2']['result'])

    def test_the_next_engine_finds_every_host_of_a_run(self):
        gate = self.dir / 'gate'
        script = f'while [ ! -e {gate} ]; do sleep 0.05; done\n' + says(
            cmp1=('succeeded', ''), cmp2=('failed', 'broken')
        )
        engine = self.engine(script=script)
        self.order(engine, *self.steps('cmp1', 'cmp2'))
        self.until(lambda: len([i for i in self.listener.items if i['what'] == 'accepted']) == 2)
        self._stop(engine)
        self.engine(script=script)
        gate.touch()
        found = self.outcomes('cmp1', 'cmp2')
        self.assertEqual('succeeded', found['cmp1']['result'])
        self.assertEqual(('failed', 'broken'), (found['cmp2']['result'], found['cmp2']['error']))
        self.assertEqual([['cmp1', 'cmp2']], self.runs())

    def test_a_killed_shim_interrupts_every_host(self):
        engine = self.engine(script=f'echo $PPID > {self.dir}/pid; sleep 100')
        self.order(engine, *self.steps('cmp1', 'cmp2'))
        pid = self.dir / 'pid'
        self.until(lambda: pid.exists() and pid.read_text().strip())
        child = int(pid.read_text())
        os.kill(child, signal.SIGKILL)
        for host in ('cmp1', 'cmp2'):
            self.until(
                lambda host=host: [
                    i
                    for i in self.listener.items
                    if i['step'] == f's-{host}' and i['what'] == 'interrupted'
                ]
            )
        self.end_sleepers()

    def end_sleepers(self):
        """The child of a killed shim goes on, and keeps the lock: end it."""
        for entry in os.listdir('/proc'):
            with contextlib.suppress(OSError, ValueError):
                with open(f'/proc/{int(entry)}/cmdline', 'rb') as f:
                    if str(self.dir).encode() in f.read():
                        os.kill(int(entry), signal.SIGKILL)

    def test_facts_name_the_hosts(self):
        engine = self.engine()
        said = engine.allowed.facts()['strategies']['fleet']
        self.assertEqual(['cmp1', 'cmp2', 'cmp3'], said['hosts'])
