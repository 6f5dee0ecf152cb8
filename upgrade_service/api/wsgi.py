"""The application for WSGI servers: `upgrade_service.api.wsgi:application`.

The configuration file is `/etc/upgrade-service/upgrade-service.conf`, or the one that the
environment variable OS_UPGRADE_CONFIG names; the server's own command line is not read.
"""

import os
import threading
from typing import Any

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

from oslo_config import cfg  # noqa: E402 - oslo.service must know its backend first

from upgrade_service import conf as service_conf  # noqa: E402
from upgrade_service.api import app  # noqa: E402
from upgrade_service.db import api as db_api  # noqa: E402

CONFIG_FILE = '/etc/upgrade-service/upgrade-service.conf'
_lock = threading.Lock()


def build() -> Any:
    """Read the configuration and return the application."""
    conf = cfg.CONF
    service_conf.parse(conf, [], [os.environ.get('OS_UPGRADE_CONFIG', CONFIG_FILE)])
    db_api.configure(conf)
    return app.build(conf)


with _lock:
    application = build()
