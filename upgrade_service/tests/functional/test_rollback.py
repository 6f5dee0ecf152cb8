"""The whole service takes back what it did: from every stage, whole hosts, in order."""

from concurrent import futures
import os

from testtools import ExpectedException

from upgrade_service.simulator import spec
from upgrade_service.tests.functional import service, test_service

SOURCE = spec.VERSIONS['2026.1']
TARGET = spec.VERSIONS['2026.2']


class RollbackCase(test_service.ServiceCase):
    def dear(self):
        """Leave a long story to the tier `rollback`."""
        if not os.environ.get('UPGRADE_TEST_DEAR'):
            self.skipTest('only in the tier rollback')

    def assert_as_before(self):
        """Every service runs what it ran, every host takes servers in, each server is up."""
        for host in self.service.simulated():
            for name, project in host['projects'].items():
                self.assertEqual(SOURCE[name], project['version'], (host['host'], name))
                for unit in project['services']:
                    self.assertEqual(
                        ('active', SOURCE[name]), (unit['state'], unit['version']), unit
                    )
        self.assert_all_in_service()

    def switches(self):
        """List (host, project, version) of what was switched, in the order it was."""
        return [
            (e['host'], e['project'], e['version'])
            for e in self.service.cloud_log()
            if e['what'] == 'switch'
        ]

    def assert_last_in_first_out(self):
        """What went back, of all that was done, went back in the opposite order."""
        switched = self.switches()
        there = [s[:2] for s in switched if s[2] == TARGET[s[1]]]
        back = [s[:2] for s in switched if s[2] == SOURCE[s[1]]]
        self.assertEqual(sorted(there), sorted(back))
        control = [s for s in there if s[0] == 'ctl1']
        self.assertEqual(control[::-1], [s for s in back if s[0] == 'ctl1'])
        # the agents of ctl1 are of the data plane, its other services follow all hosts
        others = [n for n, s in enumerate(back) if s[0] == 'ctl1' and s[1] != 'neutron']
        self.assertEqual(set(), {s[0] for s in back[min(others, default=0) :]} - {'ctl1'})

    def back(self, upgrade, **body):
        """Roll back and wait for the end."""
        upgrade.verb('rollback', **body)
        return upgrade.wait('rolled_back')


class TestRollback(RollbackCase):
    def test_from_the_gate_before_the_points_of_no_return(self):
        self.serve(computes=3, servers=4)
        upgrade = self.service.upgrade()
        row = upgrade.wait('paused')
        self.assertEqual(('finish', None), (row['gate'], row['rollback_floor']))
        self.assertTrue(row['points_of_no_return'])
        self.assert_upgraded()
        row = self.back(upgrade)
        self.assertEqual('back', row['direction'])
        self.assert_as_before()
        self.assert_last_in_first_out()
        undo = upgrade.steps(direction='back')
        self.assertEqual({'succeeded'}, {s['state'] for s in undo})
        self.assertEqual({1}, {s['attempt'] for s in undo if s['kind'] != 'gate'})
        with ExpectedException(service.Refused, '409.*'):
            upgrade.verb('resume')
        self._assert_it_can_be_done_again()

    def _assert_it_can_be_done_again(self):
        second = self.service.upgrade(approve_ponr=True)
        second.wait('succeeded')
        self.assert_upgraded()
        self.assert_all_in_service()

    def test_from_every_stage(self):
        self.dear()
        self.serve()
        gates = ['prepare', 'control_plane', 'canary', 'data_plane', 'finish']
        for gate in gates:
            upgrade = self.service.upgrade(policy={'gates': gates[gates.index(gate) :]})
            self.assertEqual(gate, upgrade.wait('paused')['gate'])
            self.back(upgrade)
            self.assert_as_before()
            undone = [s for s in upgrade.steps(direction='back') if s['state'] == 'succeeded']
            self.assertEqual(gate in ('canary', 'data_plane', 'finish'), bool(undone), gate)
        self.assert_last_in_first_out_each(gates)

    def assert_last_in_first_out_each(self, gates):
        """Every switch that one of them made was taken back."""
        switched = self.switches()
        there = sorted(s[:2] for s in switched if s[2] == TARGET[s[1]])
        back = sorted(s[:2] for s in switched if s[2] == SOURCE[s[1]])
        self.assertEqual(there, back)
        self.assertTrue(there)

    def test_to_a_step(self):
        self.dear()
        self.serve()
        upgrade = self.service.upgrade()
        upgrade.wait('paused')
        control = [s for s in upgrade.steps(stage='control_plane') if s['kind'] != 'gate']
        last = max(s['ord'] for s in control)
        self.back(upgrade, to=str(last))
        for host in self.service.simulated():
            wanted = TARGET if host['host'] == 'ctl1' else SOURCE
            versions = {n: p['version'] for n, p in host['projects'].items() if n != 'neutron'}
            self.assertEqual({n: wanted[n] for n in versions}, versions)
        self.assert_all_in_service()

    def test_below_the_floor_it_is_refused(self):
        self.serve()
        upgrade = self.service.upgrade()
        upgrade.wait('paused')
        # it stands still beyond some of the points of no return
        self.service.fault('action_fails', host='ctl1', project='nova', action='online_migrations')
        upgrade.verb('approve', gate='finish')
        upgrade.wait('blocked')
        point = upgrade.steps(stage='finish', ponr=True, state='succeeded')[0]
        with ExpectedException(service.Refused, '409.*is a point of no return; back as far as.*'):
            upgrade.verb('rollback')
        self.assertLessEqual(point['ord'], upgrade.row['rollback_floor'])
        self.service.mend()
        (failed,) = upgrade.steps(state='failed')
        upgrade.step_verb(failed, 'retry')
        upgrade.wait_past('blocked', 'succeeded')
        (refusal,) = [e for e in upgrade.events() if e['kind'] == 'verb_refused']
        self.assertEqual('rollback', refusal['detail']['verb'])


class TestTroubledHost(RollbackCase):
    """A host in the middle of its upgrade is brought back whole."""

    def test_after_a_failure(self):
        self.serve()
        self.service.fault('action_fails', host='cmp1', project='nova', action='switch')
        upgrade = self.service.upgrade()
        upgrade.wait('blocked')
        (failed,) = upgrade.steps(state='failed')
        self.assertEqual(('cmp1', 'nova'), (failed['host'], failed['project']))
        neutron = self.host('cmp1')['neutron']['version']
        self.assertEqual(TARGET['neutron'], neutron)
        self.service.mend()
        self.back(upgrade)
        self.assert_as_before()

    def host(self, name):
        return next(h['projects'] for h in self.service.simulated() if h['host'] == name)

    def test_units_that_do_not_start_with_the_new_code(self):
        self.dear()
        self.serve()
        self.service.fault(
            'unit_fails', host='cmp1', binary='nova-compute', version=TARGET['nova']
        )
        upgrade = self.service.upgrade()
        # it waits a minute for the unit, and then tries again by itself
        service.wait_for('a failure', lambda: self.retried(upgrade), 180)
        self.assertEqual(TARGET['nova'], self.host('cmp1')['nova']['version'])
        # with the old code it does start: nothing need be mended
        self.back(upgrade)
        self.assert_as_before()

    def retried(self, upgrade):
        return [e for e in upgrade.events() if e['kind'] == 'auto_retry']

    def test_during_its_drain(self):
        self.dear()
        self.serve(servers=4)
        upgrade = self.service.upgrade()
        upgrade.wait_step(kind='drain_host', state='running', host='cmp1')
        self.back(upgrade)
        self.assert_as_before()
        self.assertEqual([], [s for s in self.switches() if s[:2] == ('cmp1', 'nova')])

    def test_a_rollback_that_fails_blocks_and_goes_on_after_a_retry(self):
        self.dear()
        self.serve()
        upgrade = self.service.upgrade()
        upgrade.wait('paused')
        self.service.fault('action_fails', host='cmp1', project='nova', action='switch')
        upgrade.verb('rollback')
        row = upgrade.wait('blocked')
        self.assertEqual('back', row['direction'])
        (failed,) = upgrade.steps(state='failed', direction='back')
        with ExpectedException(service.Refused, '409.*'):
            upgrade.verb('cancel')
        self.service.mend()
        upgrade.step_verb(failed, 'retry')
        upgrade.wait_past('blocked', 'rolled_back')
        self.assert_as_before()

    def test_a_conductor_dies_on_the_way_back(self):
        self.dear()
        self.serve()
        upgrade = self.service.upgrade()
        upgrade.wait('paused')
        upgrade.verb('rollback')
        upgrade.wait_step(direction='back', kind='upgrade_service', host='cmp1', state='succeeded')
        self.service.conductors[-1].kill()
        self.service.conductor()
        upgrade.wait('rolled_back')
        self.assert_as_before()
        self.assert_last_in_first_out()


class TestOtherVerbs(RollbackCase):
    def test_pause_at_host_leaves_no_host_aside(self):
        self.serve(computes=3, servers=4)
        upgrade = self.service.upgrade()
        upgrade.wait_step(kind='drain_host', state='running')
        upgrade.verb('pause', at='host')
        row = upgrade.wait('paused')
        self.assertIsNone(row['gate'])
        self.assert_all_in_service()
        done = {s['host'] for s in upgrade.steps(kind='enable_host', state='succeeded')}
        self.assertTrue(0 < len(done) < 3, done)
        self._assert_the_rest_can_be_planned_anew(upgrade, done)

    def _assert_the_rest_can_be_planned_anew(self, upgrade, done):
        upgrade.verb('replan')
        service.wait_for('the new plan', lambda: upgrade.row['revision'] == 2)
        row = upgrade.wait('paused')
        self.assertEqual((None, 2), (row['gate'], row['revision']))
        switched = {s['host'] for s in upgrade.steps(kind='disable_host')}
        self.assertEqual(set(), switched & done)
        upgrade.verb('resume')
        self.assertEqual('finish', upgrade.wait('paused')['gate'])
        self.assert_upgraded()
        # the way back of the first plan follows that of the second
        self.back(upgrade)
        self.assert_as_before()

    def test_abort_interrupts_an_installation(self):
        self.dear()
        self.serve(apart=('cmp1', 'cmp2'))
        upgrade = self.service.upgrade(strategy='scripted')
        step = upgrade.wait_step(kind='prefetch', project='nova', host='cmp1', state='running')
        upgrade.verb('cancel', now=True)
        upgrade.wait('cancelled')
        (step,) = upgrade.steps(ord=step['ord'])
        self.assertEqual('failed', step['state'], upgrade.picture())
        self.assertIn('aborted because the upgrade is', step['error'])
        self.assert_as_before()

    def test_a_lost_host_is_gone_on_without(self):
        self.dear()
        self.serve(apart=('cmp2',))
        upgrade = self.service.upgrade(strategy='scripted')
        upgrade.wait_step(kind='check_cloud', state='succeeded')
        self.service.engines['cmp2'].kill()
        upgrade.wait_step(kind='prefetch', host='cmp1', project='nova', state='succeeded')
        path = '/v1/clusters/simulated/hosts/cmp2/declare-lost'
        with ExpectedException(service.Refused, '400.*fenced.*'):
            self.service.request('POST', path, {'reason': 'burnt'})
        self.service.request('POST', path, {'fenced': True, 'reason': 'burnt'})
        self.assertEqual('finish', upgrade.wait('paused')['gate'])
        ended = {s['state'] for s in upgrade.steps(host='cmp2')}
        self.assertTrue({'skipped'} <= ended <= {'skipped', 'succeeded'}, ended)
        ran = {s['host'] for s in upgrade.steps(kind='upgrade_service', state='succeeded')}
        self.assertEqual({'ctl1', 'cmp1'}, ran)
        (agent,) = self.service.all('/v1/agents?host=cmp2')
        self.assertEqual('revoked', agent['state'])
        report = self.service.request('GET', f'{upgrade.path}/report')
        self.assertEqual({'cmp2'}, {s['host'] for s in report['skipped']})
        self.assertEqual(
            {'start', 'declare_lost'}, {r['verb'] for r in report['requests']} - {'created'}
        )

    def test_contradictory_verbs_at_once(self):
        self.serve()
        upgrade = self.service.upgrade(policy={'gates': ['data_plane', 'finish']})
        upgrade.wait_step(kind='upgrade_service', host='ctl1', state='succeeded')
        with futures.ThreadPoolExecutor(6) as pool:
            said = list(pool.map(lambda v: self._ask(upgrade, v), ['cancel', 'rollback'] * 3))
        won = [verb for verb, status in said if status == 202]
        self.assertEqual(1, len(set(won)), said)
        end = 'cancelled' if won[0] == 'cancel' else 'rolled_back'
        upgrade.wait(end)
        kinds = [e['kind'] for e in upgrade.events()]
        self.assertEqual((3, 3), (kinds.count(won[0]), kinds.count('verb_refused')), said)
        self.assertEqual(6, len(said))

    def _ask(self, upgrade, verb):
        try:
            upgrade.verb(verb)
        except service.Refused as e:
            return verb, e.status
        return verb, 202
