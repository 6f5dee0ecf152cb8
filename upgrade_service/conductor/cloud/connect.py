"""The conductor's way into a cloud: one session per entry of clouds.yaml, guarded.

A cluster is named by an entry of the conductor's clouds.yaml, never by a URL that came
through the API. What keystone's catalogue says is not trusted either: an endpoint must
be on a host the entry allows (``allowed_hosts``, by default the host of its auth_url),
over https unless the auth_url itself is plain http, and nothing follows a redirect.

openstacksdk does not promise that a Connection may be used by several threads, so each
thread has its own on the shared session.
"""

from collections.abc import Callable, Mapping
import threading
from typing import Any, NoReturn
from urllib import parse

from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import session as ksa_session
import openstack
from openstack import config as sdk_config
from openstack import exceptions as sdk_exceptions
from openstack.config import cloud_region
from oslo_config import cfg
import requests

from upgrade_service import exception

CONNECT_TIMEOUT = 5.0  #: seconds to open a connection
READ_TIMEOUT = 30.0  #: seconds without a byte of an answer
SIZE_CAP = 32 * 1024 * 1024  #: bytes of an answer; a page of 1,000 servers has about three million
REDIRECTS = frozenset({301, 302, 303, 305, 307, 308})

_lock = threading.Lock()
_regions: dict[tuple[str, str], cloud_region.CloudRegion] = {}
_local = threading.local()


class GuardedAdapter(ksa_session.TCPKeepAliveAdapter):
    """Refuses hosts that are not allowed, redirects and endless answers; sets time-outs."""

    def __init__(self, cloud: str) -> None:
        self.cloud = cloud
        self.allowed: frozenset[str] = frozenset()
        self.plain = False  #: whether http is allowed
        super().__init__()

    def allow(self, auth_url: str, allowed_hosts: list[str] | None) -> None:
        """Take the rule from the entry."""
        url = parse.urlsplit(auth_url)
        self.allowed = frozenset(allowed_hosts or [url.hostname or ''])
        self.plain = url.scheme == 'http'

    def refuse(self, url: str, why: str) -> NoReturn:
        """Say what would not be done, without a query that may hold something secret."""
        at = parse.urlsplit(url)
        raise exception.CloudUnavailable(
            service=f'{at.scheme}://{at.netloc}', cluster=self.cloud, reason=why
        )

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Send one request and read its answer."""
        url = parse.urlsplit(request.url)
        if url.hostname not in self.allowed:
            self.refuse(request.url, "the host is not in the entry's allowed_hosts")
        if url.scheme != 'https' and not self.plain:
            self.refuse(request.url, 'plain http, while the auth_url is https')
        read = kwargs.get('timeout') or READ_TIMEOUT
        kwargs['timeout'] = (min(CONNECT_TIMEOUT, read), read)
        response = super().send(request, *args, **{**kwargs, 'stream': True})
        if response.status_code in REDIRECTS:
            self.refuse(request.url, f'it redirects ({response.status_code})')
        self._read(request.url, response)
        return response

    def _read(self, url: str, response: requests.Response) -> None:
        body = bytearray()
        for piece in response.iter_content(65536):
            body += piece
            if len(body) > SIZE_CAP:
                response.close()
                self.refuse(url, f'it answers with more than {SIZE_CAP} bytes')
        response._content = bytes(body)


def _region(clouds_file: str, cloud: str) -> cloud_region.CloudRegion:
    """Read the entry and make its session; one per process."""
    guard = GuardedAdapter(cloud)
    web = requests.Session()
    web.mount('http://', guard)
    web.mount('https://', guard)

    def make_session(**kwargs: Any) -> ksa_session.Session:
        kwargs.update(session=web, timeout=READ_TIMEOUT, redirect=False)
        return ksa_session.Session(**kwargs)

    try:
        region = sdk_config.OpenStackConfig(
            config_files=[clouds_file],
            secure_files=[],
            vendor_files=[],
            load_envvars=False,
            app_name='upgrade-service',
        ).get_one(cloud=cloud)
    except sdk_exceptions.ConfigException as error:
        raise exception.CloudUnavailable(
            service='clouds.yaml', cluster=cloud, reason=str(error)
        ) from error
    guard.allow(region.config['auth'].get('auth_url', ''), region.config.get('allowed_hosts'))
    region.set_session_constructor(make_session)  # type: ignore[arg-type]
    region.get_session()
    return region


def connect(conf: cfg.ConfigOpts, cloud: str) -> openstack.connection.Connection:
    """Return this thread's connection to a cloud; made at the first call.

    :raises CloudUnavailable: clouds.yaml has no such entry.
    """
    key = (conf.conductor.clouds_file, cloud)
    mine: dict[tuple[str, str], openstack.connection.Connection] = _connections()
    if key not in mine:
        with _lock:
            if key not in _regions:
                _regions[key] = _region(*key)
        mine[key] = openstack.connection.Connection(config=_regions[key])
    return mine[key]


def forget(conf: cfg.ConfigOpts, cloud: str) -> None:
    """Drop this thread's connection: what it learned while an API was away may be wrong."""
    _connections().pop((conf.conductor.clouds_file, cloud), None)


def reset() -> None:
    """Forget every session: after a fork, a changed clouds.yaml, and between tests."""
    with _lock:
        _regions.clear()
    _connections().clear()


def _connections() -> dict[tuple[str, str], openstack.connection.Connection]:
    if not hasattr(_local, 'connections'):
        _local.connections = {}
    found: dict[tuple[str, str], openstack.connection.Connection] = _local.connections
    return found


# -- requests ----------------------------------------------------------------------------------

#: errors that say «nobody is there now», not «no»
AWAY = (
    ksa_exceptions.ConnectFailure,
    ksa_exceptions.UnknownConnectionError,
    ksa_exceptions.SSLError,
    ksa_exceptions.DiscoveryFailure,
    ksa_exceptions.EndpointNotFound,
    ksa_exceptions.Unauthorized,
    ksa_exceptions.HttpServerError,
    sdk_exceptions.ServiceDiscoveryException,
)


def is_away(error: BaseException) -> bool:
    """Tell whether the cloud is away (wait) rather than refusing (do not repeat).

    A 401 counts as away: keystoneauth has asked for a new token by then, so keystone
    or its cache is being restarted, most likely by us.
    """
    if isinstance(error, sdk_exceptions.HttpException) and error.status_code:
        return error.status_code == 401 or error.status_code >= 500
    return isinstance(error, AWAY)


def get(
    adapter: Any, path: str, microversion: str | None = None, retries: int = 0, **params: Any
) -> dict[str, Any]:
    """GET a document; repeated `retries` times when nobody answers.

    :raises: what `is_away` knows, or another SDK exception for a refusal.
    """
    response = adapter.get(
        path,
        params=params,
        microversion=microversion,
        connect_retries=retries,
        status_code_retries=retries,
    )
    sdk_exceptions.raise_from_response(response)
    document: dict[str, Any] = response.json()
    return document


def pages(
    adapter: Any,
    path: str,
    key: str,
    microversion: str | None = None,
    retries: int = 0,
    **params: Any,
) -> list[dict[str, Any]]:
    """GET all pages of a collection: one request for each.

    The server's `next` link is used for its query only, never for its host.
    """
    rows: list[dict[str, Any]] = []
    query: Mapping[str, Any] | None = params
    while query is not None:
        document = get(adapter, path, microversion, retries, **query)
        rows.extend(document.get(key, ()))
        query = _next(document.get(f'{key}_links', ())) if document.get(key) else None
    return rows


def _next(links: Any) -> dict[str, str] | None:
    for link in links:
        if link.get('rel') == 'next':
            return dict(parse.parse_qsl(parse.urlsplit(link['href']).query))
    return None


def send(
    adapter: Any,
    method: str,
    path: str,
    body: Any = None,
    *,
    timeout: float,
    microversion: str | None = None,
) -> dict[str, Any]:
    """Make one changing request, never repeated here.

    `timeout` in seconds bounds the call, so that it ends while its caller still owns
    what it acts for.
    """
    call: Callable[..., requests.Response] = getattr(adapter, method)
    response = call(path, json=body, microversion=microversion, timeout=timeout, connect_retries=0)
    sdk_exceptions.raise_from_response(response)
    document: dict[str, Any] = response.json() if response.content else {}
    return document


# -- the catalogue -----------------------------------------------------------------------------

#: project -> service types it may be found under, and the SDK's name for its proxy
TYPES = {
    'keystone': 'identity',
    'placement': 'placement',
    'glance': 'image',
    'nova': 'compute',
    'neutron': 'network',
    'cinder': 'block-storage',
}


def endpoints(cloud: openstack.connection.Connection) -> dict[str, str]:
    """Return project -> URL for those of the six that the catalogue has."""
    found = {p: cloud.config.get_session_endpoint(t) for p, t in TYPES.items()}
    return {project: url for project, url in found.items() if url}
