"""A strategy of another distribution: the simulated one, but a prefetch is a real process.

What runs under the engine's shim leaves a line when it begins and one when it ends.
"""

from collections.abc import Mapping
from typing import Any

from upgrade_service.simulator import strategy
from upgrade_service.strategies import base

SCRIPT = 'echo "begin $1" >> "$2"; sleep "$3"; echo "end $1" >> "$2"'


class ScriptedUpgradeStrategy(strategy.SimulatedUpgradeStrategy):
    """Upgrades simulated hosts, with a child process for each prefetch."""

    name = 'scripted'
    summary = 'simulated hosts, with child processes'
    in_process = strategy.SimulatedUpgradeStrategy.in_process - {'prefetch'}
    settings_schema: Mapping[str, Any] = {'type': 'object', 'required': ['url', 'trace']}

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Do a step."""
        if task.kind != 'prefetch':
            return super().run(task, site)
        seconds = '4' if task.project == 'nova' else '0'
        argv = ('/bin/sh', '-c', SCRIPT, 'sh', task.step, site.settings['trace'], seconds)
        op = base.Op(do='run', title=f'fetch {task.project}', argv=argv)
        return base.Job(ops=(op,), timeout=60, interruptible=True)
