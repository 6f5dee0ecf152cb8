"""upgrade-service-conductor: discovers, plans and brokers upgrades."""

import sys
import threading
from typing import Any

from upgrade_service.cmd import prepare

prepare()

import cotyledon
from oslo_config import cfg

from upgrade_service import conf as options


class Conductor(cotyledon.Service):
    """The worker process; everything is opened after the fork."""

    name = 'upgrade-service-conductor'

    def __init__(self, worker_id: Any, conf: cfg.ConfigOpts) -> None:
        super().__init__(worker_id)
        self._conf = conf
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until told to end."""
        from upgrade_service.conductor import service
        from upgrade_service.db import api as db

        db.configure(self._conf)
        self._service = service.ConductorService(self._conf)
        self._service.start()
        self._ended.wait()

    def reload(self) -> None:
        """Read changed options again (SIGHUP)."""
        self._conf.mutate_config_files()

    def terminate(self) -> None:
        """End in order; the process exits when this returns."""
        self._service.stop()
        self._ended.set()


def main() -> int:
    """Run the conductor."""
    conf = cfg.CONF
    options.parse(conf, sys.argv[1:])
    manager = cotyledon.ServiceManager()
    manager.add(Conductor, workers=1, args=(conf,))
    manager.run()
    return 0
