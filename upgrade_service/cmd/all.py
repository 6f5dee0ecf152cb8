"""upgrade-service-all: API, conductor and engine in one process, on SQLite and an
in-process transport. To try the service, and for a small cloud.
"""

import signal
import sys
import threading

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg
from oslo_log import log

from upgrade_service import conf as options
from upgrade_service import keys
from upgrade_service.db import api as db
from upgrade_service.db import migration

LOG = log.getLogger(__name__)


def main() -> int:
    """Run everything until SIGTERM or SIGINT."""
    conf = cfg.CONF
    options.parse(conf, sys.argv[1:])
    conf.set_default('transport_url', 'fake://')
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    everything = AllInOne(conf)
    everything.start()
    ended.wait()
    everything.stop()
    return 0


class AllInOne:
    """The three parts of the service, started and stopped in order."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    def start(self) -> None:
        """Bring the schema up, make a key if there is none, start the parts."""
        from upgrade_service.api import server
        from upgrade_service.conductor import service as conductor

        db.configure(self.conf)
        migration.upgrade()
        if not keys.public(self.conf):
            keys.create(self.conf)
        self._conductor = conductor.ConductorService(self.conf)
        self._conductor.start()
        self._api = server.Server(self.conf)
        self._api.start()

    def stop(self) -> None:
        """Stop the parts, the door first."""
        self._api.stop()
        self._conductor.stop()
