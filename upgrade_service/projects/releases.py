"""OpenStack's releases, and which version of a deliverable belongs to which of them.

The data come from the openstack/releases repository (``tools/refresh-releases`` renews
them). Releases are ordered by their place there, never by comparing their names.
"""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import re
from typing import Any

from packaging import version as pkg_version
import yaml

_FILE = pathlib.Path(__file__).parent / 'openstack-releases.yaml'
# libyaml reads the file ten times as fast; both loaders are the safe ones
_SAFE = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
#: pbr's marks of a version between two tags, a distribution's of its own revisions
_NUMBERS = re.compile(r'(?:\d+:)?(\d+(?:\.\d+)*)(.*)')
_PRERELEASE = re.compile(r'^[.~]?(0?a|0?b|0?rc|dev)\d*', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, order=True)
class Release:
    """A coordinated release; comparison is by age."""

    ordinal: int
    id: str = dataclasses.field(compare=False)  #: '2026.1'
    name: str = dataclasses.field(compare=False)  #: 'gazpacho'
    slurp: bool = dataclasses.field(compare=False)
    status: str = dataclasses.field(compare=False)  #: 'maintained', 'future' …


class Releases:
    """The release graph, and the versions of every deliverable in it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._all = [
            Release(
                ordinal=n,
                id=str(s['id']),
                name=s['name'],
                slurp=bool(s['slurp']),
                status=s['status'],
            )
            for n, s in enumerate(data['series'])
        ]
        self._by_ref = {ref: r for r in self._all for ref in (r.name, r.id)}
        #: deliverable -> {release: versions, oldest first}
        self._versions: dict[str, dict[Release, list[str]]] = {
            deliverable: {
                self._by_ref[name]: [str(v) for v in facts['versions']]
                for name, facts in series.items()
                if name in self._by_ref
            }
            for deliverable, series in data['deliverables'].items()
        }

    def all(self) -> list[Release]:
        """List the releases, oldest first."""
        return list(self._all)

    def get(self, ref: str) -> Release | None:
        """Return the release of an id ('2026.1') or a name ('gazpacho'), if there is one."""
        return self._by_ref.get(str(ref).lower())

    def latest(self, deliverable: str, release: str) -> str | None:
        """Return the newest version of a deliverable in a release, if it has one."""
        wanted = self.get(release)
        if wanted is None:
            return None
        versions = self._versions.get(deliverable, {}).get(wanted, [])
        return max(versions, key=pkg_version.Version, default=None)

    def of_version(self, deliverable: str, version: str) -> Release | None:
        """Return the release that a version belongs to.

        A version that was never tagged ('34.1.0.dev12', '2:33.0.3-0+deb12') belongs to the
        newest release whose first number is its own; a pre-release of N.0.0 is N's.
        """
        series = self._versions.get(deliverable)
        match = _NUMBERS.match(version.strip())
        if not series or not match:
            return None
        number, rest = match.groups()
        for release, versions in series.items():
            if number in versions and not _PRERELEASE.match(rest):
                return release
        return self._of_major(series, number)

    @staticmethod
    def _of_major(series: Mapping[Release, list[str]], number: str) -> Release | None:
        major = number.split('.')[0]
        same = [
            r for r, versions in series.items() if any(v.split('.')[0] == major for v in versions)
        ]
        return max(same, default=None)


def leading_number(version: str) -> str | None:
    """Return the dotted number of a version without epoch and revision: '2:33.0.2-1' -> 33.0.2."""
    match = _NUMBERS.match(version.strip())
    return match.group(1) if match else None


@functools.cache
def load() -> Releases:
    """Return the packaged release data; they are read once."""
    with _FILE.open('rb') as stream:
        return Releases(yaml.load(stream, Loader=_SAFE))  # noqa: S506 (a safe loader)


def from_text(text: str) -> Releases:
    """Return the releases of another file of the same shape."""
    return Releases(yaml.load(text, Loader=_SAFE))  # noqa: S506 (a safe loader)
