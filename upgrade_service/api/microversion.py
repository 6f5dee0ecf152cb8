"""Microversions: which version of the API a request asks for.

`OpenStack-API-Version: upgrade 1.0`. A request without the header gets the oldest.
"""

from collections.abc import Mapping

import microversion_parse
from webob import exc

SERVICE_TYPE = 'upgrade'
HEADER = 'OpenStack-API-Version'
MIN = (1, 0)
MAX = (1, 0)


def text(version: tuple[int, int]) -> str:
    """Write a version as clients do."""
    return f'{version[0]}.{version[1]}'


def asked(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the version that a request asks for.

    :raises HTTPBadRequest: it is none. :raises HTTPNotAcceptable: it is not served.
    """
    said = microversion_parse.get_version(dict(headers), SERVICE_TYPE)
    if said is None:
        return MIN
    if said == 'latest':
        return MAX
    try:
        parsed = microversion_parse.parse_version_string(said)
    except (TypeError, ValueError) as e:
        raise exc.HTTPBadRequest(
            f'{HEADER} must be `{SERVICE_TYPE} <major>.<minor>`, or `latest`'
        ) from e
    version = (parsed.major, parsed.minor)
    if not MIN <= version <= MAX:
        raise exc.HTTPNotAcceptable(
            f'version {text(version)} is not served; {text(MIN)} to {text(MAX)} are'
        )
    return version


def stamp(headers: dict[str, str]) -> None:
    """Say in an answer's headers which version it is of."""
    headers[HEADER] = f'{SERVICE_TYPE} {text(MAX)}'
    headers['Vary'] = HEADER
