"""The request context: who asks, carried from the API's door to the audit trail."""

from typing import Any

from oslo_context import context
from oslo_db.sqlalchemy import enginefacade


@enginefacade.transaction_context_provider
class RequestContext(context.RequestContext):
    """Who asks. Tokens never leave the API process."""

    #: where the request came from; None: this machine's own work
    remote_address: str | None = None

    @property
    def actor(self) -> str:
        """Name for the audit trail: user id, or 'system' for the service's own work."""
        return self.user_id or 'system'

    def to_dict(self) -> dict[str, Any]:
        """Drop the token: nothing behind the API may use it."""
        return {k: v for k, v in super().to_dict().items() if k != 'auth_token'}


def system() -> RequestContext:
    """Return the context of work that nobody asked for at this moment."""
    return RequestContext(user_id='system', is_admin=True)
