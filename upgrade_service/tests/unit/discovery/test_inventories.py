"""Inventories of deployment tools: Ansible's for real, PuppetDB's rows as it gives them."""

import http.server
import json
import pathlib
import shutil
import sys
import tempfile
import threading
from typing import Any

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service import exception, model
from upgrade_service.conductor.discovery import ansible, base, drift, merge, puppet
from upgrade_service.projects import loader, releases
from upgrade_service.tests import base as tests
from upgrade_service.tests.unit.discovery import test_merge

PROJECTS = loader.load_projects()
BIN = str(pathlib.Path(sys.executable).parent)
KOLLA = """
[control]
ctl1.example.org
[compute]
cmp[1:3]
[nova:children]
control
[nova-api:children]
nova
[nova-conductor:children]
nova
[keystone:children]
control
[loadbalancer]
lb1
"""
HOSTILE = {
    'all': {'children': ['compute', 'loop']},
    'loop': {'children': ['loop', 'all']},
    'compute': {'hosts': ['cmp1', '-o', 'a;b', '$(id)', '../etc', 'x' * 300, 'c\nd', 'ünï']},
    '_meta': {'hostvars': {}},
}


class Case(tests.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.conf = cfg.ConfigOpts()
        options.register_opts(self.conf)
        self.conf([], default_config_files=[])
        self.conf.set_override('directory', BIN, 'ansible_inventory')

    def ansible(self, text: str, **cluster: Any) -> base.Found:
        path = self.dir / 'hosts'
        path.write_text(text)
        self.conf.set_override('sources', {'prod': str(path)}, 'ansible_inventory')
        return ansible.AnsibleInventory().collect(self.conf, {'name': 'prod', **cluster})

    def refused(self, call: Any, *args: Any, **kw: Any) -> str:
        error = self.assertRaises(exception.CloudUnavailable, call, *args, **kw)
        self.assertNotIn('\n', str(error))
        return str(error)


class AnsibleTest(Case):
    def test_groups_are_services(self) -> None:
        found = self.ansible(KOLLA)
        self.assertEqual(
            [
                ('cmp1', 'nova-compute'),
                ('cmp2', 'nova-compute'),
                ('cmp3', 'nova-compute'),
                ('ctl1.example.org', 'keystone'),
                ('ctl1.example.org', 'nova-api'),
                ('ctl1.example.org', 'nova-conductor'),
            ],
            [(s.host, s.binary) for s in found.services],
        )
        self.assertIn('lb1', found.names)
        self.assertNotIn('lb1', found.hosts)
        self.assertEqual({'nova-compute', 'keystone', 'nova-api', 'nova-conductor'}, found.lists)

    def test_every_known_group_means_a_service_of_a_project(self) -> None:
        for kind in ('ansible', 'puppet'):
            for binary in base.known(kind).values():
                project = PROJECTS.by_binary(binary)
                assert project is not None, binary
                self.assertEqual(binary.partition('-')[0], project.name)

    def test_names_that_no_host_can_have(self) -> None:
        found = ansible.compose(HOSTILE)
        self.assertEqual({'cmp1'}, set(found.hosts))
        (problem,) = found.problems
        self.assertIn('7 names', problem.message)
        self.assertNotIn('\n', problem.message)

    def test_a_variable_says_the_name(self) -> None:
        listing = {
            'compute': {'hosts': ['one']},
            '_meta': {'hostvars': {'one': {'nova_name': 'cmp1.example.org'}}},
        }
        self.assertEqual({'cmp1.example.org'}, set(ansible.compose(listing, 'nova_name').hosts))

    def test_inventory_that_cannot_be_read(self) -> None:
        self.assertIn('inventory cannot be read', self.refused(self.ansible, 'a: [b'))
        self.conf.set_override('directory', '/nowhere', 'ansible_inventory')
        self.assertIn('No such file', self.refused(self.ansible, KOLLA))

    def test_inventory_that_others_can_write(self) -> None:
        self.ansible(KOLLA)
        (self.dir / 'hosts').chmod(0o666)
        plugin = ansible.AnsibleInventory()
        said = self.refused(plugin.collect, self.conf, {'name': 'prod'})
        self.assertIn('can be written by group or others', said)

    def test_only_what_the_conductor_names_is_read(self) -> None:
        wanted = {'ansible_inventory': '/etc/passwd'}
        self.assertIn('names no /etc/passwd', self.refused(self.ansible, KOLLA, properties=wanted))


class DriftTest(Case):
    """The cloud's word against a tool's."""

    def merge(self, *found: base.Found, agents: Any = ()) -> model.Inventory:
        return merge.merge(
            'prod', list(found), list(agents), releases.load(), PROJECTS,
            merge.Clock(test_merge.NOW, 90, 600),
        )  # fmt: skip

    def codes(self, inventory: model.Inventory) -> set[tuple[str, str | None]]:
        return {(p.code, p.host) for p in inventory.problems if p.code.startswith('drift')}

    def cloud(self, *names: str) -> base.Found:
        return base.Found(
            hosts={n: model.Host(name=n) for n in names},
            services=[
                model.Service(project='nova', binary='nova-compute', host=n, state='up')
                for n in names
            ],
        )

    def tool(self, *services: tuple[str, str], source: str = 'ansible', **more: Any) -> base.Found:
        made = [
            model.Service(
                project=b.partition('-')[0], binary=b, host=h, source=source,
                version=more.get('version'),
            )
            for h, b in services
        ]  # fmt: skip
        return base.Found(
            source=source,
            hosts={h: model.Host(name=h) for h, _ in services},
            services=made,
            names=frozenset(h for h, _ in services) | more.get('names', frozenset()),
            lists=frozenset(b for _, b in services),
        )

    def test_agreement(self) -> None:
        inventory = self.merge(self.cloud('cmp1'), self.tool(('cmp1', 'nova-compute')))
        self.assertEqual(set(), self.codes(inventory))

    def test_names_are_aligned(self) -> None:
        inventory = self.merge(
            self.cloud('cmp1', 'cmp2.example.org', 'infra1-nova-1a'),
            self.tool(
                ('cmp1.example.org', 'nova-compute'),
                ('cmp2', 'nova-compute'),
                ('infra1_nova_1a', 'nova-compute'),
            ),
        )
        self.assertEqual(set(), self.codes(inventory))
        self.assertEqual(3, len(inventory.services))

    def test_host_that_only_one_of_them_knows(self) -> None:
        inventory = self.merge(
            self.cloud('cmp1', 'cmp2'),
            self.tool(('cmp1', 'nova-compute'), ('cmp9', 'nova-compute')),
        )
        self.assertEqual({('drift_host', 'cmp2'), ('drift_host', 'cmp9')}, self.codes(inventory))
        # what the cloud would list and does not is no service, so no step is planned for it
        self.assertNotIn('cmp9', inventory.hosts)

    def test_service_that_is_not_there_or_not_meant(self) -> None:
        tool = self.tool(
            ('cmp2', 'nova-compute'),
            ('ctl1', 'nova-compute'),
            ('cmp2', 'neutron-l3-agent'),
            names=frozenset({'cmp1'}),
        )
        services = [model.Service(project='nova', binary='nova-conductor', host='ctl1')]
        control = base.Found(hosts={'ctl1': model.Host(name='ctl1')}, services=services)
        inventory = self.merge(self.cloud('cmp1', 'cmp2'), control, tool)
        said = [p.message for p in inventory.problems if p.code == 'drift_service']
        self.assertEqual(2, len(said))
        self.assertIn('means nova-compute to be on ctl1', said[0])
        self.assertIn('nova-compute runs on cmp1', said[1])

    def test_an_api_that_only_the_tool_knows_is_a_service(self) -> None:
        inventory = self.merge(self.cloud('cmp1'), self.tool(('ctl1', 'keystone')))
        self.assertIn(('ctl1', 'keystone'), [(s.host, s.binary) for s in inventory.services])
        self.assertEqual({'control'}, set(inventory.hosts['ctl1'].roles))

    def test_an_api_under_two_names_is_one_service(self) -> None:
        unit = {'binary': 'keystone-api', 'unit': 'keystone-api.service', 'state': 'active'}
        facts = {'keystone': {'version': '29.0.2', 'how': 'venv', 'services': [unit]}}
        inventory = self.merge(
            self.cloud('cmp1'),
            self.tool(('ctl1', 'keystone'), ('cmp1', 'nova-compute')),
            agents=[test_merge.agent('ctl1', facts)],
        )
        mine = [s.binary for s in inventory.of_host('ctl1')]
        self.assertEqual(['keystone-api'], mine)
        self.assertEqual(set(), self.codes(inventory))

    def test_versions(self) -> None:
        agents = [test_merge.agent('cmp1', test_merge.nova('33.0.2', 'nova-compute'))]
        tool = self.tool(
            ('cmp1', 'nova-compute'), ('cmp2', 'nova-compute'), source='puppet', version='34.0.0'
        )
        inventory = self.merge(self.cloud('cmp1', 'cmp2'), tool, agents=agents)
        self.assertEqual({('drift_version', 'cmp1')}, self.codes(inventory))
        self.assertEqual(
            {'cmp1': ('33.0.2', '2026.1'), 'cmp2': ('34.0.0', '2026.2')},
            {s.host: (s.version, s.release) for s in inventory.services},
        )

    def test_without_the_cloud_the_tool_is_believed(self) -> None:
        inventory = self.merge(self.tool(('cmp9', 'nova-compute')))
        self.assertEqual({'cmp9'}, set(inventory.hosts))
        self.assertEqual([], list(drift.problems([], [], PROJECTS)))


class PuppetDB(http.server.BaseHTTPRequestHandler):
    """Answers as PuppetDB does, from the rows of its server."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        what = self.path.rpartition('/')[2]
        rows = self.server.rows[what]  # type: ignore[attr-defined]
        page = rows[asked['offset'] : asked['offset'] + asked['limit']]
        body = json.dumps(page).encode()
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class PuppetTest(Case):
    def setUp(self) -> None:
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), PuppetDB)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.server.status = 200  # type: ignore[attr-defined]
        self.server.rows = {  # type: ignore[attr-defined]
            'facts': [
                {'certname': 'c1', 'name': 'networking', 'value': {'fqdn': 'cmp1.example.org'}},
                {'certname': 'c2', 'name': 'networking', 'value': {'fqdn': '$(reboot)'}},
                {'certname': 'ctl1', 'name': 'os', 'value': {}},
            ],
            'resources': [
                {'certname': 'c1', 'title': 'Nova::Compute'},
                {'certname': 'c2', 'title': 'Nova::Compute'},
                {'certname': 'ctl1', 'title': 'Keystone'},
                {'certname': 'ctl1', 'title': 'Something::Else'},
            ],
            'package-inventory': [
                {'certname': 'c1', 'package_name': 'nova-common', 'version': '3:33.0.2-1~bpo12+1'},
                {'certname': 'c1', 'package_name': 'python3-nova', 'version': '3:34.0.0-2'},
            ],
        }
        url = f'http://127.0.0.1:{self.server.server_port}'
        self.conf.set_override('sources', {'prod': url}, 'puppetdb')

    def collect(self) -> base.Found:
        return puppet.PuppetInventory().collect(self.conf, {'name': 'prod'})

    def test_classes_are_services_and_packages_versions(self) -> None:
        found = self.collect()
        self.assertEqual(
            [('cmp1.example.org', 'nova-compute', '34.0.0'), ('ctl1', 'keystone', None)],
            [(s.host, s.binary, s.version) for s in found.services],
        )
        self.assertEqual(['bad_host_name'], [p.code for p in found.problems])

    def test_pages(self) -> None:
        rows = self.server.rows['resources']  # type: ignore[attr-defined]
        rows += [{'certname': f'n{n}', 'title': 'Nova::Compute'} for n in range(puppet.PAGE)]
        facts = self.server.rows['facts']  # type: ignore[attr-defined]
        facts += [{'certname': f'n{n}', 'name': 'os', 'value': {}} for n in range(puppet.PAGE)]
        self.assertEqual(puppet.PAGE + 2, len(self.collect().services))

    def test_an_answer_that_is_none(self) -> None:
        self.server.status = 500  # type: ignore[attr-defined]
        self.assertIn('status 500', self.refused(self.collect))
        self.server.status = 200  # type: ignore[attr-defined]
        self.server.rows['facts'] = {'error': 1, 'offset': []}  # type: ignore[attr-defined]

    def test_unreachable(self) -> None:
        self.conf.set_override('sources', {'prod': 'http://127.0.0.1:1'}, 'puppetdb')
        said = self.refused(self.collect)
        self.assertIn('PuppetDB at http://127.0.0.1:1', said)
        self.assertIn('Connection refused', said)
