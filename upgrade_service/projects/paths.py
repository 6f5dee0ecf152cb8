"""Which releases can be reached from where, by the rules of the release cadence.

A hop leads to the next release, or from a SLURP release to the next SLURP one. The
service makes one hop at a time; a farther target is refused with the hops that exist.
"""

from typing import Any

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.projects import releases as releases_data

#: statuses of series that are not out yet
UNRELEASED = frozenset({'future', 'development'})


def hops_from(
    releases: releases_data.Releases, source: releases_data.Release
) -> list[releases_data.Release]:
    """List the releases one hop away that are released: the next, and the next SLURP."""
    later = [r for r in releases.all() if r > source]
    hops = later[:1]
    if source.slurp:
        hops += [r for r in later if r.slurp][:1]
    return [r for r in dict.fromkeys(hops) if r.status not in UNRELEASED]


def paths_from(
    releases: releases_data.Releases, release_id: str, projects: loader.Projects
) -> list[dict[str, Any]]:
    """List what is reachable: {to, hops: [ids], slurp, projects: {name: rolling | cold}}.

    :raises UnknownRelease: there is no release `release_id`.
    """
    source = _known(releases, release_id)
    return [
        {
            'to': hop.id,
            'name': hop.name,
            'hops': [hop.id],
            'slurp': hop.slurp,
            'projects': {
                name: manner(projects.get(name), source, hop) for name in projects.names()
            },
        }
        for hop in hops_from(releases, source)
    ]


def manner(
    project: loader.Project, source: releases_data.Release, target: releases_data.Release
) -> str:
    """Tell how a project makes a hop: 'rolling', or 'cold' (its API is out meanwhile)."""
    facts = project.upgrade
    adjacent = target.ordinal == source.ordinal + 1
    allowed = facts['rolling'] and (adjacent or facts['skip_level'])
    return 'rolling' if allowed and facts['proof'] != 'none' else 'cold'


def check_target(releases: releases_data.Releases, source: str | None, target: str) -> None:
    """Refuse a target that cannot be reached in one hop; without a source, names only.

    :raises UnknownRelease: there is no such release.
    :raises UnreachableRelease: it is no hop away; the message names those that are.
    """
    wanted = _known(releases, target)
    if source is None:
        return
    start = _known(releases, source)
    hops = hops_from(releases, start)
    if wanted not in hops:
        raise exception.UnreachableRelease(
            source=start.id, target=wanted.id, rule=_why(start, wanted, hops)
        )


def _why(
    start: releases_data.Release, wanted: releases_data.Release, hops: list[releases_data.Release]
) -> str:
    if wanted == start:
        return 'the cloud is there already'
    if wanted < start:
        return 'an upgrade never goes back'
    if not hops:
        return 'no later release is out'
    if wanted.status in UNRELEASED:
        return f'it is not released yet; reachable: {_ids(hops)}'
    return f'one hop at a time: the next release or SLURP to SLURP; reachable: {_ids(hops)}'


def _ids(hops: list[releases_data.Release]) -> str:
    return ', '.join(hop.id for hop in hops)


def _known(releases: releases_data.Releases, ref: str) -> releases_data.Release:
    release = releases.get(ref)
    if release is None:
        raise exception.UnknownRelease(target=ref)
    return release
