"""Reading the simulated cloud with a real openstacksdk."""

from typing import Any

from openstack import exceptions

from upgrade_service.simulator import spec as specs
from upgrade_service.tests.unit.simulator import base


class TestIdentity(base.SimulatorTestCase):
    def test_token_and_catalog(self) -> None:
        self.assertTrue(self.conn.authorize())
        types = {service.type for service in self.conn.identity.services()}
        self.assertEqual(
            {'identity', 'compute', 'network', 'block-storage', 'placement', 'image'}, types
        )
        endpoint = self.conn.endpoint_for('compute', interface='public')
        self.assertEqual(f'{self.simulator.url}/compute/v2.1', endpoint)

    def test_lists(self) -> None:
        self.assertEqual(['RegionOne'], [r.id for r in self.conn.identity.regions()])
        self.assertIn('admin', [r.name for r in self.conn.identity.roles()])
        self.assertEqual(18, len(list(self.conn.identity.endpoints())))

    def test_wrong_password(self) -> None:
        conn: Any = base.connect(self.simulator)
        conn.session.auth._plugin = None
        conn.session.auth._password = 'wrong'
        error = self.assertRaises(exceptions.SDKException, conn.authorize)
        self.assertIn('HTTP 401', str(error))

    def test_token_expires_and_is_renewed(self) -> None:
        list(self.conn.compute.services())
        self.sleep(4000)
        self.assertNotEqual([], list(self.conn.compute.services()))

    def test_token_is_validated(self) -> None:
        url = f'{self.simulator.url}/identity/v3/auth/tokens'
        other = base.connect(self.simulator, user='operator')
        self.addCleanup(other.close)
        subject = other.authorize()
        token = self.conn.session.get(url, headers={'X-Subject-Token': subject}).json()['token']
        self.assertEqual('operator', token['user']['name'])
        self.assertIn('upgrade_operator', [role['name'] for role in token['roles']])
        headers = {'X-Subject-Token': 'made-up'}
        answer = self.conn.session.get(url, headers=headers, raise_exc=False)
        self.assertEqual(404, answer.status_code)

    def test_registered_service_is_in_the_catalog(self) -> None:
        self.simulator.register('upgrade', 'upgrade-service', 'http://127.0.0.1:9899')
        conn = base.connect(self.simulator)
        self.assertEqual(
            'http://127.0.0.1:9899', conn.session.get_endpoint(service_type='upgrade')
        )


class TestCompute(base.SimulatorTestCase):
    def test_services(self) -> None:
        rows = list(self.conn.compute.services())
        self.assertEqual(3 * 2 + 6, len(rows))
        self.assertEqual({'up'}, {row.state for row in rows})
        one = list(self.conn.compute.services(host='cmp4', binary='nova-compute'))
        self.assertEqual([('cmp4', 'az2')], [(r.host, r.availability_zone) for r in one])

    def test_disable_and_enable(self) -> None:
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.conn.compute.disable_service(row, disabled_reason='maintenance')
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual(('disabled', 'maintenance'), (row.status, row.disabled_reason))
        hypervisor = self.conn.compute.find_hypervisor('cmp1', details=True)
        self.assertEqual('disabled', hypervisor.status)
        self.conn.compute.enable_service(row)
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual(('enabled', None), (row.status, row.disabled_reason))
        done = [(e.what, e.details['host']) for e in self.cloud.log if e.what.endswith('able')]
        self.assertEqual([('disable', 'cmp1'), ('enable', 'cmp1')], done)

    def test_only_computes_can_be_disabled(self) -> None:
        row = next(self.conn.compute.services(host='ctl1', binary='nova-scheduler'))
        self.assertRaises(exceptions.BadRequestException, self.conn.compute.disable_service, row)

    def test_forced_down(self) -> None:
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.conn.compute.update_service(row, forced_down=True)
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual((True, 'down'), (row.is_forced_down, row.state))

    def test_hypervisors_page(self) -> None:
        names = [h.name for h in self.conn.compute.hypervisors(details=True, limit=4)]
        self.assertEqual([f'cmp{n}' for n in range(1, 7)], names)
        url = '/os-hypervisors/detail?limit=4'
        page = self.conn.compute.get(url, microversion='2.53').json()
        self.assertEqual(4, len(page['hypervisors']))
        last = self.conn.compute.get(page['hypervisors_links'][0]['href'], microversion='2.53')
        self.assertEqual(2, len(last.json()['hypervisors']))
        self.assertNotIn('hypervisors_links', last.json())

    def test_hypervisor_fields_by_microversion(self) -> None:
        url = '/os-hypervisors/detail?limit=1&with_servers=true'
        old = self.conn.compute.get(url, microversion='2.53').json()['hypervisors'][0]
        self.assertEqual((32, 131072), (old['vcpus'], old['memory_mb']))
        self.assertEqual(len(self.cloud.nodes['cmp1'].servers), len(old['servers']))
        new = self.conn.compute.get(url, microversion='2.88').json()['hypervisors'][0]
        self.assertNotIn('vcpus', new)

    def test_microversion_out_of_range(self) -> None:
        headers = {'OpenStack-API-Version': 'compute 2.999'}
        answer = self.conn.compute.get('/os-services', headers=headers, raise_exc=False)
        self.assertEqual(406, answer.status_code)

    def test_zones_aggregates_flavors_groups(self) -> None:
        zones = {z.name: z for z in self.conn.compute.availability_zones(details=True)}
        self.assertEqual({'az1', 'az2', 'internal'}, set(zones))
        self.assertIn('cmp1', zones['az1'].hosts)
        aggregates = {a.name: a.hosts for a in self.conn.compute.aggregates()}
        self.assertEqual(['cmp4', 'cmp5', 'cmp6'], aggregates['az2'])
        self.assertEqual(set(specs.FLAVORS), {f.name for f in self.conn.compute.flavors()})
        groups = list(self.conn.compute.server_groups())
        self.assertEqual(['anti-affinity'] * 2, [g.policy for g in groups])
        self.assertEqual([3, 3], [len(g.member_ids) for g in groups])

    def test_servers_page_and_filter(self) -> None:
        rows = list(self.conn.compute.servers(all_projects=True, limit=7))
        self.assertEqual(20, len({row.id for row in rows}))
        here = list(self.conn.compute.servers(all_projects=True, compute_host='cmp2'))
        self.assertEqual({'cmp2'}, {row.compute_host for row in here})
        self.assertEqual([], list(self.conn.compute.servers()))

    def test_server_create_and_delete(self) -> None:
        flavor = self.conn.compute.find_flavor('m1.small')
        image = self.conn.image.find_image('cirros')
        server = self.conn.compute.create_server(
            name='new', flavor_id=flavor.id, image_id=image.id, networks='none'
        )
        self.assertEqual('BUILD', self.conn.compute.get_server(server.id).status)
        self.sleep(1)
        server = self.conn.compute.get_server(server.id)
        self.assertEqual(('ACTIVE', 'cmp6'), (server.status, server.compute_host))
        self.conn.compute.delete_server(server)
        self.assertRaises(exceptions.NotFoundException, self.conn.compute.get_server, server.id)
        self.assertNotIn(server.id, self.cloud.allocations)

    def test_new_servers_avoid_disabled_hosts(self) -> None:
        for host in [f'cmp{n}' for n in range(1, 7)]:
            row = next(self.conn.compute.services(host=host, binary='nova-compute'))
            self.conn.compute.disable_service(row)
        flavor = self.conn.compute.find_flavor('m1.small')
        server = self.conn.compute.create_server(
            name='new', flavor_id=flavor.id, image_id='', networks='none'
        )
        self.sleep(1)
        server = self.conn.compute.get_server(server.id)
        self.assertEqual('ERROR', server.status)
        self.assertIn('No valid host', server.fault['message'])


class TestOthers(base.SimulatorTestCase):
    def test_agents(self) -> None:
        rows = list(self.conn.network.agents())
        self.assertEqual(3 * 4 + 6, len(rows))
        self.assertTrue(all(row.is_alive for row in rows))
        one = list(self.conn.network.agents(host='cmp1'))
        self.assertEqual(['neutron-openvswitch-agent'], [row.binary for row in one])
        self.conn.network.update_agent(one[0], admin_state_up=False)
        self.assertFalse(self.conn.network.get_agent(one[0].id).is_admin_state_up)

    def test_routers_move_between_agents(self) -> None:
        router = next(self.conn.network.routers(name='router-1'))
        agents = {a.host: a for a in self.conn.network.agents(binary='neutron-l3-agent')}
        holders = list(self.conn.network.routers_hosting_l3_agents(router))
        self.assertEqual(['ctl1'], [a.host for a in holders])
        self.conn.network.remove_router_from_agent(agents['ctl1'], router)
        self.conn.network.add_router_to_agent(agents['ctl2'], router)
        holders = list(self.conn.network.routers_hosting_l3_agents(router))
        self.assertEqual(['ctl2'], [a.host for a in holders])

    def test_networks_ports_extensions(self) -> None:
        names = {network.name for network in self.conn.network.networks()}
        self.assertEqual({'private', 'public'}, names)
        server = self.guest_on('cmp1')
        ports = list(self.conn.network.ports(device_id=server.id))
        self.assertEqual(['cmp1'], [port.binding_host_id for port in ports])
        self.assertIn('agent', {e.alias for e in self.conn.network.extensions()})

    def test_volumes(self) -> None:
        rows = list(self.conn.block_storage.volumes(all_projects=True, limit=4))
        self.assertEqual(6, len({row.id for row in rows}))
        self.assertEqual({'ctl1@lvm#lvm'}, {row.host for row in rows})
        self.assertEqual({'in-use', 'available'}, {row.status for row in rows})
        self.assertEqual(['lvm'], [t.name for t in self.conn.block_storage.types()])

    def test_volume_services(self) -> None:
        rows = {(r.host, r.binary): r for r in self.conn.block_storage.services()}
        self.assertEqual(3 + 1, len(rows))
        row = rows['ctl1@lvm', 'cinder-volume']
        self.conn.block_storage.disable_service(row, reason='maintenance')
        row = next(self.conn.block_storage.services(binary='cinder-volume'))
        self.assertEqual(('disabled', 'maintenance'), (row.status, row.disabled_reason))
        self.conn.block_storage.enable_service(row)
        row = next(self.conn.block_storage.services(binary='cinder-volume'))
        self.assertEqual('enabled', row.status)

    def test_placement(self) -> None:
        rows = list(self.conn.placement.resource_providers())
        self.assertEqual([f'cmp{n}' for n in range(1, 7)], [row.name for row in rows])
        hypervisor = self.conn.compute.find_hypervisor('cmp1')
        self.assertEqual(hypervisor.id, rows[0].id)
        stock = {
            i.resource_class: (i.total, i.allocation_ratio)
            for i in self.conn.placement.resource_provider_inventories(rows[0])
        }
        self.assertEqual((32, 4.0), stock['VCPU'])
        url = f'/resource_providers/{rows[0].id}/usages'
        usages = self.conn.placement.get(url).json()['usages']
        servers = self.conn.compute.servers(all_projects=True, compute_host='cmp1')
        self.assertEqual(sum(s.flavor.vcpus for s in servers), usages['VCPU'])

    def test_images(self) -> None:
        self.assertEqual(['cirros'], [image.name for image in self.conn.image.images()])

    def test_token_is_needed(self) -> None:
        for path in ('compute/v2.1/servers', 'network/v2.0/agents', 'placement/allocations/x'):
            answer = self.conn.session.get(
                f'{self.simulator.url}/{path}', authenticated=False, raise_exc=False
            )
            self.assertEqual(401, answer.status_code, path)


class TestScale(base.SimulatorTestCase):
    spec = specs.default_spec(computes=1200, servers=1050, spare=100, azs=3)

    def test_lists_come_in_pages(self) -> None:
        self.assertEqual(1200, len(list(self.conn.compute.hypervisors(details=True))))
        servers = list(self.conn.compute.servers(all_projects=True))
        self.assertEqual(1050, len({server.id for server in servers}))
        self.assertEqual(1200 + 12, len(list(self.conn.network.agents())))
