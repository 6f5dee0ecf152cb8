"""How long a plan takes, roughly: the steps are played through in order of readiness."""

from collections.abc import Mapping, Sequence
import heapq

from upgrade_service import model
from upgrade_service.conductor.planner import drain, machines
from upgrade_service.conductor.planner import scope as scopes

#: what is done to each project of a host that is out
_CHANGE = ('upgrade_service', 'verify_host', 'verify_service')


def upgrade_seconds(scope: scopes.Scope, host: str) -> float:
    """Estimate how long a host is out beside its drain (seconds), from the kinds of its steps."""
    kinds = list(_CHANGE) * len(scope.of_host(host, 'data'))
    if host in scope.machines:
        kinds += machines.KINDS
    return float(sum(model.KINDS[kind].estimate for kind in kinds))


def drain_seconds(moves: Mapping[str, str], scope: scopes.Scope) -> int:
    """Estimate a drain: its migrations, so many at a time, and two looks at the end."""
    rules = scope.request.policy['drain']
    takes = drain.migration_seconds(rules)
    seconds = sum(takes(scope.servers[server]) for server in moves)
    return int(seconds / rules['parallel'] + rules['settle_seconds'])


def duration(steps: Sequence[model.Step], budget: int) -> int:
    """Return the seconds a plan takes with `budget` hosts out at once.

    One host step at a time on each host; a compute host is out from disable to enable.
    """
    return _Play(steps, max(1, budget)).run()


class _Play:
    """The steps of a plan in a made-up time."""

    def __init__(self, steps: Sequence[model.Step], budget: int) -> None:
        self._steps = {step.ord: step for step in steps}
        self._waits = {step.ord: len(step.parents) for step in steps}
        self._children: dict[int, list[int]] = {}
        for step in steps:
            for parent in step.parents:
                self._children.setdefault(parent, []).append(step.ord)
        self._ready = [n for n, waits in self._waits.items() if not waits]
        heapq.heapify(self._ready)
        self._budget = budget
        self._busy: set[str] = set()
        self._running: list[tuple[int, int]] = []
        self._held: dict[str, list[int]] = {}
        self._queue: list[int] = []  # disable steps that wait for the budget

    def run(self) -> int:
        """Play until nothing runs; return the time."""
        now = 0
        self._begin(now)
        while self._running:
            now, ended = heapq.heappop(self._running)
            self._end(self._steps[ended])
            self._begin(now)
        return now

    def _begin(self, now: int) -> None:
        while self._queue and self._budget:
            self._budget -= 1
            self._start(self._steps[heapq.heappop(self._queue)], now)
        while self._ready:
            step = self._steps[heapq.heappop(self._ready)]
            if step.kind == 'disable_host' and not self._budget:
                heapq.heappush(self._queue, step.ord)
            elif step.what.where == 'host' and step.host in self._busy:
                self._held.setdefault(step.host or '', []).append(step.ord)
            else:
                self._budget -= step.kind == 'disable_host'
                self._start(step, now)

    def _start(self, step: model.Step, now: int) -> None:
        if step.what.where == 'host':
            self._busy.add(step.host or '')
        heapq.heappush(self._running, (now + step.estimate, step.ord))

    def _end(self, step: model.Step) -> None:
        self._budget += step.kind == 'enable_host'
        if step.what.where == 'host':
            self._busy.discard(step.host or '')
            if self._held.get(step.host or ''):
                heapq.heappush(self._ready, self._held[step.host or ''].pop(0))
        for child in self._children.get(step.ord, ()):
            self._waits[child] -= 1
            if not self._waits[child]:
                heapq.heappush(self._ready, child)
