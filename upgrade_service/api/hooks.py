"""What happens to every request around its controller."""

from typing import Any

from oslo_policy import policy as oslo_policy
from pecan import hooks
from webob import exc

from upgrade_service import context
from upgrade_service.api import microversion, policy
from upgrade_service.api.controllers import root


class JsonHook(hooks.PecanHook):
    """There is one representation: JSON, whatever the Accept header says."""

    priority = 1

    def on_route(self, state: Any) -> None:
        """Choose it before pecan negotiates."""
        state.request.pecan['content_type'] = 'application/json'


class ContextHook(hooks.PecanHook):
    """Who asks."""

    priority = 10

    def before(self, state: Any) -> None:
        """Make the context from what the auth middleware found out."""
        environ = state.request.environ
        route = environ[root.ROUTE]
        if not route.public and environ.get('HTTP_X_IDENTITY_STATUS') != 'Confirmed':
            raise exc.HTTPUnauthorized()
        made = context.RequestContext.from_environ(
            environ, request_id=environ.get('openstack.request_id')
        )
        made.remote_address = str(environ.get('REMOTE_ADDR') or '')[:64] or None
        environ[root.CONTEXT] = made


class VersionHook(hooks.PecanHook):
    """Which version of the API is spoken."""

    priority = 20

    def before(self, state: Any) -> None:
        """Refuse versions that are not served."""
        microversion.asked(state.request.headers)

    def after(self, state: Any) -> None:
        """Say which version the answer is of."""
        microversion.stamp(state.response.headers)


class PolicyHook(hooks.PecanHook):
    """Whether the caller may: before anything that was sent is looked at."""

    priority = 30

    def __init__(self, enforcer: oslo_policy.Enforcer) -> None:
        self._enforcer = enforcer

    def before(self, state: Any) -> None:
        """Ask the policy for the route's rule."""
        environ = state.request.environ
        route = environ[root.ROUTE]
        if not route.public:
            policy.authorize(self._enforcer, environ[root.CONTEXT], f'upgrade:{route.rule}')
