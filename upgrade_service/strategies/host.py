"""The operating system of a host: its packages, its kernel, a restart where one is needed.

Libvirt, QEMU, Open vSwitch and the kernel are packages like any other; what is to be taken
stands in ``engine.d/host.yaml``. The packages of OpenStack's projects are never among them:
those have strategies of their own. Neither kind can be undone.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
from typing import Any

from upgrade_service import exception
from upgrade_service.strategies import base, package, package_tool
from upgrade_service.strategies import source as sources
from upgrade_service.strategies import source_layout as layouts

_PATH = {'type': 'string', 'pattern': r'^/[^\n]*\Z'}
SETTINGS_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        'backend': {'enum': ['apt', 'dnf']},
        'root': _PATH,
        'packages': {'anyOf': [{'const': 'all'}, package.NAMES]},
        'exclude': package.NAMES,
        'reboot': {'enum': ['required', 'always', 'never']},
        'services': {'type': 'array', 'items': {'type': 'string', 'pattern': '^[^-]'}},
        'systemctl': _PATH,
        'min_free_mb': {'type': 'integer', 'minimum': 0},
    },
}
#: files by which Debian's packages ask for a restart of the host
_ASKED = ('/run/reboot-required', '/var/run/reboot-required')
_BOOT_ID = '/proc/sys/kernel/random/boot_id'
Op = base.Op


class System:
    """A host as its settings let it be seen."""

    def __init__(self, site: base.Site) -> None:
        self.settings = site.settings
        self.tool = package_tool.choose(str(site.settings.get('root', '/')), site.settings)
        self.systemctl = str(site.settings.get('systemctl', '/usr/bin/systemctl'))
        self.state_dir = site.state_dir
        names = site.projects.names() if site.projects is not None else ()
        self._projects = [
            glob for p in names for glob in (p, f'{p}-*', f'python3-{p}', f'openstack-{p}*')
        ]

    # -- packages ------------------------------------------------------------------------------

    def behind(self) -> dict[str, str]:
        """Return {package: version} of what is to be taken from the enabled repositories."""
        wanted = self.settings.get('packages', 'all')
        excluded = [*self.settings.get('exclude', ()), *self._projects]
        return {
            name: version
            for name, version in self.tool.upgradable().items()
            if (wanted == 'all' or layouts.fits(name, wanted)) and not layouts.fits(name, excluded)
        }

    def hurdles(self, rehearsal: bool) -> list[str]:
        """Say what would keep an upgrade of the packages from succeeding."""
        wrong = self.tool.standing()
        if not wrong and not rehearsal and (why := self.tool.refresh()):
            wrong = [why]
        if wrong:
            return wrong
        try:
            wanted = self.behind()
            self._removed(wanted)
        except exception.Refused as e:
            return [str(e)]
        if repositories := self.tool.untrusted(wanted) if wanted else []:
            wrong.append(
                f'no valid signature on {", ".join(repositories[:3])}: sign it, or install its '
                'key and name that with Signed-By'
            )
        return wrong + self._room()

    def _removed(self, wanted: Mapping[str, str]) -> None:
        lost = [c.name for c in self.tool.rehearse(wanted) if c.new is None] if wanted else []
        if lost:
            raise exception.Refused(
                reason=f'it would remove {", ".join(lost[:5])}: exclude what asks for that in '
                'host.yaml, or do it by hand'
            )

    def _room(self) -> list[str]:
        wanted, wrong = int(self.settings.get('min_free_mb', 1024)), []
        for path in map(self.tool.inside, self.tool.places):
            free = shutil.disk_usage(path).free // 2**20 if os.path.isdir(path) else wanted
            if free < wanted:
                wrong.append(f'only {free} MiB are free in {path}: make room')
        return wrong

    # -- the restart ---------------------------------------------------------------------------

    def asked(self) -> str:
        """Say why the host must restart, or ''."""
        if any(os.path.exists(self.tool.inside(path)) for path in _ASKED):
            return 'packages ask for it (/run/reboot-required)'
        newest = self.newest_kernel()
        if newest and newest != platform.release():
            return f'kernel {newest} is installed, {platform.release()} runs'
        return ''

    def newest_kernel(self) -> str | None:
        """Return the newest kernel installed, of the flavour that runs; None: it is not ours."""
        running = platform.release()
        flavour = re.sub(r'^[\d.~+-]+', '', running)
        found = [
            path.name.removeprefix('vmlinuz-')
            for path in pathlib.Path(self.tool.inside('/boot')).glob('vmlinuz-*')
        ]
        found = [name for name in found if re.sub(r'^[\d.~+-]+', '', name) == flavour]
        # a container has no kernel of its own; neither has a host that boots from the network
        return max(found, key=_numbers) if running in found else None

    def restart(self, step: str) -> dict[str, Any] | None:
        """Return what was written down before the restart of a step, or None."""
        try:
            found: dict[str, Any] = json.loads(pathlib.Path(self.record).read_text())
        except (OSError, ValueError):
            return None
        return found if found.get('step') == step else None

    @property
    def record(self) -> str:
        """Where that is kept."""
        return f'{self.state_dir}/restart.json'

    def enabled(self) -> list[str]:
        """Return the services that are to run after a restart: enabled, and active now."""
        return [u['Id'] for u in self._units() if u.get('ActiveState') == 'active']

    def down(self, names: list[str]) -> list[str]:
        """Return those of some services that are not up."""
        states = {u['Id']: u.get('ActiveState', '') for u in self._units()}
        return [f'{name} is {states.get(name)}' for name in names if states.get(name) != 'active']

    def _units(self) -> list[dict[str, str]]:
        patterns = self.settings.get('services') or ['*.service']
        argv = [self.systemctl, 'show', '--all', '-p', layouts.PROPERTIES, '--', *patterns]
        try:
            said = subprocess.run(
                argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.SubprocessError) as e:
            raise exception.Refused(reason=f'systemd does not answer: {e}') from e
        rows = [
            dict(line.partition('=')[::2] for line in block.splitlines())
            for block in said.split('\n\n')
            if block.strip()
        ]
        return [r for r in rows if 'Id' in r and r.get('UnitFileState', '').startswith('enabled')]


class HostUpgradeStrategy(base.UpgradeStrategy):
    """Operating-system packages and restarts."""

    name = 'host'
    summary = 'operating-system packages, kernel and restarts of hosts'
    unit_of_change = 'host'
    kinds = frozenset({'check_host', 'prefetch', 'upgrade_host', 'reboot_host', 'verify_host'})
    settings_schema = SETTINGS_SCHEMA

    def facts(self, site: base.Site) -> dict[str, Any]:
        """Report the kernel, and whether a restart is asked for."""
        system = System(site)
        return {
            'machine': {
                'kernel': platform.release(),
                'newest_kernel': system.newest_kernel(),
                'restart': system.asked(),
            }
        }

    def check(self, task: base.Task, site: base.Site) -> bool:
        """Tell whether nothing is left to do.

        Of a restart it is asked twice: before it, and again and again after it.
        """
        system = System(site)
        if task.kind == 'upgrade_host':
            return not system.tool.standing() and not system.behind()
        if task.kind != 'reboot_host':
            return False
        done = system.restart(task.step)
        if done is not None:
            return not self._missing(system, done)
        rule = system.settings.get('reboot', 'required')
        return rule == 'never' or (rule == 'required' and not system.asked())

    @staticmethod
    def _missing(system: System, done: Mapping[str, Any]) -> list[str]:
        """Say what is not as it should be after a restart."""
        if _boot_id() == done['boot_id']:
            return ['the host has not restarted']
        wrong = system.down(list(done['services']))
        if done['kernel'] and platform.release() != done['kernel']:
            wrong.append(f'kernel {platform.release()} runs, not {done["kernel"]}')
        return wrong

    def run(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Make the job of a step; look at once."""
        system = System(site)
        if task.kind == 'check_host':
            return sources.verdict(system.hurdles(site.rehearsal), {})
        if task.kind == 'verify_host':
            return self._verify(task, system)
        if task.kind == 'reboot_host':
            return self._restart(task, system)
        wanted = system.behind()
        if task.kind == 'prefetch':
            ops = system.tool.fetch(wanted, {})[:1] if wanted else []
            return base.Job(ops=tuple(ops), timeout=3600, interruptible=True)
        return self._upgrade(task, system, wanted)

    def undo(self, task: base.Task, site: base.Site) -> base.Job | base.Outcome:
        """Refuse: what was before is not kept."""
        raise exception.Refused(reason=f'{task.kind} cannot be undone')

    def _upgrade(self, task: base.Task, system: System, wanted: dict[str, str]) -> base.Job:
        job = system.tool.change(wanted, f'upgrade-service-{task.step}')
        mark = f'{system.state_dir}/upgrade_host'
        begun = Op(do='write', title='write down that it begins', path=mark, text=task.step)
        data = {'packages': [f'{n}={v}' for n, v in sorted(wanted.items())][:40]}
        ops = (begun, *job.ops, system.tool.report(mark)) if wanted else ()
        return base.Job(
            **{**vars(job), 'ops': ops, 'always': job.always if wanted else (), 'data': data}
        )

    def _restart(self, task: base.Task, system: System) -> base.Job:
        """Write down what is now, and have systemd restart the host; never a second time."""
        if system.restart(task.step) is not None:
            raise exception.Refused(
                reason='the host was restarted for this step already: look at it, skip the step'
            )
        services = system.enabled()
        told = {
            'step': task.step,
            'boot_id': _boot_id(),
            'kernel': system.newest_kernel(),
            'services': services,
        }
        return base.Job(
            ops=(
                Op(
                    do='write',
                    title=f'write down the boot and {len(services)} services',
                    path=system.record,
                    text=json.dumps(told, indent=1),
                    mode=0o600,
                ),
                Op(
                    do='run',
                    title='restart the host',
                    argv=(system.systemctl, 'reboot', '--no-block'),
                    timeout=60,
                ),
            ),
            timeout=task.timeout,
            reboots=True,
        )

    def _verify(self, task: base.Task, system: System) -> base.Outcome:
        """Read back what the package database and systemd say."""
        wrong = [*system.tool.standing()]
        if not wrong and (left := system.behind()):
            wrong.append(f'{len(left)} packages are behind: {", ".join(sorted(left)[:5])}')
        rule = system.settings.get('reboot', 'required')
        if rule != 'never' and (why := system.asked()):
            wrong.append(f'a restart is still wanted: {why}')
        return sources.verdict(wrong, {'kernel': platform.release(), 'boot_id': _boot_id()})


def _boot_id() -> str:
    return pathlib.Path(_BOOT_ID).read_text().strip()


def _numbers(version: str) -> list[tuple[int, str]]:
    """Return a key that orders kernel versions: 6.1.0-10 comes after 6.1.0-9."""
    parts = re.findall(r'\d+|[^\d.+~-]+', version)
    return [(int(p), '') if p.isdigit() else (-1, p) for p in parts]
