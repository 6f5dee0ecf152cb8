"""Every rule refuses the plan that breaks it: good plans, each broken by hand in one place."""

from collections.abc import Callable
import dataclasses
from typing import Any

from upgrade_service import exception, model
from upgrade_service.conductor.planner import constraints, occupancy, verify
from upgrade_service.tests import base
from upgrade_service.tests.unit.planner import clouds

Steps = list[model.Step]


def find(
    steps: Steps,
    kind: str,
    host: str | None = None,
    project: str | None = None,
    stage: str | None = None,
) -> int:
    """Return the index of the first step like this."""
    return next(
        n
        for n, s in enumerate(steps)
        if s.kind == kind
        and host in (None, s.host)
        and project in (None, s.project)
        and stage in (None, s.stage)
    )


def change(steps: Steps, where: int, **values: Any) -> Steps:
    """Return the steps with one of them changed; `params` are laid over the old ones."""
    if 'params' in values:
        values['params'] = {**steps[where].params, **values['params']}
    return [dataclasses.replace(s, **values) if n == where else s for n, s in enumerate(steps)]


def drop(steps: Steps, where: int) -> Steps:
    """Return the steps without one; who waited for it waits for what it waited for."""
    gone = steps[where]

    def parents(step: model.Step) -> tuple[int, ...]:
        kept = set(step.parents)
        return (
            tuple(sorted(kept - {gone.ord} | set(gone.parents)))
            if gone.ord in kept
            else (step.parents)
        )

    return [dataclasses.replace(s, parents=parents(s)) for s in steps if s is not gone]


def gate_of(steps: Steps, stage: str) -> int:
    return next(n for n, s in enumerate(steps) if s.params.get('gate') == stage)


def unchain(kind: str, **where: Any) -> Callable[[Steps], Steps]:
    """Let a step wait for its stage's gate only."""

    def edit(steps: Steps) -> Steps:
        index = find(steps, kind, **where)
        return change(steps, index, parents=(steps[gate_of(steps, steps[index].stage)].ord,))

    return edit


def set_moves(host: str, **moves: str) -> Callable[[Steps], Steps]:
    return lambda steps: change(
        steps, find(steps, 'drain_host', host), params={'moves': moves, 'targets': []}
    )


def stage_skips_gate(steps: Steps) -> Steps:
    return change(steps, find(steps, 'db_expand'), parents=(1,))


def disable_too_late(steps: Steps) -> Steps:
    """Let the host be disabled first, and only its drain wait for the others."""
    disable, drain = find(steps, 'disable_host', 'cmp3'), find(steps, 'drain_host', 'cmp3')
    waits = steps[disable].parents
    steps = change(steps, drain, parents=(*steps[drain].parents, *waits))
    return change(steps, disable, parents=(steps[gate_of(steps, 'data_plane')].ord,))


def forward_cycle(steps: Steps) -> Steps:
    return change(steps, find(steps, 'db_expand'), parents=(len(steps),))


def twice_numbered(steps: Steps) -> Steps:
    return [*steps, steps[-1]]


def swapped_units(steps: Steps) -> Steps:
    """Restart the L3 agents before the L2 agent of the host."""
    one = find(steps, 'upgrade_service', 'net1')
    two = one + 1
    a, b = steps[one], steps[two]
    steps = change(steps, one, params=b.params, service=b.service)
    return change(steps, two, params=a.params, service=a.service)


def contract_early(steps: Steps) -> Steps:
    where = find(steps, 'db_contract')
    early = find(steps, 'db_expand', project=steps[where].project)
    return change(steps, where, stage='control_plane', parents=(steps[early].ord,), ponr=True)


def other_units(steps: Steps) -> Steps:
    return change(steps, find(steps, 'upgrade_service', project='glance'), params={'units': []})


def current_pins(steps: Steps) -> Steps:
    """Restart nova while a compute of it is at the old version still."""
    steps = drop(steps, find(steps, 'upgrade_service', 'cmp3', 'nova'))
    return steps


#: cloud, rule, what is done to the plan
BROKEN: list[tuple[str, str, Callable[[Steps], Steps]]] = [
    ('lab', 'Known', twice_numbered),
    ('lab', 'Known', lambda s: change(s, 0, kind='dance')),
    ('lab', 'Known', lambda s: change(s, find(s, 'prefetch'), host='cmp9')),
    ('lab', 'Known', lambda s: change(s, find(s, 'prefetch'), strategy=None)),
    ('lab', 'Known', lambda s: change(s, find(s, 'prefetch'), project='dalmatian')),
    ('lab', 'Known', lambda s: change(s, 3, parents=(999,))),
    ('lab', 'Acyclic', forward_cycle),
    ('mixed', 'Selected', lambda s: change(s, find(s, 'prefetch'), host='ctl1')),
    ('mixed', 'Selected', lambda s: change(s, find(s, 'prefetch'), project='cinder')),
    (
        'lab',
        'AtTarget',
        lambda s: change(s, find(s, 'upgrade_service'), params={'version': '29.0.2'}),
    ),
    ('lab', 'AtTarget', other_units),
    ('lab', 'AtTarget', lambda s: drop(s, find(s, 'upgrade_service', 'cmp2', 'neutron'))),
    (
        'mixed',
        'AtTarget',
        lambda s: change(
            s,
            find(s, 'upgrade_service', 'cmp2'),
            params={'units': ['nova-compute', 'neutron-openvswitch-agent']},
        ),
    ),
    ('lab', 'StagesMeet', stage_skips_gate),
    ('lab', 'StagesMeet', lambda s: drop(s, gate_of(s, 'data_plane'))),
    (
        'lab',
        'StagesMeet',
        lambda s: change(
            s, gate_of(s, 'finish'), parents=s[gate_of(s, 'finish')].parents[:0] or (63,)
        ),
    ),
    ('lab', 'PersonAsked', lambda s: change(s, gate_of(s, 'finish'), params={'person': False})),
    ('lab', 'PersonAsked', lambda s: change(s, find(s, 'restart_service'), ponr=False)),
    ('lab', 'PersonAsked', contract_early),
    ('lab', 'NewCodeFirst', lambda s: drop(s, find(s, 'prefetch', 'cmp2', 'nova'))),
    ('lab', 'DatabaseFirst', unchain('upgrade_service', project='glance')),
    ('lab', 'DatabaseFirst', lambda s: drop(s, find(s, 'db_expand', project='nova'))),
    ('lab', 'DatabaseFirst', unchain('db_expand', project='nova')),
    ('lab', 'ProjectsInOrder', unchain('upgrade_service', project='placement')),
    ('two-controllers', 'OneControlHost', unchain('upgrade_service', host='ctl2', project='nova')),
    ('two-controllers', 'OneControlHost', unchain('restart_service', host='ctl2', project='nova')),
    (
        'lab',
        'ControlBeforeData',
        lambda s: change(s, find(s, 'upgrade_service', 'cmp1', 'nova'), parents=(1,)),
    ),
    ('lab', 'HostSequence', lambda s: drop(s, find(s, 'drain_host', 'cmp2'))),
    ('lab', 'HostSequence', lambda s: drop(s, find(s, 'enable_host', 'cmp2'))),
    ('lab', 'HostSequence', unchain('upgrade_service', host='cmp2', project='nova')),
    ('lab', 'HostSequence', unchain('drain_host', host='cmp2')),
    ('lab', 'HostSequence', unchain('enable_host', host='cmp2')),
    ('lab', 'HostSequence', lambda s: drop(s, find(s, 'verify_service', 'cmp2', 'nova'))),
    ('lab', 'NoHoldAndWait', disable_too_late),
    ('two-controllers', 'AgentsInOrder', swapped_units),
    ('lab', 'PinsLast', current_pins),
    ('lab', 'Emptied', set_moves('cmp2', b1='cmp1')),
    ('lab', 'Emptied', set_moves('cmp2', b1='cmp1', b2='cmp1', c1='cmp1')),
    ('lab', 'MovedOnce', set_moves('cmp2', b1='cmp3', b2='cmp1')),
    ('two-controllers', 'MovedWell', set_moves('cmp2', a1='cmp3', b1='cmp1')),
    ('lab', 'MovedWell', set_moves('cmp1', a1='cmp1', a2='cmp3')),
    ('lab', 'MovedWell', unchain('disable_host', host='cmp3')),
]


def refused(cloud: str, edit: Callable[[Steps], Steps]) -> set[str]:
    """Return the rules that refuse the plan of a cloud after an edit."""
    plan, inventory, request = clouds.make_plan(clouds.load(cloud))
    if cloud == 'mixed':  # with a selection, so that there is an outside
        chosen = model.Selection(hosts=('cmp2', 'cmp3'), projects=('nova', 'neutron'))
        request = dataclasses.replace(request, selection=chosen)
        plan = dataclasses.replace(
            plan,
            steps=tuple(
                s
                for s in plan.steps
                if s.host != 'ctl1'
                and s.stage not in ('finish', 'verify')
                and s.params.get('gate') != 'finish'
            ),
        )
    plan = dataclasses.replace(plan, steps=tuple(edit(list(plan.steps))))
    found = verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
    return {breach.constraint for breach in found}


class TestBrokenPlans(base.TestCase):
    """The verifier catches what a planner could get wrong."""

    def test_good_plans_pass(self):
        for cloud in {cloud for cloud, _, _ in BROKEN}:
            self.assertEqual(set(), refused(cloud, lambda steps: steps), cloud)

    def test_each_is_refused_by_its_rule(self):
        for number, (cloud, rule, edit) in enumerate(BROKEN):
            self.assertIn(rule, refused(cloud, edit), f'case {number}')

    def test_every_rule_has_its_case(self):
        rules = {
            type(r).__name__ for r in (*constraints.FORM, *constraints.ORDER, *occupancy.SERVERS)
        }
        elsewhere = {'Roomy', 'Apart'}
        self.assertEqual(rules, {rule for _, rule, _ in BROKEN} | elsewhere)

    def test_refusal_says_the_rule(self):
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        plan = dataclasses.replace(plan, steps=tuple(twice_numbered(list(plan.steps))))
        error = self.assertRaises(
            exception.PlanRefused,
            verify.verify,
            plan,
            inventory,
            request,
            clouds.PROJECTS,
            clouds.RELEASES,
        )
        self.assertIn('Known: two steps have one number', str(error))


class TestPlaces(base.TestCase):
    """The rules on instances, on the smallest clouds that can break them."""

    def found(self, plan: model.Plan, inventory: model.Inventory, request: Any) -> set[str]:
        return {
            b.constraint
            for b in verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
        }

    def change_servers(self, **values: Any) -> set[str]:
        """Plan for the lab, then let the servers be other than the planner was told."""
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        servers = [dataclasses.replace(s, **values) for s in inventory.servers]
        return self.found(plan, dataclasses.replace(inventory, servers=servers), request)

    def change_hosts(self, **values: Any) -> set[str]:
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        hosts = {
            n: dataclasses.replace(h, **values) if n == 'cmp1' else h
            for n, h in inventory.hosts.items()
        }
        return self.found(plan, dataclasses.replace(inventory, hosts=hosts), request)

    def test_too_large(self):
        self.assertIn('Roomy', self.change_servers(ram_mb=6000))
        self.assertIn('Roomy', self.change_servers(vcpus=3))

    def test_group_meets(self):
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        servers = [
            dataclasses.replace(s, group='g', group_policy='anti-affinity')
            if s.id in ('a1', 'c1')
            else s
            for s in inventory.servers
        ]
        inventory = dataclasses.replace(inventory, servers=servers)
        self.assertIn('Apart', self.found(plan, inventory, request))

    def test_not_movable(self):
        self.assertIn('MovedWell', self.change_servers(state='ERROR'))

    def test_other_zone_or_older_hypervisor(self):
        self.assertIn('MovedWell', self.change_hosts(az='elsewhere'))
        cloud = clouds.load('lab')
        for name in ('cmp1', 'cmp2', 'cmp3'):
            cloud['hosts'][name]['facts'] = {'hypervisor_version': 9}
        plan, inventory, request = clouds.make_plan(cloud)
        hosts = dict(inventory.hosts)
        hosts['cmp1'] = dataclasses.replace(hosts['cmp1'], hypervisor_version=8)
        self.assertIn(
            'MovedWell', self.found(plan, dataclasses.replace(inventory, hosts=hosts), request)
        )

    def test_target_takes_nobody_in(self):
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        for values in ({'state': 'down'}, {'status': 'disabled'}, {'forced_down': True}):
            services = [
                dataclasses.replace(s, **values)
                if (s.host, s.binary) == ('cmp1', 'nova-compute')
                else s
                for s in inventory.services
            ]
            changed = dataclasses.replace(inventory, services=services)
            self.assertIn('MovedWell', self.found(plan, changed, request))

    def test_control_plane_behind_must_be_named(self):
        cloud = clouds.load('lab') | {'selection': {'hosts': ['cmp1']}}
        plan, inventory, request = clouds.make_plan(cloud)
        self.assertEqual(set(), self.found(plan, inventory, request))
        silent = dataclasses.replace(plan, problems=())
        self.assertIn('ControlBeforeData', self.found(silent, inventory, request))

    def test_last_hosts_are_told(self):
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        plan = dataclasses.replace(plan, moves={**plan.moves, 'a1': 'cmp3'})
        self.assertIn('MovedOnce', self.found(plan, inventory, request))
