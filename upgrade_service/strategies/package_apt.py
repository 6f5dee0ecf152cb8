"""Packages by apt and dpkg."""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
import re
import shlex

from upgrade_service import exception
from upgrade_service.strategies import base, package_tool

Op = base.Op
Change = package_tool.Change

POLICY = '/usr/sbin/policy-rc.d'
#: where a policy-rc.d of the operator waits until the transaction is over
POLICY_KEPT = '/usr/sbin/policy-rc.d.upgrade-service'
LOCK = '/run/upgrade-service-packages.lock'
#: archives of what was installed before, for the way back
KEPT = '/var/cache/upgrade-service/packages'
_MARK = '# written by upgrade-service'
_OPTIONS = (
    '-y', '-o', f'DPkg::Lock::Timeout={package_tool.LOCK_WAIT}', '-o', 'Dpkg::Use-Pty=0',
    '-o', 'Dpkg::Options::=--force-confdef', '-o', 'Dpkg::Options::=--force-confold',
)  # fmt: skip
#: nobody is asked, and nothing but the plan restarts anything
_ENVIRONMENT = {
    'DEBIAN_FRONTEND': 'noninteractive',
    'APT_LISTCHANGES_FRONTEND': 'none',
    'NEEDRESTART_SUSPEND': '1',
    'UCF_FORCE_CONFFOLD': '1',
}
_INST = re.compile(r'^Inst (\S+) (?:\[(\S+)\] )?\((\S+) ')
_REMV = re.compile(r'^(?:Remv|Purg) (\S+) \[(\S+)\]')


def policy() -> str:
    """Return a policy-rc.d that forbids starts only while our transaction holds its lock.

    Should it be left behind, by a kill or a power cut, then it forbids nothing and asks
    the operator's own script, if there was one.
    """
    kept, lock = shlex.quote(POLICY_KEPT), shlex.quote(LOCK)
    return (
        f'#!/bin/sh\n{_MARK}: services are restarted by the plan, not by packages.\n'
        f'/usr/bin/flock --shared --nonblock {lock} /bin/true\n'
        '[ $? = 1 ] && exit 101\n'
        f'[ ! -x {kept} ] || exec {kept} "$@"\nexit 0\n'
    )


class Apt(package_tool.Tool):
    """apt-get, dpkg-query and apt-cache."""

    name = 'apt'
    places = ('/usr', '/var/cache/apt/archives')
    kept_marks = ('.dpkg-dist', '.ucf-dist')

    # -- looking -------------------------------------------------------------------------------

    def _states(self, patterns: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return {name: (version, two letters: what is wanted and what is)}."""
        form = '${Package}\t${Version}\t${db:Status-Abbrev}\n'
        patterns = list(patterns)
        if not patterns:
            return {}
        said = self.look('/usr/bin/dpkg-query', '-W', '-f', form, '--', *patterns)
        rows = [line.split('\t') for line in said.out.splitlines()]
        return {name: (version, state) for name, version, state in rows if state[1:2] not in 'nc'}

    def installed(self, patterns: Iterable[str]) -> dict[str, str]:
        """Return {name: version}; what is half-way installed counts."""
        return {name: version for name, (version, _) in sorted(self._states(patterns).items())}

    def available(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Ask apt's cache."""
        names = list(names)
        found: dict[str, list[str]] = {name: [] for name in names}
        if not names:
            return found
        for line in self.look('/usr/bin/apt-cache', 'madison', '--', *names).out.splitlines():
            name, version, _ = (part.strip() for part in line.split('|', 2))
            if version not in found.setdefault(name, []):
                found[name].append(version)
        return found

    def installed_at(self, names: Iterable[str]) -> float:
        """Read it from the list of files that dpkg writes when it unpacks."""
        info = pathlib.Path(self.inside('/var/lib/dpkg/info'))
        times = [
            path.stat().st_mtime
            for name in names
            for path in (info / f'{name}.list', *info.glob(f'{name}:*.list'))
            if path.exists()
        ]
        return max(times, default=0.0)

    def standing(self) -> list[str]:
        """Find a lock that somebody holds, and what an interrupted dpkg left."""
        wrong = []
        for lock in ('/var/lib/dpkg/lock-frontend', '/var/lib/dpkg/lock'):
            holder = package_tool.holder(self.inside(lock))
            if holder:
                wrong.append(
                    f'{lock} is held by {holder}: wait until it has ended, or end it, then retry'
                )
        broken = self._half_installed()
        if broken or os.listdir(self.inside('/var/lib/dpkg/updates')):
            named = f' ({", ".join(broken[:5])})' if broken else ''
            wrong.append(f'dpkg was interrupted{named}: run `dpkg --configure -a`, then retry')
        return wrong

    def _half_installed(self) -> list[str]:
        states = self._states(['*'])
        return [name for name, (_, state) in sorted(states.items()) if state[1:2] in 'FHUWt']

    def held(self, names: Iterable[str]) -> list[str]:
        """Read dpkg's selections."""
        states = self._states(names)
        return [name for name, (_, state) in sorted(states.items()) if state.startswith('h')]

    def unhold(self, names: Sequence[str]) -> str:
        """Name the command."""
        return f'apt-mark unhold {" ".join(names)}'

    def refresh(self) -> str | None:
        """Run apt-get update; a repository that fails or is not signed is an error."""
        lock = f'DPkg::Lock::Timeout={package_tool.LOCK_WAIT}'
        options = ('-qq', '-o', lock, '-o', 'APT::Update::Error-Mode=any')
        said = self.look('/usr/bin/apt-get', *options, 'update', timeout=600)
        if said.rc == 0:
            return None
        mend = 'mend its entry in /etc/apt/sources.list.d'
        if 'not signed' in said.err or 'NO_PUBKEY' in said.err or 'signatures' in said.err:
            mend = 'sign it, or install its key and name that with Signed-By'
        return f'the package lists cannot be read: {said.why}: {mend}'

    def rehearse(self, wanted: Mapping[str, str], back: bool = False) -> list[Change]:
        """Run apt-get -s."""
        return self._simulated(_pinned(wanted), '--allow-downgrades' if back else '--only-upgrade')

    def _simulated(self, words: Sequence[str], *options: str) -> list[Change]:
        said = self.look('/usr/bin/apt-get', '-s', '-qq', '-y', 'install', *options, '--', *words)
        if said.rc:
            raise exception.Refused(reason=f'apt-get -s: {_reason(said)}')
        return _changes(said.out)

    def untrusted(self, wanted: Mapping[str, str]) -> list[str]:
        """Compare where the archives come from with what apt trusts."""
        words = ('install', '--only-upgrade', '--print-uris', '--', *_pinned(wanted))
        said = self.look('/usr/bin/apt-get', '-qq', '-y', *words)
        uris = [line.split("'")[1] for line in said.out.splitlines() if line.startswith("'")]
        targets = self.look(
            '/usr/bin/apt-get', 'indextargets', '--format', '$(REPO_URI) $(TRUSTED)'
        )
        rows = {tuple(line.split()) for line in targets.out.splitlines() if ' ' in line}
        bad = sorted(row[0] for row in rows if row[-1] == 'no')
        return [repo for repo in bad if any(uri.startswith(repo) for uri in uris)]

    def upgradable(self) -> dict[str, str]:
        """Simulate an upgrade of everything."""
        said = self.look('/usr/bin/apt-get', '-s', '-qq', '-y', 'upgrade', '--with-new-pkgs')
        if said.rc:
            raise exception.Refused(reason=f'apt-get -s upgrade: {_reason(said)}')
        return {c.name: c.new for c in _changes(said.out) if c.old and c.new}

    # -- operations ----------------------------------------------------------------------------

    def _run(self, title: str, *words: str, locked: bool = False, **more: object) -> Op:
        held = ('/usr/bin/flock', LOCK) if locked else ()
        return Op(
            do='run',
            title=title,
            argv=(*self._chroot, *held, '/usr/bin/apt-get', *_OPTIONS, *words),
            env=_ENVIRONMENT,
            timeout=3600,
            **more,  # type: ignore[arg-type]
        )

    def fetch(self, wanted: Mapping[str, str], before: Mapping[str, str]) -> list[Op]:
        """Download without unpacking; what is in use now goes to a place of its own."""
        keep = ('-o', f'Dir::Cache::archives={KEPT}', 'install', '--download-only', '--reinstall')
        return [
            self._run(
                f'download {len(wanted)} packages',
                *('install', '--download-only', '--only-upgrade', '--', *_pinned(wanted)),
            ),
            Op(
                do='mkdir', title='make room for the way back', path=self.inside(f'{KEPT}/partial')
            ),
            self._run(
                'keep what is installed now for the way back',
                *(*keep, '--allow-downgrades', '--', *_pinned(before)),
                exits={0: 'done', 100: 'warning'},
            ),
        ]

    def change(self, wanted: Mapping[str, str], mark: str) -> base.Job:
        """Run one apt-get install, in a time without starts of services."""
        return self._transaction(
            f'install {len(wanted)} packages',
            ('install', '--only-upgrade', '--', *_pinned(wanted)),
        )

    def back(self, before: Mapping[str, str | None], mark: str) -> base.Job:
        """Downgrade to what was there, from the repositories or from what was kept."""
        there = self.available([name for name, version in before.items() if version])
        words = [
            f'{name}-' if version is None else self._source(name, version, there.get(name, []))
            for name, version in sorted(before.items())
        ]
        lost = [c.name for c in self._simulated(words, '--allow-downgrades') if c.new is None]
        strangers = sorted(set(lost) - before.keys())
        if strangers:
            raise exception.Refused(
                reason=f'the way back would remove {", ".join(strangers[:5])}: downgrade by hand'
            )
        return self._transaction(
            f'bring back {len(before)} packages',
            ('install', '--allow-downgrades', '--', *words),
        )

    def _source(self, name: str, version: str, there: Sequence[str]) -> str:
        if version in there:
            return f'{name}={version}'
        stem = f'{name}_{version.replace(":", "%3a")}_'
        kept = sorted(pathlib.Path(self.inside(KEPT)).glob(f'{stem}*.deb'))
        if not kept:
            raise exception.Refused(
                reason=f'no copy of {name} {version} is left: put it into {KEPT} or into a '
                'repository, then retry'
            )
        return f'{KEPT}/{kept[0].name}'

    def _transaction(self, title: str, words: Sequence[str]) -> base.Job:
        script, kept = self.inside(POLICY), self.inside(POLICY_KEPT)
        own = os.path.lexists(script) and not _ours(script)
        theirs = own or os.path.lexists(kept)
        put_aside = [Op(do='rename', title='put policy-rc.d aside', path=script, target=kept)]
        ended = (
            Op(do='rename', title='put policy-rc.d back', path=kept, target=script)
            if theirs
            else Op(do='remove', title='let services start again', path=script)
        )
        return base.Job(
            ops=(
                *(put_aside if own else ()),
                Op(
                    do='write',
                    title='keep services as they are',
                    path=script,
                    text=policy(),
                    mode=0o755,
                ),
                self._configure(),
                self._run(title, *words, locked=True),
            ),
            always=(ended,),
            timeout=3600,
            roots=(os.path.dirname(script),),
        )

    def _configure(self) -> Op:
        """Finish what an earlier attempt left half-way; a package that cannot be is replaced."""
        return Op(
            do='run',
            title='finish what was interrupted',
            argv=(*self._chroot, '/usr/bin/flock', LOCK, '/usr/bin/dpkg', '--configure', '-a'),
            env=_ENVIRONMENT,
            exits={0: 'done', 1: 'warning', 2: 'failed'},
            timeout=3600,
        )


def _pinned(wanted: Mapping[str, str]) -> list[str]:
    return [f'{name}={version}' for name, version in sorted(wanted.items())]


def _changes(text: str) -> list[Change]:
    found = []
    for line in text.splitlines():
        if inst := _INST.match(line):
            found.append(Change(inst[1], inst[2], inst[3]))
        elif remv := _REMV.match(line):
            found.append(Change(remv[1], remv[2], None))
    return found


def _reason(said: package_tool.Said) -> str:
    """Return what apt says of unmet dependencies, rather than that there are some."""
    lines = [line.strip() for line in said.out.splitlines()]
    unmet = [line for line in lines if ' : ' in line]
    return '; '.join([said.why, *unmet[:3]])[:500]


def _ours(script: str) -> bool:
    try:
        return _MARK in pathlib.Path(script).read_text(errors='replace')[:200]
    except OSError:
        return False
