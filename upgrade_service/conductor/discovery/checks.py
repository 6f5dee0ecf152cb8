"""What an operator should know of an inventory: one small check for each kind of problem.

Pure. A check that names a *blocking* problem makes plans that touch the host or service
unstartable; an *acceptable* one may be passed with `start --accept CODE`.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.discovery import readiness

Engines = Mapping[str, Mapping[str, Any]]  #: host -> row of its engine
Problems = Iterator[model.Problem]
OURS = 'upgrade-service:'  #: what our disabled_reason begins with
#: seconds that the clock of a host may be off: the default of [engine] clock_skew
MAX_SKEW = 120.0
SHOWN = 5  #: names listed in one message


def problems(
    inventory: model.Inventory, engines: Engines, projects: Any, facts_max_age: float
) -> list[model.Problem]:
    """List the problems of an inventory, by host."""
    found: list[model.Problem] = []
    found.extend(_engine_missing(inventory, engines))
    found.extend(_engine_down(inventory))
    found.extend(_stale_facts(inventory, facts_max_age))
    found.extend(_clock_skew(inventory, engines))
    found.extend(_unknown_host(inventory, engines))
    orphaned = dict(readiness.orphans(inventory))
    found.extend(orphaned.values())
    alive = [s for s in inventory.services if s not in orphaned]
    for look in SERVICE_CHECKS:
        found.extend(p for s in alive if (p := look(s)) is not None)
    found.extend(_unknown_version(inventory, projects))
    found.extend(_mixed_versions(inventory))
    found.extend(_server_error(inventory))
    found.extend(readiness.problems(inventory, projects))
    return found


# -- engines -----------------------------------------------------------------------------------


def _engine_missing(inventory: model.Inventory, engines: Engines) -> Problems:
    for host in inventory.hosts.values():
        if host.agent is not None:
            continue
        if host.name in engines:
            hint = (
                f'its engine waits for an administrator: openstack upgrade agent approve '
                f'{engines[host.name]["id"]}'
            )
        else:
            hint = (
                'install upgrade-service-engine on it and give it the bundle of '
                f'`openstack upgrade agent enroll {host.name}`'
            )
        yield model.Problem(
            code='engine_missing',
            severity='blocking',
            host=host.name,
            hint=hint,
            message=f'No engine is active on {host.name}.',
        )


def _engine_down(inventory: model.Inventory) -> Problems:
    for host in inventory.hosts.values():
        if host.agent_state == 'down':
            yield model.Problem(
                code='engine_down',
                severity='blocking',
                host=host.name,
                message=f'The engine on {host.name} has not been heard of for too long.',
                hint='look at upgrade-service-engine on the host, and at the message bus',
            )


def _stale_facts(inventory: model.Inventory, max_age: float) -> Problems:
    for host in inventory.hosts.values():
        if host.agent_state != 'up':
            continue
        if host.facts_age is None or host.facts_age > max_age:
            age = 'nothing yet' if host.facts_age is None else f'{host.facts_age:.0f} s ago'
            yield model.Problem(
                code='stale_facts',
                severity='blocking',
                host=host.name,
                message=f'What the engine on {host.name} reported is too old ({age}).',
                hint='discover the cluster again; the engine is asked for fresh facts',
            )


def _clock_skew(inventory: model.Inventory, engines: Engines) -> Problems:
    """Facts say when they were taken, by the clock of their host; the rows, when they came."""
    for name, row in sorted(engines.items()):
        told, came = (row.get('facts') or {}).get('at'), row.get('facts_at')
        if name not in inventory.hosts or not isinstance(told, int) or came is None:
            continue
        off = (told - came) / 1000
        if abs(off) > MAX_SKEW:
            yield model.Problem(
                code='clock_skew',
                severity='blocking',
                host=name,
                message=f'The clock of {name} is {abs(off):.0f} s '
                f'{"ahead of" if off > 0 else "behind"} that of the database.',
                hint='set the clocks right (NTP); then discover the cluster again. An engine '
                f'takes no order while they differ by more than {MAX_SKEW:.0f} s',
            )


def _unknown_host(inventory: model.Inventory, engines: Engines) -> Problems:
    for name, row in sorted(engines.items()):
        if name not in inventory.hosts and row['state'] == 'active':
            yield model.Problem(
                code='engine_unknown_host',
                severity='warning',
                host=name,
                acceptable=True,
                message=f'An engine reports from {name}, which the cloud does not know.',
                hint='[engine] host must be the name that nova and neutron use; if it is no host '
                f'of this cloud: openstack upgrade agent delete {row["id"]}',
            )


# -- services ----------------------------------------------------------------------------------


def _service_down(service: model.Service) -> model.Problem | None:
    if service.state != 'down' or service.forced_down:
        return None
    return model.Problem(
        code='service_down',
        severity='blocking',
        host=service.host,
        service=service.binary,
        message=f'{service.binary} on {service.host} is down.',
        hint=f'start {service.unit or service.binary} on the host, or remove the record of a '
        'host that is gone for good',
    )


def _forced_down(service: model.Service) -> model.Problem | None:
    if not service.forced_down:
        return None
    return model.Problem(
        code='service_forced_down',
        severity='blocking',
        host=service.host,
        acceptable=True,
        service=service.binary,
        message=f'{service.binary} on {service.host} is forced down.',
        hint=f'when the host is sound: openstack compute service set --up {service.host} '
        f'{service.binary}',
    )


def _disabled(service: model.Service) -> model.Problem | None:
    if service.status != 'disabled' or service.forced_down:
        return None
    reason = service.disabled_reason or ''
    if reason.startswith(OURS):
        who, hint = f'by upgrade {reason.split(":")[1]}', 'finish or cancel that upgrade'
    else:
        who, hint = f'({reason or "no reason given"})', 'it stays disabled after the upgrade'
    return model.Problem(
        code='service_disabled',
        severity='warning',
        acceptable=True,
        host=service.host,
        service=service.binary,
        hint=hint,
        message=f'{service.binary} on {service.host} is disabled {who}.',
    )


#: checks of one service each
SERVICE_CHECKS: tuple[Callable[[model.Service], model.Problem | None], ...] = (
    _service_down,
    _forced_down,
    _disabled,
)


# -- versions ----------------------------------------------------------------------------------


def _unknown_version(inventory: model.Inventory, projects: Any) -> Problems:
    """Name a project on a host once; where facts are missing that is named already."""
    seen = set()
    for service in inventory.services:
        host = inventory.hosts[service.host]
        key = (service.host, service.project)
        if (
            service.release
            or key in seen
            or host.agent_state != 'up'
            or host.facts_age is None
            or (project := projects.by_binary(service.binary)) is None
            or (project.independent and service.version)
        ):
            continue
        seen.add(key)
        said = (
            (
                f'version {service.version} of {service.project} on {service.host} belongs to no '
                'known release'
            )
            if service.version
            else (f'the engine on {service.host} does not see {service.project} installed')
        )
        yield model.Problem(
            code='unknown_version',
            severity='blocking',
            host=service.host,
            service=service.binary,
            message=f'{said[0].upper()}{said[1:]}.',
            hint=f'name the units and the path of {service.project} in engine.d on the host, or '
            f'leave the project out of the upgrade',
        )


def _mixed_versions(inventory: model.Inventory) -> Problems:
    versions: dict[str, dict[str, set[str]]] = collections.defaultdict(
        lambda: collections.defaultdict(set)
    )
    for service in inventory.services:
        if service.version:
            versions[service.project][service.version].add(service.host)
    for project, hosts_of in sorted(versions.items()):
        if len(hosts_of) > 1:
            listed = ', '.join(f'{v} on {_names(hosts)}' for v, hosts in sorted(hosts_of.items()))
            yield model.Problem(
                code='mixed_versions',
                severity='warning',
                acceptable=True,
                message=f'{project} runs in several versions: {listed}.',
                hint='an upgrade brings them together',
            )


# -- servers -----------------------------------------------------------------------------------


def _server_error(inventory: model.Inventory) -> Problems:
    broken: dict[str, list[str]] = collections.defaultdict(list)
    for server in inventory.servers:
        if server.state == 'ERROR':
            broken[server.host].append(server.id)
    for host, ids in sorted(broken.items()):
        yield model.Problem(
            code='server_error',
            severity='warning',
            host=host,
            acceptable=True,
            message=f'{len(ids)} servers on {host} are in ERROR: {_names(ids)}.',
            hint='they were so before the upgrade; nova will not live-migrate them',
        )


def _names(names: Iterable[str]) -> str:
    """List a few names and say how many more there are."""
    listed = sorted(names)
    more = len(listed) - SHOWN
    return ', '.join(listed[:SHOWN]) + (f' and {more} more' if more > 0 else '')
