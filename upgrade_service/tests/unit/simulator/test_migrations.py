"""Live migration: what is refused, what happens in time, and what faults do."""

from openstack import exceptions
import testtools

from upgrade_service.simulator import spec as specs
from upgrade_service.tests.unit.simulator import base


class TestMigration(base.SimulatorTestCase):
    def test_followed_to_its_end(self) -> None:
        server = self.guest_on('cmp1')
        self.conn.compute.live_migrate_server(server, host='cmp2', block_migration='auto')
        self.assertEqual('MIGRATING', self.conn.compute.get_server(server.id).status)
        seen = []
        for _ in range(40):
            seen += [m.status for m in self.conn.compute.server_migrations(server.id)]
            self.sleep(0.1)
        self.assertEqual(['preparing', 'running'], list(dict.fromkeys(seen)))
        self.assertEqual([], list(self.conn.compute.server_migrations(server.id)))
        record = next(self.conn.compute.migrations(instance_uuid=server.id))
        self.assertEqual(
            ('completed', 'cmp1', 'cmp2'),
            (record.status, record.source_compute, record.dest_compute),
        )
        after = self.conn.compute.get_server(server.id)
        self.assertEqual(('ACTIVE', 'cmp2'), (after.status, after.compute_host))

    def test_memory_is_copied_in_time(self) -> None:
        server = self.guest_on('cmp1')
        self.migrate(server.id, 'cmp2')
        self.sleep(0.8)
        early = next(self.conn.compute.server_migrations(server.id))
        self.sleep(0.8)
        late = next(self.conn.compute.server_migrations(server.id))
        self.assertGreater(early.memory_remaining_bytes, late.memory_remaining_bytes)
        self.assertGreater(late.memory_processed_bytes, 0)

    def test_allocation_of_the_source_is_kept_to_the_end(self) -> None:
        server = self.guest_on('cmp1')
        before = dict(zip(('src', 'dst'), self._used('cmp1', 'cmp2'), strict=True))
        vcpus = specs.FLAVORS[server.flavor.name or server.flavor.original_name][0]
        self.migrate(server.id, 'cmp2')
        self.assertEqual([before['src'], before['dst'] + vcpus], self._used('cmp1', 'cmp2'))
        self.sleep(5)
        self.assertEqual(
            [before['src'] - vcpus, before['dst'] + vcpus], self._used('cmp1', 'cmp2')
        )

    def _used(self, *hosts: str) -> list[int]:
        keys = [self.cloud.nodes[host].hypervisor_id for host in hosts]
        urls = [f'/resource_providers/{key}/usages' for key in keys]
        return [self.conn.placement.get(url).json()['usages']['VCPU'] for url in urls]

    def test_one_leaves_a_host_at_a_time(self) -> None:
        servers = list(self.conn.compute.servers(all_projects=True, compute_host='cmp1'))
        free = [s for s in servers if not s.server_groups][:2]
        for server in free:
            self.migrate(server.id, 'cmp2')
        states = [m.status for m in self.conn.compute.migrations(host='cmp1')]
        self.assertEqual(['queued', 'preparing'], states)
        self.sleep(3.1)
        states = [m.status for m in self.conn.compute.migrations(host='cmp1')]
        self.assertEqual('completed', states[1])
        self.assertIn(states[0], ('preparing', 'running'))
        self.sleep(3.1)
        states = [m.status for m in self.conn.compute.migrations(host='cmp1')]
        self.assertEqual(['completed', 'completed'], states)

    def test_scheduler_chooses_within_the_zone(self) -> None:
        server = self.guest_on('cmp1')
        with self.cloud.turn():
            self.cloud.servers[server.id].pinned_az = 'az1'
        self.migrate(server.id)
        self.sleep(5)
        after = self.conn.compute.get_server(server.id)
        self.assertIn(after.compute_host, ('cmp2', 'cmp3'))

    def test_abort(self) -> None:
        server = self.guest_on('cmp1')
        self.migrate(server.id, 'cmp2')
        self.sleep(1)
        migration = next(self.conn.compute.server_migrations(server.id))
        self.conn.compute.abort_server_migration(migration, server)
        record = next(self.conn.compute.migrations(instance_uuid=server.id))
        self.assertEqual('cancelled', record.status)
        self.sleep(10)
        after = self.conn.compute.get_server(server.id)
        self.assertEqual(('ACTIVE', 'cmp1'), (after.status, after.compute_host))
        self.assertEqual('cmp1', self.cloud.allocations[server.id][0])

    def test_deleted_while_it_moves(self) -> None:
        server = self.guest_on('cmp1')
        self.migrate(server.id, 'cmp2')
        self.sleep(1)
        self.conn.compute.delete_server(server.id)
        self.sleep(10)
        self.assertEqual('cancelled', self.last_migration().status)
        self.assertNotIn(server.id, self.cloud.nodes['cmp2'].servers)
        self.assertNotIn(self.last_migration().uuid, self.cloud.allocations)


class TestRefusals(base.SimulatorTestCase):
    def _refused(self, server: str, host: str | None) -> str:
        """Ask at 2.30, where the conductor's checks are waited for; return the reason."""
        with testtools.ExpectedException(exceptions.BadRequestException):
            self.conn.compute.live_migrate_server(server, host=host, block_migration='auto')
        self.assertEqual('ACTIVE', self.conn.compute.get_server(server).status)
        if not self.cloud.migrations:
            return ''
        self.assertEqual('error', self.last_migration().status)
        return str(self.cloud.log[-1].details.get('reason'))

    def test_same_host(self) -> None:
        self.assertIn('same_host', self._refused(self.guest_on('cmp1').id, 'cmp1'))

    def test_unknown_host(self) -> None:
        self.assertEqual('', self._refused(self.guest_on('cmp1').id, 'cmp99'))

    def test_disabled_host(self) -> None:
        row = next(self.conn.compute.services(host='cmp2', binary='nova-compute'))
        self.conn.compute.disable_service(row)
        self.assertIn('service_disabled', self._refused(self.guest_on('cmp1').id, 'cmp2'))

    def test_host_that_is_down(self) -> None:
        self.cloud.inject('service_down', host='cmp2', binary='nova-compute')
        self.assertIn('service_down', self._refused(self.guest_on('cmp1').id, 'cmp2'))

    def test_source_that_is_down(self) -> None:
        server = self.guest_on('cmp1')
        self.cloud.inject('service_down', host='cmp1', binary='nova-compute')
        self.assertIn('ComputeServiceUnavailable', self._refused(server.id, 'cmp2'))

    def test_other_zone(self) -> None:
        server = self.guest_on('cmp1')
        with self.cloud.turn():
            self.cloud.servers[server.id].pinned_az = 'az1'
        self.assertIn('availability_zone', self._refused(server.id, 'cmp4'))

    def test_no_room(self) -> None:
        server = self.guest_on('cmp1')
        with self.cloud.turn():
            self.cloud.allocate('other', 'cmp2', (1, 131072 - self.cloud.nodes['cmp2'].used[1], 0))
        self.assertIn('capacity', self._refused(server.id, 'cmp2'))

    def test_anti_affinity(self) -> None:
        group = next(self.conn.compute.server_groups(name='group-1'))
        homes = {m: self.conn.compute.get_server(m).compute_host for m in group.member_ids}
        self.assertEqual({'cmp1', 'cmp2', 'cmp3'}, set(homes.values()))
        mover = next(m for m, host in homes.items() if host == 'cmp1')
        self.assertIn('anti_affinity', self._refused(mover, 'cmp2'))

    def test_older_hypervisor(self) -> None:
        with self.cloud.turn():
            self.cloud.nodes['cmp2'].hypervisor_version = 8000000
        server = self.guest_on('cmp1')
        self.assertIn('DestinationHypervisorTooOld', self._refused(server.id, 'cmp2'))
        self.migrate(self.guest_on('cmp2').id, 'cmp1')

    def test_server_that_is_not_active(self) -> None:
        server = self.guest_on('cmp1')
        self.conn.compute.stop_server(server)
        self.assertRaises(exceptions.ConflictException, self.migrate, server.id, 'cmp2')

    def test_server_that_moves_already(self) -> None:
        server = self.guest_on('cmp1')
        self.migrate(server.id, 'cmp2')
        self.assertRaises(exceptions.ConflictException, self.migrate, server.id, 'cmp3')

    def test_later_microversions_accept_and_fail(self) -> None:
        server = self.guest_on('cmp1')
        answer = self.migrate(server.id, 'cmp1', version='2.68')
        self.assertEqual(202, answer.status_code)
        record = next(self.conn.compute.migrations(instance_uuid=server.id))
        self.assertEqual('error', record.status)
        self.assertEqual('ACTIVE', self.conn.compute.get_server(server.id).status)


class TestFaults(base.SimulatorTestCase):
    def _after(self, kind: str, seconds: float = 10) -> tuple[str, str, str]:
        server = self.guest_on('cmp1')
        self.cloud.inject(kind, source='cmp1', count=1)
        self.migrate(server.id, 'cmp2')
        self.sleep(seconds)
        after = self.conn.compute.get_server(server.id)
        return self.last_migration().status, after.status, after.compute_host

    def test_fails_once(self) -> None:
        self.assertEqual(('failed', 'ACTIVE', 'cmp1'), self._after('migration_fails'))
        self.migrate(self.guest_on('cmp1').id, 'cmp2')
        self.sleep(10)
        self.assertEqual('completed', self.last_migration().status)

    def test_breaks_the_server(self) -> None:
        self.assertEqual(('error', 'ERROR', 'cmp1'), self._after('migration_breaks'))

    def test_lies(self) -> None:
        self.assertEqual(('completed', 'ACTIVE', 'cmp1'), self._after('migration_lies'))

    def test_sticks_until_it_is_forced(self) -> None:
        self.assertEqual(('running', 'MIGRATING', 'cmp1'), self._after('migration_sticks', 900))
        server = self.last_migration().server
        migration = next(self.conn.compute.server_migrations(server))
        left = migration.memory_remaining_bytes
        self.sleep(60)
        migration = next(self.conn.compute.server_migrations(server))
        self.assertEqual(left, migration.memory_remaining_bytes)
        self.conn.compute.force_complete_server_migration(migration, server)
        self.sleep(1)
        self.assertEqual('cmp2', self.conn.compute.get_server(server).compute_host)

    def test_api_down_for_a_while(self) -> None:
        self.conn.compute.get('/os-services')
        self.cloud.inject('api_down', project='nova', seconds=30)
        answer = self.conn.compute.get('/os-services', raise_exc=False)
        self.assertEqual(503, answer.status_code)
        self.assertNotEqual([], list(self.conn.network.agents()))
        self.sleep(31)
        self.assertEqual(200, self.conn.compute.get('/os-services').status_code)

    def test_compute_stops_under_a_migration(self) -> None:
        server = self.guest_on('cmp1')
        self.migrate(server.id, 'cmp2')
        self.sleep(1)
        answer = self.conn.session.post(
            f'{self.simulator.url}/hosts/cmp2/units/nova-compute', json={'do': 'stop'}
        )
        self.assertEqual(202, answer.status_code)
        self.sleep(5)
        after = self.conn.compute.get_server(server.id)
        self.assertEqual(
            ('failed', 'ACTIVE', 'cmp1'),
            (self.last_migration().status, after.status, after.compute_host),
        )
