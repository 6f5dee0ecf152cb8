"""What is read out of wheels, and what it means for a hop."""

import pathlib
import textwrap
import zipfile

import fixtures

from upgrade_service.projects import facts, loader, releases, wheels
from upgrade_service.tests import base

SERVICE = """
    from nova.objects import base
    SERVICE_VERSION = 74
    OLDEST_SUPPORTED_SERVICE_VERSION = 'Gazpacho'
    SERVICE_VERSION_ALIASES = {'Flamingo': 70, 'Gazpacho': 72}
    SERVICE_VERSION_HISTORY = tuple(range(SERVICE_VERSION))
"""
RPC = """
    class BaseAPI: VERSION_ALIASES = {'gazpacho': '0.1'}
    class ComputeAPI(BaseAPI):
        VERSION_ALIASES = {'gazpacho': '6.5'}
"""
STATUS = """
    from oslo_upgradecheck import upgradecheck
    class Checks(upgradecheck.UpgradeCommands):
        _upgrade_checks = (
            (_('Cells v2'), lambda: 1),
            ('Policy', (common.check, {'conf': CONF})),
        )
"""
MIGRATION = """
    revision = '{revision}'
    down_revision = 'x'
    def upgrade():
        'What it does'
        {does}
"""
FILES = {
    'nova/objects/service.py': SERVICE,
    'nova/compute/rpcapi.py': RPC,
    'nova/cmd/status.py': STATUS,
    'nova/db/versions/contract/a.py': MIGRATION.format(revision='empty', does='pass'),
    'nova/db/versions/contract/b.py': MIGRATION.format(revision='full', does='op.execute("x")'),
    'nova/db/versions/c.py': MIGRATION.format(revision='adds', does='op.add_column("t")'),
    'nova/db/versions/d.py': MIGRATION.format(revision='drops', does='op.drop_column("t", "c")'),
    'nova/tests/unit/db/e.py': MIGRATION.format(revision='test', does='op.drop_table("t")'),
    'nova/broken.py': "revision = 'oh\ndef upgrade(:",
    'nova-34.0.0.dist-info/entry_points.txt': """
        [console_scripts]
        nova-status = nova.cmd.status:main
        [wsgi_scripts]
        nova-api-wsgi = nova.api:app
        [oslo.config.opts]
        nova.conf = nova.conf:opts
    """,
    'nova-34.0.0.data/scripts/nova-old': 'import sys; sys.exit("never run")',
}
EXPECTED = {
    'scripts': ['nova-api-wsgi', 'nova-old', 'nova-status'],
    'checks': ['Cells v2', 'Policy'],
    'contract': ['full'],
    'drops': ['drops'],
    'services': {
        'version': 74,
        'oldest': 'Gazpacho',
        'aliases': {'Flamingo': 70, 'Gazpacho': 72},
    },
    'rpc': {'gazpacho': '6.5'},
}


class TestWheels(base.TestCase):
    """A distribution is read, whatever it is packed in, and nothing of it runs."""

    def setUp(self):
        super().setUp()
        self.top = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def test_a_wheel(self):
        path = self.top / 'nova-34.0.0-py3-none-any.whl'
        with zipfile.ZipFile(path, 'w') as wheel:
            for name, text in FILES.items():
                wheel.writestr(name, textwrap.dedent(text))
        self.assertEqual(EXPECTED, wheels.read(path, 'nova'))
        self.assertEqual(path.name, wheels.provenance(path)['wheel'])
        self.assertEqual(64, len(wheels.provenance(path)['sha256']))

    def test_an_unpacked_package(self):
        for name, text in FILES.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        self.assertEqual(EXPECTED, wheels.read(self.top, 'nova'))

    def test_what_is_no_wheel(self):
        self.assertRaises(OSError, wheels.read, self.top / 'missing.whl', 'nova')
        (self.top / 'bad.whl').write_text('no zip')
        self.assertRaises(zipfile.BadZipFile, wheels.read, self.top / 'bad.whl', 'nova')


class TestPackaged(base.TestCase):
    """The packaged facts; `tools/refresh-facts --check` compares them with PyPI."""

    def setUp(self):
        super().setUp()
        self.facts, self.releases = facts.load(), releases.load()

    def release(self, ident: str) -> releases.Release:
        found = self.releases.get(ident)
        assert found is not None
        return found

    def test_every_coordinated_project_from_2024_1_on(self):
        projects = loader.load_projects()
        for name in projects.names():
            if projects.get(name).independent:
                self.assertEqual([], self.facts.releases(name))
                continue
            for ident in ('2024.1', '2025.1', '2026.1', '2026.2'):
                read = self.facts.of(name, ident)
                assert read is not None, (name, ident)
                self.assertEqual(self.releases.latest(name, ident), read.version)
                self.assertIn(read.version, read.wheel)
        self.assertEqual(15, len(self.facts.releases('nova')))

    def test_floor_of_nova(self):
        floors = {i: self.facts.of('nova', i) for i in self.facts.releases('nova')}
        for ident, oldest, number in (
            ('train', None, None),
            ('yoga', 'Xena', 57),
            ('2023.2', 'Antelope', 66),
            ('2024.1', 'Antelope', 66),
            ('2025.1', 'Caracal', 66),
            ('2025.2', 'Epoxy', 68),
            ('2026.1', 'Epoxy', 68),
            ('2026.2', 'Gazpacho', 72),
        ):
            read = floors[ident]
            assert read is not None
            self.assertEqual((oldest, number), (read.services['oldest'], read.floor()), ident)

    def test_who_is_served(self):
        new = self.facts.of('nova', '2025.1')
        assert new is not None
        self.assertTrue(new.serves(self.release('2024.1')))
        self.assertTrue(new.serves(self.release('2023.1')))  # 66, as 2024.1: nova sees no more
        self.assertFalse(new.serves(self.release('zed')))
        self.assertIsNone(new.serves(self.release('train')))
        self.assertEqual('6.4', new.rpc['epoxy'])

    def test_contract_of_keystone_is_empty_after_bobcat(self):
        of = self.facts.of
        for source, target, does in (
            ('2024.1', '2025.1', False),
            ('2026.1', '2026.2', False),
            ('2023.1', '2024.1', None),  # nothing is known of the source: take care
        ):
            found = facts.contracts(of('keystone', source), of('keystone', target))
            self.assertEqual(does, found, (source, target))
        self.assertIsNone(facts.contracts(None, None))
        self.assertFalse(facts.contracts(None, of('placement', '2026.2')))

    def test_contract_that_does_something(self):
        known = {'version': '1', 'wheel': 'w', 'sha256': '', 'scripts': [], 'checks': []}
        old = known | {'contract': ['a'], 'drops': ['x']}
        new = known | {'contract': ['a', 'b'], 'drops': ['x', 'y'], 'scripts': ['s']}
        read = facts.WheelFacts({'nova': {'1': old, '2': new}})
        pair = read.of('nova', '1'), read.of('nova', '2')
        self.assertTrue(facts.contracts(*pair))
        self.assertEqual(['y'], facts.takes_away(*pair))
        self.assertEqual(set(), facts.gone(*pair))
        self.assertEqual({'s'}, facts.gone(*reversed(pair)))
        self.assertIsNone(read.of('nova', None))

    def test_commands_that_went_away(self):
        pair = self.facts.of('neutron', '2025.1'), self.facts.of('neutron', '2025.2')
        self.assertIn('neutron-server', facts.gone(*pair))

    def test_checks(self):
        for project, ident, title in (
            ('nova', '2026.2', 'Older than N-1 computes'),
            ('placement', '2026.2', 'Missing Root Provider IDs'),
            ('cinder', '2026.2', 'Service UUIDs'),
        ):
            read = self.facts.of(project, ident)
            assert read is not None
            self.assertIn(title, read.checks)
        neutron, mistral = self.facts.of('neutron', '2026.2'), self.facts.of('mistral', '2026.2')
        assert neutron is not None and mistral is not None
        self.assertEqual((16, 0), (len(neutron.checks), len(mistral.checks)))
