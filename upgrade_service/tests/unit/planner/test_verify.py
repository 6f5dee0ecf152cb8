"""Every rule refuses the plan that breaks it: good plans, each broken by hand in one place."""

from collections.abc import Callable
import dataclasses
from typing import Any

from upgrade_service import exception, model
from upgrade_service.conductor.planner import constraints, hop_rules, occupancy, verify, wayback
from upgrade_service.tests import base
from upgrade_service.tests.unit.planner import clouds

Steps = list[model.Step]
#: the rules of test_undo: the way back of a plan that is changed by hand fits no longer
WAY_BACK = {type(rule).__name__ for rule in (wayback.BackForm(), *wayback.RULES)}


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


def beside(steps: Steps, host: str, other: str) -> Steps:
    """Let a host of the data plane no longer wait for another one, only its stage does."""
    begin = steps[gate_of(steps, 'data_plane')].ord
    steps = change(steps, find(steps, 'disable_host', host), parents=(begin,))
    end = max(s.ord for s in steps if s.host == other)
    gate = next(n for n, s in enumerate(steps) if s.kind == 'gate' and s.ord > end)
    return change(steps, gate, parents=(*steps[gate].parents, end))


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


def not_stopped(steps: Steps) -> Steps:
    """Leave one host of a cold project running."""
    return drop(steps, find(steps, 'stop_service', 'ctl2', 'octavia'))


def stopped_without_need(steps: Steps) -> Steps:
    """Stop keystone, which rolls, before its database step."""
    switch = steps[find(steps, 'upgrade_service', 'ctl1', 'keystone')]
    where = find(steps, 'db_expand', project='keystone')
    number = len(steps) + 1
    stop = dataclasses.replace(
        switch, ord=number, kind='stop_service', parents=steps[where].parents
    )
    return [*change(steps, where, parents=(number,)), stop]


def proxies_first(steps: Steps) -> Steps:
    """Let a proxy of swift and a storage host change places in the chain."""
    for kind in ('upgrade_service', 'verify_service'):
        one, two = find(steps, kind, 'store1', 'swift'), find(steps, kind, 'proxy1', 'swift')
        a, b = steps[one], steps[two]
        steps = change(steps, one, host=b.host, params=b.params, service=b.service)
        steps = change(steps, two, host=a.host, params=a.params, service=a.service)
    return steps


def also(steps: Steps, gate: str, *numbers: int) -> Steps:
    """Let a gate wait for more steps."""
    where = gate_of(steps, gate)
    return change(steps, where, parents=(*steps[where].parents, *numbers))


def member_not_awaited(steps: Steps) -> Steps:
    """Let the second member of Galera wait for the first's restart, and not until it is back."""
    first = steps[find(steps, 'upgrade_service', 'inf1', 'mariadb')]
    steps = also(steps, 'finish', steps[find(steps, 'verify_service', 'inf1', 'mariadb')].ord)
    return change(steps, find(steps, 'upgrade_service', 'inf2', 'mariadb'), parents=(first.ord,))


def one_host_more(steps: Steps) -> Steps:
    """Look at a host that is not selected."""
    seen = dataclasses.replace(steps[find(steps, 'check_host')], ord=999, host='ctl1')
    return [*also(steps, 'prepare', 999), seen]


def glance_before_keystone(steps: Steps) -> Steps:
    """Let the control planes of two projects change places in the chain."""
    for kind in ('upgrade_service', 'verify_service'):
        one, two = find(steps, kind, project='keystone'), find(steps, kind, project='glance')
        a, b = steps[one], steps[two]
        both = set(a.parents) | set(b.parents)
        first = tuple(sorted(n for n in both if n < a.ord or steps[n - 1].kind == 'db_migrate'))
        names = ('project', 'params', 'service')
        steps = change(steps, one, parents=first, **{n: getattr(b, n) for n in names})
        steps = change(steps, two, **{n: getattr(a, n) for n in names})
    return steps


def two_controllers_at_once(steps: Steps) -> Steps:
    """Let two hosts restart nova together, and everybody wait for both."""
    one, two = (find(steps, 'upgrade_service', host, 'nova') for host in ('ctl1', 'ctl2'))
    seen = steps[find(steps, 'verify_service', 'ctl1', 'nova')].ord
    return also(change(steps, two, parents=steps[one].parents), 'canary', seen)


def agents_with_their_server(steps: Steps) -> Steps:
    """Upgrade the agents of a network host in the stage of the control plane."""
    own = [n for n, s in enumerate(steps) if s.host == 'net1' and s.stage == 'data_plane']
    early = (steps[gate_of(steps, 'control_plane')].ord,)
    for n in own:
        parents = early if n == own[0] else steps[n].parents
        steps = change(steps, n, stage='control_plane', parents=parents)
    return also(steps, 'canary', *(steps[n].ord for n in own))


def pins_dropped_early(steps: Steps) -> Steps:
    """Restart nova for good though a host of it stays behind."""
    other = steps[find(steps, 'restart_service')]
    restart = dataclasses.replace(other, ord=999, project='nova', parents=(other.ord,))
    look = find(steps, 'check_versions')
    versions = {**steps[look].params['versions'], 'nova': '34.0.0'}
    steps = change(steps, look, params={'versions': versions})
    return [*also(steps, 'verify', 999), restart]


def restart_unlooked(steps: Steps) -> Steps:
    """Restart cinder after the look at the versions only, not at the records."""
    where, look = find(steps, 'restart_service', project='cinder'), find(steps, 'check_versions')
    records = steps[find(steps, 'check_records', project='cinder')].ord
    return also(change(steps, where, parents=(steps[look].ord,)), 'verify', records)


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
    (
        'packages',
        'AtTarget',
        lambda s: change(
            s, find(s, 'upgrade_packages', 'cmp1'), params={'projects': {'nova': '33.0.2'}}
        ),
    ),
    ('packages', 'NewCodeFirst', lambda s: drop(s, find(s, 'prefetch', 'cmp1'))),
    ('packages', 'PackagesTogether', lambda s: drop(s, find(s, 'upgrade_packages', 'cmp1'))),
    ('packages', 'PackagesTogether', lambda s: drop(s, find(s, 'upgrade_packages', 'ctl2'))),
    ('packages', 'PackagesTogether', unchain('db_expand', project='keystone')),
    (
        'packages',
        'PackagesTogether',
        lambda s: change(
            s, find(s, 'upgrade_packages', 'cmp1'), params={'projects': {'nova': '34.0.0'}}
        ),
    ),
    ('packages', 'OneControlHost', unchain('upgrade_packages', host='ctl2')),
    ('packages', 'ProjectsInOrder', unchain('upgrade_service', host='ctl1', project='nova')),
    ('packages', 'HostSequence', unchain('upgrade_packages', host='cmp1')),
    ('hosts', 'OneMember', unchain('upgrade_host', host='ctl2')),
    ('hosts', 'OneMember', lambda s: beside(s, 'both', 'net1')),
    (
        'hosts',
        'PersonAsked',
        lambda s: change(s, gate_of(s, 'control_plane'), params={'person': False}),
    ),
    ('both', 'HostSequence', unchain('reboot_host', host='cmp1')),
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
    ('lab', 'BackupProved', lambda s: drop(s, find(s, 'backup_database', project='cinder'))),
    ('lab', 'BackupProved', lambda s: drop(s, find(s, 'verify_backup', project='nova'))),
    ('lab', 'OldCodeGone', lambda s: drop(s, find(s, 'check_versions'))),
    (
        'lab',
        'OldCodeGone',
        lambda s: change(s, find(s, 'check_versions'), params={'versions': {'nova': '34.0.0'}}),
    ),
    ('lab', 'RecordsAgree', restart_unlooked),
    ('mixed', 'Selected', one_host_more),
    ('lab', 'ProjectsInOrder', glance_before_keystone),
    ('two-controllers', 'OneControlHost', two_controllers_at_once),
    ('two-controllers', 'ControlBeforeData', agents_with_their_server),
    ('down-hosts', 'PinsLast', pins_dropped_early),
    ('octavia', 'ColdStopped', not_stopped),
    ('octavia', 'ColdStopped', stopped_without_need),
    ('octavia', 'ColdStopped', unchain('db_expand', project='octavia')),
    ('slurp', 'OldMigrationsDone', lambda s: drop(s, find(s, 'online_migrations'))),
    ('slurp', 'OldMigrationsDone', unchain('db_expand', project='placement')),
    ('swift-only', 'WavesInOrder', proxies_first),
    ('infrastructure', 'QuorumKept', member_not_awaited),
    ('lab', 'Emptied', set_moves('cmp2', b1='cmp1')),
    ('lab', 'Emptied', set_moves('cmp2', b1='cmp1', b2='cmp1', c1='cmp1')),
    ('lab', 'MovedOnce', set_moves('cmp2', b1='cmp3', b2='cmp1')),
    ('two-controllers', 'MovedWell', set_moves('cmp2', a1='cmp3', b1='cmp1')),
    ('lab', 'MovedWell', set_moves('cmp1', a1='cmp1', a2='cmp3')),
    ('lab', 'MovedWell', unchain('disable_host', host='cmp3')),
]


def without_control(steps: Steps) -> Steps:
    """Leave out what a selection of computes alone would not bring."""
    for step in list(steps):
        last = step.stage in ('finish', 'verify') or step.params.get('gate') == 'finish'
        if step.host == 'ctl1' or last:
            steps = drop(steps, steps.index(next(s for s in steps if s.ord == step.ord)))
    return steps


def refused(cloud: str, edit: Callable[[Steps], Steps]) -> set[str]:
    """Return the rules that refuse the plan of a cloud after an edit."""
    data = clouds.load(cloud)
    plan, inventory, request = clouds.make_plan(data)
    if cloud == 'mixed':  # with a selection, so that there is an outside
        chosen = model.Selection(hosts=('cmp2', 'cmp3'), projects=('nova', 'neutron'))
        request = dataclasses.replace(request, selection=chosen)
        plan = dataclasses.replace(plan, steps=tuple(without_control(list(plan.steps))))
    plan = dataclasses.replace(plan, steps=tuple(edit(list(plan.steps))))
    projects = clouds.projects_of(data)
    found = verify.breaches(plan, inventory, request, projects, clouds.RELEASES)
    return {breach.constraint for breach in found} - WAY_BACK


#: cloud, rule, problem without which the plan would go on as if nothing were wrong
SILENT = [
    ('slurp', 'NothingSkipped', 'sequential_only'),
    ('down-hosts', 'FloorKept', 'below_floor'),
    ('infrastructure', 'LegalVersions', 'illegal_version_step'),
    ('unproven', 'ColdStopped', 'cold_in_part'),
]


#: cloud, rule, server, where it is moved to, where the plan says that it ends (None: it stays)
MOVED = [
    ('lab', 'Emptied', 'b1', None, None),
    ('lab', 'MovedOnce', 'b1', 'cmp1', 'cmp3'),
    ('two-controllers', 'MovedWell', 'd1', 'cmp1', 'cmp1'),
]


def moved(cloud: str, server: str, target: str | None, end: str | None) -> set[str]:
    """Return the rules that refuse a plan that moves one server another way."""
    plan, inventory, request = clouds.make_plan(clouds.load(cloud))
    home = next(s.host for s in inventory.servers if s.id == server)
    steps = list(plan.steps)
    where = find(steps, 'drain_host', home)
    rest = {s: t for s, t in steps[where].params['moves'].items() if s != server}
    moves = rest | ({server: target} if target else {})
    steps = change(steps, where, params={'moves': moves})
    ends = {s: t for s, t in plan.moves.items() if s != server} | ({server: end} if end else {})
    plan = dataclasses.replace(plan, steps=tuple(steps), moves=ends)
    found = verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
    return {breach.constraint for breach in found} - WAY_BACK


def silenced(cloud: str, code: str) -> set[str]:
    """Return the rules that refuse a plan that keeps a problem to itself."""
    data = clouds.load(cloud)
    plan, inventory, request = clouds.make_plan(data)
    plan = dataclasses.replace(plan, problems=tuple(p for p in plan.problems if p.code != code))
    projects = clouds.projects_of(data)
    found = verify.breaches(plan, inventory, request, projects, clouds.RELEASES)
    return {breach.constraint for breach in found} - WAY_BACK


class TestBrokenPlans(base.TestCase):
    """The verifier catches what a planner could get wrong."""

    def test_good_plans_pass(self):
        for cloud in {cloud for cloud, _, _ in BROKEN}:
            self.assertEqual(set(), refused(cloud, lambda steps: steps), cloud)
            data = clouds.load(cloud)
            made, projects = clouds.make_plan(data), clouds.projects_of(data)
            self.assertEqual([], verify.breaches(*made, projects, clouds.RELEASES), cloud)

    def test_each_is_refused_by_its_rule(self):
        for number, (cloud, rule, edit) in enumerate(BROKEN):
            self.assertIn(rule, refused(cloud, edit), f'case {number}')

    def test_what_must_be_named_is(self):
        for cloud, rule, code in SILENT:
            self.assertEqual({rule}, silenced(cloud, code), cloud)

    def test_every_rule_has_its_case(self):
        families = (constraints.FORM, constraints.ORDER, hop_rules.HOP, occupancy.SERVERS)
        rules = {type(rule).__name__ for family in families for rule in family}
        elsewhere = {'Roomy', 'Apart', 'Wanted', 'Bound'}
        cases = {rule for _, rule, _ in (*BROKEN, *SILENT)}
        self.assertEqual(rules, cases | elsewhere)

    def test_every_rule_has_a_case_that_no_other_refuses(self):
        alone = {rule for cloud, rule, edit in BROKEN if refused(cloud, edit) == {rule}}
        alone |= {rule for cloud, rule, code in SILENT if silenced(cloud, code) == {rule}}
        alone |= {rule for cloud, rule, *way in MOVED if moved(cloud, *way) == {rule}}
        cases = {rule for _, rule, _ in (*BROKEN, *SILENT)}
        self.assertEqual(set(), cases - alone)

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
        self.assertEqual({'Roomy'}, self.change_servers(ram_mb=6000))
        self.assertEqual({'Roomy'}, self.change_servers(vcpus=3))

    def test_group_meets(self):
        plan, inventory, request = clouds.make_plan(clouds.load('lab'))
        servers = [
            dataclasses.replace(s, group='g', group_policy='anti-affinity')
            if s.id in ('a1', 'c1')
            else s
            for s in inventory.servers
        ]
        inventory = dataclasses.replace(inventory, servers=servers)
        self.assertEqual({'Apart'}, self.found(plan, inventory, request))

    def test_what_a_flavor_asks_for(self):
        self.assertIn('Bound', self.change_servers(specs=(('pci_passthrough:alias', 'gpu:1'),)))
        for specs in ((('trait:HW_X', 'required'),), (('aggregate_instance_extra_specs:a', 'b'),)):
            self.assertIn('Wanted', self.change_servers(specs=specs))
        for key, value in (('filter_tenant_id', 't1'), ('trait:HW_X', 'required')):
            self.assertIn('Wanted', self.change_hosts(aggregates={key: frozenset({value})}))
        self.assertEqual(set(), self.change_hosts(traits=frozenset({'HW_X'})))

    def test_disk_and_dedicated_cpus(self):
        self.assertIn('Roomy', self.change_hosts(disk_gb=0) | self.change_servers(pcpus=1))

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
