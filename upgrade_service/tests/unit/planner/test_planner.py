"""Plans as a person reads them, and as any broker may carry them out."""

import dataclasses
import os
import random

from upgrade_service import exception
from upgrade_service.conductor import planner
from upgrade_service.conductor.planner import estimate, order, render, verify
from upgrade_service.projects import loader, policy
from upgrade_service.tests import base
from upgrade_service.tests.unit.planner import clouds


class TestGolden(base.TestCase):
    """A cloud in YAML, its plan as text: a reviewer reads the difference of a plan.

    ``GOLDEN_WRITE=1 stestr run golden`` writes the texts anew.
    """

    def test_every_cloud(self):
        names = sorted(path.stem for path in clouds.GOLDEN.glob('*.yaml'))
        self.assertGreaterEqual(len(names), 16)
        for name in names:
            plan, _, request = clouds.make_plan(clouds.load(name))
            text = render.render(plan, planner.share(request.policy['max_unavailable'], 12))
            path = clouds.GOLDEN / f'{name}.txt'
            if os.environ.get('GOLDEN_WRITE'):
                path.write_text(text)
            self.assertEqual(path.read_text(), text, f'the plan of {name} changed')

    def test_every_golden_plan_is_accepted(self):
        for path in clouds.GOLDEN.glob('*.yaml'):
            cloud = clouds.load(path.stem)
            plan, inventory, request = clouds.make_plan(cloud)
            verify.verify(plan, inventory, request, clouds.projects_of(cloud), clouds.RELEASES)


class TestRandomClouds(base.TestCase):
    """Nothing is asserted of a single cloud, but of all of them."""

    def test_accepted(self):
        for seed in range(150):
            plan, inventory, request = clouds.make_plan(clouds.draw(seed))
            found = verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
            self.assertEqual([], found, f'seed {seed}')

    def test_accepted_by_packages(self):
        for seed in range(60):
            cloud = clouds.draw(seed) | {'strategy': 'package'}
            plan, inventory, request = clouds.make_plan(cloud)
            found = verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
            self.assertEqual([], found, f'seed {seed}')

    def test_same_again(self):
        for seed in range(20):
            first, second = (
                clouds.make_plan(clouds.draw(seed)),
                clouds.make_plan(clouds.draw(seed)),
            )
            self.assertEqual(first[0].digest(), second[0].digest())

    def test_every_order_inside_the_budget_is_safe(self):
        for seed in range(100):
            plan, inventory, _ = clouds.make_plan(clouds.draw(seed))
            for budget in (1, 2, 7):
                run = Run(plan, inventory, random.Random(seed))  # noqa: S311
                self.assertEqual('', run.play(budget), f'seed {seed}, budget {budget}')


class Run:
    """Plays a plan in a random order that the edges and a budget allow."""

    def __init__(self, plan, inventory, dice):
        self.plan, self.hosts, self.dice = plan, inventory.hosts, dice
        self.place = {s.id: s.host for s in inventory.servers}
        self.servers = {s.id: s for s in inventory.servers}
        self.full = {h for h in inventory.hosts if self.overfull(h)}
        self.torn = {h for h in inventory.hosts if self.meet(h)}
        self.out = set()

    def on(self, host):
        return [self.servers[s] for s, h in self.place.items() if h == host]

    def overfull(self, host):
        here, room = self.on(host), self.hosts[host]
        return sum(s.vcpus for s in here) > room.vcpus or sum(s.ram_mb for s in here) > room.ram_mb

    def meet(self, host):
        groups = [s.group for s in self.on(host) if s.group]
        return len(groups) != len(set(groups))

    def play(self, budget):
        """Return what went wrong, or an empty string."""
        done: set[int] = set()
        left = {s.ord: s for s in self.plan.steps}
        while left:
            ready = [
                s
                for s in left.values()
                if set(s.parents) <= done and (s.kind != 'disable_host' or len(self.out) < budget)
            ]
            if not ready:
                return f'nothing can go on while {sorted(self.out)} are out'
            step = self.dice.choice(ready)
            wrong = self.apply(step)
            if wrong:
                return f'step {step.ord}: {wrong}'
            done.add(step.ord)
            del left[step.ord]
        return f'{sorted(self.out)} never came back' if self.out else ''

    def apply(self, step):
        if step.kind == 'disable_host':
            self.out.add(step.host)
        elif step.kind == 'enable_host':
            self.out.discard(step.host)
        elif step.kind == 'drain_host':
            return self.move(step)
        return ''

    def move(self, step):
        for server, target in step.params['moves'].items():
            if self.place[server] != step.host:
                return f'{server} is on {self.place[server]}'
            if target in self.out:
                return f'{target} is out'
            self.place[server] = target
            if self.overfull(target) and target not in self.full:
                return f'{target} is full'
            if self.meet(target) and target not in self.torn:
                return f'a group meets on {target}'
        left = {s.id for s in self.on(step.host)}
        return '' if left <= set(step.params['leave']) else f'{left} stay'


class TestRequests(base.TestCase):
    """What is asked for is planned, and nothing else."""

    def plan(self, **changes):
        return clouds.make_plan(clouds.load('lab') | changes)[0]

    def codes(self, plan, severity='blocking'):
        return {p.code for p in plan.problems if p.severity == severity}

    def test_nothing_selected(self):
        for key in ('hosts', 'azs', 'projects'):
            self.assertRaises(exception.PlanImpossible, self.plan, selection={key: []})

    def test_nothing_behind(self):
        cloud = clouds.load('lab')
        for host in cloud['hosts'].values():
            host['release'] = '2026.2'
        self.assertRaises(exception.PlanImpossible, clouds.make_plan, cloud)

    def test_nothing_to_do_says_why(self):
        done = clouds.load('lab')
        for host in done['hosts'].values():
            host['release'] = '2026.2'
        lab = clouds.load('lab')
        for cloud, words in (
            (done, 'is behind 2026.2: the 18 services on 4 hosts are at 2026.2'),
            (lab | {'selection': {'hosts': ['cmp9']}}, 'no host of the cloud is selected'),
            (
                lab | {'selection': {'hosts': ['cmp1'], 'projects': ['glance']}},
                'runs neutron, nova, and the projects selected are not there',
            ),
        ):
            error = self.assertRaises(exception.PlanImpossible, clouds.make_plan, cloud)
            self.assertIn(words, str(error))

    def test_unknown_strategy(self):
        request = dataclasses.replace(clouds.make_request({}), strategy='none')
        self.assertRaises(
            exception.PlanImpossible,
            planner.make_plan,
            clouds.make_inventory(clouds.load('lab')),
            request,
            clouds.PROJECTS,
            clouds.RELEASES,
            clouds.STRATEGIES,
        )

    def test_hosts_before_their_control_plane(self):
        plan = self.plan(selection={'hosts': ['cmp1']})
        self.assertEqual({'cmp1', None}, {s.host for s in plan.steps})
        self.assertIn('control_plane_behind', self.codes(plan))
        self.assertNotIn('finish', {s.stage for s in plan.steps})

    def test_control_plane_alone_keeps_the_pins(self):
        plan = self.plan(selection={'hosts': ['ctl1']})
        self.assertEqual(set(), self.codes(plan))
        self.assertIn('finish_postponed', self.codes(plan, 'warning'))
        finished = {s.project for s in plan.steps if s.ponr}
        self.assertEqual({'cinder', 'placement'}, finished)
        contracts = {s.project for s in plan.steps if s.kind == 'db_contract'}
        self.assertEqual({'keystone', 'glance'}, contracts)

    def test_skipped_project(self):
        plan = self.plan(policy={'skip_projects': ['neutron']})
        self.assertNotIn('neutron', {s.project for s in plan.steps})

    def test_a_commit_is_a_version_of_its_own(self):
        commit = '0123456789abcdef' * 2 + '01234567'
        plan = self.plan(policy={'commits': {'nova': commit}})
        self.assertEqual(set(), self.codes(plan))
        nova = [s for s in plan.steps if s.project == 'nova' and 'commit' in s.params]
        self.assertLessEqual(
            {'prefetch', 'db_expand', 'upgrade_service', 'verify_host'}, {s.kind for s in nova}
        )
        self.assertEqual({commit}, {s.params['commit'] for s in nova})
        self.assertEqual({'34.0.0+g0123456789ab'}, {s.params['version'] for s in nova})
        others = {s.params.get('commit') for s in plan.steps if s.project != 'nova'}
        self.assertEqual({None}, others)

    def test_a_service_of_the_release_is_behind_a_commit(self):
        cloud = clouds.load('lab')
        for host in cloud['hosts'].values():
            host['release'] = '2026.2'
        inventory = clouds.make_inventory(cloud)
        request = dataclasses.replace(
            clouds.make_request(cloud),
            policy=policy.merge_policy({'commits': {'placement': 'a' * 40}}),
        )
        plan = planner.make_plan(
            inventory, request, clouds.PROJECTS, clouds.RELEASES, clouds.STRATEGIES
        )
        verify.verify(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
        self.assertEqual({'placement', None}, {s.project for s in plan.steps})

    def test_cold_hop_must_be_accepted(self):
        cloud = clouds.load('lab')
        for host in cloud['hosts'].values():
            host['release'] = '2025.1'
        request = dataclasses.replace(
            clouds.make_request(cloud), from_release='2025.1', to_release='2026.1'
        )
        inventory = clouds.make_inventory(cloud)
        plan = planner.make_plan(
            inventory, request, clouds.PROJECTS, clouds.RELEASES, clouds.STRATEGIES
        )
        cold = [p for p in plan.problems if p.code == 'cold_upgrade']
        self.assertIn('cinder', {p.service for p in cold})
        self.assertNotIn('nova', {p.service for p in cold})
        self.assertTrue(all(p.acceptable and p.severity == 'blocking' for p in cold))
        verify.verify(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)

    def test_a_host_whose_steps_a_deployment_host_does_needs_no_engine(self):
        facts = {'agent_state': None, 'facts_age': None, 'strategies': frozenset()}
        hosts = clouds.load('lab')['hosts']
        hosts['cmp1']['facts'] = dict(facts)
        found = [{'code': 'engine_missing', 'severity': 'blocking', 'host': 'cmp1',
                  'message': 'none'}]  # fmt: skip
        plan = self.plan(hosts=hosts, problems=found)
        self.assertIn('engine_missing', self.codes(plan, 'blocking'))
        hosts['cmp1']['facts']['executors'] = {'source': 'deploy'}
        plan = self.plan(hosts=hosts, problems=found)
        self.assertNotIn('engine_missing', self.codes(plan, 'blocking'))
        self.assertIn('engine_missing', self.codes(plan, 'warning'))

    def test_problems_outside_the_selection_are_warnings(self):
        trouble = {'code': 'service_down', 'severity': 'blocking', 'message': 'it is down'}
        found = [trouble | {'host': 'cmp1'}, trouble | {'host': 'cmp3'}]
        plan = self.plan(selection={'hosts': ['ctl1', 'cmp1']}, problems=found)
        self.assertEqual(
            {('cmp1', 'blocking'), ('cmp3', 'warning')},
            {(p.host, p.severity) for p in plan.problems if p.code == 'service_down'},
        )

    def test_old_facts_block(self):
        cloud = clouds.load('lab')
        cloud['hosts']['cmp2']['facts'] = {'facts_age': 3600.0}
        self.assertEqual({'stale_facts'}, self.codes(clouds.make_plan(cloud)[0]))

    def test_without_drain(self):
        plan = self.plan(policy={'drain': {'instances': 'none'}})
        self.assertNotIn('drain_host', {s.kind for s in plan.steps})
        self.assertEqual({}, plan.moves)

    def test_without_backup_and_canary(self):
        plan = self.plan(policy={'backup': {'database': False}, 'canary': {'hosts': 0}})
        self.assertNotIn('backup_database', {s.kind for s in plan.steps})
        self.assertNotIn('canary', {s.stage for s in plan.steps})

    def test_seeds_move_twice_others_once(self):
        plan = self.plan()
        moved = [m for s in plan.steps if s.kind == 'drain_host' for m in s.params['moves']]
        self.assertEqual((8, 6), (len(moved), len(set(moved))))

    def test_an_empty_host_is_the_seed(self):
        servers = [s for s in clouds.load('lab')['servers'] if s['host'] != 'cmp3']
        plan = self.plan(servers=servers)
        moved = [m for s in plan.steps if s.kind == 'drain_host' for m in s.params['moves']]
        self.assertEqual(len(servers), len(moved))

    def test_immovable_blocks_or_stays(self):
        servers = [{'id': 'x', 'host': 'cmp1', 'state': 'SHUTOFF'}]
        self.assertIn('immovable_servers', self.codes(self.plan(servers=servers)))
        plan = self.plan(servers=servers, policy={'drain': {'on_immovable': 'skip'}})
        self.assertEqual(set(), self.codes(plan))
        drain = next(s for s in plan.steps if s.kind == 'drain_host' and s.host == 'cmp1')
        self.assertEqual((['x'], {}), (drain.params['leave'], drain.params['moves']))

    def test_affinity_group_is_not_torn(self):
        servers = [
            {'id': n, 'host': 'cmp1', 'group': 'g', 'group_policy': 'affinity'} for n in ('x', 'y')
        ]
        self.assertIn('immovable_servers', self.codes(self.plan(servers=servers)))

    def test_no_room_names_what_is_missing(self):
        servers = [{'id': f's{n}', 'host': f'cmp{n}', 'ram_mb': 16000} for n in (1, 2, 3)]
        plan = self.plan(servers=servers)
        problem = next(p for p in plan.problems if p.code == 'no_capacity')
        self.assertIn('16000 MB', problem.hint)

    def test_never_to_an_older_hypervisor(self):
        cloud = clouds.load('lab')
        cloud['hosts']['cmp1']['facts'] = {'hypervisor_version': 8000000}
        for name in ('cmp2', 'cmp3'):
            cloud['hosts'][name]['facts'] = {'hypervisor_version': 9000000}
        plan = clouds.make_plan(cloud)[0]
        targets = {
            t
            for s in plan.steps
            if s.kind == 'drain_host' and s.host != 'cmp1'
            for t in s.params['moves'].values()
        }
        self.assertNotIn('cmp1', targets)

    def targets(self, servers, facts, **policy):
        """Return where servers of cmp1 may end, given what is true of each host."""
        cloud = clouds.load('lab')
        for name, said in facts.items():
            cloud['hosts'][name]['facts'] = said
        cloud |= {'servers': servers, 'policy': policy}
        plan, inventory, request = clouds.make_plan(cloud)
        verify.verify(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
        return plan

    def test_only_where_a_flavor_is_served(self):
        for specs, there, elsewhere in (
            ([('trait:HW_X', 'required')], {'traits': frozenset({'HW_X'})}, {}),
            ([('trait:HW_X', 'forbidden')], {}, {'traits': frozenset({'HW_X'})}),
            (
                [('aggregate_instance_extra_specs:ssd', 'true')],
                {'aggregates': {'ssd': frozenset({'true'})}},
                {'aggregates': {'ssd': frozenset({'false'})}},
            ),
            ([], {}, {'aggregates': {'filter_tenant_id': frozenset({'other'})}}),
            ([], {}, {'aggregates': {'trait:HW_X': frozenset({'required'})}}),
            ([], {}, {'disk_gb': 5}),
        ):
            servers = [
                {'id': n, 'host': 'cmp1', 'specs': tuple(specs), 'tenant': 't', 'disk_gb': 10}
                for n in ('x', 'y')
            ]
            facts = {'cmp1': there, 'cmp2': elsewhere, 'cmp3': there}
            plan = self.targets(servers, facts)
            self.assertEqual({'cmp3'}, set(plan.moves.values()), specs)

    def test_device_binds(self):
        servers = [{'id': 'x', 'host': 'cmp1', 'specs': (('pci_passthrough:alias', 'gpu:1'),)}]
        plan = self.plan(servers=servers)
        problem = next(p for p in plan.problems if p.code == 'immovable_servers')
        self.assertIn('pci_passthrough', problem.message)

    def test_soft_groups_are_kept_apart_where_that_can_be(self):
        group = {'group': 'g', 'group_policy': 'soft-anti-affinity'}
        servers = [{'id': n, 'host': 'cmp1'} | group for n in ('x', 'y')]
        self.assertEqual({'cmp2', 'cmp3'}, set(self.targets(servers, {}).moves.values()))
        three = [*servers, {'id': 'z', 'host': 'cmp1'} | group]
        self.assertEqual(3, len(self.targets(three, {}).moves))

    def test_a_group_of_which_two_may_meet(self):
        servers = [
            {
                'id': n,
                'host': 'cmp1',
                'group': 'g',
                'group_policy': 'anti-affinity',
                'group_max': 2,
            }
            for n in ('x', 'y', 'z')
        ]
        facts = {'cmp2': {'vcpus': 0}, 'cmp3': {'vcpus': 8}}
        plan = self.plan(servers=servers, hosts=self.with_facts(facts))
        self.assertIn('no_capacity', self.codes(plan))
        moved = next(s for s in plan.steps if s.kind == 'drain_host' and s.host == 'cmp1')
        self.assertEqual(2, len(moved.params['moves']))

    def with_facts(self, facts):
        hosts = clouds.load('lab')['hosts']
        return {name: host | {'facts': facts.get(name, {})} for name, host in hosts.items()}

    def test_modes(self):
        cloud = clouds.load('simulator')
        twice = {}
        for mode in ('min-migrations', 'balanced'):
            policy = {'max_unavailable': 4, 'drain': {'mode': mode, 'on_immovable': 'skip'}}
            plan = clouds.make_plan(cloud | {'policy': policy})[0]
            moved = [m for s in plan.steps if s.kind == 'drain_host' for m in s.params['moves']]
            twice[mode] = len(moved) - len(set(moved))
        self.assertLessEqual(twice['min-migrations'], twice['balanced'])

    def test_old_code_migrates_first_and_says_whose(self):
        plan = self.plan()
        first = next(s for s in plan.steps if (s.kind, s.project) == ('online_migrations', 'nova'))
        self.assertEqual(
            ('33.0.2', '33.0.2', '2026.1'),
            (first.params['version'], first.params['from_version'], first.params['release']),
        )
        self.assertFalse(first.ponr)

    def test_estimate_shrinks_with_the_budget(self):
        plan = clouds.make_plan(clouds.load('simulator'))[0]
        times = [estimate.duration(plan.steps, budget) for budget in (1, 2, 4)]
        self.assertEqual(sorted(times, reverse=True), times)
        self.assertLess(times[-1], times[0])


class TestOrder(base.TestCase):
    """The order between projects is the data's."""

    def projects(self, **after):
        raw = {
            name: dict(
                clouds.PROJECTS.raw['keystone'],
                project=name,
                after=[
                    {
                        'project': p.rstrip('?'),
                        'source': 'upgrading',
                        'proof': 'doc',
                        'soft': p.endswith('?'),
                    }
                    for p in parents
                ],
            )
            for name, parents in after.items()
        }
        return loader.Projects(raw)

    def test_known_projects(self):
        names = order.project_order(clouds.PROJECTS.names(), clouds.PROJECTS)
        infrastructure = {'haproxy', 'libvirt', 'mariadb', 'memcached', 'ovn', 'rabbitmq'}
        self.assertEqual(infrastructure, set(names[:6]))
        self.assertEqual('keystone', names[6])
        for first, then in (
            ('placement', 'nova'),
            ('ironic', 'nova'),
            ('ovn', 'neutron'),
            ('nova', 'heat'),
            ('nova', 'octavia'),
            ('heat', 'horizon'),
        ):
            self.assertLess(names.index(first), names.index(then))

    def test_soft_edge_is_given_up(self):
        projects = self.projects(a=['b?'], b=['a'])
        self.assertEqual(['a', 'b'], order.project_order(['a', 'b'], projects))

    def test_cycle_is_reported(self):
        projects = self.projects(a=['c'], b=['a'], c=['b'], d=['a'])
        error = self.assertRaises(
            exception.PlanImpossible, order.project_order, ['a', 'b', 'c', 'd'], projects
        )
        self.assertIn('a -> c -> b -> a', str(error))

    def test_absent_projects_do_not_matter(self):
        self.assertEqual(['nova'], order.project_order(['nova'], clouds.PROJECTS))
        self.assertEqual(
            [('keystone', 'nova')], order.hard_edges(['nova', 'keystone'], clouds.PROJECTS)
        )


class TestShare(base.TestCase):
    def test_amounts(self):
        self.assertEqual(
            [3, 1, 5, 1, 40],
            [
                planner.share(3, 10),
                planner.share('5%', 10),
                planner.share('5%', 100),
                planner.share('1%', 3),
                planner.share(None, 40),
            ],
        )
