"""How the table of addresses is written and read.

The table itself is in ``controllers/root.py``. It is the one truth: the dispatch, the 405s,
the policy check, the validation and ``/v1/openapi.json`` are all read from it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from webob import exc

from upgrade_service.api import ask as asks
from upgrade_service.api import schemas


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Route:
    """One method of one address."""

    method: str
    path: str  #: '/v1/clusters/{cluster}'
    answers: Callable[[asks.Ask], asks.Answer]
    rule: str | None  #: policy rule without 'upgrade:'; None: anybody may
    query: Mapping[str, Any] = dataclasses.field(default_factory=lambda: schemas.NO_QUERY)
    body: Mapping[str, Any] | None = None  #: schema; None: takes no body
    status: int = 200
    returns: Any = None  #: WSME type of the answer, or of an element of the list `many`
    many: str | None = None  #: name of the list
    replays: bool = True  #: a repetition with the same Idempotency-Key gets the same answer

    @property
    def public(self) -> bool:
        """Whether anybody may ask, without saying who it is."""
        return self.rule is None


def split(path: str) -> tuple[str, ...]:
    """Return the parts of a path; one slash at its end does not matter."""
    return tuple(path.removesuffix('/').split('/')[1:])


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._by_path: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in self.routes:
            self._by_path.setdefault(split(route.path), {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and the variables of the path.

        :raises HTTPNotFound: no such address.
        :raises HTTPMethodNotAllowed: the address does not take that method.
        """
        parts = split(path)
        for pattern, by_method in self._by_path.items():
            refs = _match(pattern, parts)
            if refs is None:
                continue
            route = by_method.get('GET' if method == 'HEAD' else method)
            if route is None:
                raise exc.HTTPMethodNotAllowed(
                    f'{path[:200]} does not take {method}',
                    headers={'Allow': ', '.join(sorted(by_method))},
                )
            return route, refs
        raise exc.HTTPNotFound()

    def is_public(self, path: str) -> bool:
        """Tell whether anybody may ask for a path, whatever the method."""
        by_method = self._by_path.get(split(path))
        return by_method is not None and all(r.public for r in by_method.values())


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    refs = {}
    for wanted, said in zip(pattern, parts, strict=True):
        if wanted.startswith('{'):
            if not said or len(said) > 255:
                return None
            refs[wanted[1:-1]] = said
        elif wanted != said:
            return None
    return refs
