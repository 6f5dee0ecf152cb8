"""A strategy whose every step leaves traces that nobody but the step writes."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.strategies import base
from upgrade_service.tests.chaos import place

#: bash has the time without starting a program for it
SCRIPT = """\
echo "begin $1 $2 $3 $EPOCHREALTIME $$" >> "$4"
echo "password=$6"
sleep "$5"
if [ "$2" = "$7" ]; then echo "fail $1 $2 $3 $EPOCHREALTIME $$" >> "$4"; exit 3; fi
echo "end $1 $2 $3 $EPOCHREALTIME $$" >> "$4"
"""
#: must not be done again unless a person says so
ONCE = 'db_migrate'
KINDS = frozenset({'prefetch', 'upgrade_service', ONCE, 'verify_host'})


def declare() -> None:
    """Make one kind of step one that must not be repeated, in this process."""
    model.KINDS[ONCE] = dataclasses.replace(model.KINDS[ONCE], idempotent=False)


class LoggedUpgradeStrategy(base.UpgradeStrategy):
    """Does nothing but to say so: ``begin|end|fail step attempt kind time pid``."""

    name = 'logged'
    summary = 'leaves traces'
    kinds = KINDS
    in_process = frozenset({'verify_host'})
    settings_schema: Mapping[str, Any] = {'type': 'object', 'required': ['log']}
    params_schema: Mapping[str, Any] = {
        'type': 'object',
        'additionalProperties': False,
        'properties': {'seconds': {'type': 'number'}, 'fails': {'type': 'integer'}},
    }

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Nothing is known of the host."""
        return {'projects': {}}

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Leave the traces; `verify_host` leaves none, it is done in the engine."""
        if task.kind in self.in_process:
            return base.Outcome(result=base.Result.SUCCEEDED)
        argv = (
            '/bin/bash', '-c', SCRIPT, 'action', task.step, str(task.attempt), task.kind,
            site.settings['log'], str(task.params.get('seconds', 0.05)), place.CANARY,
            str(task.params.get('fails', 0)),
        )  # fmt: skip
        op = base.Op(do='run', title=task.kind, argv=argv)
        return base.Job(ops=(op,), timeout=60)
