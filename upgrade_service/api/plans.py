"""The shape of a plan: which step waits for which, and how long the whole takes.

A plan never changes within a revision, so its shape is worked out once and kept; states
of steps are read afresh by whoever shows them.
"""

import collections
from collections.abc import Mapping, Sequence
import threading
from typing import Any

from upgrade_service import context
from upgrade_service.db import api as db_api

Row = dict[str, Any]
#: step id -> `ord` numbers of the steps it waits for
Parents = Mapping[str, Sequence[int]]
#: shapes kept; one of 100,000 steps takes some 30 MB
KEPT = 4

_lock = threading.Lock()
_shapes: collections.OrderedDict[tuple[str, int], Parents] = collections.OrderedDict()


def parents(ctx: context.RequestContext, upgrade: Row) -> Parents:
    """Return what each step of an upgrade's current plan waits for."""
    key = (upgrade['id'], upgrade['revision'])
    with _lock:
        if key in _shapes:
            _shapes.move_to_end(key)
            return _shapes[key]
    found = _read(ctx, upgrade)
    with _lock:
        _shapes[key] = found
        while len(_shapes) > KEPT:
            _shapes.popitem(last=False)
    return found


def _read(ctx: context.RequestContext, upgrade: Row) -> Parents:
    steps = db_api.step_list(ctx, upgrade['id'], revision=upgrade['revision'])
    number = {step['id']: step['ord'] for step in steps}
    edges = db_api.edge_list(ctx, upgrade['id'])
    return {
        ident: sorted(number[p] for p in edges.get(ident, ()) if p in number) for ident in number
    }


def longest(steps: Sequence[Row], waits: Parents) -> int:
    """Return the seconds of the longest chain of steps; steps come in order of `ord`."""
    ends: dict[int, int] = {}
    for step in steps:
        if step['direction'] == 'forward':
            begin = max((ends.get(p, 0) for p in waits.get(step['id'], ())), default=0)
            ends[step['ord']] = begin + step['estimate']
    return max(ends.values(), default=0)
