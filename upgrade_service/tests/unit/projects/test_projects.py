"""The data of the projects and releases, and what is read from them."""

import pathlib
import textwrap

import fixtures

from upgrade_service import exception, model
from upgrade_service.projects import facts, loader, paths, policy, releases
from upgrade_service.tests import base


class TestLoader(base.TestCase):
    def write(self, name: str, text: str) -> str:
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (directory / f'{name}.yaml').write_text(textwrap.dedent(text))
        return str(directory)

    def test_packaged(self):
        projects = loader.load_projects()
        kinds = {name: projects.get(name).kind for name in projects.names()}
        self.assertEqual(
            {'mariadb', 'rabbitmq', 'memcached', 'libvirt', 'ovn', 'haproxy'},
            {name for name, kind in kinds.items() if kind == 'infrastructure'},
        )
        self.assertEqual(
            {
                *('keystone', 'glance', 'placement', 'nova', 'neutron', 'cinder', 'swift'),
                *('heat', 'ironic', 'octavia', 'barbican', 'designate', 'manila', 'magnum'),
                *('horizon', 'aodh', 'ceilometer', 'gnocchi', 'masakari', 'trove', 'watcher'),
                'mistral',
            },
            {name for name, kind in kinds.items() if kind == 'project'},
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
                    own = command.argv[0] == 'python3'
                    self.assertTrue(own or command.argv[0].startswith(name), command.argv)
                    words = command.argv[: 2 if own else None]
                    self.assertFalse(any(' ' in word for word in words))
            if project.kind == 'project':
                self.assertTrue(project.prove['imports'], name)

    def test_what_is_proved_by_a_wheel_is_in_the_wheel(self):
        projects, known = loader.load_projects(), facts.load()
        for project in map(projects.get, projects.names()):
            read = known.of(project.name, '2026.2')
            for command in (c for some in project.commands.values() for c in some):
                if command.proof == 'wheel' and read and command.argv[0] != 'python3':
                    self.assertIn(command.argv[0], read.scripts)
            for script in project.prove.get('scripts', ()):
                self.assertIn(script, read.scripts if read else (script,), project.name)

    def test_a_binary_is_of_one_project(self):
        projects = loader.load_projects()
        for project in map(projects.get, projects.names()):
            for binary in project.services:
                self.assertIs(project, projects.by_binary(binary))

    def test_infrastructure_of_a_site_is_a_file_like_the_packaged_ones(self):
        directory = self.write(
            'etcd',
            """
            project: etcd
            kind: infrastructure
            summary: Key-value store
            sources: [{id: site, ref: our runbook}]
            services: {etcd: {plane: control}}
            versions: {series: ['3.4', '3.5'], step: next, source: site, proof: doc}
            quorum: {members: [etcd], source: site, proof: doc}
            targets: {'2026.2': 3.5.21}
            """,
        )
        etcd = loader.load_projects(directory).get('etcd')
        self.assertEqual('3.5.21', etcd.target('2026.2', releases.load()))
        self.assertIsNone(etcd.target('2026.1', releases.load()))

    def test_a_site_may_choose_the_version_of_a_release(self):
        directory = self.write('nova', "project: nova\ntargets: {'2026.1': 33.0.1}")
        nova = loader.load_projects(directory).get('nova')
        self.assertEqual('33.0.1', nova.target('2026.1', releases.load()))
        self.assertEqual('34.0.0', nova.target('2026.2', releases.load()))

    def test_override_adds_sources_and_takes_keys_away(self):
        directory = self.write(
            'heat',
            """
            project: heat
            sources: [{id: site, ref: 'our load balancer switches the vhost'}]
            upgrade: {adjacent: {manner: rolling, source: site, proof: doc}}
            databases: null
            """,
        )
        heat = loader.load_projects(directory).get('heat')
        self.assertEqual('rolling', heat.upgrade['adjacent']['manner'])
        self.assertEqual('sequential', heat.upgrade['slurp']['manner'])
        self.assertEqual((), heat.databases)
        self.assertIn('upgrades', {s['id'] for s in heat.sources})

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
        shell = '{argv: [/bin/sh], code: target, source: cli, proof: doc}'
        for text, field in (
            ('project: nova\nnonsense: 1', 'nonsense'),
            ('project: nova\nservices: {nova-compute: {plane: astral}}', 'nova-compute.plane'),
            (f'project: nova\ncommands: {{db_expand: [{shell}]}}', 'argv.0'),
            ('project: nova\nupgrade: {slurp: {source: nowhere}}', 'slurp: source nowhere'),
            ('project: nova\nupgrade: {slurp: {manner: often}}', 'upgrade.slurp.manner'),
            ('project: nova\nupgrade: {slurp: {proof: hearsay}}', 'upgrade.slurp.proof'),
            ('project: nova\nservices: {nova-compute: {after: [nova-compute]}}', 'after itself'),
            ('project: ovn\nversions: {step: twice}', 'versions.step'),
            ('project: ovn\nquorum: {members: []}', 'quorum.members'),
            ('project: ovn\nversions: null', 'versions'),
            ("project: nova\ntargets: {'2026.1': ../etc}", 'targets.2026.1'),
            ('project: pear', 'required'),
            ('- a list', 'must be a mapping'),
            ('{', 'is not YAML'),
        ):
            directory = self.write('nova', text)
            error = self.assertRaises(exception.Invalid, loader.load_projects, directory)
            self.assertIn(field, str(error))
            self.assertLess(len(str(error)), 400)

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
        self.releases, self.projects = releases.load(), loader.load_projects()

    def hops(self, source: str) -> list[list[str]]:
        found = paths.paths_from(self.releases, source, self.projects)
        return [path['hops'] for path in found]

    def test_adjacent_slurp_and_several_hops(self):
        self.assertEqual(
            [
                ['2025.2'],
                ['2026.1'],
                ['2025.2', '2026.1'],
                ['2026.1', '2026.2'],
                ['2025.2', '2026.1', '2026.2'],
            ],
            self.hops('2025.1'),
        )
        self.assertEqual([['2026.1'], ['2026.1', '2026.2']], self.hops('2025.2'))
        self.assertEqual([], self.hops('2026.2'))

    def test_from_train_to_the_newest(self):
        found = [h for h in self.hops('train') if h[-1] == '2026.2']
        stops = ['ussuri', 'victoria', 'wallaby', 'xena', 'yoga', 'zed', '2023.1']
        self.assertEqual([*stops, '2024.1', '2025.1', '2026.1', '2026.2'], found[0])
        self.assertEqual(14, len(found[1]))

    def test_every_source_and_target_is_answered(self):
        known = [r.id for r in self.releases.all() if r.status not in paths.UNRELEASED]
        self.assertEqual(15, len(known))
        for n, source in enumerate(known):
            ends = {hops[-1] for hops in self.hops(source)}
            self.assertEqual(set(known[n + 1 :]), ends, source)

    def test_manners(self):
        path = paths.paths_from(self.releases, '2025.1', self.projects)
        adjacent, slurp, around = path[0], path[1], path[2]
        for found, project, how in (
            (adjacent, 'nova', 'rolling'),
            (adjacent, 'heat', 'cold'),
            (adjacent, 'magnum', 'cold'),
            (slurp, 'nova', 'rolling'),
            (slurp, 'cinder', 'cold'),
            (slurp, 'heat', 'sequential'),
            (slurp, 'magnum', 'sequential'),
            (around, 'heat', 'cold'),
        ):
            self.assertEqual(how, found['projects'][project], project)
        self.assertNotIn('gnocchi', adjacent['projects'])
        self.assertNotIn('mariadb', adjacent['projects'])

    def test_who_is_out_for_how_long(self):
        hosts = {'keystone': 3, 'glance': 1, 'heat': 2, 'neutron': 0}
        one, *_, two = paths.paths_from(self.releases, '2025.2', self.projects, hosts)
        self.assertEqual({'glance', 'heat'}, set(one['down']))
        cost = {kind: model.KINDS[kind].estimate for kind in model.KINDS}
        each = cost['stop_service'] + cost['upgrade_service'] + cost['verify_service']
        self.assertEqual(2 * each + cost['db_expand'], one['down']['heat'])
        self.assertEqual(2 * one['down']['heat'], two['down']['heat'])
        self.assertEqual(['2026.1'], two['stops'])
        self.assertEqual(['2025.2', '2026.1'], [leg['source'] for leg in two['legs']])

    def test_reachable(self):
        for source, target in (
            (None, '2026.2'),
            ('2026.1', '2026.2'),
            ('2025.1', '2026.1'),
            ('gazpacho', 'hibiscus'),
            ('train', 'ussuri'),
        ):
            paths.check_target(self.releases, source, target)

    def test_unreachable_says_what_is_reachable(self):
        for source, target, words in (
            ('2025.2', '2026.2', '2026.1, then 2026.2; begin with --to 2026.1'),
            ('2024.1', '2026.1', 'this takes 2: 2025.1, then 2026.1; begin with --to 2025.1'),
            ('zed', '2024.1', '2023.1, then 2024.1'),
            ('2026.2', '2026.1', 'never goes back'),
            ('2026.1', '2026.1', 'there already'),
            ('2026.1', '2027.1', 'not released'),
            ('2026.2', '2027.1', 'no later release'),
        ):
            error = self.assertRaises(
                exception.UnreachableRelease, paths.check_target, self.releases, source, target
            )
            self.assertIn(words, str(error))

    def test_unreachable_says_who_holds_back(self):
        error = self.assertRaises(
            exception.UnreachableRelease,
            *(paths.check_target, self.releases, '2024.1', '2026.1', '2 of nova'),
        )
        self.assertIn('(at 2024.1: 2 of nova)', str(error))

    def test_unknown(self):
        for source, target in (('2026.1', '2099.1'), ('2099.1', '2026.1'), (None, 'x')):
            self.assertRaises(
                exception.UnknownRelease, paths.check_target, self.releases, source, target
            )

    def manner(self, name: str, source: str, target: str, **upgrade: dict[str, str]) -> str:
        raw = dict(self.projects.raw[name])
        raw['upgrade'] = raw['upgrade'] | upgrade
        start, end = self.releases.get(source), self.releases.get(target)
        assert start and end
        return paths.manner(loader.Projects({name: raw}).get(name), start, end)

    def test_without_proof_a_project_goes_cold_and_skips_nothing(self):
        guess = {'manner': 'rolling', 'source': 'cli', 'proof': 'none'}
        self.assertEqual('cold', self.manner('nova', '2026.1', '2026.2', adjacent=guess))
        self.assertEqual('sequential', self.manner('nova', '2025.1', '2026.1', slurp=guess))

    def test_the_floor_of_the_target_has_the_last_word(self):
        self.assertEqual('rolling', self.manner('nova', '2024.1', '2025.1'))
        self.assertEqual('rolling', self.manner('nova', '2023.1', '2024.1'))
        # not a legal hop, but what nova would do: 2026.1 starts beside nothing before 2025.1
        self.assertEqual('cold', self.manner('nova', '2024.1', '2026.1'))


class TestVersions(base.TestCase):
    """Which versions infrastructure may go to, one step at a time."""

    def refusal(self, name: str, source: str, target: str) -> str | None:
        return paths.version_refusal(loader.load_projects().get(name), source, target)

    def test_legal(self):
        for name, source, target in (
            ('rabbitmq', '3.13.0', '3.13.7'),
            ('rabbitmq', '3.13.7-1', '4.0.5'),
            ('mariadb', '1:10.6.18-0+deb12u1', '10.11.6'),
            ('mariadb', '10.11.6', '11.4.2'),
            ('ovn', '22.03.2', '24.03.1'),
            ('ovn', '22.03.2', '23.09.0'),
            ('ovn', '23.09.0', '24.03.1'),
            ('libvirt', '8.0.0', '10.0.0'),
            ('nova', '1', '9'),
        ):
            self.assertIsNone(self.refusal(name, source, target), (name, source, target))

    def test_refused(self):
        for name, source, target, words in (
            ('rabbitmq', '3.11.2', '3.13.1', 'go to 3.12, then 3.13'),
            ('rabbitmq', '3.12.9', '4.0.5', 'go to 3.13, then 4.0'),
            ('rabbitmq', '4.0.5', '3.13.7', 'never goes back'),
            ('mariadb', '10.6.1', '11.4.2', 'go to 10.11, then 11.4'),
            ('mariadb', '10.8.1', '10.11.2', '10.8.1 belongs to no series that is known'),
            ('ovn', '22.03.2', '24.09.0', 'go to 24.03, then 24.09.0'),
            ('ovn', '20.03.0', '22.03.0', '20.03.0 belongs to no series'),
            ('libvirt', '10.0.0', '9.0.0', 'never goes back'),
        ):
            self.assertIn(words, self.refusal(name, source, target) or 'nothing')


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
