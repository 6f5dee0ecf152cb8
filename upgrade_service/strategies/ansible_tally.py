"""What came of an Ansible run on each host, counted from its events: pure.

The events are ansible-runner's: `runner_on_ok`, `runner_on_failed`, `runner_on_unreachable`
… name a host and a task; `playbook_on_stats` closes a run that was not cut off.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
import dataclasses
import fnmatch
from typing import Any

Event = Mapping[str, Any]
#: bytes of what was printed about a host that are kept
KEPT = 4000
#: events of one result on one host -> how it is counted
_RESULTS = {
    'runner_on_ok': 'ok',
    'runner_on_failed': 'failed',
    'runner_on_unreachable': 'unreachable',
}


@dataclasses.dataclass
class Seen:
    """One name of the inventory."""

    ok: int = 0
    changed: int = 0
    begun: str = ''  #: the task that was begun and has no result yet
    fault: str = ''  #: what the last failed task said, and its name
    output: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a host; `result` as in an outcome."""

    result: str
    error: str = ''
    output: str = ''
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Tally:
    """Counts events; then says what came of each host."""

    def __init__(self) -> None:
        self.tasks = 0
        self.task = ''
        self._seen: dict[str, Seen] = defaultdict(Seen)
        self._stats: Mapping[str, Any] | None = None
        self._cut_short = False
        #: whether the play went on after its last failure; with `any_errors_fatal` it does not
        self._went_on = True
        self._read = {
            'playbook_on_task_start': self._task,
            'playbook_on_handler_task_start': self._task,
            'playbook_on_stats': self._over,
            'playbook_on_no_hosts_remaining': self._no_hosts,
            'runner_on_start': self._start,
        }

    def see(self, event: Event) -> None:
        """Count an event."""
        name, data = str(event.get('event')), event.get('event_data') or {}
        if name in self._read:
            self._read[name](data)
        elif name in _RESULTS:
            self._result(name, data, str(event.get('stdout') or ''))
        elif name == 'runner_on_skipped':
            self._seen[str(data.get('host'))].begun = ''

    def _task(self, data: Event) -> None:
        self.tasks += 1
        self._went_on = True
        self.task = str(data.get('task') or data.get('name') or '')

    def _start(self, data: Event) -> None:
        self._seen[str(data.get('host'))].begun = str(data.get('task') or '')

    def _over(self, data: Event) -> None:
        self._stats = data

    def _no_hosts(self, data: Event) -> None:
        self._cut_short = True

    def _result(self, name: str, data: Event, printed: str) -> None:
        host = self._seen[str(data.get('host'))]
        result = data.get('res') or {}
        host.begun = ''
        host.output = (host.output + printed + '\n')[-KEPT:]
        if name == 'runner_on_ok':
            host.ok += 1
            host.changed += bool(result.get('changed'))
        elif not data.get('ignore_errors'):
            said = result.get('msg') or result.get('stderr') or printed
            self._went_on = False
            host.fault = f'task "{data.get("task")}": {str(said).strip()[:400]}'

    def verdicts(
        self, hosts: Mapping[str, Iterable[str]], rc: int, may_stop: bool = True
    ) -> dict[str, Verdict]:
        """Say what came of each host.

        `hosts`: host -> patterns of its names in the inventory; the worst of them counts.
        `may_stop`: a failure of some hosts may end the play for all (`any_errors_fatal`):
        no event tells, so where nothing followed a failure, nobody counts as done.
        """
        self._went_on = self._went_on or not may_stop
        found = {}
        for host, patterns in hosts.items():
            names = [n for n in self._seen if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
            all_of_it = [self._verdict(n, rc) for n in sorted(names)]
            worst = min(all_of_it, key=lambda v: _ORDER.index(v.result), default=None)
            found[host] = worst or Verdict(
                result='failed',
                error='no task was run on it: does it stand in the inventory, and do `limit` and '
                "the playbook's `hosts` let it through?"
                + (' The run was ended early because of other hosts.' if self._cut_short else ''),
            )
        return found

    def _verdict(self, name: str, rc: int) -> Verdict:
        seen = self._seen[name]
        data = {'ok': seen.ok, 'changed': seen.changed}
        result, error = self._judged(name, seen, rc)
        return Verdict(result=result, error=error, output=seen.output, data=data)

    def _judged(self, name: str, seen: Seen, rc: int) -> tuple[str, str]:
        if self._stats is None:
            return self._cut_off(seen, rc)
        if (self._stats.get('dark') or {}).get(name):
            if not seen.ok:
                return 'failed', f'unreachable, nothing was done: {seen.fault}'
            return 'unknown', (
                f'became unreachable in {seen.fault}; look at the host, then retry the step'
            )
        if (self._stats.get('failures') or {}).get(name):
            return 'failed', seen.fault or 'a task failed'
        if rc and (self._cut_short or not self._went_on):
            return 'failed', (
                'the play ended with the failure of other hosts, perhaps before all was done here'
            )
        if not seen.ok:
            return (
                'failed',
                'no task was run on it: are all of them skipped by tags or conditions?',
            )
        return 'succeeded', ''

    def _cut_off(self, seen: Seen, rc: int) -> tuple[str, str]:
        """Judge a host after a run that was ended from outside, or broke."""
        if seen.begun:
            return 'unknown', (
                f'the run was ended during task "{seen.begun}" (status {rc}); look at the host'
            )
        if seen.fault:
            return 'failed', seen.fault
        if seen.changed:
            return 'unknown', (
                f'the run was ended after {seen.changed} changes (status {rc}); look at the host'
            )
        return 'failed', f'the run was ended before anything was changed (status {rc})'


_ORDER = ('unknown', 'failed', 'succeeded')
