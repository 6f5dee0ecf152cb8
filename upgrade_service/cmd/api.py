"""upgrade-service-api: the API on a server of its own, for development and small clouds."""

import signal
import sys
import threading

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service.api import server
from upgrade_service.db import api as db


def main() -> int:
    """Serve until SIGTERM or SIGINT; requests in progress are finished."""
    conf = cfg.CONF
    options.parse(conf, sys.argv[1:])
    db.configure(conf)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    served = server.Server(conf)
    served.start()
    ended.wait()
    served.stop()
    return 0
