"""One WSGI application for all simulated APIs, with its routes in tables.

Each API is a path prefix with a table of `(method, pattern, handler)`. A handler gets the
cloud and the request and returns plain data; errors are raised as
:class:`~upgrade_service.simulator.cloud.Refused` and rendered as the real API would.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
from http import HTTPStatus
import json
import re
from typing import Any
import urllib.parse

from upgrade_service.simulator.cloud import Cloud, Refused

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a handler needs to know of an HTTP request."""

    method: str
    path: str  #: below the API's prefix
    root: str  #: URL of the API, without a slash at its end
    query: dict[str, list[str]]
    headers: dict[str, str]  #: X-… and the version headers, lower case
    body: Any
    version: tuple[int, int]  #: microversion asked for
    token: dict[str, Any] | None = None

    def get(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None

    def section(self, name: str) -> dict[str, Any]:
        """Return an object out of the body; 400 if it is not there."""
        value = self.body.get(name) if isinstance(self.body, dict) else None
        if not isinstance(value, dict):
            raise Refused(400, f"'{name}' is a required property")
        return value


@dataclasses.dataclass(frozen=True)
class Reply:
    """An answer that is more than 200 and JSON."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


Handler = Callable[..., Any]
Route = tuple[str, str, Handler]


@dataclasses.dataclass(frozen=True)
class Api:
    """One API: where it is, whose it is, its routes, its versions, its errors' shape."""

    prefix: str
    routes: Sequence[Route]
    error: Callable[[int, str], Any]
    project: str | None = None  #: whose api units must run; None: the simulator's own
    service_type: str | None = None  #: name in the microversion header
    low: tuple[int, int] = (0, 0)
    high: tuple[int, int] = (0, 0)
    open: Sequence[str] = ('/?',)  #: patterns of paths that need no token
    optional: str = ''  #: pattern that may come before each path


class Router:
    """Finds the handler of a path. Patterns have `{name}` for one part of the path."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._routes = [
            (method, re.compile(api.optional + re.sub(r'\{(\w+)\}', r'(?P<\1>[^/]+)', path)), to)
            for method, path, to in api.routes
        ]
        self._open = [re.compile(pattern) for pattern in api.open]

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """Return handler and path arguments; 404 or 405 if there is none."""
        other = False
        for verb, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match and verb == method:
                return handler, {k: urllib.parse.unquote(v) for k, v in match.groupdict().items()}
            other = other or match is not None
        raise Refused(405 if other else 404, f'{method} {path} is not simulated')

    def is_open(self, path: str) -> bool:
        """Whether anyone may ask."""
        return any(pattern.fullmatch(path) for pattern in self._open)


class Application:
    """The WSGI callable."""

    def __init__(self, cloud: Cloud, apis: Iterable[Api]) -> None:
        self.cloud = cloud
        self.tokens: dict[str, dict[str, Any]] = {}
        self._routers = {api.prefix: Router(api) for api in apis}

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Answer one request."""
        prefix, _, rest = environ.get('PATH_INFO', '/').lstrip('/').partition('/')
        router = self._routers.get(prefix)
        if router is None:
            reply = Reply(404, {'error': f'nothing at /{prefix}'})
        else:
            reply = self._answer(router, '/' + rest if rest else '', environ)
        empty = reply.body is None and reply.status in (202, 204)
        content = b'' if empty else json.dumps(reply.body).encode()
        headers = [
            ('Content-Type', 'application/json'),
            ('Content-Length', str(len(content))),
            *reply.headers.items(),
        ]
        start_response(f'{reply.status} {HTTPStatus(reply.status).phrase}', headers)
        return [b''] if environ['REQUEST_METHOD'] == 'HEAD' else [content]

    def _answer(self, router: Router, path: str, environ: Environ) -> Reply:
        api = router.api
        extra: dict[str, str] = {}
        try:
            request = _request(api, path, environ)
            extra = _version_headers(api, request)
            with self.cloud.turn():
                reply = self._handle(router, request)
        except Refused as refusal:
            reply = Reply(refusal.status, api.error(refusal.status, refusal.message))
        except ValueError as mistake:  # a number that is none
            reply = Reply(400, api.error(400, str(mistake)))
        return dataclasses.replace(reply, headers={**extra, **reply.headers})

    def _handle(self, router: Router, request: Request) -> Reply:
        project = router.api.project
        if project and not self.cloud.api_up(project):
            raise Refused(503, f'No server is available for {project}.')
        if project and not router.is_open(request.path):
            request = dataclasses.replace(request, token=self._token(request))
        handler, arguments = router.find(request.method, request.path)
        answer = handler(self, request, **arguments)
        return answer if isinstance(answer, Reply) else Reply(200, answer)

    def _token(self, request: Request) -> dict[str, Any]:
        token = self.tokens.get(request.headers.get('x-auth-token', ''))
        if token is None or token['until'] < self.cloud.clock():
            raise Refused(401, 'The request you have made requires authentication.')
        return token


def _request(api: Api, path: str, environ: Environ) -> Request:
    length = int(environ.get('CONTENT_LENGTH') or 0)
    raw = environ['wsgi.input'].read(length) if length else b''
    try:
        body = json.loads(raw) if raw else None
    except ValueError as error:
        raise Refused(400, 'Malformed request body') from error
    headers = {
        key[5:].replace('_', '-').lower(): value
        for key, value in environ.items()
        if key.startswith('HTTP_')
    }
    return Request(
        method=environ['REQUEST_METHOD'],
        path=path,
        root=f'{environ["wsgi.url_scheme"]}://{headers.get("host", "127.0.0.1")}/{api.prefix}',
        query=urllib.parse.parse_qs(environ.get('QUERY_STRING', ''), keep_blank_values=True),
        headers=headers,
        body=body,
        version=_microversion(api, headers),
    )


def _microversion(api: Api, headers: dict[str, str]) -> tuple[int, int]:
    """Read `OpenStack-API-Version: compute 2.53` or the old header of nova."""
    asked = headers.get('x-openstack-nova-api-version', '') if api.prefix == 'compute' else ''
    for entry in headers.get('openstack-api-version', '').split(','):
        service, _, version = entry.strip().partition(' ')
        if service == api.service_type:
            asked = version.strip()
    if not asked:
        return api.low
    if asked == 'latest':
        return api.high
    try:
        major, minor = asked.split('.')
        version_asked = (int(major), int(minor))
    except ValueError as error:
        raise Refused(400, f'API Version String {asked} is of invalid format.') from error
    if not api.low <= version_asked <= api.high:
        raise Refused(406, f'Version {asked} is not supported by the API.')
    return version_asked


def _version_headers(api: Api, request: Request) -> dict[str, str]:
    if api.service_type is None:
        return {}
    text = '{}.{}'.format(*request.version)
    headers = {'OpenStack-API-Version': f'{api.service_type} {text}'}
    if api.prefix == 'compute':
        headers['X-OpenStack-Nova-API-Version'] = text
    return headers


def dotted(version: tuple[int, int]) -> str:
    """Write a microversion."""
    return f'{version[0]}.{version[1]}'


def paged(
    request: Request,
    rows: Sequence[Any],
    key: Callable[[Any], str],
    collection: str,
    most: int = 1000,
) -> tuple[list[Any], list[dict[str, str]]]:
    """Cut a page out of ordered rows by `limit` and `marker`; return it and its links.

    As nova, cinder and neutron do, a full page has a next link, be there more or not.
    """
    limit = request.get('limit')
    if limit is not None and not limit.isdigit():
        raise Refused(400, 'limit must be a non-negative integer')
    size = min(int(limit), most) if limit else most
    marker = request.get('marker')
    start = 0
    if marker:
        start = 1 + next((i for i, row in enumerate(rows) if key(row) == marker), -2)
        if start < 0:
            raise Refused(400, f'marker [{marker}] not found')
    page = list(rows[start : start + size])
    if not page or len(page) < size:
        return page, []
    query = {k: v for k, v in request.query.items() if k != 'marker'}
    query['marker'] = [key(page[-1])]
    href = f'{request.root}/{collection}?{urllib.parse.urlencode(query, doseq=True)}'
    return page, [{'rel': 'next', 'href': href}]


def listing(
    request: Request,
    rows: Sequence[Any],
    key: Callable[[Any], str],
    view: Callable[[Any], Any],
    name: str,
    collection: str,
) -> dict[str, Any]:
    """Answer a list: a page under its name, with `<name>_links` if there may be more."""
    page, links = paged(request, rows, key, collection)
    answer: dict[str, Any] = {name: [view(row) for row in page]}
    if links:
        answer[f'{name}_links'] = links
    return answer


def plain_error(status: int, message: str) -> dict[str, Any]:
    """Errors of keystone, and of the simulator's own endpoints."""
    return {'error': {'code': status, 'message': message, 'title': HTTPStatus(status).phrase}}
