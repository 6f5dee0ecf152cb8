"""Calls to a simulated host's endpoint, with nothing but the standard library."""

import json
from typing import Any
import urllib.error
import urllib.parse
import urllib.request


class HostError(Exception):
    """A simulated host refused, or does not answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  #: HTTP status; 0: no answer at all


def call(
    url: str, host: str, *path: str, body: dict[str, Any] | None = None, timeout: float = 10.0
) -> dict[str, Any]:
    """GET (without a body) or POST to a host of the simulator at `url`; return its answer.

    >>> call(url, 'cmp1')['projects']['nova']['version']
    >>> call(url, 'cmp1', 'nova', 'switch', body={'version': '34.0.0'})
    >>> call(url, 'cmp1', 'units', 'nova-compute', body={'do': 'restart'})
    """
    parts = [urllib.parse.quote(part, safe='') for part in ('hosts', host, *path)]
    request = urllib.request.Request(
        f'{url.rstrip("/")}/{"/".join(parts)}',
        data=None if body is None else json.dumps(body).encode(),
        headers={'Content-Type': 'application/json'},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            content: dict[str, Any] = json.loads(answer.read() or b'{}')
            return content
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors='replace')
        raise HostError(error.code, f'{host}: {error.code} {text}') from error
    except OSError as error:
        raise HostError(0, f'{host}: {error}') from error
