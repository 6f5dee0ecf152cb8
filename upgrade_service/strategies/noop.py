"""A strategy that changes nothing: to rehearse plans, to test and to measure.

What it was asked to do can be traced: with ``trace`` in its settings each step leaves a
line when it begins and one when it ends, in a file that only it writes.
"""

from collections.abc import Mapping
import json
import os
import time
from typing import Any

from upgrade_service import model
from upgrade_service.strategies import base

HOST_KINDS = frozenset(name for name, kind in model.KINDS.items() if kind.where == 'host')


class NoopUpgradeStrategy(base.UpgradeStrategy):
    """Does nothing, for some time if it is asked to."""

    name = 'noop'
    summary = 'changes nothing; rehearses a plan'
    in_process = HOST_KINDS
    kinds = HOST_KINDS
    settings_schema: Mapping[str, Any] = {
        'type': 'object',
        'additionalProperties': False,
        'properties': {
            'trace': {'type': 'string', 'pattern': '^/'},
            'projects': {'type': 'object'},
        },
    }
    params_schema: Mapping[str, Any] = {
        **base.PARAMS_SCHEMA,
        'properties': {
            **base.PARAMS_SCHEMA['properties'],
            'sleep': {'type': 'number', 'minimum': 0, 'maximum': 3600},
            'fail': {'type': 'boolean'},
        },
    }

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report what the settings say there is."""
        return {'projects': dict(site.settings.get('projects') or {})}

    def run(self, task: base.Task, site: base.Site) -> base.Outcome:
        """Sleep `sleep` seconds, then fail if `fail` says so."""
        self._trace(task, site, 'begin')
        time.sleep(task.params.get('sleep', 0))
        self._trace(task, site, 'end')
        if task.params.get('fail'):
            return base.Outcome(
                result=base.Result.FAILED, rc=1, error='it was asked to fail', output='failed\n'
            )
        version = task.params.get('version')
        data = {'version': version} if version else {}
        return base.Outcome(result=base.Result.SUCCEEDED, data=data)

    def _trace(self, task: base.Task, site: base.Site, what: str) -> None:
        path = site.settings.get('trace')
        if not path:
            return
        line = {
            'what': what,
            'step': task.step,
            'attempt': task.attempt,
            'kind': task.kind,
            'host': site.host,
            'at': time.monotonic_ns(),
        }
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, json.dumps(line).encode() + b'\n')
        finally:
            os.close(fd)
