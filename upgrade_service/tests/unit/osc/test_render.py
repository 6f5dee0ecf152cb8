"""Plans as trees, compared with golden text; and the lines of `--wait`."""

import itertools
import pathlib
from typing import Any

from upgrade_service.osc import progress, render
from upgrade_service.tests import base
from upgrade_service.tests.unit.osc import fake_api

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden'
Row = dict[str, Any]


class PlanBuilder:
    """Writes a plan as the API gives it, step by step."""

    def __init__(self) -> None:
        self.steps: list[Row] = []

    def add(self, stage: str, kind: str, host: str | None = None, *parents: int, **kw: Any) -> int:
        """Append a step; return its number."""
        number = len(self.steps) + 1
        kw.setdefault('reversible', kind in ('upgrade_service', 'disable_host'))
        self.steps.append(
            fake_api.step(number, kind, host, stage=stage, parents=list(parents), **kw)
        )
        return number

    def document(self, **kw: Any) -> Row:
        """Return the plan."""
        stages = [
            {'name': name, 'steps': list(found)}
            for name, found in itertools.groupby(self.steps, key=lambda s: s['stage'])
        ]
        return {
            'from_release': '2026.1',
            'to_release': '2026.2',
            'digest': 'ab' * 32,
            'stages': stages,
            'moves': {},
            'estimate_seconds': 125,
            **kw,
        }


def cloud(computes: int = 12) -> Row:
    """Return the plan of a cloud with two controllers and some computes."""
    plan = PlanBuilder()
    hosts = [f'cmp{n}' for n in range(1, computes + 1)]
    checks = [
        plan.add('check', 'check_host', host, project=None, estimate=1)
        for host in ('ctl1', 'ctl2', *hosts)
    ]
    last = plan.add(
        'check',
        'gate',
        None,
        *checks,
        project=None,
        estimate=0,
        params={'gate': 'control_plane', 'person': False, 'soak_seconds': 0},
    )
    last = plan.add('control_plane', 'db_expand', 'ctl1', last, project='keystone')
    for project in ('keystone', 'nova'):
        for host in ('ctl1', 'ctl2'):
            last = plan.add(
                'control_plane',
                'upgrade_service',
                host,
                last,
                project=project,
                service=f'{project}-api',
                params={'version': '30.0.0'},
            )
    tops, moves = [], {}
    for n, host in enumerate(hosts):
        target = hosts[n - 1]
        moved = {f'server-{n}-{k}': target for k in range(2)} if n < 3 else {}
        moves.update(moved)
        step = plan.add('data_plane', 'disable_host', host, last, estimate=1)
        step = plan.add(
            'data_plane', 'drain_host', host, step, estimate=30, params={'moves': moved}
        )
        tops.append(
            plan.add(
                'data_plane',
                'upgrade_service',
                host,
                step,
                service='nova-compute',
                params={'version': '34.0.0'},
            )
        )
    last = plan.add(
        'data_plane',
        'gate',
        None,
        *tops,
        project=None,
        estimate=0,
        params={'gate': 'finish', 'person': True, 'soak_seconds': 600},
    )
    plan.add('finish', 'online_migrations', 'ctl1', last, ponr=True)
    return plan.document(moves=moves)


class TreeTestCase(base.TestCase):
    """The tree."""

    def assert_golden(self, name: str, text: str) -> None:
        """Compare with a file; to renew it, write the text shown."""
        self.assertEqual((GOLDEN / name).read_text(encoding='utf-8'), text + '\n')

    def test_tree(self) -> None:
        self.assert_golden('osc-plan.txt', render.tree(cloud()))

    def test_tree_in_ascii(self) -> None:
        text = render.tree(cloud(), render.marks_for('latin-1'))
        text.encode('ascii')
        self.assert_golden('osc-plan-ascii.txt', text)

    def test_it_grows_with_what_differs_not_with_hosts(self) -> None:
        few, many = (render.tree(cloud(n)).count('\n') for n in (4, 400))
        self.assertEqual(few, many)

    def test_states_are_told_once_it_runs(self) -> None:
        plan = cloud(3)
        for step in plan['stages'][0]['steps'][:3]:
            step['state'] = 'succeeded'
        plan['stages'][0]['steps'][3]['state'] = 'failed'
        text = render.tree(plan)
        self.assertIn('check · 6 steps · 3 done', text)
        self.assertIn('[1 failed, 3 succeeded]', text)

    def test_plan_without_steps(self) -> None:
        self.assertIn('(no steps yet)', render.tree({'stages': []}))


class ParallelTestCase(base.TestCase):
    """Which steps may run beside others."""

    def parallel(self, *parents: tuple[int, ...]) -> set[int]:
        """Return the parallel ones among steps with these parents."""
        return render.parallel(
            [fake_api.step(n, 'x', parents=list(p)) for n, p in enumerate(parents, 1)]
        )

    def test_chain_has_none(self) -> None:
        self.assertEqual(set(), self.parallel((), (1,), (2,)))

    def test_diamond(self) -> None:
        self.assertEqual({2, 3}, self.parallel((), (1,), (1,), (2, 3)))

    def test_parents_of_other_stages_do_not_matter(self) -> None:
        self.assertEqual({1, 2}, self.parallel((99,), (98,)))

    def test_gates_are_beside_nothing(self) -> None:
        steps = [fake_api.step(1, 'x'), fake_api.step(2, 'gate')]
        self.assertEqual(set(), render.parallel(steps))


class ProgressTestCase(base.TestCase):
    """The lines of `--wait`."""

    def test_summary(self) -> None:
        upgrade = {
            'state': 'running',
            'next': None,
            'eta_seconds': 200,
            'progress': {'total': 182, 'done': 64, 'running': 3, 'failed': 0},
            'hosts': {'total': 15, 'done': 4, 'held': 1},
        }
        self.assertEqual(
            'running · 64/182 steps (35 %) · 3 running · hosts 4/15 done, 1 held'
            ' · about 3 min 20 s to go',
            progress.summary(upgrade),
        )

    def test_status_lines_fit_the_terminal(self) -> None:
        running = [
            fake_api.step(
                n,
                'drain_host',
                f'cmp{n}',
                progress={'done': 3, 'total': 5, 'text': 'server ' + 'x' * 200},
            )
            for n in range(1, 9)
        ]
        lines = progress.status_lines(
            {'name': 'first', 'state': 'running'}, running, {'step-1': 10.0}, 22.0, 80
        )
        self.assertEqual('  and 2 more', lines[-1])
        self.assertIn('cmp1 drain_host nova  3/5 server xxx', lines[1])
        self.assertEqual([], [line for line in lines if len(line) >= 80])

    def test_events_not_worth_a_line(self) -> None:
        for event in (
            {
                'kind': 'accepted',
                'step_id': 's',
                'detail': {'before': 'dispatched', 'after': 'running'},
            },
            {'kind': 'claimed', 'detail': {}},
            {'kind': 'x', 'detail': {'before': 'running', 'after': 'running'}},
        ):
            self.assertIsNone(progress.event_line(event, None))

    def test_alarms_are_told_and_stay(self) -> None:
        said = 'step 5 (prefetch on cmp1): its engine has not begun it'
        event = {'kind': 'alarm', 'at': 1760000000000, 'detail': {'message': said}}
        for more in ({}, {'step_id': 'step-5'}):
            line = progress.event_line({**event, **more}, None)
            self.assertEqual(f'08:53:20 attention: {said}', line)
            self.assertTrue(progress.is_loud({**event, **more}))

    def test_gates_are_told_as_stages(self) -> None:
        gate = fake_api.step(5, 'gate', stage='prepare')
        event = {
            'kind': 'outcome',
            'step_id': 'step-5',
            'at': 1760000000000,
            'detail': {'before': 'running', 'after': 'succeeded'},
        }
        self.assertEqual('08:53:20 stage prepare: gate passed', progress.event_line(event, gate))
