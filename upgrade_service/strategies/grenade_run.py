"""Drives grenade: its checkouts, the whole of `grenade.sh`, or one project's scripts.

``python -m upgrade_service.strategies.grenade_run SPEC``, as the user that owns the
checkouts: SPEC is JSON, made by the strategy from the settings of the engine. Grenade says
where it is in *summary* lines; they become progress, and they prove which phases ran: an
exit status of 0 alone does not count as an upgrade.

The order of phases and their words are those of grenade.sh, inc/plugin and inc/upgrade of
openstack/grenade (0a5e3bf).
"""

import collections
from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import pwd
import re
import subprocess
import sys
import threading
from typing import Any

from upgrade_service.strategies import events

Spec = Mapping[str, Any]
#: exit statuses of our own
UNFIT, INCOMPLETE = 78, 79
#: beginning of a summary line -> name of the phase, in the order of a run
PHASES = (
    ('Running base stack.sh', 'base'),
    ('Caching downloaded images', 'images'),
    ('Running base smoke test', 'base smoke test'),
    ('Running resource phase: early_create', 'early_create'),
    ('Running resource phase: create', 'create'),
    ('Running resource phase: verify pre-upgrade', 'verify pre-upgrade'),
    ('Saving current state information', 'save-state'),
    ('Shutting down all services on base devstack', 'shutdown'),
    ('Running resource phase: verify_noapi pre-upgrade', 'verify_noapi'),
    ('Preparing the target devstack environment', 'prep-target'),
    ('Upgrading ', 'upgrade'),
    ('Running upgrade-tempest', 'upgrade-tempest'),
    ('Running resource phase: verify post-upgrade', 'verify post-upgrade'),
    ('Running tempest smoke tests', 'target smoke test'),
    ('Dumping ', 'save databases'),
    ('Running resource phase: destroy', 'destroy'),
    ('Grenade has completed', 'done'),
)
_DATED = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| ')
#: lines of the full log that are shown of a run that failed, and their length
TAIL, WIDTH = 30, 180


class Phases:
    """What the summary lines say so far."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.last = ''

    def line(self, text: str) -> bool:
        """Take a summary line; True if it begins a phase."""
        text = _DATED.sub('', text).strip()
        for number, (begins, phase) in enumerate(PHASES):
            if text.startswith(begins):
                self.seen.append(phase)
                self.last = text
                events.progress(text, number, len(PHASES))
                return True
        return False

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Return the phases that should have been, and were not."""
        return [phase for phase in wanted if phase not in self.seen]


def wanted_phases(env: Mapping[str, str]) -> list[str]:
    """Return the phases that prove a run: resources are looked at unless that is turned off."""
    proved = ['shutdown', 'prep-target', 'upgrade']
    if env.get('VERIFY_RESOURCES', 'True') == 'True':
        proved += ['create', 'verify pre-upgrade', 'verify post-upgrade']
    return [*proved, 'done']


def run(spec: Spec) -> int:
    """Run grenade.sh from its beginning to its end."""
    phases = Phases()
    rc = _summarised([f'{spec["directory"]}/grenade.sh', '-q'], spec, phases)
    if rc:
        _log(spec)
        events.say(f'grenade.sh ended with status {rc} in phase: {phases.last or "the first"}')
        return rc if rc > 0 else 1
    missing = phases.missing(wanted_phases(spec['env']))
    if missing:
        events.say(f'grenade.sh ended well but never came to: {", ".join(missing)}')
        return INCOMPLETE
    return 0


def _summarised(argv: Sequence[str], spec: Spec, phases: Phases) -> int:
    """Run a program whose output is its summary (-q); print it, and take the phases."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        cwd=spec['directory'],
        env=_environment(spec),
    ) as process:
        for line in process.stdout or ():
            phases.line(line)
            events.say(line.rstrip('\n')[:4000])
    return process.returncode


def _environment(spec: Spec) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k in ('PATH', 'LANG', 'LC_ALL')},
            'HOME': pwd.getpwuid(os.geteuid()).pw_dir, **spec['env']}  # fmt: skip


def _log(spec: Spec) -> None:
    """Show the end of grenade's own log: the summary does not say why."""
    log = pathlib.Path(spec['env']['STACK_ROOT']) / 'logs' / 'grenade.sh.log'
    try:
        with log.open(errors='replace') as f:
            lines = list(collections.deque(f, TAIL))
    except OSError:
        return
    events.say(f'--- the end of {log}')
    events.say('\n'.join(line.rstrip()[:WIDTH] for line in lines))


# -- one project's scripts -----------------------------------------------------------------------


def project(spec: Spec) -> int:
    """Shut a project of the base down and upgrade it: what grenade.sh does for each."""
    place = _place(spec)
    for number, name in enumerate(('shutdown.sh', 'upgrade.sh')):
        script = place / name
        if name == 'shutdown.sh' and not script.exists():
            continue  # grenade.sh too goes on without one
        events.progress(f'{place.name}: {name}', number, 2)
        rc = _script([str(script)], spec)
        if rc:
            events.say(f'{script} ended with status {rc}')
            return rc if rc > 0 else 1
    return 0


def verify(spec: Spec) -> int:
    """Ask the project's own script whether its resources survived the upgrade."""
    script = _place(spec) / 'resources.sh'
    if not script.exists():
        events.say(f'{script} is not there: grenade verifies nothing of {spec["project"]}')
        return 0
    rc = _script([str(script), 'verify', 'post-upgrade'], spec)
    if rc:
        events.say(f'{script} verify post-upgrade ended with status {rc}')
    return rc if rc >= 0 else 1


def _place(spec: Spec) -> pathlib.Path:
    found = sorted((pathlib.Path(spec['directory']) / 'projects').glob(f'*_{spec["project"]}'))
    if len(found) != 1:
        raise FileNotFoundError(f'grenade has no projects/*_{spec["project"]}')
    return found[0]


def _script(argv: Sequence[str], spec: Spec) -> int:
    """Run a script of a project; what it summarises (descriptor 6) is progress."""
    ours, theirs = os.pipe()
    os.dup2(theirs, 6)
    os.close(theirs)
    env = {
        **_environment(spec),
        'GRENADE_DIR': spec['directory'],
        'TOP_DIR': spec['env']['TARGET_DEVSTACK_DIR'],
    }
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        cwd=spec['directory'],
        env=env,
        pass_fds=(6,),
    ) as process:
        os.close(6)
        reader = threading.Thread(target=_read_summary, args=(ours,), daemon=True)
        reader.start()
        for line in process.stdout or ():
            events.say(line.rstrip('\n')[:4000])
    reader.join(2)
    return process.returncode


def _read_summary(descriptor: int) -> None:
    with os.fdopen(descriptor, errors='replace') as f:
        for line in f:
            events.progress(line.strip())


# -- before anything is changed ------------------------------------------------------------------


def check(spec: Spec) -> int:
    """Look at the checkouts and at what grenade needs; list everything that is wrong."""
    wrong = [fault for one in spec['checkouts'] for fault in _checkout(one)]
    wrong += [
        f'{path} is not there or cannot be run'
        for path in spec['needed']
        if not os.access(path, os.X_OK if path.endswith('.sh') else os.R_OK)
    ]
    if os.geteuid() == 0:
        wrong.append('grenade refuses to run as root: name another `user` in grenade.yaml')
    elif subprocess.run(
        ['/usr/bin/sudo', '-n', '/bin/true'], capture_output=True, stdin=subprocess.DEVNULL
    ).returncode:
        wrong.append('sudo asks for a password: grenade needs it without one')
    for sentence in wrong:
        events.say(sentence)
    if wrong:
        events.say('; '.join(wrong)[:1000])
    return UNFIT if wrong else 0


def _checkout(one: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a checkout: not there, not the commit, or changed by hand."""
    path = one['path']
    git = ['/usr/bin/git', '-c', f'safe.directory={path}', '-C', path]
    try:
        head = _said([*git, 'rev-parse', 'HEAD'])
        changed = _said([*git, 'status', '--porcelain', '--untracked-files=no']).splitlines()
    except (OSError, subprocess.SubprocessError):
        return [f'{path} is no git checkout: clone it there']
    found = []
    if one.get('commit') and head.strip() != one['commit']:
        found.append(
            f'{path} is at {head.strip()}, not at {one["commit"]}: git -C {path} checkout '
            f'{one["commit"]}'
        )
    if changed:
        names = ', '.join(line[3:] for line in changed[:5])
        found.append(
            f'{path} has changes ({names}): commit them or git -C {path} checkout -- . ; what '
            'is run must be what was named'
        )
    return found


def _said(argv: Sequence[str]) -> str:
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    return done.stdout


_WHAT = {'check': check, 'run': run, 'project': project, 'verify': verify}


def main() -> int:
    """Do what the argument says; 0 if it went well."""
    spec = json.loads(sys.argv[1])
    try:
        return _WHAT[spec['what']](spec)
    except OSError as e:
        events.say(str(e))
        return UNFIT


if __name__ == '__main__':
    sys.exit(main())
