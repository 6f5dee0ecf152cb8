"""Upgrades by Puppet: pin the target, have the agent apply its catalogue, look what came of it.

What a site's modules do with the pin is theirs: `engine.d/puppet.yaml` says which
environment belongs to a release, and under which names the versions of projects are handed
to Hiera and manifests as external facts. Undoing a step pins the version before and runs
the agent again.
"""

from collections.abc import Mapping, Sequence
import json
import os
import sys
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import base

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
_WORD = r'^[a-z][a-z0-9_]{0,62}\Z'
#: kinds that a run of the agent does
RUNS = frozenset({'upgrade_service', 'restart_service'})
#: kinds that the modules may do within such a run
COVERED = frozenset({
    'prefetch', 'upgrade_check', 'backup_database', 'verify_backup', 'db_expand', 'db_migrate',
    'db_contract', 'online_migrations', 'stop_service',
})  # fmt: skip
KINDS = COVERED | RUNS | {'check_host', 'verify_host'}


def _object(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'additionalProperties': False, 'properties': properties}


SETTINGS_SCHEMA: dict[str, Any] = {
    **_object(
        puppet=_PATH,
        # release -> environment of the server (or none: versions alone are pinned)
        environments={
            'type': 'object',
            'additionalProperties': {'type': 'string', 'pattern': _WORD},
        },
        server={'type': 'string', 'pattern': r'^[A-Za-z0-9.-]+\Z'},
        confdir=_PATH,
        vardir=_PATH,
        facts_dir=_PATH,
        # project -> name of the external fact with its version
        facts={'type': 'object', 'additionalProperties': {'type': 'string', 'pattern': _WORD}},
        # kinds that the catalogue does by itself: nothing is run for them
        covered={
            'type': 'array',
            'uniqueItems': True,
            'items': {'enum': sorted(COVERED)},
        },
        tags={
            'type': 'object',
            'additionalProperties': {
                'type': 'array',
                'items': {'type': 'string', 'pattern': r'^[a-z0-9_:]+\Z'},
            },
        },
        patience={'type': 'integer', 'minimum': 0, 'maximum': 86400},
        timeout={'type': 'integer', 'minimum': 10, 'maximum': 86400},
    ),
    'required': ['puppet', 'facts_dir'],
    'anyOf': [{'required': ['environments']}, {'required': ['facts']}],
}

#: what the agent's exit status means (`puppet help agent`, --detailed-exitcodes)
EXITS = {0: 'done', 2: 'done'}
WORDS = {
    1: 'the run failed, or another run holds the lock',
    4: 'some resources failed',
    6: 'some resources were changed and others failed',
    74: 'the agent is disabled: puppet agent --enable',
    75: 'another run of the agent holds the lock',
    78: 'the pin did not take',
}


class PuppetUpgradeStrategy(base.UpgradeStrategy):
    """Runs of the Puppet agent, with environment and versions pinned."""

    name = 'puppet'
    summary = 'puppet agent, with the environment and versions of the target pinned'
    kinds = KINDS
    settings_schema = SETTINGS_SCHEMA

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report nothing: versions are for strategy `package` and PuppetDB to tell."""
        if not os.access(site.settings['puppet'], os.X_OK):
            raise exception.Refused(reason=f'{site.settings["puppet"]} cannot be run')
        return {}

    def refusal(self, task: base.Task, site: base.Site) -> str | None:
        """Allow what the settings have a pin for."""
        if task.kind in (*RUNS, 'verify_host'):
            try:
                pins(task, site.settings)
            except exception.Refused as e:
                return str(e)
            return None
        if task.kind == 'check_host' or task.kind in site.settings.get('covered', ()):
            return None
        return _unsaid([task.kind])

    def run(self, task: base.Task, site: base.Site) -> base.Job:
        """Check, pin and run, or read back."""
        if task.kind in site.settings.get('covered', ()):
            return base.Job(ops=(), timeout=task.timeout, data={'covered': True})
        what = {'check_host': 'check', 'verify_host': 'verify'}.get(task.kind, 'apply')
        wanted = {} if what == 'check' else pins(task, site.settings)
        if what == 'check':
            unsaid = COVERED - {'stop_service', *site.settings.get('covered', ())}
            if unsaid:
                raise exception.Refused(reason=_unsaid(sorted(unsaid)))
        version = wanted.get('version')
        return base.Job(
            ops=(_child(what, wanted, site, task.timeout),),
            timeout=task.timeout,
            # a run that applies a catalogue is never ended half-way
            interruptible=what != 'apply',
            data={'version': version} if version else {},
        )

    def undo(self, task: base.Task, site: base.Site) -> base.Job:
        """Pin what ran before (`version`, `release`) and run again."""
        return self.run(task, site)


def _unsaid(kinds: Sequence[str]) -> str:
    return (
        f'puppet.yaml does not say what does {", ".join(kinds)}: add it to `covered` if your '
        'modules do it in the run of the agent; else upgrade with another strategy'
    )


def pins(task: base.Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step pins: {environment, fact, version, tags}.

    :raises Refused: the settings pin nothing for its release or project.
    """
    release, version = str(task.params.get('release') or ''), task.params.get('version')
    environments, facts = settings.get('environments'), settings.get('facts')
    if environments is not None and release not in environments:
        raise exception.Refused(
            reason=f'puppet.yaml names no environment for release {release}: add it to '
            '`environments`'
        )
    if environments is None and str(task.project) not in (facts or {}):
        raise exception.Refused(
            reason=f'puppet.yaml pins nothing for {task.project}: name a fact in `facts`, or an '
            'environment for each release in `environments`'
        )
    return {
        'environment': (environments or {}).get(release),
        'fact': (facts or {}).get(str(task.project)),
        'version': version,
        'tags': (settings.get('tags') or {}).get(str(task.project), []),
    }


def _child(what: str, wanted: Mapping[str, Any], site: base.Site, timeout: int) -> base.Op:
    settings = site.settings
    spec = {
        'what': what,
        'puppet': settings['puppet'],
        'server': settings.get('server'),
        'confdir': settings.get('confdir'),
        'vardir': settings.get('vardir'),
        'facts_dir': settings['facts_dir'],
        'patience': settings.get('patience', 300),
        'environments': sorted(set((settings.get('environments') or {}).values())),
        'pins': dict(wanted),
    }
    titles = {
        'check': 'look at the Puppet agent',
        'apply': f'run the Puppet agent for {wanted.get("fact") or wanted.get("environment")}',
        'verify': "read back the agent's last run",
    }
    argv = (sys.executable, '-m', 'upgrade_service.strategies.puppet_run', json.dumps(spec))
    return base.Op(
        do='run',
        title=titles[what],
        argv=argv,
        env={'PYTHONUNBUFFERED': '1', 'PYTHONSAFEPATH': '1', 'HOME': site.state_dir},
        timeout=min(settings.get('timeout', 3600), timeout),
        exits=EXITS,
        words=WORDS,
        events=True,
    )
