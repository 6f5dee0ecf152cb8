"""The way back: planned with the plan, checked like it, refused when it is broken."""

from collections.abc import Callable
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.planner import verify, wayback
from upgrade_service.tests import base
from upgrade_service.tests.unit.planner import clouds, test_verify

Steps = list[model.Step]
change, drop, find, gate_of = (
    test_verify.change,
    test_verify.drop,
    test_verify.find,
    test_verify.gate_of,
)


def unchain(kind: str, **where: Any) -> Callable[[Steps], Steps]:
    """Let a step wait for its stage's gate only."""

    def edit(steps: Steps) -> Steps:
        index = find(steps, kind, **where)
        return change(steps, index, parents=(steps[gate_of(steps, steps[index].stage)].ord,))

    return edit


def twice(steps: Steps) -> Steps:
    """Undo one step two times."""
    again = dataclasses.replace(steps[find(steps, 'upgrade_service', 'ctl1')], ord=9999)
    return [*steps, again]


def cycle(steps: Steps) -> Steps:
    return change(steps, find(steps, 'upgrade_service'), parents=(steps[-1].ord,))


#: rule, what is done to the way back of the lab's plan
BROKEN: list[tuple[str, Callable[[Steps], Steps]]] = [
    ('BackForm', lambda s: change(s, 3, direction='forward')),
    ('BackForm', lambda s: change(s, 3, ord=1)),
    ('BackForm', lambda s: change(s, 3, undo_of=9999)),
    ('BackForm', lambda s: change(s, find(s, 'probe_cloud'), ponr=True)),
    ('BackForm', lambda s: change(s, gate_of(s, 'verify'), params={'person': True})),
    ('BackForm', lambda s: change(s, 3, host='cmp9')),
    ('BackForm', cycle),
    ('AllUndone', lambda s: drop(s, find(s, 'upgrade_service', 'cmp2', 'nova'))),
    ('AllUndone', lambda s: drop(s, find(s, 'enable_host', 'cmp2'))),
    ('AllUndone', lambda s: drop(s, find(s, 'disable_host', 'cmp2'))),
    ('AllUndone', twice),
    ('AllUndone', lambda s: change(s, find(s, 'upgrade_service', 'cmp2'), host='cmp1')),
    ('AllUndone', lambda s: change(s, find(s, 'upgrade_service'), params={'version': '34.0.0'})),
    ('AllUndone', lambda s: change(s, find(s, 'upgrade_service'), params={'release': '2025.2'})),
    ('AllUndone', lambda s: change(s, find(s, 'upgrade_service'), params={'units': []})),
    ('AllUndone', lambda s: change(s, find(s, 'upgrade_service'), strategy='noop')),
    ('LastInFirstOut', unchain('upgrade_service', host='ctl1', project='keystone')),
    ('LastInFirstOut', unchain('upgrade_service', host='cmp2', project='neutron')),
    ('LastInFirstOut', lambda s: drop(s, gate_of(s, 'control_plane'))),
    ('LastInFirstOut', lambda s: change(s, find(s, 'disable_host', 'cmp2'), parents=())),
    ('LastInFirstOut', lambda s: change(s, 3, stage='check')),
    ('SafelyBack', unchain('upgrade_service', host='cmp2', project='nova')),
    ('SafelyBack', lambda s: drop(s, find(s, 'verify_service', 'cmp2', 'nova'))),
    ('SafelyBack', unchain('enable_host', host='cmp2')),
]  # fmt: skip


def refused(edit: Callable[[Steps], Steps]) -> set[str]:
    """Return the rules that refuse the lab's plan after an edit of its way back."""
    plan, inventory, request = clouds.make_plan(clouds.load('lab'))
    plan = dataclasses.replace(plan, undo=tuple(edit(list(plan.undo))))
    found = verify.breaches(plan, inventory, request, clouds.PROJECTS, clouds.RELEASES)
    return {breach.constraint for breach in found}


class TestWayBack(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plan, self.inventory, _ = clouds.make_plan(clouds.load('lab'))

    def test_each_break_is_refused_by_its_rule(self) -> None:
        self.assertEqual(set(), refused(lambda steps: steps))
        for number, (rule, edit) in enumerate(BROKEN):
            self.assertIn(rule, refused(edit), f'case {number}')

    def test_every_rule_has_its_case(self) -> None:
        rules = {type(rule).__name__ for rule in (wayback.BackForm(), *wayback.RULES)}
        self.assertEqual(rules, {rule for rule, _ in BROKEN})

    def test_carried_out_it_leaves_what_was_there(self) -> None:
        """Play the plan, then the way back, on the versions of the inventory."""
        before = {(s.host, s.binary): s.version for s in self.inventory.services}
        now: dict[Any, Any] = dict(before)
        taken = set()
        for step in (*self.plan.steps, *self.plan.undo):
            if step.kind == 'upgrade_service':
                for unit in step.params['units']:
                    self.assertEqual(now[step.host, unit], step.params['from_version'])
                    now[step.host, unit] = step.params['version']
            elif step.kind == 'disable_host':
                taken.add(step.host)
            elif step.kind == 'enable_host':
                taken.remove(step.host)
            if step.kind == 'probe_cloud' and step.direction == 'forward':
                self.assertNotEqual(before, now)
        self.assertEqual(before, now)
        self.assertEqual(set(), taken)

    def test_records_are_reset_before_anything_goes_back(self) -> None:
        first = self.plan.undo[0]
        self.assertEqual(
            ('reset_records', 'nova', 'ctl1'), (first.kind, first.project, first.host)
        )
        self.assertEqual('33.0.2', first.params['version'])

    def test_servers_stay_where_they_are(self) -> None:
        self.assertEqual([], [s for s in self.plan.undo if s.kind == 'drain_host'])

    def test_no_way_back_without_a_version_to_go_to(self) -> None:
        cloud = clouds.load('lab')
        cloud['hosts']['cmp2']['versions'] = {'nova': None}
        plan, _, _ = clouds.make_plan(cloud)
        nova = [s for s in plan.undo if (s.host, s.project) == ('cmp2', 'nova')]
        self.assertEqual([], [s for s in nova if s.kind == 'upgrade_service'])
