"""The data of the projects and releases, and what is read from them."""

import pathlib
import textwrap

import fixtures

from upgrade_service import exception, model
from upgrade_service.projects import loader, paths, policy, releases
from upgrade_service.tests import base


class TestLoader(base.TestCase):
    def write(self, name: str, text: str) -> str:
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (directory / f'{name}.yaml').write_text(textwrap.dedent(text))
        return str(directory)

    def test_packaged(self):
        projects = loader.load_projects()
        self.assertEqual(
            ['cinder', 'glance', 'keystone', 'neutron', 'nova', 'placement'], projects.names()
        )
        self.assertEqual('openstack-placement', projects.get('placement').distribution)
        self.assertIs(projects.get('nova'), projects.by_binary('nova-compute'))
        self.assertIsNone(projects.by_binary('nova-network'))
        self.assertRaises(exception.NotFound, projects.get, 'nova-network')

    def test_exit_statuses_are_numbers(self):
        check = loader.load_projects().get('nova').commands['upgrade_check'][0]
        self.assertEqual({0: 'done', 1: 'warning', 2: 'failed', 255: 'broken'}, check.exits)
        sync = loader.load_projects().get('nova').commands['db_expand'][0]
        self.assertEqual({0: 'done'}, sync.exits)

    def test_every_command_is_a_script_that_is_proved(self):
        projects = loader.load_projects()
        for name in projects.names():
            project = projects.get(name)
            for commands in project.commands.values():
                for command in commands:
                    self.assertTrue(command.argv[0].startswith((name, 'python3')), command.argv)
                    words = command.argv[:2] if command.argv[0] == 'python3' else command.argv
                    self.assertFalse(any(' ' in word for word in words))
            self.assertTrue(project.prove['imports'], name)

    def test_every_finish_names_services_and_commands_that_exist(self):
        projects = loader.load_projects()
        for name in projects.names():
            project = projects.get(name)
            self.assertEqual(
                [], [b for b in project.finish.get('restart', ()) if b not in project.services]
            )
            for key, kind in (
                ('online_migrations', 'online_migrations'),
                ('contract', 'db_contract'),
            ):
                if project.finish.get(key):
                    self.assertIn(kind, project.commands, name)

    def test_override_changes_one_fact_and_the_digest(self):
        before = loader.load_projects()
        directory = self.write(
            'neutron',
            """
            project: neutron
            config: {args: [--config-file, /srv/neutron.conf]}
            """,
        )
        after = loader.load_projects(directory)
        self.assertEqual(
            ('--config-file', '/srv/neutron.conf'), after.get('neutron').config['args']
        )
        self.assertEqual(before.get('neutron').services, after.get('neutron').services)
        self.assertNotEqual(before.digest, after.digest)
        self.assertEqual(before.digest, loader.load_projects().digest)

    def test_refused(self):
        for text, field in (
            ('project: nova\nnonsense: 1', 'nonsense'),
            ('project: nova\nservices: {nova-compute: {plane: astral}}', 'nova-compute.plane'),
            ('project: nova\ncommands: {db_expand: [{argv: [/bin/sh], code: target}]}', 'argv.0'),
            ('project: nova\nupgrade: {source: nowhere}', 'source nowhere'),
            ('project: heat', 'required'),
            ('- a list', 'must be a mapping'),
            ('{', 'is not YAML'),
        ):
            directory = self.write('nova', text)
            error = self.assertRaises(exception.Invalid, loader.load_projects, directory)
            self.assertIn(field, str(error))

    def test_unknown_binary_is_of_the_control_plane(self):
        self.assertEqual('control', loader.load_projects().get('nova').plane('nova-new'))


class TestReleases(base.TestCase):
    def setUp(self):
        super().setUp()
        self.releases = releases.load()

    def release_of(self, version: str, deliverable: str = 'nova') -> str | None:
        release = self.releases.of_version(deliverable, version)
        return release.id if release else None

    def test_of_version(self):
        for version, expected in (
            ('33.0.2', '2026.1'),
            ('34.0.0', '2026.2'),
            ('33.0.3', '2026.1'),
            ('34.0.1.dev12', '2026.2'),
            ('34.0.0.0rc1', '2026.2'),
            ('2:33.0.2-0+deb12u1', '2026.1'),
            ('33.0.2-1.el9', '2026.1'),
            ('99.0.0', None),
            ('', None),
            ('unknown', None),
        ):
            self.assertEqual(expected, self.release_of(version), version)
        self.assertIsNone(self.release_of('1.0.0', 'no-such-deliverable'))

    def test_get_and_order(self):
        self.assertEqual(self.releases.get('2026.1'), self.releases.get('Gazpacho'))
        names = [release.name for release in sorted(self.releases.all(), reverse=True)]
        self.assertLess(names.index('gazpacho'), names.index('zed'))
        self.assertIsNone(self.releases.get('2099.1'))

    def test_latest(self):
        self.assertEqual('33.0.2', self.releases.latest('nova', '2026.1'))
        self.assertEqual('16.0.0', self.releases.latest('placement', 'hibiscus'))
        self.assertIsNone(self.releases.latest('nova', '2027.1'))
        self.assertIsNone(self.releases.latest('nova', '2099.1'))


class TestPaths(base.TestCase):
    def setUp(self):
        super().setUp()
        self.releases = releases.load()

    def test_adjacent_and_slurp(self):
        found = paths.paths_from(self.releases, '2025.1', loader.load_projects())
        self.assertEqual(['2025.2', '2026.1'], [path['to'] for path in found])
        self.assertEqual({'rolling'}, set(found[0]['projects'].values()))
        self.assertEqual('rolling', found[1]['projects']['nova'])
        self.assertEqual('cold', found[1]['projects']['cinder'])

    def test_not_slurp_has_one_hop(self):
        found = paths.paths_from(self.releases, '2025.2', loader.load_projects())
        self.assertEqual(['2026.1'], [path['to'] for path in found])

    def test_reachable(self):
        for source, target in (
            (None, '2026.2'),
            ('2026.1', '2026.2'),
            ('2025.1', '2026.1'),
            ('gazpacho', 'hibiscus'),
        ):
            paths.check_target(self.releases, source, target)

    def test_unreachable_says_what_is_reachable(self):
        for source, target, words in (
            ('2025.2', '2026.2', '2026.1'),
            ('2024.1', '2026.1', '2024.2, 2025.1'),
            ('2026.2', '2026.1', 'never goes back'),
            ('2026.1', '2026.1', 'there already'),
            ('2026.1', '2027.1', 'not released'),
            ('2026.2', '2027.1', 'no later release'),
        ):
            error = self.assertRaises(
                exception.UnreachableRelease, paths.check_target, self.releases, source, target
            )
            self.assertIn(words, str(error))

    def test_unknown(self):
        for source, target in (('2026.1', '2099.1'), ('2099.1', '2026.1'), (None, 'x')):
            self.assertRaises(
                exception.UnknownRelease, paths.check_target, self.releases, source, target
            )

    def test_without_proof_a_project_goes_cold(self):
        raw = dict(loader.load_projects().raw['nova'])
        raw['upgrade'] = raw['upgrade'] | {'proof': 'none'}
        project = loader.Projects({'nova': raw}).get('nova')
        source, target = self.releases.get('2026.1'), self.releases.get('2026.2')
        assert source and target
        self.assertEqual('cold', paths.manner(project, source, target))


class TestPolicy(base.TestCase):
    def test_defaults(self):
        self.assertEqual(model.POLICY_DEFAULTS, policy.merge_policy(None))
        self.assertEqual(model.POLICY_DEFAULTS, policy.merge_policy({}))

    def test_nested_key_keeps_its_neighbours(self):
        merged = policy.merge_policy({'drain': {'parallel': 4}, 'max_unavailable': '5%'})
        self.assertEqual(
            (4, 'live', '5%'),
            (merged['drain']['parallel'], merged['drain']['instances'], merged['max_unavailable']),
        )
        self.assertEqual(1, model.POLICY_DEFAULTS['drain']['parallel'])

    def test_refused_by_name(self):
        for raw, field in (
            ({'speed': 9}, 'speed'),
            ({'drain': {'speed': 9}}, 'drain.speed'),
            ({'max_unavailable': 0}, 'max_unavailable'),
            ({'max_unavailable': '101%'}, 'max_unavailable'),
            ({'drain': {'on_stuck': 'pray'}}, 'drain.on_stuck'),
            ({'gates': ['lunch']}, 'gates.0'),
            ({'canary': []}, 'canary'),
            ({'failure': {'max_percent': 0}}, 'failure.max_percent'),
            ([], 'policy'),
            ({'commits': {'nova': 'abc123'}}, 'commits.nova'),
        ):
            error = self.assertRaises(exception.InvalidPolicy, policy.merge_policy, raw)
            self.assertIn(f'key {field}:', str(error))
            self.assertLess(len(str(error)), 300)
