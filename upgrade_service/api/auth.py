"""Who asks: one WSGI middleware per `[api] auth_strategy`.

Each leaves the identity in the environ as keystonemiddleware does (`HTTP_X_ROLES` …), so
that only :class:`~upgrade_service.context.RequestContext` reads it. Headers of that kind
that a client sent itself are dropped first.
"""

from collections.abc import Callable
import ipaddress
import logging
from typing import Any

from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_middleware import basic_auth
from webob import exc

LOG = logging.getLogger(__name__)
#: keystone delivers implied roles; where there is none, all are listed
ALL_ROLES = 'admin,manager,member,reader,upgrade_operator,upgrade_reader'
_KEPT = (
    'HTTP_X_FORWARDED_',
    'HTTP_X_OPENSTACK_REQUEST_ID',
    'HTTP_X_AUTH_TOKEN',
    'HTTP_X_SERVICE_TOKEN',
)
Wsgi = Callable[..., Any]


def strip(environ: dict[str, Any]) -> None:
    """Forget the identity that a client claims to have."""
    for key in [k for k in environ if k.startswith('HTTP_X_') and not k.startswith(_KEPT)]:
        del environ[key]


def _identify(environ: dict[str, Any], user: str) -> None:
    environ.update(
        HTTP_X_IDENTITY_STATUS='Confirmed',
        HTTP_X_USER_ID=user,
        HTTP_X_USER_NAME=user,
        HTTP_X_PROJECT_ID=user,
        HTTP_X_ROLES=ALL_ROLES,
    )


class NoAuth:
    """Everyone on this machine is an administrator: to try the service, and for tests."""

    def __init__(self, application: Wsgi) -> None:
        self._application = application
        LOG.warning('auth_strategy is noauth: everyone on this machine is an administrator')

    def __call__(self, environ: dict[str, Any], start_response: Wsgi) -> Any:
        """Let local requests pass."""
        if not is_loopback(environ.get('REMOTE_ADDR')):
            raise exc.HTTPForbidden('without authentication only this machine is served')
        strip(environ)
        _identify(environ, 'noauth')
        return self._application(environ, start_response)


class BasicAuth:
    """Users of an htpasswd file (bcrypt); each of them is an administrator."""

    def __init__(self, application: Wsgi, user_file: str) -> None:
        basic_auth.validate_auth_file(user_file)
        self._application, self._user_file = application, user_file

    def __call__(self, environ: dict[str, Any], start_response: Wsgi) -> Any:
        """Let a request with a right password pass."""
        strip(environ)
        try:
            token = basic_auth.parse_header(environ)
            user, password = basic_auth.parse_token(token)
            basic_auth.authenticate(self._user_file, user, password)
        except (exc.HTTPClientError, ValueError) as e:
            raise exc.HTTPUnauthorized(
                'Who asks? Send a user name and password (HTTP basic authentication).',
                headers={'WWW-Authenticate': 'Basic realm="upgrade-service"'},
            ) from e
        _identify(environ, user)
        return self._application(environ, start_response)


class PublicPaths:
    """Serves what anybody may read without asking who it is, so also while keystone is away."""

    def __init__(self, public: Wsgi, guarded: Wsgi, is_public: Callable[[str], bool]) -> None:
        self._public, self._guarded, self._is_public = public, guarded, is_public

    def __call__(self, environ: dict[str, Any], start_response: Wsgi) -> Any:
        """Choose the door."""
        if self._is_public(environ.get('PATH_INFO', '')):
            strip(environ)
            return self._public(environ, start_response)
        return self._guarded(environ, start_response)


def is_loopback(address: str | None) -> bool:
    """Tell whether an address is of this machine; a Unix socket has none."""
    if not address or address == 'localhost':
        return True
    try:
        return ipaddress.ip_address(address.strip('[]')).is_loopback
    except ValueError:
        return False


def middleware(conf: cfg.ConfigOpts) -> Callable[[Wsgi], Wsgi]:
    """Return the middleware that the configuration asks for."""
    strategies: dict[str, Callable[[Wsgi], Wsgi]] = {
        'noauth': NoAuth,
        'http_basic': lambda app: BasicAuth(app, conf.api.http_basic_auth_user_file),
        'keystone': lambda app: auth_token.AuthProtocol(
            app, {'oslo_config_config': conf, 'service_type': 'upgrade'}
        ),
    }
    return strategies[conf.api.auth_strategy]
