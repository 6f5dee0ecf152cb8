"""What every request must be before anything looks at it: decodable, and not too large.

Bodies are read and parsed here, once, so that no layer behind can be hurt by one that is
huge or deep.
"""

import io
import json
from typing import Any

import webob
from webob import exc

MAX_BODY = 64 * 1024
MAX_DEPTH = 16
MAX_KEYS = 256
BODY = 'upgrade.body'


class Door:
    """WSGI middleware that reads the body into `environ['upgrade.body']`."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Pass a request on.

        :raises HTTPException: it is refused; see ``errors.py`` for what becomes of that.
        """
        request = webob.Request(environ)
        try:
            _ = request.path_info, list(request.GET.items())
        except UnicodeDecodeError as e:
            raise exc.HTTPBadRequest('the address is not UTF-8') from e
        environ[BODY] = _body(request)
        return self._application(environ, start_response)


def _body(request: webob.Request) -> Any:
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise _too_large()
    raw = request.body_file.read(MAX_BODY + 1) if length or request.is_body_readable else b''
    if len(raw) > MAX_BODY:
        raise _too_large()
    request.body_file_raw = io.BytesIO(b'')
    request.content_length = 0
    if not raw:
        return None
    if request.content_type != 'application/json':
        raise exc.HTTPUnsupportedMediaType('the body must be application/json')
    return parse(raw)


def _too_large() -> exc.HTTPException:
    return exc.HTTPRequestEntityTooLarge(f'a body has at most {MAX_BODY} bytes')


def parse(raw: bytes) -> Any:
    """Parse JSON of bounded depth and width.

    :raises HTTPBadRequest: it is not JSON, or beyond the bounds.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise exc.HTTPBadRequest('the body is not JSON') from e
    _bounded(value, MAX_DEPTH)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _bounded(value: Any, depth: int) -> None:
    if depth < 0:
        raise exc.HTTPBadRequest(f'the body is nested deeper than {MAX_DEPTH}')
    if isinstance(value, dict) and len(value) > MAX_KEYS:
        raise exc.HTTPBadRequest(f'an object in the body has more than {MAX_KEYS} keys')
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _bounded(item, depth - 1)
