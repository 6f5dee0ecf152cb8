"""Puts the API together: what a request passes on its way in, outermost first."""

import threading
from typing import Any

from oslo_config import cfg
from oslo_middleware import healthcheck, http_proxy_to_wsgi, request_id
import pecan

from upgrade_service.api import auth, door, errors, hooks, policy
from upgrade_service.api import bell as bells
from upgrade_service.api.controllers import root

HEALTH = '/healthcheck'


def build(
    conf: cfg.ConfigOpts, *, bell: bells.Bell | None = None, authenticate: Any = None
) -> Any:
    """Return the WSGI application.

    `bell` and `authenticate` (a WSGI middleware) replace those the configuration asks for.
    The database must be configured by then (``db.api.configure``).
    """
    enforcer = policy.build(conf)
    shared = {
        'conf': conf,
        'enforcer': enforcer,
        'bell': bell or bells.BusBell(conf),
        'waiters': threading.BoundedSemaphore(max(1, conf.api.threads // 2)),
    }
    served = pecan.Pecan(
        root.RootController(shared),
        force_canonical=False,
        guess_content_type_from_ext=False,
        hooks=[
            hooks.JsonHook(),
            hooks.ContextHook(),
            hooks.VersionHook(),
            hooks.PolicyHook(enforcer),
        ],
    )
    behind = door.Door(served)
    guarded = (authenticate or auth.middleware(conf))(behind)
    chosen = auth.PublicPaths(behind, guarded, root.TABLE.is_public)
    inner = errors.ErrorTranslator(chosen)
    routed = _Health(inner, healthcheck.Healthcheck.app_factory({'oslo_config_config': conf}))
    forwarded = http_proxy_to_wsgi.HTTPProxyToWSGI(routed, conf)
    return request_id.RequestId(forwarded)


class _Health:
    """Routes /healthcheck to oslo.middleware, which as a filter would answer every path."""

    def __init__(self, application: Any, health: Any) -> None:
        self._application, self._health = application, health

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Choose."""
        if environ.get('PATH_INFO') == HEALTH and environ['REQUEST_METHOD'] in ('GET', 'HEAD'):
            return self._health(environ, start_response)
        return self._application(environ, start_response)
