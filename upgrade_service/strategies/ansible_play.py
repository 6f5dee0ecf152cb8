"""Runs one playbook with ansible-runner, and tells the shim how it goes.

``python -m upgrade_service.strategies.ansible_play SPEC``: SPEC is JSON, made by the
strategy from the settings of the engine. What Ansible prints is passed on as output; each
task is progress, and at the end each host has an outcome. TERM ends the playbook in
Ansible's own way. Everything that ansible-runner writes lies in a directory of root's that
is removed at the end.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from typing import Any

from upgrade_service.strategies import ansible_tally, events

Spec = Mapping[str, Any]
PING = """
- name: Reach the hosts
  hosts: all
  gather_facts: false
  tasks:
    - name: Ping
      ansible.builtin.ping:
"""


class Play:
    """One run of a playbook."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self.tally = ansible_tally.Tally()
        self._ended = threading.Event()

    def end(self, *_: Any) -> None:
        """Have Ansible end."""
        self._ended.set()

    def _event(self, event: Mapping[str, Any]) -> bool:
        """Pass an event on; True keeps ansible-runner counting too."""
        self.tally.see(event)
        events.say(str(event.get('stdout') or ''))
        if event.get('event') in ('playbook_on_task_start', 'playbook_on_handler_task_start'):
            events.progress(f'task {self.tally.tasks}: {self.tally.task}')
        return True

    def run(self, place: str) -> int:
        """Run it in a private directory; return Ansible's exit status."""
        import ansible_runner

        spec = self._spec
        playbook = spec['playbook']
        if playbook is None:
            playbook = os.path.join(place, 'ping.yaml')
            pathlib.Path(playbook).write_text(PING)
        done = ansible_runner.run(
            private_data_dir=place,
            project_dir=spec['directory'],
            playbook=playbook,
            inventory=list(spec['inventory']),
            limit=spec['limit'],
            extravars=dict(spec['vars']),
            tags=','.join(spec['tags']) or None,
            skip_tags=','.join(spec['skip_tags']) or None,
            forks=spec['forks'],
            cmdline=shlex.join(spec['options']) or None,
            envvars={'ANSIBLE_LOCAL_TEMP': place, **spec['env']},
            event_handler=self._event,
            cancel_callback=self._ended.is_set,
            quiet=True,
        )
        if done.status == 'canceled':
            events.say('ended before its end, as it was asked to')
        return int(done.rc or 0)


#: what lets the failure of some hosts end a play for all
STOPPERS = ('any_errors_fatal', 'max_fail_percentage')


def may_stop(spec: Spec) -> bool:
    """Tell whether the playbook, what lies beside it, or Ansible's settings may do that."""
    if spec['playbook'] is None:
        return False
    folder = pathlib.Path(spec['playbook']).parent
    texts = [p for p in folder.rglob('*') if p.suffix in ('.yaml', '.yml') and p.is_file()]
    texts.append(pathlib.Path(spec['directory']) / 'ansible.cfg')
    if any('ANY_ERRORS_FATAL' in name for name in spec['env']):
        return True
    return any(
        word in p.read_text(errors='replace') for p in texts if p.is_file() for word in STOPPERS
    )


def main() -> int:
    """Run the playbook of the argument; 0 once every host has an outcome."""
    spec = json.loads(sys.argv[1])
    os.umask(0o077)
    os.environ['PATH'] = f'{spec["bin"]}:{os.environ["PATH"]}'
    os.makedirs(spec['scratch'], mode=0o700, exist_ok=True)
    place = tempfile.mkdtemp(dir=spec['scratch'])
    play = Play(spec)
    signal.signal(signal.SIGTERM, play.end)
    try:
        rc = play.run(place)
    except ImportError as e:
        events.say(f'{e}: install upgrade-service[ansible] where the engine runs')
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for host, verdict in play.tally.verdicts(spec['hosts'], rc, may_stop(spec)).items():
        if rc and not play.tally.tasks:
            # it did not come as far as a task: the last line of the output says why
            return rc
        events.outcome(host, verdict.result, verdict.error, verdict.output, verdict.data)
    return 0


if __name__ == '__main__':
    sys.exit(main())
