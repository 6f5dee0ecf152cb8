"""A plan as a graph."""

from upgrade_service.osc import graph
from upgrade_service.tests import base

STEPS = [
    {'ord': 1, 'kind': 'gate', 'params': {'person': True}},
    {
        'ord': 2,
        'kind': 'upgrade_service',
        'host': 'ctl1',
        'project': 'nova',
        'service': 'a "b"',
        'reversible': True,
        'parents': [1, 9],
    },
    {'ord': 3, 'kind': 'db_contract', 'host': 'ctl1', 'ponr': True, 'parents': [2]},
]


class TestGraph(base.TestCase):
    def test_steps_edges_and_looks(self):
        plan = {
            'from_release': '2026.1',
            'to_release': '2026.2',
            'digest': '0123456789abcdef',
            'stages': [{'name': 'check', 'steps': STEPS[:1]}, {'name': 'x', 'steps': STEPS[1:]}],
        }
        text = graph.dot(plan)
        self.assertIn('label="2026.1 to 2026.2, digest 0123456789ab";', text)
        self.assertIn('subgraph cluster_1 {\n    label="x";', text)
        self.assertIn('s1 [label="1 gate", shape=diamond, color=darkorange', text)
        self.assertIn('s2 [label="2 upgrade_service\\nctl1 nova a \\"b\\"", shape=box', text)
        self.assertIn('s3 [label="3 db_contract\\nctl1", shape=octagon', text)
        self.assertEqual(
            ['s1 -> s2;', 's2 -> s3;'], [e.strip() for e in text.split('\n') if '->' in e]
        )

    def test_no_plan_yet(self):
        self.assertIn('digraph plan {', graph.dot({}))
