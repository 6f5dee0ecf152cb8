"""The strategy that upgrades simulated hosts, and a worked example of a strategy plugin.

It does what a real one does, through the simulator's host endpoint instead of the
system: reports facts, installs nothing, switches versions, restarts units, reads back
what runs. Every kind is `in_process`: idempotent, short, without a child process.
"""

from collections.abc import Callable, Mapping
import time
from typing import Any

from upgrade_service import exception
from upgrade_service.simulator import client
from upgrade_service.strategies import base

_KINDS = frozenset({
    'check_host', 'prefetch', 'upgrade_check', 'backup_database', 'db_expand', 'db_migrate',
    'rehearse_config', 'verify_backup', 'rehearse_database', 'check_records',
    'db_contract', 'online_migrations', 'stop_service', 'upgrade_service', 'restart_service',
    'reset_records',
    'verify_host',
})  # fmt: skip


class SimulatedUpgradeStrategy(base.UpgradeStrategy):
    """Upgrades hosts of the simulated cloud."""

    name = 'simulated'
    summary = 'hosts of the simulated cloud (to try the service)'
    kinds = in_process = _KINDS
    settings_schema: Mapping[str, Any] = {
        'type': 'object',
        'required': ['url'],
        'additionalProperties': False,
        'properties': {'url': {'type': 'string', 'pattern': '^http://127\\.0\\.0\\.1:[0-9]+$'}},
    }

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report what the simulated host says of itself."""
        said = client.call(site.settings['url'], site.host)
        return {'projects': said['projects'], 'os': said['os'], 'boot_id': said['boot_id']}

    def check(self, task: base.Task, site: base.Site) -> bool:
        """Tell whether the target version runs already."""
        if task.kind != 'upgrade_service':
            return False
        found = self._project(task, site)
        return found['version'] == task.params['version'] and _runs(found, task)

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Do a step."""
        try:
            return _ACTIONS.get(task.kind, _note)(self, task, site)
        except client.HostError as e:
            again = 'retry the step' if e.status else 'is the simulator running?'
            return base.Outcome(result=base.Result.FAILED, rc=1, error=f'{e}; {again}')

    def undo(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Switch back to the version before, or start what was stopped."""
        if task.kind == 'stop_service':
            return _units(task, site, 'start')
        return self.run(task, site)

    def _project(self, task: base.Task, site: base.Site) -> dict[str, Any]:
        found = self.facts(site)['projects'].get(task.project)
        if found is None:
            raise exception.Refused(reason=f'{task.project} is not installed on {site.host}')
        return dict(found)

    def settled(self, task: base.Task, site: base.Site) -> base.Outcome:
        """Wait until the units run the version that is asked for."""
        end = time.monotonic() + min(task.timeout, 60)
        while True:
            found = self._project(task, site)
            if found['version'] == task.params['version'] and _runs(found, task):
                version = {'version': found['version']}
                return base.Outcome(result=base.Result.SUCCEEDED, data=version)
            if time.monotonic() > end:
                return base.Outcome(
                    result=base.Result.FAILED,
                    rc=1,
                    error=f'{task.project} on {site.host} does not run {task.params["version"]}',
                )
            time.sleep(0.1)


Action = Callable[[SimulatedUpgradeStrategy, base.Task, base.Site], base.Outcome]


def _runs(found: Mapping[str, Any], task: base.Task) -> bool:
    states = [s['state'] for s in found['services']]
    versions = {s['version'] for s in found['services']}
    return set(states) <= {'active'} and versions <= {task.params['version']}


def _upgrade(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    version = task.params['version']
    client.call(
        site.settings['url'], site.host, str(task.project), 'switch', body={'version': version}
    )
    return self.settled(task, site)


def _restart(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    for binary in task.params.get('binaries') or ():
        path = ('units', f'{binary}.service')
        client.call(site.settings['url'], site.host, *path, body={'do': 'restart'})
    return self.settled(task, site)


def _stop(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    return _units(task, site, 'stop')


def _units(task: base.Task, site: base.Site, verb: str) -> base.Outcome:
    for binary in task.params.get('units') or ():
        path = ('units', f'{binary}.service')
        client.call(site.settings['url'], site.host, *path, body={'do': verb})
    return base.Outcome(result=base.Result.SUCCEEDED)


def _verify(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    if task.project:
        return self.settled(task, site)
    return base.Outcome(result=base.Result.SUCCEEDED)


def _check(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    self.facts(site)
    return base.Outcome(result=base.Result.SUCCEEDED)


def _note(self: SimulatedUpgradeStrategy, task: base.Task, site: base.Site) -> base.Outcome:
    """Everything that needs no doing in a simulation is put into the simulator's log."""
    path = (str(task.project), 'run')
    client.call(site.settings['url'], site.host, *path, body={'kind': task.kind})
    said = f'{task.kind} of {task.project} {task.params.get("version", "")}: simulated\n'
    return base.Outcome(result=base.Result.SUCCEEDED, output=said)


_ACTIONS: dict[str, Action] = {
    'upgrade_service': _upgrade,
    'stop_service': _stop,
    'restart_service': _restart,
    'verify_host': _verify,
    'check_host': _check,
}
