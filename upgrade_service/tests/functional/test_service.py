"""The whole service upgrades a simulated cloud, over RabbitMQ and MariaDB.

Conductors, API and engines are processes that may be killed; nothing is mocked.
"""

import collections
import json
import pathlib
import time

import fixtures
from testtools import ExpectedException

from upgrade_service import rpc, trust
from upgrade_service.db import api as db
from upgrade_service.simulator import spec
from upgrade_service.tests import base
from upgrade_service.tests.functional import bus, service, test_database

TARGET = spec.VERSIONS['2026.2']


class ServiceCase(test_database.OnServer, base.TestCase):
    dialect = 'mysql'

    def setUp(self):
        if not service.RABBIT:
            self.skipTest('no RabbitMQ server')
        super().setUp()
        # a story takes longer than what a small test is given
        self.useFixture(fixtures.Timeout(300, gentle=True))

    def serve(self, **what):
        self.service = self.useFixture(service.Service(self.url, **what))
        return self.service

    # -- what must be true in the end ----------------------------------------------------------

    def assert_upgraded(self):
        for host in self.service.simulated():
            for name, project in host['projects'].items():
                self.assertEqual(TARGET[name], project['version'], (host['host'], name))
                for unit in project['services']:
                    self.assertEqual(
                        ('active', TARGET[name]), (unit['state'], unit['version']), unit
                    )

    def assert_all_in_service(self):
        found = {(s['host'], s['status'], s['state']) for s in self.service.computes()}
        hosts = [h for h in self.service.hosts if h.startswith('cmp')]
        self.assertEqual({(h, 'enabled', 'up') for h in hosts}, found)

    def moves(self):
        """Count the migrations of each server."""
        log = self.service.cloud_log()
        return collections.Counter(e['server'] for e in log if e['what'] == 'migrate')

    def assert_moved_as_planned(self, upgrade):
        planned = collections.Counter()
        for step in upgrade.steps(kind='drain_host'):
            planned.update(list(step['params'].get('moves', {})))
        self.assertEqual(planned, self.moves())
        self.assertLessEqual(max(planned.values()), 2)

    def assert_each_step_once(self, upgrade):
        """What was asked of the hosts is what the plan says, each once."""
        steps = upgrade.steps()
        self.assertEqual(set(), {s['ord'] for s in steps if s['attempt'] > 1})
        wanted = collections.Counter()
        for step in steps:
            if step['kind'] == 'upgrade_service':
                wanted[step['host'], step['project'], 'switch'] += 1
            elif step['host'] and step['project'] and step['kind'] in NOTED:
                wanted[step['host'], step['project'], step['kind']] += 1
        self.assertEqual(wanted, self.asked())

    def asked(self):
        """Count what was asked of the hosts: {(host, project, action): times}."""
        log = [e for e in self.service.cloud_log() if e['what'] in ('run', 'switch')]
        return collections.Counter(
            (e['host'], e['project'], e.get('action') or 'switch') for e in log
        )


#: kinds that the simulated hosts only note
#: what is said of a step that is only on its way
_SENT = frozenset({'dispatched'})
NOTED = frozenset({
    'prefetch', 'upgrade_check', 'backup_database', 'db_expand', 'db_migrate', 'db_contract',
    'online_migrations', 'rehearse_config', 'rehearse_database', 'verify_backup', 'check_records',
    'reset_records',
})  # fmt: skip


class TestWholeCloud(ServiceCase):
    def test_a_cloud_is_upgraded(self):
        self.serve(computes=4, servers=6, azs=2)
        upgrade = self.service.upgrade()
        row = upgrade.wait('paused')
        self.assertEqual('finish', row['gate'])
        self.assertEqual([], [s for s in upgrade.steps(stage='finish') if s['attempt']])
        upgrade.verb('approve', gate='finish')
        upgrade.wait('succeeded')
        self.assert_upgraded()
        self.assert_all_in_service()
        self.assert_moved_as_planned(upgrade)
        self.assert_each_step_once(upgrade)

    def test_a_cold_project_stops_before_it_changes(self):
        fact = {'manner': 'cold', 'source': 'site', 'proof': 'doc'}
        data = {'sources': [{'id': 'site', 'ref': 'this test'}], 'upgrade': {'adjacent': fact}}
        self.serve(computes=2, projects={'glance': data})
        upgrade = self.service.upgrade(start=False, approve_ponr=True)
        refused = self.assertRaises(service.Refused, upgrade.verb, 'start')
        self.assertIn('cold_upgrade', str(refused))
        upgrade.verb('start', accept=['cold_upgrade'])
        upgrade.wait('succeeded')
        self.assert_upgraded()
        log = [
            (e['what'], e.get('action')) for e in self.service.cloud_log() if self._of_glance(e)
        ]
        order = [
            ('unit stop', None),
            ('unit down', None),
            ('run', 'db_expand'),
            ('run', 'db_migrate'),
            ('switch', None),
            ('unit up', None),
        ]
        self.assertEqual(order, [entry for entry in log if entry in order])

    @staticmethod
    def _of_glance(entry):
        return 'glance' in (entry.get('project'), (entry.get('binary') or '').partition('-')[0])


class TestLosses(ServiceCase):
    """Processes die and messages are lost; the upgrade goes on."""

    def test_conductors_are_killed(self):
        self.serve(computes=4, servers=6, azs=2)
        upgrade = self.service.upgrade(approve_ponr=True)
        upgrade.wait_step(
            kind='upgrade_service', project='neutron', host='ctl1', state='succeeded'
        )
        self._kill_owner(upgrade)
        service.wait_for('a migration', lambda: len(self.moves()) > 0)
        self._kill_owner(upgrade)
        upgrade.wait('succeeded')
        self.assert_upgraded()
        self.assert_all_in_service()
        self.assert_moved_as_planned(upgrade)
        self.assert_each_step_once(upgrade)

    def _kill_owner(self, upgrade):
        """Kill the conductor at work; another one is there a moment later."""
        before = db.upgrade_get(self.service.ctx, upgrade.id)
        self.service.conductors[-1].kill()
        self.service.conductor()

        def taken_over():
            row = db.upgrade_get(self.service.ctx, upgrade.id)
            return row['epoch'] > before['epoch'] and row['owner'] != before['owner']

        service.wait_for('another owner', taken_over)

    def test_engines_are_killed(self):
        self.serve(apart=('cmp1', 'cmp2'))
        upgrade = self.service.upgrade(strategy='scripted', approve_ponr=True)
        steps = {
            host: upgrade.wait_step(host=host, kind='prefetch', project='nova', state='running')
            for host in ('cmp1', 'cmp2')
        }
        for engine in self.service.engines.values():
            engine.kill()
        # one finds its job at work, the other finds what came of it
        self.service.engines['cmp1'].restart()
        self.assertEqual([f'begin {steps["cmp1"]["id"]}'], self._traced(steps['cmp1']))
        service.wait_for('the end', lambda: len(self._traced(steps['cmp2'])) == 2)
        self.service.engines['cmp2'].restart()
        upgrade.wait('succeeded')
        for step in steps.values():
            self.assertEqual([f'{w} {step["id"]}' for w in ('begin', 'end')], self._traced(step))
        # what rode behind them in the same order had not begun: it is given back, and done once
        again = {s['id'] for s in upgrade.steps() if s['attempt'] > 1}
        told = [(e['step_id'], e['kind']) for e in self._events(upgrade) if e['attempt'] == 1]
        self.assertEqual({'revoked'}, {kind for step, kind in told if step in again} - _SENT)
        self.assert_upgraded()

    def _events(self, upgrade):
        return db.event_list(self.service.ctx, upgrade.id)

    def _traced(self, step):
        lines = pathlib.Path(self.service.folder, 'trace').read_text().splitlines()
        return [line for line in lines if step['id'] in line]

    def test_messages_are_lost(self):
        self.serve()
        hostile = self.useFixture(bus.Bus(service.RABBIT))
        agent = bus.engine(db.agent_get(self.service.ctx, 'cmp1')['id'])
        upgrade = self.service.upgrade(start=False, strategy='scripted', approve_ponr=True)
        hostile.cut(agent)
        upgrade.verb('start')
        check = upgrade.wait_step(kind='check_host', host='cmp1', state='dispatched')
        upgrade.wait_step(kind='check_host', host='cmp2', state='succeeded')
        time.sleep(1)
        self.assertEqual('dispatched', upgrade.steps(ord=check['ord'])[0]['state'])
        hostile.mend(agent)
        upgrade.wait_step(kind='prefetch', project='nova', host='cmp1', state='running')
        # nothing that engines or the API say reaches a conductor
        hostile.cut(rpc.CONDUCTOR_TOPIC)
        hostile.empty(rpc.CONDUCTOR_TOPIC)
        nova = upgrade.steps(kind='prefetch', project='nova')
        service.wait_for('the end of them', lambda: all(len(self._traced(s)) == 2 for s in nova))
        upgrade.verb('pause')
        time.sleep(1)
        self.assertEqual('stopping', upgrade.row['state'])
        hostile.mend(rpc.CONDUCTOR_TOPIC)
        upgrade.wait('paused')
        upgrade.verb('resume')
        upgrade.wait('succeeded')
        self.assertEqual([], [s['ord'] for s in upgrade.steps() if s['attempt'] > 1])
        self.assert_upgraded()
        self.assert_moved_as_planned(upgrade)


class TestVerbs(ServiceCase):
    def test_pause_and_cancel(self):
        self.serve()
        upgrade = self.service.upgrade()
        upgrade.wait_step(kind='prefetch', state='succeeded')
        upgrade.verb('pause')
        upgrade.wait('paused')
        self.assertEqual([], upgrade.steps(state='dispatched') + upgrade.steps(state='running'))
        upgrade.verb('resume')
        self._assert_nothing_begins_while_it_is_paused(upgrade)
        # cmp2, the empty one, is upgraded by now; cmp1 is being drained
        upgrade.wait_step(kind='drain_host', host='cmp1', state='running')
        self.assertIn(
            ('cmp1', 'disabled'), {(s['host'], s['status']) for s in self.service.computes()}
        )
        upgrade.verb('cancel')
        upgrade.wait('cancelled')
        self.assert_all_in_service()
        versions = {h['host']: h['projects']['nova']['version'] for h in self.service.simulated()}
        self.assertEqual(
            {
                'ctl1': TARGET['nova'],
                'cmp2': TARGET['nova'],
                'cmp1': spec.VERSIONS['2026.1']['nova'],
            },
            versions,
        )
        with ExpectedException(service.Refused, '409.*'):
            upgrade.verb('resume')
        self._assert_the_rest_is_done_by_another(upgrade)

    def _assert_nothing_begins_while_it_is_paused(self, upgrade):
        upgrade.wait_step(kind='upgrade_service', host='ctl1', state='succeeded')
        kinds = [e['kind'] for e in upgrade.events()]
        asked, resumed = kinds.index('pause'), kinds.index('resume')
        self.assertEqual(set(), set(kinds[asked:resumed]) & {'dispatched', 'started'}, kinds)

    def _assert_the_rest_is_done_by_another(self, first):
        """What the first one did need not be done again."""
        second = self.service.upgrade(approve_ponr=True)
        second.wait('succeeded')
        self.assertEqual(
            {'cmp1'}, {s['host'] for s in second.steps(kind='upgrade_service', project='nova')}
        )
        self.assert_upgraded()
        self.assert_all_in_service()

    def test_failed_steps(self):
        self.serve()
        self.service.fault('action_fails', host='ctl1', project='glance', action='db_expand')
        self.service.fault('action_fails', host='ctl1', project='nova', action='upgrade_check')
        upgrade = self.service.upgrade(approve_ponr=True)
        self.assertEqual('step_failed', upgrade.wait('blocked')['blocked_reason'])
        (check,) = upgrade.steps(state='failed')
        self.assertEqual(('upgrade_check', 3), (check['kind'], check['attempt']))
        with ExpectedException(service.Refused, '409.*'):
            upgrade.verb('resume', acknowledge='step_failed')
        upgrade.step_verb(check, 'skip')
        self._next_failure(upgrade)
        (expand,) = upgrade.steps(state='failed')
        self.assertEqual('db_expand', expand['kind'])
        with ExpectedException(service.Refused, '409.*not skippable.*'):
            upgrade.step_verb(expand, 'skip')
        self.service.mend()
        upgrade.step_verb(expand, 'retry')
        service.wait_for('the retry', lambda: upgrade.row['state'] == 'running')
        upgrade.wait('succeeded')
        self.assertEqual('skipped', upgrade.steps(ord=check['ord'])[0]['state'])
        self.assert_upgraded()

    def _next_failure(self, upgrade):
        service.wait_for(
            'the next failure', lambda: upgrade.steps(state='failed', kind='db_expand')
        )
        upgrade.wait('blocked')


class TestHostileBus(ServiceCase):
    """Whoever has every right on the bus can disturb, but has nothing done."""

    def setUp(self):
        super().setUp()
        self.serve()
        self.bus = self.useFixture(bus.Bus(service.RABBIT))
        agents = {a['host']: a['id'] for a in db.agent_list(self.service.ctx)}
        self.agents = agents
        self.topic = {host: bus.engine(ident) for host, ident in agents.items()}
        ears = {host: self.bus.listen(topic) for host, topic in self.topic.items()}
        # at rest before anything is switched, with real orders to copy
        rules = {'gates': ['control_plane', 'finish']}
        self.upgrade = self.service.upgrade(policy=rules)
        self.upgrade.wait('paused')
        self.heard = {host: self.bus.heard(ear) for host, ear in ears.items()}

    def _order(self, host, kind):
        """Return a real order that was sent to a host."""
        for message in self.heard[host]:
            env = message['args'].get('env')
            if message['method'] == 'order' and kind in env['payload']:
                return env
        raise AssertionError(f'no {kind} among {self.heard[host]}')

    def _signed(self, env, signer, **changes):
        return signer.seal({**json.loads(env['payload']), **changes})

    def _key_of(self, host):
        path = pathlib.Path(self.service.folder, 'engines', host, 'agent.key')
        return trust.Signer.load(path, self.agents[host])

    def _new_steps(self, env):
        """Make the order one of attempts that nobody has seen."""
        steps = json.loads(env['payload'])['steps']
        return [{**s, 'attempt': 9} for s in steps]

    def test_orders_that_no_conductor_gave(self):
        real = self._order('cmp1', 'prefetch')
        before = self.service.cloud_log()
        cmp1, said = self.topic['cmp1'], self.service.cloud_process.said
        steps = self._new_steps(real)
        forgeries = [
            self._signed(real, trust.Signer.generate(real['kid']), steps=steps),
            self._signed(real, trust.Signer.generate('mine'), steps=steps),
            self._signed(real, self._key_of('cmp1'), steps=steps),
            {**real, 'payload': real['payload'].replace('"attempt":1', '"attempt":9')},
            {**real, 'payload': real['payload'].replace('"epoch":', '"epoch":9')},
            {**real, 'payload': real['payload'] + ' ' * trust.MAX_PAYLOAD},
            self._signed(real, self._key_of('cmp2'), steps=steps, epoch=999),
            {**real, 'sig': ''},
            {**real, 'sig': [1]},
            {**real, 'kid': {}},
            {'payload': real['payload']},
            {},
            'x',
            None,
        ]
        for env in forgeries:
            self.bus.cast(cmp1, 'order', env=env)
        # as it was; to another host; as another kind of message
        self.bus.cast(cmp1, 'order', env=real)
        self.bus.cast(self.topic['cmp2'], 'order', env=real)
        for method in ('keys', 'revoke', 'probe', 'recorded', 'describe'):
            self.bus.cast(cmp1, method, env=real)
        for method in ('tick', 'stop', 'tell_facts', '_take', '_accept', '__init__', 'conf'):
            self.bus.cast(cmp1, method)
            self.bus.cast(cmp1, method, said={}, links=[])
        self._flood(cmp1, real)
        for body in ({}, [], 'x', {'oslo.version': '2.0', 'oslo.message': '[]'}):
            self.bus.publish(cmp1, body)
        self._assert_it_goes_on(before, said)

    def _flood(self, topic, real):
        """Say a real order again and again, and twice at once in another order."""
        for _ in range(50):
            self.bus.cast(topic, 'order', env=real)
        for message in reversed(self.heard['cmp1']):
            self.bus.cast(topic, message['method'], **message['args'])

    def _assert_it_goes_on(self, before, said):
        """Nothing was done, each attempt to have something done is on record, all works."""
        service.wait_for('the warnings', lambda: said('the signature is wrong') >= 2)
        service.wait_for('the warning', lambda: said('it is for another engine') >= 1)
        service.wait_for('the warnings', lambda: said('expected ') >= 5)
        self.assertEqual(self._done(before), self._done(self.service.cloud_log()))
        row = self.upgrade.row
        self.assertEqual(('paused', 'control_plane'), (row['state'], row['gate']))
        self._finish()

    def _done(self, log):
        return [
            (e['what'], e.get('host')) for e in log if e['kind'] == 'call' and e['what'] != 'token'
        ]

    def _finish(self):
        for gate in ('control_plane', 'finish'):
            self.upgrade.wait('paused')
            self.upgrade.verb('approve', gate=gate)
        self.upgrade.wait('succeeded')
        self.assert_upgraded()
        self.assert_each_step_once(self.upgrade)

    def test_reports_that_the_engine_did_not_make(self):
        self.bus.cut(self.topic['ctl1'])
        self.upgrade.verb('approve', gate='control_plane')
        victim = self.upgrade.wait_step(host='ctl1', stage='control_plane', state='dispatched')
        outcome = {'result': 'succeeded', 'rc': 0, 'error': '', 'output': '', 'data': {}}
        item = {
            'upgrade': self.upgrade.id,
            'step': victim['id'],
            'attempt': victim['attempt'],
            'what': 'outcome',
            'outcome': outcome,
        }
        other = self._key_of('cmp1')
        for signer, about in (
            (trust.Signer.generate(self.agents['ctl1']), 'ctl1'),
            (trust.Signer.generate('mine'), 'ctl1'),
            (other, 'ctl1'),
            (other, 'cmp1'),
        ):
            self._report(signer, about, about, item)
        self._report(other, 'cmp1', 'ctl1', item)
        # what is no report at all must not stand in the way of what is one
        for nonsense in (
            7,
            {},
            {**item, 'attempt': '1'},
            {**item, 'attempt': None},
            {**item, 'outcome': 'x'},
            {**item, 'outcome': {}},
            {**item, 'step': ['x']},
            {**item, 'what': {}},
            {**item, 'what': 'refused', 'reason': 'stale_epoch', 'current': 7},
            {**item, 'what': 'teleported'},
            {**item, 'attempt': 2**40},
            {**item, 'upgrade': '../../etc'},
        ):
            self._report(other, 'cmp1', 'cmp1', nonsense)
            self._report(self._key_of('ctl1'), 'ctl1', 'ctl1', nonsense)
        big = {**item, 'outcome': {**outcome, 'output': 'x' * trust.MAX_PAYLOAD}}
        self._report(self._key_of('ctl1'), 'ctl1', 'ctl1', big)
        self._report(self._key_of('ctl1'), 'ctl1', 'ctl1', item, v=2)
        self._cast('enroll', token='x', host='ctl1', pubkey='A' * 44)
        self._cast('enroll', token=None, host=[], pubkey={})
        self._cast('heartbeat', agent={'x': 1}, boot_id=None, version=7)
        self._cast('facts', env=None)
        self._cast('advance', upgrade={'x': 1})
        for method in ('flush_heartbeats', '_believed', 'stop', 'conf'):
            self._cast(method)
        time.sleep(3)
        found = self.upgrade.steps(ord=victim['ord'])[0]
        self.assertEqual(('dispatched', 1), (found['state'], found['attempt']))
        self.assertEqual(3, len(db.agent_list(self.service.ctx)))
        self.bus.mend(self.topic['ctl1'])
        self.upgrade.wait('paused')
        self.upgrade.verb('approve', gate='finish')
        self.upgrade.wait('succeeded')
        self.assert_upgraded()
        self.assert_each_step_once(self.upgrade)

    def _cast(self, method, **arguments):
        self.bus.cast(rpc.CONDUCTOR_TOPIC, method, **arguments)

    def _report(self, signer, agent, host, item, **more):
        said = {
            'v': 1,
            'type': 'report',
            'agent': self.agents[agent],
            'host': host,
            'boot_id': 'x',
            'at': 0,
            'items': [item],
            **more,
        }
        self._cast('report', env=signer.seal(said))
