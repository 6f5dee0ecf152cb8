"""Disable, enable, verify, check and probe, on the simulated cloud."""

from typing import Any

from upgrade_service.conductor.cloud import connect
from upgrade_service.tests.unit.cloud import base


class ServicesTest(base.CloudTestCase):
    def record(self) -> Any:
        return self.cloud.record('cmp1', 'nova-compute')

    def test_disable_and_enable(self) -> None:
        outcome = self.run_step('disable_host', 'cmp1')
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertFalse(outcome.data['disabled_by_others'])
        self.assertTrue(self.record().reason.startswith(f'upgrade-service:{base.UPGRADE}:'))
        self.assertIn('intent', self.saved[0])
        self.run_step('disable_host', 'cmp1')
        self.assertEqual(1, len(self.calls('disable')))
        outcome = self.run_step('enable_host', 'cmp1')
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertFalse(self.record().disabled)

    def test_leaves_what_others_disabled(self) -> None:
        self.record().disabled, self.record().reason = True, 'broken fan'
        outcome = self.run_step('disable_host', 'cmp1')
        self.assertTrue(outcome.data['disabled_by_others'])
        outcome = self.run_step('enable_host', 'cmp1')
        self.assertEqual('succeeded', outcome.result)
        self.assertEqual(['nova-compute'], outcome.data['left_disabled'])
        self.assertTrue(self.record().disabled)

    def test_another_upgrade_is_somebody_else(self) -> None:
        self.record().disabled, self.record().reason = True, 'upgrade-service:other:1:1 x'
        self.run_step('enable_host', 'cmp1')
        self.assertTrue(self.record().disabled)

    def test_does_not_enable_what_is_down(self) -> None:
        self.run_step('disable_host', 'cmp1')
        self.cloud.inject('service_down', host='cmp1', binary='nova-compute')
        outcome = self.run_step('enable_host', 'cmp1')
        self.assertEqual('failed', outcome.result)
        self.assertIn('nova-compute on cmp1 is down', outcome.error)
        self.assertTrue(self.record().disabled)

    def test_enables_when_it_comes_up_late(self) -> None:
        self.run_step('disable_host', 'cmp1')
        self.cloud.inject('service_down', seconds=30, host='cmp1', binary='nova-compute')
        self.assertEqual('succeeded', self.run_step('enable_host', 'cmp1').result)
        self.assertFalse(self.record().disabled)

    def test_waits_for_an_api_that_is_away(self) -> None:
        self.cloud.inject('api_down', seconds=120, project='nova')
        outcome = self.run_step('disable_host', 'cmp1')
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertTrue(self.record().disabled)

    def test_gives_up_after_the_grace(self) -> None:
        self.set_option('control_plane_grace', 60)
        self.cloud.inject('api_down', project='nova')
        outcome = self.run_step('disable_host', 'cmp1')
        self.assertEqual('failed', outcome.result)
        self.assertIn('60 s', outcome.error)

    def test_verify(self) -> None:
        outcome = self.run_step(
            'verify_service', 'ctl1', project='nova', binaries=['nova-conductor', 'nova-api']
        )
        self.assertEqual('succeeded', outcome.result, outcome.error)
        self.assertEqual('2.100', outcome.data['api'])

    def test_verify_fails_what_stays_down(self) -> None:
        self.cloud.inject('service_down', host='cmp1', binary='nova-compute')
        outcome = self.run_step(
            'verify_service', 'cmp1', project='nova', binaries=['nova-compute']
        )
        self.assertEqual('failed', outcome.result)
        self.assertIn('nova-compute on cmp1', outcome.error)

    def test_verify_fails_a_dead_api(self) -> None:
        self.cloud.inject('api_down', project='glance')
        outcome = self.run_step(
            'verify_service', 'ctl1', project='glance', binaries=['glance-api']
        )
        self.assertEqual('failed', outcome.result)

    def test_check_and_probe(self) -> None:
        good = self.inventory().fingerprint()
        self.assertEqual('succeeded', self.run_step('check_cloud', fingerprint=good).result)
        bad = self.run_step('check_cloud', fingerprint='other')
        self.assertEqual('drift', bad.data['blocked_reason'])
        apis = self.run_step('probe_cloud').data['apis']
        self.assertEqual(sorted(connect.TYPES), sorted(apis))


class GuardTest(base.CloudTestCase):
    def entry(self) -> dict[str, Any]:
        entry = super().entry()
        entry['clouds']['simulated']['allowed_hosts'] = ['elsewhere.example.org']
        return entry

    def test_refuses_a_host_that_is_not_allowed(self) -> None:
        outcome = self.run_step('disable_host', 'cmp1')
        self.assertEqual('failed', outcome.result)
        self.assertIn('allowed_hosts', outcome.error)
        self.assertEqual([], self.calls('disable'))
