"""Looks at every world that can be reached, the nearest first."""

import collections
import time
from typing import NamedTuple

from upgrade_service.tests.model import protocol


class Found(NamedTuple):
    """What a search has found."""

    states: int
    seconds: float
    broken: str = ''  #: the invariant that does not hold; '': all of them do
    trace: tuple[str, ...] = ()  #: what happened until then
    exhausted: bool = True  #: no world within the bounds is left

    def __str__(self) -> str:
        said = f'{self.states:,} states, {self.seconds:.1f} s'
        if self.broken:
            return f'{self.broken}, after {len(self.trace)} moves ({said})'
        return f'{"exhaustive" if self.exhausted else "NOT exhaustive"}, 0 violations ({said})'


def explore(rules: protocol.Rules, most: int = 10_000_000) -> Found:
    """Search breadth first until an invariant breaks or nothing (or too much) is left."""
    began = time.process_time()
    start = protocol.first(rules)
    came: dict[protocol.World, tuple[protocol.World, str] | None] = {start: None}
    queue = collections.deque([start])
    world, step = start, ''
    try:
        while queue and len(came) <= most:
            world = queue.popleft()
            step = 'decides'
            for step, after in protocol.moves(rules, world):
                if after not in came:
                    came[after] = (world, step)
                    protocol.check(rules, after)
                    queue.append(after)
    except protocol.Broken as e:
        path = (*_path(came, world), step)
        return Found(len(came), time.process_time() - began, str(e), path)
    return Found(len(came), time.process_time() - began, exhausted=not queue)


def _path(
    came: dict[protocol.World, tuple[protocol.World, str] | None], world: protocol.World
) -> list[str]:
    names = []
    while (link := came[world]) is not None:
        world, name = link
        names.append(name)
    return names[::-1]
