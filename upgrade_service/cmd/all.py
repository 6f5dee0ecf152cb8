"""upgrade-service-all: API, conductor and engine in one process, on SQLite and an
in-process transport. To try the service, and for a small cloud.
"""

import pathlib
import signal
import sys
import threading
from typing import Any

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg
from oslo_log import log

from upgrade_service import conf as options
from upgrade_service import keys, rpc
from upgrade_service.db import api as db
from upgrade_service.db import migration

LOG = log.getLogger(__name__)
CLI_OPTS = [
    cfg.BoolOpt(
        'simulated-cloud',
        default=False,
        help='Also run a simulated cloud (3 controllers, 12 computes) with an engine '
        'for each of its hosts; its clouds.yaml entry is named "simulated".',
    ),
]


def main() -> int:
    """Run everything until SIGTERM or SIGINT."""
    conf = cfg.CONF
    conf.register_cli_opts(CLI_OPTS)
    options.parse(conf, sys.argv[1:])
    rpc.use('fake://')
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    everything = AllInOne(conf)
    everything.start()
    ended.wait()
    everything.stop()
    return 0


class AllInOne:
    """The parts of the service, started in order and stopped the other way round."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf
        self._parts: list[Any] = []

    def start(self) -> None:
        """Bring the schema up, make a key if there is none, start the parts."""
        db.configure(self.conf)
        migration.upgrade()
        if not keys.public(self.conf):
            keys.create(self.conf)
        try:
            for part in (self._conductor, self._engines, self._api):
                if started := part():
                    started.start()
                    self._parts.append(started)
        except Exception:
            self.stop()
            raise

    def _conductor(self) -> Any:
        from upgrade_service.conductor import service

        return service.ConductorService(self.conf)

    def _engines(self) -> Any:
        """Engines of the simulated cloud, or of this host once it is enrolled."""
        if self.conf.simulated_cloud:
            from upgrade_service.simulator import site

            return site.Site(self.conf)
        if pathlib.Path(self.conf.engine.enroll_bundle).exists():
            from upgrade_service.engine import service

            return service.EngineService(self.conf)
        return None

    def _api(self) -> Any:
        from upgrade_service.api import server

        return server.Server(self.conf)

    def stop(self) -> None:
        """Stop the parts, the door first."""
        while self._parts:
            self._parts.pop().stop()
