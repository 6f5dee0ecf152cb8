"""Put together what the plugins found and what the engines report; name what is wrong.

Pure: the clock comes in. The cloud knows whether a service is up; only the engine on its
host knows which version is installed there, and of services without a record in the
cloud (every API) even that they exist.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.discovery import base, checks, drift

#: systemd's ActiveState -> our state; a unit that is inactive is no service of the host
UNIT_STATES = {
    'active': 'up',
    'reloading': 'up',
    'activating': 'down',
    'deactivating': 'down',
    'failed': 'down',
}

#: facts of an engine that tell whether its host is ready for an upgrade
READINESS = ('backup', 'disks', 'members')


@dataclasses.dataclass(frozen=True)
class Clock:
    """The time of the snapshot and what counts as old."""

    now: int  #: ms
    agent_timeout: float  #: s
    facts_max_age: float  #: s


Agents = Mapping[str, Mapping[str, Any]]  #: host -> row of its engine


def merge(
    cluster: str,
    found: Sequence[base.Found],
    agents: Sequence[Mapping[str, Any]],
    releases: Any,
    projects: Any,
    clock: Clock,
    deployment_hosts: frozenset[str] = frozenset(),
) -> model.Inventory:
    """Make the inventory of a cluster.

    `deployment_hosts`: whose engines are believed when they offer to do the steps of others.
    """
    engines = current_agents(agents)
    said = drift.align(found, engines)
    found = drift.settle(said, projects)
    services = merge_services(found, engines, releases, projects)
    known = {name for f in found for name in f.hosts} | {
        s.host for s in services if s.source == 'engine' and not listed(projects, s.binary)
    }
    services = [s for s in services if s.host in known]
    executors = _executors(engines, deployment_hosts, clock)
    hosts = {
        name: dataclasses.replace(
            _host(name, found, services, engines.get(name), projects, clock),
            executors=executors.get(name, {}),
        )
        for name in sorted(known)
    }
    inventory = model.Inventory(
        cluster=cluster,
        taken_at=clock.now,
        hosts=hosts,
        services=services,
        servers=tuple(s for f in found for s in f.servers),
        endpoints={k: v for f in found for k, v in f.endpoints.items()},
    )
    problems = [p for f in found for p in f.problems]
    problems.extend(drift.problems(said, services, projects))
    problems.extend(checks.problems(inventory, engines, projects, clock.facts_max_age))
    # an engine that acts for others need not be on a host of the cloud
    ours = [
        p for p in problems if p.code != 'engine_unknown_host' or p.host not in deployment_hosts
    ]
    return dataclasses.replace(inventory, problems=tuple(ours))


def current_agents(agents: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return host -> the one engine that counts there: active, then most lately seen."""
    chosen: dict[str, Mapping[str, Any]] = {}

    def rank(row: Mapping[str, Any]) -> tuple[bool, int]:
        return row['state'] == 'active', row.get('seen_at') or 0

    for row in agents:
        best = chosen.get(row['host'])
        if row['state'] != 'revoked' and (best is None or rank(row) > rank(best)):
            chosen[row['host']] = row
    return chosen


def listed(projects: Any, binary: str) -> bool:
    """Tell whether a cloud API would list such a service."""
    project = projects.by_binary(binary)
    return project is not None and project.services[binary].record is not None


# -- services ----------------------------------------------------------------------------------


def merge_services(
    found: Sequence[base.Found], engines: Agents, releases: Any, projects: Any
) -> list[model.Service]:
    """Join the services of the cloud with those that engines see."""
    merged: dict[tuple[str, str], model.Service] = {}
    for service in (s for f in found for s in f.services):
        known = merged.setdefault((service.host, service.binary), service)
        if known.version is None and service.version:
            merged[service.host, service.binary] = dataclasses.replace(
                known, version=service.version, how=service.how
            )
    for host, row in engines.items():
        if row['state'] != 'active':
            continue
        for project, facts in ((row.get('facts') or {}).get('projects') or {}).items():
            _add_facts(merged, host, project, facts)
    _drop_second_names(merged, projects)
    release_of: dict[tuple[str, str], str | None] = {}
    for key, service in merged.items():
        name = (service.project, service.version or '')
        if name not in release_of:
            release = releases.of_version(*name) if service.version else None
            release_of[name] = release.id if release else None
        merged[key] = dataclasses.replace(service, release=release_of[name])
    return [merged[key] for key in sorted(merged)]


def _drop_second_names(merged: dict[tuple[str, str], model.Service], projects: Any) -> None:
    """Drop an API that a tool names where an engine sees it under another name."""
    apis = [s for s in merged.values() if drift.is_api(projects, s.binary)]
    seen = {(s.host, s.project) for s in apis if s.source == 'engine'}
    for s in apis:
        if s.source not in ('cloud', 'engine', 'both') and (s.host, s.project) in seen:
            del merged[s.host, s.binary]


def _add_facts(
    merged: dict[tuple[str, str], model.Service],
    host: str,
    project: str,
    facts: Mapping[str, Any],
) -> None:
    """Lay one project's facts of a host over what the cloud says."""
    version, how = facts.get('version'), facts.get('how')
    for unit in facts.get('services', ()):
        key = (host, unit['binary'])
        if key in merged:
            by = 'both' if merged[key].source in ('cloud', 'both') else 'engine'
            merged[key] = dataclasses.replace(
                merged[key], unit=unit.get('unit'), source=by, state=_state(merged[key], unit)
            )
        elif unit.get('state') in UNIT_STATES:
            merged[key] = model.Service(
                project=project,
                binary=unit['binary'],
                host=host,
                unit=unit.get('unit'),
                state=UNIT_STATES[unit['state']],
                source='engine',
            )
    for key, service in merged.items():
        if service.host == host and service.project == project:
            merged[key] = dataclasses.replace(service, version=version, how=how)


def _state(known: model.Service, unit: Mapping[str, Any]) -> str:
    """Return the cloud's word on a service; where it has none, the unit's state."""
    return (
        known.state
        if known.source == 'cloud'
        else UNIT_STATES.get(unit.get('state', ''), 'unknown')
    )


# -- hosts -------------------------------------------------------------------------------------


def _host(
    name: str,
    found: Sequence[base.Found],
    services: Sequence[model.Service],
    engine: Mapping[str, Any] | None,
    projects: Any,
    clock: Clock,
) -> model.Host:
    host = next((f.hosts[name] for f in found if name in f.hosts), model.Host(name=name))
    mine = [s for s in services if s.host == name]
    return dataclasses.replace(host, roles=_roles(mine, projects), **_engine_facts(engine, clock))


def _roles(services: Iterable[model.Service], projects: Any) -> frozenset[str]:
    """Derive the roles of a host from the services on it."""
    roles = set()
    for service in services:
        project = projects.by_binary(service.binary)
        binary = project.services[service.binary] if project else None
        if binary is None or project.kind == 'infrastructure':
            continue
        if binary.plane == 'control':
            roles.add('control')
        if service.binary == 'nova-compute':
            roles.add('compute')
        elif binary.record == 'volume' and service.binary != 'cinder-scheduler':
            roles.add('volume')
        elif binary.serves:
            roles.add('network')
    return frozenset(roles)


def _executors(
    engines: Agents, deployment_hosts: frozenset[str], clock: Clock
) -> dict[str, dict[str, str]]:
    """Return host -> {strategy: engine of a deployment host that does its steps}."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(deployment_hosts & set(engines)):
        engine = engines[name]
        if _engine_facts(engine, clock).get('agent_state') != 'up':
            continue
        for strategy, said in ((engine.get('facts') or {}).get('strategies') or {}).items():
            for host in said.get('hosts') or () if said.get('ready') else ():
                found.setdefault(host, {}).setdefault(strategy, engine['id'])
    return found


def _engine_facts(engine: Mapping[str, Any] | None, clock: Clock) -> dict[str, Any]:
    if engine is None or engine['state'] != 'active':
        return {}
    seen, facts_at = engine.get('seen_at'), engine.get('facts_at')
    up = seen is not None and clock.now - seen <= clock.agent_timeout * 1000
    facts = engine.get('facts') or {}
    offered = facts.get('strategies') or {}
    return {
        'agent': engine['id'],
        'agent_state': 'up' if up else 'down',
        'facts_age': None if facts_at is None else max(0, clock.now - facts_at) / 1000,
        'strategies': frozenset(n for n, s in offered.items() if s.get('ready')),
        'readiness': {k: facts[k] for k in READINESS if isinstance(facts.get(k), dict)},
    }
