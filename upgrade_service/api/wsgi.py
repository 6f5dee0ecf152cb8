"""The application for WSGI servers: `upgrade_service.api.wsgi:application`.

The configuration file is `/etc/upgrade-service/upgrade-service.conf`, or the one that the
environment variable OS_UPGRADE_CONFIG names; the server's own command line is not read.
"""

import os
import threading
from typing import Any

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg  # noqa: E402 - oslo.service must know its backend first

from upgrade_service import conf as options  # noqa: E402
from upgrade_service.api import app  # noqa: E402
from upgrade_service.db import api as db  # noqa: E402

CONFIG_FILE = '/etc/upgrade-service/upgrade-service.conf'
_lock = threading.Lock()
_built: Any = None


def build() -> Any:
    """Read the configuration and return this process's application."""
    global _built
    with _lock:
        if _built is None:
            options.parse(cfg.CONF, [], [os.environ.get('OS_UPGRADE_CONFIG', CONFIG_FILE)])
            db.configure(cfg.CONF)
            _built = app.build(cfg.CONF)
        return _built


application = build()
