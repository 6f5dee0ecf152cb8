"""Where sources disagree about the same cluster: shown as problems, and settled.

Pure. The cloud's APIs say which services there are; what a deployment tool means to be
there, and is not, or the other way round, is *drift*. A service that no API lists (an API
itself) is taken from whoever knows it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.discovery import base

CLOUD = 'openstack'
SHOWN = 5
Key = tuple[str, str]  #: (host, binary)


def align(found: Sequence[base.Found], engines: Iterable[str]) -> list[base.Found]:
    """Call each host by the name that the cloud, or its engine, has for it.

    A tool may say `cmp1.example.org` where nova says `cmp1`, or the other way round; and
    underscores, which openstack-ansible uses for containers, are hyphens in host names.
    """
    known = set(engines) | {h for f in found if f.source == CLOUD for h in f.hosts}
    short: dict[str, list[str]] = {}
    for name in known:
        short.setdefault(name.partition('.')[0], []).append(name)

    def alias(name: str) -> str:
        plain = name.replace('_', '-')
        for one in (name, plain, plain.partition('.')[0]):
            if one in known:
                return one
        longer = short.get(plain.partition('.')[0], [])
        return longer[0] if len(longer) == 1 else name

    return [f if f.source == CLOUD else _renamed(f, alias) for f in found]


def _renamed(found: base.Found, alias: Any) -> base.Found:
    return dataclasses.replace(
        found,
        hosts={alias(n): dataclasses.replace(h, name=alias(n)) for n, h in found.hosts.items()},
        services=[dataclasses.replace(s, host=alias(s.host)) for s in found.services],
        names=frozenset(map(alias, found.names)),
    )


def settle(found: Sequence[base.Found], projects: Any) -> list[base.Found]:
    """Drop from other sources what the cloud itself would list and does not.

    Also an API under a second name where the host has the project's API already.
    """
    cloud = [f for f in found if f.source == CLOUD]
    if not cloud:
        return list(found)
    listed = {(s.host, s.binary) for f in cloud for s in f.services}

    def real(service: model.Service) -> bool:
        return (service.host, service.binary) in listed or not _record(projects, service.binary)

    return [
        f if f.source == CLOUD else _kept(f, [s for s in f.services if real(s)]) for f in found
    ]


def _kept(found: base.Found, services: list[model.Service]) -> base.Found:
    there = {s.host for s in services}
    hosts = {n: h for n, h in found.hosts.items() if n in there}
    return dataclasses.replace(found, services=services, hosts=hosts)


def _record(projects: Any, binary: str) -> bool:
    project = projects.by_binary(binary)
    return project is not None and project.services[binary].record is not None


def is_api(projects: Any, binary: str) -> bool:
    """Whether a binary is its project's API, under whatever name."""
    project = projects.by_binary(binary)
    return project is not None and project.services[binary].api is not None


# -- what to show ------------------------------------------------------------------------------


def problems(
    found: Sequence[base.Found], services: Sequence[model.Service], projects: Any
) -> Iterator[model.Problem]:
    """List the disagreements of each source with what the cloud and the engines say.

    `found`: aligned, not settled. `services`: what was merged.
    """
    real = {(s.host, s.binary): s for s in services if s.source in ('cloud', 'engine', 'both')}
    hosts = {host for host, _ in real}
    if not hosts:
        return
    for one in found:
        if one.source != CLOUD:
            yield from _hosts(one, hosts)
            yield from _services(one, real, projects)
            yield from _versions(one, real)


def _hosts(one: base.Found, real: set[str]) -> Iterator[model.Problem]:
    meant = {s.host for s in one.services}
    for host in sorted(meant - real):
        yield _problem(
            'drift_host',
            host,
            f'{one.source} has services for {host}, which neither the cloud nor an engine knows.',
            f'deploy it, or take it out of the inventory of {one.source}',
        )
    for host in sorted(real - one.names):
        yield _problem(
            'drift_host',
            host,
            f'{host} is a host of the cloud that {one.source} does not know.',
            f'add it to the inventory of {one.source}, or remove its services from the cloud',
        )


def _services(
    one: base.Found, real: Mapping[Key, model.Service], projects: Any
) -> Iterator[model.Problem]:
    meant = {_same(s.host, s.binary, projects) for s in one.services}
    there = {_same(host, binary, projects) for host, binary in real}
    hosts = {host for host, _ in there}
    # what is nowhere in the cloud is an option of the tool that is not used
    used = {binary for _, binary in there}
    lists = {_same('', binary, projects)[1] for binary in one.lists}
    missing: dict[str, list[str]] = {}
    for host, binary in sorted(meant - there):
        if host in hosts and binary in used:
            missing.setdefault(host, []).append(binary)
    extra: dict[str, list[str]] = {}
    for host, binary in sorted(there - meant):
        if host in one.names and binary in lists:
            extra.setdefault(host, []).append(binary)
    for host, binaries in missing.items():
        yield _problem(
            'drift_service',
            host,
            f'{one.source} means {_some(binaries)} to be on {host}; it is not there.',
            f'deploy it, or take it out of the inventory of {one.source}',
        )
    for host, binaries in extra.items():
        yield _problem(
            'drift_service',
            host,
            f'{_some(binaries)} runs on {host}, where {one.source} does not mean it to be.',
            f'add it to the inventory of {one.source}, or remove it from the host',
        )


def _same(host: str, binary: str, projects: Any) -> Key:
    """Give all names of a project's API one name."""
    project = projects.by_binary(binary)
    return host, f'API of {project.name}' if is_api(projects, binary) else binary


def _versions(one: base.Found, real: Mapping[Key, model.Service]) -> Iterator[model.Problem]:
    for service in one.services:
        seen = real.get((service.host, service.binary))
        if seen and seen.version and service.version and seen.version != service.version:
            yield _problem(
                'drift_version',
                service.host,
                f'{service.binary} on {service.host} is {seen.version} by what its engine sees '
                f'and {service.version} by what {one.source} says.',
                f'discover again once {one.source} has looked at the host anew',
                service.binary,
            )


def _problem(
    code: str, host: str, message: str, hint: str, service: str | None = None
) -> model.Problem:
    return model.Problem(
        code=code,
        severity='warning',
        acceptable=True,
        host=host,
        service=service,
        message=message,
        hint=hint,
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ', '.join(names[:SHOWN]) + (f' and {more} more' if more > 0 else '')
