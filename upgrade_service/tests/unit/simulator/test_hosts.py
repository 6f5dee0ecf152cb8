"""The endpoint of a simulated host, through the client that strategies use."""

import json
import time
import urllib.request

from upgrade_service.simulator import client, simulator, strategy
from upgrade_service.simulator import spec as specs
from upgrade_service.strategies import base as base_strategy
from upgrade_service.tests.unit.simulator import base


class TestHosts(base.SimulatorTestCase):
    def test_facts(self) -> None:
        facts = client.call(self.simulator.url, 'cmp1')
        self.assertEqual({'nova', 'neutron'}, set(facts['projects']))
        nova = facts['projects']['nova']
        self.assertEqual(('33.0.2', 'simulated'), (nova['version'], nova['how']))
        self.assertEqual(
            [('nova-compute', 'nova-compute.service', 'active')],
            [(s['binary'], s['unit'], s['state']) for s in nova['services']],
        )
        facts = client.call(self.simulator.url, 'ctl1')
        self.assertEqual(specs.VERSIONS['2026.1'].keys(), facts['projects'].keys())

    def test_switch_restarts_at_the_new_version(self) -> None:
        url = self.simulator.url
        client.call(url, 'cmp1', 'nova', 'switch', body={'version': '34.0.0'})
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('down', row.state)
        agent = next(self.conn.network.agents(host='cmp1'))
        self.assertTrue(agent.is_alive)
        self.sleep(1.1)
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('up', row.state)
        nova = client.call(url, 'cmp1')['projects']['nova']
        self.assertEqual(['34.0.0'], [s['version'] for s in nova['services']])

    def test_switch_without_restart_runs_old_code(self) -> None:
        url = self.simulator.url
        body = {'version': '34.0.0', 'restart': False}
        client.call(url, 'cmp1', 'nova', 'switch', body=body)
        nova = client.call(url, 'cmp1')['projects']['nova']
        self.assertEqual('34.0.0', nova['version'])
        self.assertEqual(['33.0.2'], [s['version'] for s in nova['services']])
        client.call(url, 'cmp1', 'units', 'nova-compute', body={'do': 'restart'})
        self.sleep(1.1)
        nova = client.call(url, 'cmp1')['projects']['nova']
        self.assertEqual(['34.0.0'], [s['version'] for s in nova['services']])

    def test_an_api_answers_while_one_controller_does(self) -> None:
        url = self.simulator.url
        for host in ('ctl1', 'ctl2'):
            client.call(url, host, 'units', 'neutron-api', body={'do': 'stop'})
        self.assertEqual(200, self.conn.network.get('/agents').status_code)
        client.call(url, 'ctl3', 'neutron', 'switch', body={'version': '29.0.0'})
        answer = self.conn.network.get('/agents', raise_exc=False)
        self.assertEqual(503, answer.status_code)
        self.sleep(1.1)
        self.assertEqual(200, self.conn.network.get('/agents').status_code)

    def test_a_stop_lasts_until_the_upgrade_or_its_undo(self) -> None:
        url, plugin = self.simulator.url, strategy.SimulatedUpgradeStrategy()
        site = base_strategy.Site(host='ctl1', settings={'url': url}, state_dir='/nowhere')
        units = ['nova-api', 'nova-conductor']
        task = base_strategy.Task(
            step='s',
            attempt=1,
            kind='stop_service',
            host='ctl1',
            project='nova',
            params={'version': '34.0.0', 'from_version': '33.0.2', 'units': units},
            timeout=5,
        )

        def states() -> set[str]:
            found = client.call(url, 'ctl1')['projects']['nova']['services']
            return {s['state'] for s in found if s['binary'] in units}

        self.assertEqual({'active'}, states())
        self.assertEqual('succeeded', plugin.run(task, site).result)  # type: ignore[union-attr]
        self.assertEqual({'inactive'}, states())
        plugin.undo(task, site)
        self.sleep(1.1)
        self.assertEqual({'active'}, states())

    def test_boot_stops_the_guests(self) -> None:
        url, server = self.simulator.url, self.guest_on('cmp1')
        before = client.call(url, 'cmp1')['boot_id']
        client.call(url, 'cmp1', 'boot', body={'os': {'version': '13'}})
        error = self.assertRaises(client.HostError, client.call, url, 'cmp1')
        self.assertEqual(503, error.status)
        self.assertEqual('SHUTOFF', self.conn.compute.get_server(server.id).status)
        self.sleep(22)
        facts = client.call(url, 'cmp1')
        self.assertEqual('13', facts['os']['version'])
        self.assertNotEqual(before, facts['boot_id'])
        self.assertEqual({'active'}, {s['state'] for s in facts['projects']['nova']['services']})

    def test_power(self) -> None:
        url = self.simulator.url
        client.call(url, 'cmp1', 'power', body={'on': False})
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('down', row.state)
        client.call(url, 'cmp1', 'power', body={'on': True})
        self.sleep(1.1)
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('up', row.state)

    def test_action_that_fails_once(self) -> None:
        url, body = self.simulator.url, {'version': '34.0.0'}
        self.cloud.inject('action_fails', host='cmp1', action='switch', count=1)
        args = (url, 'cmp1', 'nova', 'switch')
        error = self.assertRaises(client.HostError, client.call, *args, body=body)
        self.assertEqual(500, error.status)
        self.assertEqual('33.0.2', client.call(url, 'cmp1')['projects']['nova']['version'])
        client.call(*args, body=body)
        self.assertEqual('34.0.0', client.call(url, 'cmp1')['projects']['nova']['version'])

    def test_unit_that_does_not_come_up(self) -> None:
        url = self.simulator.url
        self.cloud.inject('unit_fails', binary='nova-compute', version='34.0.0', count=1)
        client.call(url, 'cmp1', 'nova', 'switch', body={'version': '34.0.0'})
        self.sleep(5)
        nova = client.call(url, 'cmp1')['projects']['nova']
        self.assertEqual(['failed'], [s['state'] for s in nova['services']])
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('down', row.state)
        client.call(url, 'cmp1', 'units', 'nova-compute', body={'do': 'start'})
        self.sleep(5)
        row = next(self.conn.compute.services(host='cmp1', binary='nova-compute'))
        self.assertEqual('up', row.state)

    def test_unknown_fault(self) -> None:
        url = f'{self.simulator.url}/control/faults'
        answer = self.conn.session.post(url, json={'kind': 'meteorite'}, raise_exc=False)
        self.assertEqual(400, answer.status_code)

    def test_what_is_not_there(self) -> None:
        url = self.simulator.url
        for path in (('cmp99',), ('cmp1', 'glance', 'run'), ('cmp1', 'units', 'nova-api')):
            body = {'kind': 'x', 'do': 'stop'} if len(path) > 1 else None
            error = self.assertRaises(client.HostError, client.call, url, *path, body=body)
            self.assertEqual(404, error.status, '/'.join(path))
        self.simulator.stop()
        error = self.assertRaises(client.HostError, client.call, url, 'cmp1')
        self.assertEqual(0, error.status)

    def test_faults_and_log_over_http(self) -> None:
        url = self.simulator.url
        body = json.dumps({'kind': 'api_down', 'project': 'glance'}).encode()
        with urllib.request.urlopen(f'{url}/control/faults', data=body) as answer:
            self.assertEqual(201, answer.status)
        client.call(url, 'ctl1', 'nova', 'run', body={'kind': 'db_expand'})
        with urllib.request.urlopen(f'{url}/control/log') as answer:
            log = json.load(answer)['log']
        self.assertEqual(['fault', 'run'], [entry['what'] for entry in log[-2:]])
        self.assertEqual('db_expand', log[-1]['action'])


class TestSpeed(base.SimulatorTestCase):
    def test_real_time_can_be_hurried(self) -> None:
        hurried = simulator.Simulator(self.spec, speed=200)
        with hurried:
            conn = base.connect(hurried)
            self.addCleanup(conn.close)
            server = next(
                s
                for s in conn.compute.servers(all_projects=True, compute_host='cmp1')
                if not s.server_groups
            )
            conn.compute.live_migrate_server(server, host='cmp2', block_migration='auto')
            for _ in range(100):
                if conn.compute.get_server(server.id).compute_host == 'cmp2':
                    break
                time.sleep(0.05)
            else:
                self.fail('the server never arrived')
