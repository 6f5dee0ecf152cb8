"""Packages by dnf and rpm."""

from collections.abc import Iterable, Mapping, Sequence
import configparser
import fnmatch
import pathlib
import re

from upgrade_service import exception
from upgrade_service.strategies import base, package_tool

Op = base.Op
Change = package_tool.Change

KEPT = '/var/cache/upgrade-service/packages'
LOCKS = ('/var/lib/rpm/.rpm.lock', '/usr/lib/sysimage/rpm/.rpm.lock')
#: scriptlets of rpm packages call systemctl; it does nothing then but link unit files.
#: Debian's rpm looks for its database below HOME, so that is the same for every command.
_ENVIRONMENT = {'SYSTEMD_OFFLINE': '1', 'HOME': package_tool.ENVIRONMENT['HOME']}
#: headings of the table of a transaction -> whether what is below it goes away
_SECTIONS = {
    'Installing': False, 'Upgrading': False, 'Downgrading': False, 'Reinstalling': False,
    'Removing': True,
}  # fmt: skip
_ROW = re.compile(r'(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+([\d.]+ [kMGT]?)(?=\s|$)')


class Dnf(package_tool.Tool):
    """dnf 4 and rpm; in another tree than / by --installroot."""

    name = 'dnf'
    places = ('/usr', '/var/cache/dnf')
    kept_marks = ('.rpmnew',)

    def __init__(self, root: str = '/') -> None:
        super().__init__(root)
        self._chroot = ()
        away = self.root != '/'
        self._dnf = ('/usr/bin/dnf', *(('--installroot', self.root) if away else ()))
        self._rpm = ('/usr/bin/rpm', *(('--root', self.root) if away else ()))

    # -- looking -------------------------------------------------------------------------------

    def installed(self, patterns: Iterable[str]) -> dict[str, str]:
        """Ask rpm for all it has: several globs at once would have to fit together there.

        EVR has an epoch only where there is one.
        """
        patterns = list(patterns)
        if not patterns:
            return {}
        said = self.look(*self._rpm, '-qa', '--qf', '%{NAME}\\t%{EVR}\\n')
        rows = [line.split('\t') for line in said.out.splitlines() if '\t' in line]
        return {
            name: version
            for name, version in sorted(rows)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }

    def available(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Ask the repositories' metadata, as they were read last."""
        names = list(names)
        found: dict[str, list[str]] = {name: [] for name in names}
        if not names:
            return found
        form = '%{name}\t%{evr}'
        words = ('-q', '-C', 'repoquery', '--available', '--showduplicates', '--qf', form)
        said = self.look(*self._dnf, *words, *names)
        for line in said.out.splitlines():
            name, _, version = line.partition('\t')
            if version and version not in found.setdefault(name, []):
                found[name].insert(0, version)  # dnf lists the oldest first
        return found

    def installed_at(self, names: Iterable[str]) -> float:
        """Ask rpm's database."""
        said = self.look(*self._rpm, '-q', '--qf', '%{INSTALLTIME}\\n', *names)
        return max((float(t) for t in said.out.split() if t.isdigit()), default=0.0)

    def standing(self) -> list[str]:
        """Find a lock that somebody holds."""
        holders = [package_tool.holder(self.inside(lock)) for lock in LOCKS]
        return [
            f'the rpm database is held by {who}: wait until it has ended, or end it, then retry'
            for who in holders
            if who
        ]

    def held(self, names: Iterable[str]) -> list[str]:
        """Read the list of the versionlock plug-in."""
        path = pathlib.Path(self.inside('/etc/dnf/plugins/versionlock.list'))
        lines = path.read_text().split() if path.exists() else []
        return [n for n in names if any(re.match(rf'{re.escape(n)}-\d', line) for line in lines)]

    def unhold(self, names: Sequence[str]) -> str:
        """Name the command."""
        return f'dnf versionlock delete {" ".join(names)}'

    def refresh(self) -> str | None:
        """Run dnf makecache."""
        said = self.look(*self._dnf, '-q', '-y', 'makecache', '--refresh', timeout=600)
        if said.rc == 0:
            return None
        return f'the metadata cannot be read: {said.why}: mend its entry in /etc/yum.repos.d'

    def rehearse(self, wanted: Mapping[str, str], back: bool = False) -> list[Change]:
        """Have dnf solve the transaction and answer no."""
        verb = 'downgrade' if back else 'upgrade'
        said = self.look(*self._dnf, '-C', '--assumeno', verb, '--', *_pinned(wanted))
        changes = _table(said.out)
        if not changes and wanted:
            raise exception.Refused(reason=f'dnf: {said.why}')
        there = self.installed([c.name for c in changes])
        found = [Change(c.name, there.get(c.name), c.new) for c in changes]
        missed = sorted(wanted.keys() - {c.name for c in found})
        if missed:
            raise exception.Refused(reason=f'dnf would leave out {", ".join(missed[:5])}')
        return found

    def untrusted(self, wanted: Mapping[str, str]) -> list[str]:
        """Return the enabled repositories whose packages are installed unchecked."""
        main = configparser.RawConfigParser(strict=False)
        main.read(self.inside('/etc/dnf/dnf.conf'))
        usual = main.get('main', 'gpgcheck', fallback='0')
        bad = []
        for path in sorted(pathlib.Path(self.inside('/etc/yum.repos.d')).glob('*.repo')):
            entries = configparser.RawConfigParser(strict=False)
            entries.read(path)
            bad += [name for name in entries.sections() if _unchecked(entries[name], usual)]
        return bad

    def upgradable(self) -> dict[str, str]:
        """Ask for updates; status 100 says that there are some."""
        said = self.look(*self._dnf, '-q', 'check-update')
        if said.rc not in (0, 100):
            raise exception.Refused(reason=f'dnf check-update: {said.why}')
        rows = [line.split() for line in said.out.partition('Obsoleting')[0].splitlines()]
        return {row[0].rpartition('.')[0]: row[1] for row in rows if len(row) == 3}

    # -- operations ----------------------------------------------------------------------------

    def _run(self, title: str, *words: str, **more: object) -> Op:
        return Op(
            do='run',
            title=title,
            argv=(*self._dnf, '-y', *words),
            env=_ENVIRONMENT,
            timeout=3600,
            **more,  # type: ignore[arg-type]
        )

    def fetch(self, wanted: Mapping[str, str], before: Mapping[str, str]) -> list[Op]:
        """Download without installing; what is in use now goes to a place of its own."""
        kept = self.inside(KEPT)
        words = ('--downloadonly', '--destdir', kept, 'reinstall', '--', *_pinned(before))
        return [
            self._run(
                f'download {len(wanted)} packages',
                *('--downloadonly', 'upgrade', '--', *_pinned(wanted)),
            ),
            Op(do='mkdir', title='make room for the way back', path=kept),
            self._run('keep what is installed now', *words, exits={0: 'done', 1: 'warning'}),
        ]

    def change(self, wanted: Mapping[str, str], mark: str) -> base.Job:
        """Run one transaction, with our mark in dnf's history."""
        words = (f'--comment={mark}', 'upgrade', '--', *_pinned(wanted))
        return base.Job(ops=(self._run(f'install {len(wanted)} packages', *words),), timeout=3600)

    def back(self, before: Mapping[str, str | None], mark: str) -> base.Job:
        """Undo our transaction in dnf's history; without it, downgrade."""
        number = self._marked(mark)
        if number is not None:
            words: tuple[str, ...] = ('history', 'undo', number)
        else:
            words = ('downgrade', '--', *_pinned({n: v for n, v in before.items() if v}))
        op = self._run(f'bring back {len(before)} packages', *words)
        return base.Job(ops=(op,), timeout=3600)

    def _marked(self, mark: str) -> str | None:
        listed = self.look(*self._dnf, 'history', 'list')
        numbers = [line.split('|')[0].strip() for line in listed.out.splitlines()]
        for number in [n for n in numbers if n.isdigit()][:20]:
            if mark in self.look(*self._dnf, 'history', 'info', number).out:
                return number
        return None


def _pinned(wanted: Mapping[str, str]) -> list[str]:
    return [f'{name}-{version}' for name, version in sorted(wanted.items())]


def _unchecked(entry: configparser.SectionProxy, usual: str) -> bool:
    on = entry.get('enabled', '1').lower() in ('1', 'true', 'yes')
    return on and entry.get('gpgcheck', usual).lower() not in ('1', 'true', 'yes')


def _table(text: str) -> list[Change]:
    """Read the table that dnf shows before it asks; long rows are broken in two."""
    found: list[Change] = []
    for part in re.split(r'^(?=\w[\w ]*:$)', text, flags=re.M):
        heading, _, rows = part.partition(':\n')
        gone = _SECTIONS.get(heading.split(' ')[0])
        if gone is not None and heading[:1].isupper():
            rows = rows.partition('\n\n')[0]
            found += [Change(r[1], None, None if gone else r[3]) for r in _ROW.finditer(rows)]
    return found
