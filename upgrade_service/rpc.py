"""The message bus: transports, topics and what an endpoint exposes.

Messages are doorbells; rows are the truth. Only casts are
used: nothing ever waits for a reply. The global ``cfg.CONF`` is used because
oslo.messaging registers its tracing options on that one only.
"""

from collections.abc import Callable
import threading
from typing import Any, TypeVar

from kombu import exceptions as kombu_exc
from oslo_config import cfg
import oslo_messaging as messaging
from oslo_messaging.rpc import dispatcher

from upgrade_service import exception

CONDUCTOR_TOPIC = 'upgrade-conductor'
CONDUCTOR_EXCHANGE = 'upgrade-conductor'
#: what a cast raises when the bus does not take it: oslo.messaging lets through what the
#: driver's library says of a first connection that fails
LOST = (messaging.MessagingException, kombu_exc.KombuError, kombu_exc.ConnectionError, OSError)
LOOPBACK = frozenset({'localhost', '127.0.0.1', '::1', None, ''})

_lock = threading.Lock()
_transport: Any = None
_url: str | None = None

Method = TypeVar('Method', bound=Callable[..., Any])


def expose(method: Method) -> Method:
    """Let peers call a method of an endpoint; nothing else of it can be called."""
    exposed: Method = messaging.expose(method)
    return exposed


def engine_topic(agent_id: str) -> str:
    """Return the topic, and exchange, of one engine identity."""
    return f'upgrade-engine.{agent_id}'


def use(url: str | None) -> None:
    """Use this bus in place of `[DEFAULT] transport_url`: 'fake://' stays in the process."""
    global _url
    _url = url


def get_transport(conf: cfg.ConfigOpts) -> Any:
    """Return this process's transport, made at first use (after any fork)."""
    global _transport
    with _lock:
        if _transport is None:
            made = messaging.get_rpc_transport(conf, url=_url)
            _require_tls(conf)
            _transport = made
        return _transport


def _require_tls(conf: cfg.ConfigOpts) -> None:
    """Refuse a bus that others on the network can read, unless it is said to be a lab's."""
    url = messaging.TransportURL.parse(conf, _url)
    far = [h.hostname for h in url.hosts if h.hostname not in LOOPBACK]
    if url.transport != 'rabbit' or not far or conf.trust.insecure_lab:
        return
    if not conf.oslo_messaging_rabbit.ssl:
        raise exception.Untrusted(
            reason=f'the message bus at {", ".join(far)} is used without TLS: set '
            '[oslo_messaging_rabbit] ssl = true (or, in a lab, [trust] insecure_lab = true)'
        )


def reset() -> None:
    """Forget the transport: after a fork, and between tests."""
    global _transport
    with _lock:
        if _transport is not None:
            _transport.cleanup()
        _transport = None


def get_server(conf: cfg.ConfigOpts, exchange: str, topic: str, server: str, endpoint: Any) -> Any:
    """Serve `endpoint`; only methods marked with :data:`expose` can be called."""
    target = messaging.Target(exchange=exchange, topic=topic, server=server)
    return messaging.get_rpc_server(
        get_transport(conf),
        target,
        [endpoint],
        executor='threading',
        access_policy=dispatcher.ExplicitRPCAccessPolicy,
    )


def get_client(
    conf: cfg.ConfigOpts,
    exchange: str,
    topic: str,
    version: str,
    retry: int | None = 3,
    cap: str | None = None,
) -> Any:
    """Return a client for casts; `retry` bounds how long a cast may block on a dead broker.

    `cap`: version of methods above which nothing is sent, because a peer would not know it.
    """
    target = messaging.Target(exchange=exchange, topic=topic, version=version)
    return messaging.get_rpc_client(get_transport(conf), target, version_cap=cap, retry=retry)
