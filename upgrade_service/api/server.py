"""The API on a server of its own: for development, small clouds and the all-in-one process."""

import threading

from cheroot import wsgi
from oslo_config import cfg
from oslo_log import log

from upgrade_service.api import app, auth

LOG = log.getLogger(__name__)
#: seconds a client may stay silent, and a stop may wait for requests in progress
CLIENT_TIMEOUT, STOP_TIMEOUT = 60, 10


class Server:
    """Serves the API from threads of this process; the database must be configured."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Prepare to serve.

        :raises SystemExit: without authentication, on an address that others can reach.
        """
        if conf.api.auth_strategy == 'noauth' and not auth.is_loopback(conf.api.host):
            raise SystemExit(
                '[api] auth_strategy = noauth serves this machine only: set [api] host to '
                '127.0.0.1, or auth_strategy to keystone'
            )
        self._server = wsgi.Server(
            (conf.api.host, conf.api.port),
            app.build(conf),
            numthreads=conf.api.threads,
            server_name='upgrade-service-api',
            request_queue_size=128,
            timeout=CLIENT_TIMEOUT,
            shutdown_timeout=STOP_TIMEOUT,
        )
        self._thread = threading.Thread(target=self._server.serve, name='api', daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on, once started: with `[api] port = 0` the system's choice."""
        port: int = self._server.bind_addr[1]
        return port

    def start(self) -> None:
        """Listen, and serve from now on.

        :raises OSError: the address is taken.
        """
        self._server.prepare()
        self._thread.start()
        LOG.info('Listening on %s:%s', self._server.bind_addr[0], self.port)

    def stop(self) -> None:
        """Take no more requests and finish those in progress."""
        self._server.stop()
        self._thread.join()
