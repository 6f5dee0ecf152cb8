"""Which releases can be reached from where, by the rules of the release cadence.

A hop leads to the next release, or from a SLURP release to the next SLURP one; a path is
several hops with stops between. An upgrade makes one hop: a farther target is refused with
the stops to make. How a hop is made differs by project: `MANNERS`.
"""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from upgrade_service import exception, model
from upgrade_service.projects import facts as wheel_facts
from upgrade_service.projects import loader
from upgrade_service.projects import releases as releases_data

Release = releases_data.Release
Releases = releases_data.Releases

#: statuses of series that are not out yet
UNRELEASED = frozenset({'future', 'development'})
#: how a project makes a hop, from the best to the worst
MANNERS: Mapping[str, str] = {
    'rolling': 'old and new code serve together; its API is out only where one host has it',
    'cold': 'all of its services stop, the database changes, all start: its API is out meanwhile',
    'sequential': 'it skips no release: this hop is not for it, it takes those between one by one',
}


def hops_from(releases: Releases, source: Release) -> list[Release]:
    """List the releases one hop away that are released: the next, and the next SLURP."""
    later = [r for r in releases.all() if r > source]
    hops = later[:1]
    if source.slurp:
        hops += [r for r in later if r.slurp][:1]
    return [r for r in dict.fromkeys(hops) if r.status not in UNRELEASED]


def route(
    releases: Releases, source: Release, target: Release, skip: bool = True
) -> list[Release] | None:
    """Return the hops from one release to another, as few as can be; None: there is no way.

    :param skip: whether a hop may lead from SLURP to SLURP, over the release between.
    """
    hops: list[Release] = []
    here = source
    while here < target:
        legal = [h for h in hops_from(releases, here) if h <= target]
        if not legal:
            return None
        here = max(legal) if skip else min(legal)
        hops.append(here)
    return hops if here == target else None


def is_skip(source: Release, target: Release) -> bool:
    """Tell whether a hop leads over a release between."""
    return target.ordinal != source.ordinal + 1


def manner(
    project: loader.Project,
    source: Release,
    target: Release,
    facts: wheel_facts.WheelFacts | None = None,
) -> str:
    """Tell how a project makes a hop: one of `MANNERS`.

    What nobody has proved is cold, and skips nothing. Where the target's own code says which
    old services it talks to, that has the last word.
    """
    if project.independent:
        return 'rolling' if project.quorum else 'cold'
    skip = is_skip(source, target)
    fact = project.upgrade['slurp' if skip else 'adjacent']
    if fact['proof'] == 'none':
        return 'sequential' if skip else 'cold'
    said = (facts or wheel_facts.load()).of(project.name, target.id)
    if fact['manner'] == 'rolling' and said and said.serves(source) is False:
        return 'cold'
    return fact['manner']


def down_seconds(project: loader.Project, how: str, hosts: int) -> int:
    """Estimate for how long a hop takes a project's API out, on so many control hosts.

    The seconds are those of the step kinds; a plan, which knows the cloud, tells better.
    """
    cost = {kind: facts.estimate for kind, facts in model.KINDS.items()}
    switch = cost['upgrade_service'] + cost['verify_service']
    if how == 'rolling':
        return cost['upgrade_service'] if hosts == 1 else 0
    if not hosts:
        return 0
    databases = sum(cost[kind] for kind in ('db_expand', 'db_migrate') if kind in project.commands)
    return hosts * cost['stop_service'] + databases + hosts * switch


def paths_from(
    releases: Releases,
    release_id: str,
    projects: loader.Projects,
    hosts: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """List what is reachable, nearest first, over as few hops as can be and over every release.

    {to, name, hops: [ids], stops: [ids between], slurp, projects: {name: worst manner},
    down: {name: seconds}, legs: [{source, target, projects: {name: manner}, down}]}

    :param hosts: control hosts of each project that is there; without it, all projects.

    :raises UnknownRelease: there is no release `release_id`.
    """
    source = _known(releases, release_id)
    there = {name: 1 for name in projects.names()} if hosts is None else hosts
    chosen = [projects.get(name) for name in sorted(there) if name in projects]
    chosen = [p for p in chosen if not p.independent]
    found = []
    for target in (r for r in releases.all() if r > source):
        ways = [route(releases, source, target, skip) for skip in (True, False)]
        found += [_path(source, hops, chosen, there) for hops in ways if hops]
        if ways[0] and ways[0] == ways[1]:
            found.pop()
    return found


def _path(
    source: Release,
    hops: Sequence[Release],
    projects: Sequence[loader.Project],
    hosts: Mapping[str, int],
) -> dict[str, Any]:
    legs = [_leg(a, b, projects, hosts) for a, b in itertools.pairwise([source, *hops])]
    ranks = list(MANNERS)
    return {
        'to': hops[-1].id,
        'name': hops[-1].name,
        'hops': [hop.id for hop in hops],
        'stops': [hop.id for hop in hops[:-1]],
        'slurp': hops[-1].slurp,
        'projects': {
            p.name: max((leg['projects'][p.name] for leg in legs), key=ranks.index)
            for p in projects
        },
        'down': {
            p.name: seconds
            for p in projects
            if (seconds := sum(leg['down'].get(p.name, 0) for leg in legs))
        },
        'legs': legs,
    }


def _leg(
    source: Release, target: Release, projects: Sequence[loader.Project], hosts: Mapping[str, int]
) -> dict[str, Any]:
    how = {p.name: manner(p, source, target) for p in projects}
    down = {p.name: down_seconds(p, how[p.name], hosts.get(p.name, 1)) for p in projects}
    return {
        'source': source.id,
        'target': target.id,
        'projects': how,
        'down': {name: seconds for name, seconds in down.items() if seconds},
    }


def check_target(
    releases: Releases, source: str | None, target: str, oldest: str | None = None
) -> None:
    """Refuse a target that cannot be reached in one hop; without a source, names only.

    :param oldest: which services are at the source still, for the message.

    :raises UnknownRelease: there is no such release.
    :raises UnreachableRelease: it is no hop away; the message names the stops to make.
    """
    wanted = _known(releases, target)
    if source is None:
        return
    start = _known(releases, source)
    hops = hops_from(releases, start)
    if wanted not in hops:
        rule = _why(releases, start, wanted, hops)
        still = f' (at {start.id}: {oldest})' if oldest else ''
        raise exception.UnreachableRelease(
            source=start.id, target=wanted.id, rule=f'{rule}{still}'
        )


def _why(releases: Releases, start: Release, wanted: Release, hops: list[Release]) -> str:
    if wanted == start:
        return 'the cloud is there already'
    if wanted < start:
        return 'an upgrade never goes back'
    if not hops:
        return 'no later release is out'
    way = route(releases, start, wanted)
    if way is None:
        return f'it is not released yet; reachable: {", ".join(hop.id for hop in hops)}'
    return (
        f'an upgrade makes one hop, to the next release or from SLURP to SLURP, and this takes '
        f'{len(way)}: {", then ".join(hop.id for hop in way)}; begin with --to {way[0].id}'
    )


def _known(releases: Releases, ref: str) -> Release:
    release = releases.get(ref)
    if release is None:
        raise exception.UnknownRelease(target=ref)
    return release


# -- versions of infrastructure ----------------------------------------------------------------


def version_refusal(project: loader.Project, source: str, target: str) -> str | None:
    """Say why a piece of infrastructure may not go from one version to another; None: it may."""
    rule = project.versions
    old, new = _numbers(source), _numbers(target)
    if new < old:
        return f'{project.name} never goes back, from {source} to {target}'
    if not rule or rule['step'] == 'any':
        return None
    series = [_numbers(one) for one in rule['series']]
    places = [_place(series, version, rule['step']) for version in (old, new)]
    if None in places:
        unknown = (source, target)[places.index(None)]
        return f'{project.name} {unknown} belongs to no series that is known: {rule["series"]}'
    first, last = (place or 0 for place in places)
    exact = _within(new, series[last])
    if first == last or (last == first + 1 and exact):
        return None
    stops = [*rule['series'][first + 1 : last + 1], *([] if exact else [target])]
    return f'{project.name} skips no series: from {source} go to {", then ".join(stops)}'


def _numbers(version: str) -> tuple[int, ...]:
    number = releases_data.leading_number(version)
    return tuple(int(part) for part in number.split('.')) if number else ()


def _place(series: Sequence[tuple[int, ...]], version: tuple[int, ...], step: str) -> int | None:
    """Return the index of the series that a version is of, or with `lts` is of or follows."""
    fits = [n for n, one in enumerate(series) if _within(version, one)]
    if step == 'lts':
        fits = [n for n, one in enumerate(series) if version >= one]
    return max(fits, default=None)


def _within(version: tuple[int, ...], one: tuple[int, ...]) -> bool:
    return version[: len(one)] == one
