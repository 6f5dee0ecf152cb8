"""What the cloud says and what engines say, put together; plain data in and out."""

from typing import Any

from upgrade_service import model
from upgrade_service.conductor.discovery import base as contract
from upgrade_service.conductor.discovery import merge
from upgrade_service.projects import loader, releases
from upgrade_service.tests import base

NOW = 1_000_000_000


def agent(host: str, projects: dict[str, Any], **row: Any) -> dict[str, Any]:
    facts = {'projects': projects, 'strategies': {'source': {'ready': True, 'reason': ''}}}
    return {
        'id': f'agent-{host}',
        'host': host,
        'state': 'active',
        'seen_at': NOW - 1000,
        'facts': facts,
        'facts_at': NOW - 5000,
        **row,
    }


def nova(version: str | None, *binaries: str, state: str = 'active') -> dict[str, Any]:
    services = [{'binary': b, 'unit': f'{b}.service', 'state': state} for b in binaries]
    return {'nova': {'version': version, 'how': 'venv', 'path': '/x', 'services': services}}


def compute(host: str, **service: Any) -> contract.Found:
    return contract.Found(
        hosts={host: model.Host(name=host)},
        services=[
            model.Service(
                **{
                    'project': 'nova',
                    'binary': 'nova-compute',
                    'host': host,
                    'state': 'up',
                    **service,
                }
            )
        ],
    )


class MergeTest(base.TestCase):
    def merge(self, found: list[contract.Found], agents: list[Any]) -> model.Inventory:
        return merge.merge(
            'prod',
            found,
            agents,
            releases.load(),
            loader.load_projects(),
            merge.Clock(NOW, 90, 600),
        )

    def executors(self, *deployment_hosts: str, **row: Any) -> dict[str, Any]:
        deploy = agent('deploy1', {}, **row)
        deploy['facts']['strategies'] = {'ansible': {'ready': True, 'hosts': ['cmp1', 'ctl9']}}
        inventory = merge.merge(
            'prod',
            [compute('cmp1'), compute('cmp2')],
            [deploy],
            releases.load(),
            loader.load_projects(),
            merge.Clock(NOW, 90, 600),
            frozenset(deployment_hosts),
        )
        return {h.name: dict(h.executors) for h in inventory.hosts.values() if h.executors}

    def test_a_deployment_host_does_the_steps_of_others(self) -> None:
        self.assertEqual({'cmp1': {'ansible': 'agent-deploy1'}}, self.executors('deploy1'))

    def test_no_other_engine_is_believed_to(self) -> None:
        self.assertEqual({}, self.executors('cmp2'))
        self.assertEqual({}, self.executors('deploy1', seen_at=NOW - 91_000))

    def problems(self, *args: Any) -> list[tuple[str, str, str | None]]:
        return [(p.code, p.severity, p.host) for p in self.merge(*args).problems]

    def test_facts_give_version_release_and_unit(self) -> None:
        inventory = self.merge([compute('cmp1')], [agent('cmp1', nova('33.0.2', 'nova-compute'))])
        (service,) = inventory.services
        self.assertEqual(
            ('33.0.2', '2026.1', 'nova-compute.service', 'both'),
            (service.version, service.release, service.unit, service.source),
        )
        host = inventory.hosts['cmp1']
        self.assertEqual(
            ('up', 5.0, {'compute'}, {'source'}),
            (host.agent_state, host.facts_age, set(host.roles), set(host.strategies)),
        )
        self.assertEqual((), inventory.problems)

    def test_api_is_known_from_its_unit_alone(self) -> None:
        inventory = self.merge([], [agent('ctl1', nova('33.0.2', 'nova-api'))])
        self.assertEqual(
            [('nova-api', 'up', 'engine')],
            [(s.binary, s.state, s.source) for s in inventory.services],
        )
        self.assertEqual({'control'}, set(inventory.hosts['ctl1'].roles))

    def test_unit_that_is_inactive_is_no_service(self) -> None:
        facts = nova('33.0.2', 'nova-api', state='inactive')
        self.assertEqual({}, self.merge([], [agent('ctl1', facts)]).hosts)

    def test_failed_unit_is_a_service_that_is_down(self) -> None:
        facts = nova('33.0.2', 'nova-api', state='failed')
        self.assertEqual(
            [('service_down', 'blocking', 'ctl1')], self.problems([], [agent('ctl1', facts)])
        )

    def test_no_engine(self) -> None:
        self.assertEqual(
            [('engine_missing', 'blocking', 'cmp1')], self.problems([compute('cmp1')], [])
        )

    def test_pending_and_revoked_engines_do_not_count(self) -> None:
        for state in ('pending', 'revoked'):
            rows = [agent('cmp1', nova('33.0.2', 'nova-compute'), state=state)]
            self.assertEqual(
                [('engine_missing', 'blocking', 'cmp1')], self.problems([compute('cmp1')], rows)
            )

    def test_engine_down(self) -> None:
        rows = [agent('cmp1', nova('33.0.2', 'nova-compute'), seen_at=NOW - 91_000)]
        self.assertEqual(
            [('engine_down', 'blocking', 'cmp1')], self.problems([compute('cmp1')], rows)
        )

    def test_clock_skew(self) -> None:
        """When facts were taken, by the clock of the host; when they came, by the database's."""
        for off, found in ((119_000, False), (121_000, True), (-119_000, False), (-121_000, True)):
            row = agent('cmp1', nova('33.0.2', 'nova-compute'))
            row['facts']['at'] = row['facts_at'] + off
            expected = [('clock_skew', 'blocking', 'cmp1')] if found else []
            self.assertEqual(expected, self.problems([compute('cmp1')], [row]), str(off))

    def test_stale_facts(self) -> None:
        for at in (NOW - 601_000, None):
            rows = [agent('cmp1', nova('33.0.2', 'nova-compute'), facts_at=at)]
            self.assertEqual(
                [('stale_facts', 'blocking', 'cmp1')], self.problems([compute('cmp1')], rows)
            )

    def test_engine_on_a_strange_host(self) -> None:
        rows = [
            agent('cmp1', nova('33.0.2', 'nova-compute')),
            agent('cmp9', nova('33.0.2', 'nova-compute')),
        ]
        inventory = self.merge([compute('cmp1')], rows)
        self.assertEqual(['cmp1'], list(inventory.hosts))
        self.assertEqual(
            [('engine_unknown_host', 'cmp9')], [(p.code, p.host) for p in inventory.problems]
        )

    def test_services_that_are_not_well(self) -> None:
        for service, code, severity in (
            ({'state': 'down'}, 'service_down', 'blocking'),
            ({'state': 'down', 'forced_down': True}, 'service_forced_down', 'blocking'),
            ({'status': 'disabled', 'disabled_reason': 'x'}, 'service_disabled', 'warning'),
        ):
            rows = [agent('cmp1', nova('33.0.2', 'nova-compute'))]
            self.assertEqual(
                [(code, severity, 'cmp1')], self.problems([compute('cmp1', **service)], rows)
            )

    def test_versions(self) -> None:
        rows = [
            agent('cmp1', nova('33.0.2', 'nova-compute')),
            agent('cmp2', nova('34.0.0', 'nova-compute')),
            agent('cmp3', nova(None, 'nova-compute')),
            agent('cmp4', nova('1999.1', 'nova-compute')),
        ]
        found = [compute(f'cmp{n}') for n in range(1, 5)]
        self.assertEqual(
            [
                ('unknown_version', 'blocking', 'cmp3'),
                ('unknown_version', 'blocking', 'cmp4'),
                ('mixed_versions', 'warning', None),
            ],
            self.problems(found, rows),
        )

    def test_servers_in_error(self) -> None:
        broken = contract.Found(
            servers=[model.Server(id='s', name='s', host='cmp1', state='ERROR')]
        )
        rows = [agent('cmp1', nova('33.0.2', 'nova-compute'))]
        self.assertEqual(
            [('server_error', 'warning', 'cmp1')], self.problems([compute('cmp1'), broken], rows)
        )

    def ready(self, **facts: Any) -> list[tuple[str, str, str | None]]:
        engine = agent('c1', nova('33.0.2', 'nova-compute'))
        engine['facts'].update(facts)
        return self.problems([compute('c1')], [engine])

    def test_disks_and_quorums(self) -> None:
        self.assertEqual([], self.ready(disks={'/opt': {'free_mb': 1024, 'min_mb': 1024}}))
        low = self.ready(disks={'/opt': {'free_mb': 10, 'min_mb': 1024}})
        self.assertEqual([('disk_low', 'blocking', 'c1')], low)
        whole = {'size': 1, 'cluster': 'x', 'faults': []}
        self.assertEqual([], self.ready(members={'rabbitmq': whole}))
        broken = {**whole, 'faults': ['rabbit@c3 does not run']}
        self.assertEqual(
            [('quorum_broken', 'blocking', 'c1')], self.ready(members={'rabbitmq': broken})
        )

    def test_a_quorum_that_lacks_a_host(self) -> None:
        units = [{'binary': 'mariadb', 'unit': 'mariadb.service', 'state': 'active'}]
        runs = {'mariadb': {'version': '10.11.6', 'how': 'package', 'services': units}}
        agents = [agent(h, runs) for h in ('i1', 'i2', 'i3')]
        said = {'size': 2, 'cluster': 'uuid', 'faults': []}
        agents[0]['facts']['members'] = {'mariadb': said}
        codes = {p[:1] + p[2:] for p in self.problems([compute('c1')], agents)}
        self.assertIn(('quorum_short', 'i1'), codes)

    def test_facts_that_cannot_be_read_are_left_out(self) -> None:
        values: tuple[Any, ...] = (
            7,
            [],
            {'x': 1},
            {'x': {'free_mb': 'much', 'min_mb': 1}},
            {'x': {}},
        )
        for value in values:
            self.assertEqual([], self.ready(disks=value, members=value, backup=value))

    def test_a_record_that_nothing_stands_behind(self) -> None:
        there = agent('c1', nova('33.0.2', 'nova-conductor'))
        found = self.problems([compute('c1', state='down')], [there])
        self.assertEqual([('record_orphaned', 'blocking', 'c1')], found)

    def test_every_problem_says_what_to_do(self) -> None:
        found = [compute('cmp1', state='down'), compute('cmp2', status='disabled')]
        for problem in self.merge(found, [agent('cmp9', {})]).problems:
            self.assertTrue(problem.message and problem.hint, problem)
