"""The order between projects: a partial order of the data, made a list.

Hard edges are documented by the projects themselves and must hold; soft ones are good
practice and are given up where they would close a cycle. Infrastructure goes before every
project: what is upgraded on top of it finds it whole.
"""

from collections.abc import Iterable

from upgrade_service import exception
from upgrade_service.projects import loader


def project_order(names: Iterable[str], projects: loader.Projects) -> list[str]:
    """Return the names so that each comes after those it depends on.

    :raises PlanImpossible: the hard edges have a cycle.
    """
    names = sorted(names)
    hard = {name: _parents(name, names, projects, soft=False) for name in names}
    wished = {name: _parents(name, names, projects, soft=True) for name in names}
    order = _sorted(wished) or _sorted(_without_cycles(hard, wished))
    if order is None:
        raise exception.PlanImpossible(
            reason=f'the order of projects has a cycle: {" -> ".join(_cycle(hard))}'
        )
    return order


def hard_edges(names: Iterable[str], projects: loader.Projects) -> list[tuple[str, str]]:
    """List (before, after) pairs that must hold among the projects given."""
    names = sorted(names)
    return [
        (before, name)
        for name in names
        for before in sorted(_parents(name, names, projects, soft=False))
    ]


def _parents(name: str, names: Iterable[str], projects: loader.Projects, soft: bool) -> set[str]:
    own = projects.get(name)
    below = {n for n in names if projects.get(n).kind == 'infrastructure'}
    return (set() if own.kind == 'infrastructure' else below) | {
        edge.project for edge in own.after if edge.project in names and (soft or not edge.soft)
    }


def _sorted(parents: dict[str, set[str]]) -> list[str] | None:
    """Sort so that parents come first, by name where there is a choice; None: a cycle."""
    done: list[str] = []
    left = dict(parents)
    while left:
        ready = [name for name in left if left[name] <= set(done)]
        if not ready:
            return None
        done.append(ready[0])
        del left[ready[0]]
    return done


def _without_cycles(hard: dict[str, set[str]], wished: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the hard edges with every soft one that closes no cycle."""
    kept = {name: set(parents) for name, parents in hard.items()}
    for name in kept:
        for parent in sorted(wished[name] - hard[name]):
            kept[name].add(parent)
            if _sorted(kept) is None:
                kept[name].discard(parent)
    return kept


def _cycle(parents: dict[str, set[str]]) -> list[str]:
    """Return one cycle, for the message; there is one."""
    loose = dict(parents)
    while ends := [n for n in loose if not loose[n] & loose.keys()]:
        for name in ends:
            del loose[name]
    path = [min(loose)]
    while path[-1] not in path[:-1]:
        path.append(min(loose[path[-1]] & loose.keys()))
    return path[path.index(path[-1]) :]
