"""The whole service takes back what it did: from every stage, whole hosts, in order."""

from testtools import ExpectedException

from upgrade_service.simulator import spec
from upgrade_service.tests.functional import service, test_service

SOURCE = spec.VERSIONS['2026.1']
TARGET = spec.VERSIONS['2026.2']


class RollbackCase(test_service.ServiceCase):
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
        self.assert_upgraded_but_for_pins()
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

    def assert_upgraded_but_for_pins(self):
        self.assert_upgraded()

    def _assert_it_can_be_done_again(self):
        second = self.service.upgrade(approve_ponr=True)
        second.wait('succeeded')
        self.assert_upgraded()
        self.assert_all_in_service()
