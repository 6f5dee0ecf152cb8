"""upgrade-service-engine: does the steps of one host."""

import sys
import threading
from typing import Any

from upgrade_service.cmd import prepare

prepare()

import cotyledon
from oslo_config import cfg
from oslo_log import log

from upgrade_service import conf as options
from upgrade_service import exception

LOG = log.getLogger(__name__)


class Engine(cotyledon.Service):
    """The worker process; everything is opened after the fork."""

    name = 'upgrade-service-engine'

    def __init__(self, worker_id: Any, conf: cfg.ConfigOpts) -> None:
        super().__init__(worker_id)
        self._conf = conf
        self._ended = threading.Event()
        self._service: Any = None

    def run(self) -> None:
        """Work until told to end; wait for an enrolment bundle if there is none yet."""
        from upgrade_service.engine import service

        while not self._ended.is_set():
            made = service.EngineService(self._conf)
            try:
                made.start()
            except (exception.Untrusted, OSError) as e:
                LOG.error('cannot begin: %s; trying again', e)
                self._ended.wait(10.0)
                continue
            self._service = made
            self._ended.wait()

    def reload(self) -> None:
        """Read changed options again (SIGHUP)."""
        self._conf.mutate_config_files()

    def terminate(self) -> None:
        """End in order; the process exits when this returns."""
        if self._service is not None:
            self._service.stop()
        self._ended.set()


def main() -> int:
    """Run the engine."""
    conf = cfg.CONF
    options.parse(conf, sys.argv[1:])
    manager = cotyledon.ServiceManager()
    manager.add(Engine, workers=1, args=(conf,))
    manager.run()
    return 0
