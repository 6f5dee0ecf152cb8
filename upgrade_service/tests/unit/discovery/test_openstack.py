"""The inventory plugin against the simulated cloud: what it finds, and how often it asks."""

from upgrade_service import exception
from upgrade_service.conductor.discovery import openstack
from upgrade_service.simulator import spec as specs
from upgrade_service.tests.unit.cloud import base


class OpenStackInventoryTest(base.CloudTestCase):
    def test_finds_hosts_services_servers(self) -> None:
        found = openstack.OpenStackInventory().collect(self.conf, self.cluster)
        self.assertEqual(set(self.cloud.nodes), set(found.hosts))
        self.assertEqual(20, len(found.servers))
        self.assertEqual('az1', found.hosts['cmp1'].az)
        self.assertEqual(len(self.on('cmp1')), found.hosts['cmp1'].instances)
        self.assertEqual(6, found.hosts['ctl1'].volumes)
        self.assertGreater(found.hosts['ctl2'].routers, 0)
        self.assertGreater(found.hosts['cmp1'].ram_mb, 0)
        grouped = [s for s in found.servers if s.group]
        self.assertEqual({'anti-affinity'}, {s.group_policy for s in grouped})
        self.assertEqual(6, len(grouped))

    def test_names_the_api_that_is_away(self) -> None:
        self.cloud.inject('api_down', project='cinder')
        error = self.assertRaises(
            exception.CloudUnavailable,
            openstack.OpenStackInventory().collect,
            self.conf,
            self.cluster,
        )
        self.assertIn('cinder', str(error))


class PagesTest(base.CloudTestCase):
    spec = specs.default_spec(computes=40, servers=1200)

    def test_all_pages_are_read(self) -> None:
        found = openstack.OpenStackInventory().collect(self.conf, self.cluster)
        self.assertEqual(1200, len({s.id for s in found.servers}))
        self.assertEqual(43, len(found.hosts))
