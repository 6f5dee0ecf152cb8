"""The way back: the steps that undo a plan, planned with it and carried out on `rollback`.

They go through the stages the other way round, hosts and services in reverse. Only what
can be undone is: new code stays installed beside the old one, and databases stay extended,
for old code works with both. A compute host is undone in place: it is disabled, so that
nobody arrives, but its servers stay, whom a restart of nova-compute does not disturb.

A step's `undo_of` is the step without which there is nothing to do: if that was never
begun, neither is this one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from upgrade_service import model
from upgrade_service.conductor.planner import draft as drafts
from upgrade_service.conductor.planner import scope as scopes

#: nobody is asked on the way back, and nothing has to prove itself
_POLICY: Mapping[str, Any] = {'gates': (), 'canary': {'soak_seconds': 0}}
Steps = Sequence[model.Step]


def way_back(scope: scopes.Scope, steps: Steps) -> tuple[model.Step, ...]:
    """Return the steps that undo a plan, numbered after its own."""
    return Way(scope, steps).make()


class Way:
    """The way back of one plan in the making."""

    def __init__(self, scope: scopes.Scope, steps: Steps) -> None:
        self._scope, self._steps = scope, steps
        self._draft = drafts.Draft(
            _POLICY, scope.request.strategy, direction='back', first=len(steps) + 1
        )

    def make(self) -> tuple[model.Step, ...]:
        """Go through the stages."""
        switches = [s for s in self._steps if _reversible(s)]
        if not any(map(_switches, switches)):
            return ()
        self._draft.begin('prepare')
        self._reset_records(switches)
        for stage in ('data_plane', 'canary'):
            self._draft.begin(stage)
            self._hosts(stage)
        self._draft.begin('control_plane')
        self._control(s for s in switches if s.stage == 'control_plane')
        self._draft.begin('verify')
        # of several switches of a project on a host the first: it was begun if any was
        control = [s for s in switches if s.stage == 'control_plane' and _switches(s)]
        self._verify({(s.host, s.project): s for s in reversed(control)})
        return tuple(self._draft.steps)

    def _add(self, kind: str, like: model.Step, undo_of: int | None, **more: Any) -> int:
        """Add a step on the host, and of the project, of another one."""
        return self._draft.add(
            kind,
            host=like.host,
            project=like.project,
            binaries=(like.service or '').split(',') if like.service else (),
            undo_of=undo_of,
            **more,
        )

    def _reset_records(self, switches: Steps) -> None:
        """Let old services register again, before the first of them starts."""
        if 'reset_records' not in getattr(self._scope.strategy, 'kinds', ()):
            return
        switches = [s for s in switches if _switches(s)]
        for project in dict.fromkeys(s.project for s in switches if s.project):
            known = self._scope.projects.get(project).commands
            host = self._records_host(project)
            if 'reset_records' in known and host is not None:
                like = next(s for s in switches if s.project == project)
                self._draft.add(
                    'reset_records', host=host, project=project, params=_back(self._scope, like)
                )

    def _records_host(self, project: str) -> str | None:
        """Return a control host of a project: only there its database can be reached."""
        change = self._scope.first_control(project)
        if change is not None:
            return change.host
        plane = self._scope.projects.get(project).plane
        services = self._scope.inventory.of_project(project)
        return min((s.host for s in services if plane(s.binary) == 'control'), default=None)

    def _hosts(self, stage: str) -> None:
        """Undo the hosts of a stage, the last one first."""
        by_host: dict[str, list[model.Step]] = {}
        for step in self._steps:
            if step.stage == stage and step.host:
                by_host.setdefault(step.host, []).append(step)
        for host in reversed(by_host):
            self._host([s for s in by_host[host]])

    def _host(self, steps: Steps) -> None:
        """Disable, undo, verify, enable."""
        kinds = {s.kind: s for s in steps}
        last: int | None = None
        if on := kinds.get('enable_host'):
            last = self._add('disable_host', on, on.ord, params=on.params)
        first: dict[str | None, model.Step] = {}
        for step in reversed([s for s in steps if _reversible(s)]):
            last = self._undo(step, last)
            first[step.project] = step
        seen: list[int | None] = [last]
        for step in (s for s in steps if s.kind == 'verify_host' and s.project in first):
            seen = [self._again(step, first[step.project], seen)]
        looks = [s for s in steps if s.kind == 'verify_service' and s.project in first]
        seen = [self._again(s, first[s.project], seen) for s in looks] or seen
        if off := kinds.get('disable_host'):
            self._add('enable_host', off, off.ord, after=seen, params=off.params)

    def _control(self, switches: Iterable[model.Step]) -> None:
        """Undo the control services one after the other, and look at each."""
        looks: dict[tuple[str | None, str | None], list[model.Step]] = {}
        for step in self._steps:
            if step.kind == 'verify_service' and step.stage == 'control_plane':
                looks.setdefault((step.host, step.project), []).append(step)
        last: int | None = None
        for step in reversed(list(switches)):
            last = self._undo(step, last)
            own = [s for s in looks.get((step.host, step.project), ()) if s.ord > step.ord]
            if step.kind == 'upgrade_service' and own:
                last = self._again(own[0], step, [last])

    def _verify(self, switches: Mapping[tuple[str | None, str | None], model.Step]) -> None:
        last: dict[str | None, int | None] = {}
        for step in self._steps:
            switch = switches.get((step.host, step.project))
            if step.kind == 'verify_host' and step.stage == 'verify' and switch:
                last[step.host] = self._again(step, switch, [last.get(step.host)])
        self._draft.add('probe_cloud', after=last.values())

    def _undo(self, step: model.Step, last: int | None) -> int:
        params = dict(step.params)  # of packages: they name the transaction to take back
        if step.params.get('from_version'):
            params = _back(self._scope, step)
            if 'units' in step.params:
                params['units'] = list(step.params['units'])
        return self._add(step.kind, step, step.ord, after=[last], params=params)

    def _again(self, step: model.Step, switch: model.Step, after: Iterable[int | None]) -> int:
        """Look in the way of a step at what a switch that is undone leaves behind."""
        back = _back(self._scope, switch)
        params = {**step.params, **{k: v for k, v in back.items() if k in step.params}}
        return self._add(step.kind, step, switch.ord, after=after, params=params)


def _reversible(step: model.Step) -> bool:
    """Tell whether a step changed code that can be changed back: it is known to what."""
    return _switches(step) or step.kind in ('upgrade_packages', 'stop_service')


def _switches(step: model.Step) -> bool:
    return step.kind == 'upgrade_service' and bool(step.params.get('from_version'))


def _back(scope: scopes.Scope, step: model.Step) -> dict[str, Any]:
    """Return a step's parameters with from and to swapped."""
    return {
        'version': step.params['from_version'],
        'from_version': step.params['version'],
        'release': scope.request.from_release,
    }
