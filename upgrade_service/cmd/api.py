"""`upgrade-service-api`: the API on a server of its own, for development and small clouds."""

import signal
import sys
from typing import Any

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

from cheroot import wsgi
from oslo_config import cfg
from oslo_log import log

from upgrade_service import conf as service_conf
from upgrade_service.api import (
    app,
    auth,
)
from upgrade_service.db import api as db_api

LOG = log.getLogger(__name__)


def make_server(conf: cfg.ConfigOpts) -> wsgi.Server:
    """Return a server for the API that is not started yet; the database must be configured.

    :raises SystemExit: without authentication, on an address that others can reach.
    """
    if conf.api.auth_strategy == 'noauth' and not auth.is_loopback(conf.api.host):
        raise SystemExit(
            '[api] auth_strategy = noauth serves this machine only: set [api] '
            'host to 127.0.0.1, or auth_strategy to keystone'
        )
    return wsgi.Server(
        (conf.api.host, conf.api.port),
        app.build(conf),
        numthreads=conf.api.threads,
        server_name='upgrade-service-api',
        request_queue_size=128,
        timeout=60,
    )


def main() -> int:
    """Serve until a signal ends it; requests in progress are finished."""
    conf = cfg.CONF
    service_conf.parse(conf, sys.argv[1:])
    db_api.configure(conf)
    server = make_server(conf)

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    LOG.info('Listening on %s:%s', conf.api.host, conf.api.port)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
    return 0


if __name__ == '__main__':
    sys.exit(main())
