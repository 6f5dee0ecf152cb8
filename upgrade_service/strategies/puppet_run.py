"""Runs the Puppet agent once, under pins, and tells the shim how it goes.

``python -m upgrade_service.strategies.puppet_run SPEC``: SPEC is JSON, made by the strategy
from the settings of the engine. The exit status is the agent's (`--detailed-exitcodes`), or
one of our own for what keeps it from running at all.
"""

from collections.abc import Mapping, Sequence
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import yaml

from upgrade_service.strategies import events

Spec = Mapping[str, Any]
DISABLED, LOCKED, OTHER = 74, 75, 78
FACTS = 'upgrade_service.json'
#: settings of Puppet that we ask it for
_ASKED = ('agent_disabled_lockfile', 'agent_catalog_run_lockfile', 'lastrunfile', 'environment')


class Stopped(Exception):
    """There is no point in going on; the text says why."""

    def __init__(self, text: str, rc: int) -> None:
        super().__init__(text)
        self.rc = rc


class Agent:
    """The agent of this host."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._places = [
            word for key in ('confdir', 'vardir') if spec[key] for word in (f'--{key}', spec[key])
        ]
        self.settings = self._ask()
        self.last = ''  #: the last thing that a run said
        self.environments: list[str | None] = list(spec['environments'])

    def _argv(self, *words: str) -> list[str]:
        return [self._spec['puppet'], *words, *self._places]

    def _call(self, *words: str) -> str:
        done = subprocess.run(
            self._argv(*words),
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            said = events.clean(done.stderr or done.stdout).strip()
            raise Stopped(f'{" ".join(words[:2])}: {said}', 1)
        return done.stdout

    def _ask(self) -> dict[str, str]:
        said = self._call('config', 'print', '--section', 'agent', *_ASKED)
        pairs = (line.partition(' = ') for line in said.splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}

    # -- what may keep it from running ---------------------------------------------------------

    def ready(self) -> None:
        """Make sure that it is enabled, and that no other run is under way.

        :raises Stopped: it is disabled, or another run does not end.
        """
        disabled = pathlib.Path(self.settings['agent_disabled_lockfile'])
        if disabled.exists():
            raise Stopped(f'the agent is disabled: {_why(disabled)}', DISABLED)
        until = time.monotonic() + self._spec['patience']
        while (pid := self._other_run()) is not None:
            if time.monotonic() > until:
                raise Stopped(
                    f'another run of the agent (pid {pid}) has not ended in '
                    f'{self._spec["patience"]} s; end it or wait, then retry',
                    LOCKED,
                )
            events.progress(f'waits for another run of the agent (pid {pid})')
            time.sleep(1)

    def _other_run(self) -> int | None:
        """Return the process that holds the lock of the catalogue run, if it lives."""
        lock = pathlib.Path(self.settings['agent_catalog_run_lockfile'])
        with contextlib.suppress(OSError, ValueError):
            pid = int(lock.read_text().strip())
            os.kill(pid, 0)
            return pid
        return None

    # -- runs ----------------------------------------------------------------------------------

    def pin(self) -> None:
        """Write what later runs, ours and its own, go by."""
        pins = self._spec['pins']
        if pins.get('fact') and pins.get('version'):
            path = pathlib.Path(self._spec['facts_dir']) / FACTS
            path.parent.mkdir(parents=True, exist_ok=True)
            known = self.pinned()
            known[pins['fact']] = pins['version']
            temporary = path.with_suffix('.new')
            temporary.write_text(json.dumps(known, indent=1) + '\n')
            os.replace(temporary, path)
            events.say(f'pinned {pins["fact"]} to {pins["version"]} in {path}')
        if pins.get('environment'):
            name = pins['environment']
            self._call('config', 'set', '--section', 'agent', 'environment', name)
            events.say(f'pinned environment {name}')

    def pinned(self) -> dict[str, Any]:
        """Return the facts that we have pinned so far."""
        path = pathlib.Path(self._spec['facts_dir']) / FACTS
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(path.read_text()))
        return {}

    def run(self, *more: str) -> int:
        """Run it once in the foreground; return its exit status."""
        pins = self._spec['pins']
        words = ['agent', '--test', '--color=false', '--waitforcert=0', *more]
        if self._spec['server']:
            words += ['--server', self._spec['server']]
        if pins.get('environment'):
            words += ['--environment', pins['environment']]
        if pins.get('tags'):
            words += ['--tags', ','.join(pins['tags'])]
        return self._stream(self._argv(*words))

    def _stream(self, argv: Sequence[str]) -> int:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        ) as process:
            done = 0
            for line in process.stdout or ():
                events.say(line.rstrip('\n')[:4000])
                self.last = events.clean(line).strip()[:300] or self.last
                if line.startswith(('Notice: /', 'Info: Applying', 'Info: Retrieving')):
                    done += 1
                    events.progress(line.partition(': ')[2].strip())
        return process.returncode

    # -- what came of it -----------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Return Puppet's own summary of the last run."""
        try:
            said = yaml.safe_load(pathlib.Path(self.settings['lastrunfile']).read_text())
        except (OSError, yaml.YAMLError) as e:
            raise Stopped(f'there is no summary of a run: {e}', 1) from e
        return said if isinstance(said, dict) else {}

    def verify(self) -> None:
        """Make sure that the last run succeeded and was of what is pinned.

        :raises Stopped: says what is otherwise.
        """
        pins, said = self._spec['pins'], self.summary()
        resources, run = said.get('resources') or {}, said.get('application') or {}
        failed = int(resources.get('failed') or 0) + int(resources.get('failed_to_restart') or 0)
        if failed or not resources:
            raise Stopped(f'the last run of the agent failed: {failed} resources', 4)
        used = run.get('converged_environment')
        if pins.get('environment') and used != pins['environment']:
            raise Stopped(
                f'the server gave environment {used}, not {pins["environment"]}: does a node '
                'classifier overrule it?',
                OTHER,
            )
        if pins.get('fact') and self.pinned().get(pins['fact']) != pins['version']:
            raise Stopped(f'fact {pins["fact"]} is not pinned to {pins["version"]}', OTHER)
        changed = int(resources.get('changed') or 0)
        events.say(
            f'the last run: {resources.get("total")} resources, {changed} changed, 0 failed'
        )


def _why(path: pathlib.Path) -> str:
    try:
        return str(json.loads(path.read_text())['disabled_message'])[:300]
    except (OSError, ValueError, KeyError, TypeError):
        return 'no reason was given'


def check(agent: Agent) -> int:
    """Look at the agent, the server, the certificate, and every environment of the settings.

    Catalogues are compiled and gone through; nothing is changed.
    """
    agent.ready()
    rc = 0
    for name in agent.environments or [None]:
        rc = agent.run('--noop', *(('--environment', name) if name else ()))
        if rc not in (0, 2):
            events.say(f'environment {name}: the agent ends with status {rc}: {agent.last}')
            return rc
    return rc


def apply(agent: Agent) -> int:
    """Pin, run, read back."""
    agent.ready()
    agent.pin()
    rc = agent.run()
    if rc in (0, 2):
        agent.verify()
    return rc


def verify(agent: Agent) -> int:
    """Read back the last run."""
    agent.verify()
    return 0


_WHAT = {'check': check, 'apply': apply, 'verify': verify}


def main() -> int:
    """Do what the argument says; return the exit status that the strategy knows."""
    spec = json.loads(sys.argv[1])
    try:
        return _WHAT[spec['what']](Agent(spec))
    except Stopped as e:
        events.say(str(e))
        return e.rc
    except (OSError, subprocess.SubprocessError) as e:
        events.say(f'{spec["puppet"]}: {e}')
        return 1


if __name__ == '__main__':
    sys.exit(main())
