"""What the releases' own wheels say of themselves: the facts of ``wheel-facts.yaml``.

``tools/refresh-facts`` takes them out of the wheels of PyPI (see `wheels`). They answer
what no document does: which of a hop's migrations take something away, which old
services the new code still talks to, which commands and checks it has.
"""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
from typing import Any

import yaml

from upgrade_service.projects import releases as releases_data

_FILE = pathlib.Path(__file__).parent / 'wheel-facts.yaml'
_SAFE = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
Release = releases_data.Release


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What one wheel says."""

    version: str
    wheel: str  #: name of the file
    sha256: str
    scripts: tuple[str, ...]  #: commands that it installs
    checks: tuple[str, ...]  #: titles of its upgrade checks
    contract: tuple[str, ...]  #: revisions of its contract branch that do something
    drops: tuple[str, ...]  #: other revisions that drop or rename a table or a column
    #: of nova: {version, oldest: a release's name or None, aliases: {name: version}}
    services: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: of nova: release -> version of the RPC API of nova-compute that it speaks
    rpc: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def service_version(self, release: Release) -> int | None:
        """Return the number that services of a release have in the database."""
        value = self.services.get('aliases', {}).get(release.name.capitalize())
        return None if value is None else int(value)

    def floor(self) -> int | None:
        """Return the lowest number with which the code starts; None: it does not look."""
        value = self.services.get('aliases', {}).get(self.services.get('oldest'))
        return None if value is None else int(value)

    def serves(self, release: Release) -> bool | None:
        """Tell whether the code starts beside services of a release; None: it does not say.

        Several releases may have one number: the floor is of all of them, as nova sees it.
        """
        floor, number = self.floor(), self.service_version(release)
        return None if floor is None or number is None else number >= floor


class WheelFacts:
    """The facts of every wheel that was read, by project and release."""

    def __init__(self, raw: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        self._raw = raw

    def of(self, project: str, release: str | None) -> Facts | None:
        """Return the facts of a project in a release (its id), if they are known."""
        found = self._raw.get(project, {}).get(release or '')
        if found is None:
            return None
        lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
        return Facts(**{**found, **lists})

    def releases(self, project: str) -> list[str]:
        """List the releases whose wheel of a project was read."""
        return list(self._raw.get(project, ()))


def contracts(source: Facts | None, target: Facts | None) -> bool | None:
    """Tell whether the contract migrations of a hop do anything; None: nobody can tell."""
    if target is None:
        return None
    done = source.contract if source else ()
    return bool(set(target.contract) - set(done)) if source or not target.contract else None


def takes_away(source: Facts | None, target: Facts | None) -> list[str]:
    """List the revisions of a hop outside of contract that old code would miss something of."""
    if source is None or target is None:
        return []
    return sorted(set(target.drops) - set(source.drops))


def gone(source: Facts | None, target: Facts | None) -> set[str]:
    """Return the commands that the target has no more."""
    return set(source.scripts) - set(target.scripts) if source and target else set()


@functools.cache
def load() -> WheelFacts:
    """Return the packaged facts; they are read once."""
    with _FILE.open('rb') as stream:
        return WheelFacts(yaml.load(stream, Loader=_SAFE))  # noqa: S506 (a safe loader)
