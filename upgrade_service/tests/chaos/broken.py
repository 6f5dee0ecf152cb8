"""Builds that are broken on purpose: if the suite does not catch them, the suite is the bug."""

from collections.abc import Callable
import dataclasses


@dataclasses.dataclass(frozen=True)
class Build:
    """A fault in the code, and the scene in which it must show."""

    apply: Callable[[], None]
    scene: str
    breaks: tuple[str, ...]  #: invariants, any of which may show it
    tries: int = 1  #: seeds of the scene, if it takes some luck


BUILDS: dict[str, Build] = {}
