"""One conductor process, wired: leases, brokers, cloud threads, the message bus."""

from collections.abc import Callable
from concurrent import futures
import os
import socket
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service import context, exception, keys, rpc
from upgrade_service.conductor import broker, cloudwork, manager, orders, ownership, planning
from upgrade_service.db import api as db
from upgrade_service.engine import rpcapi as engine_rpcapi

LOG = log.getLogger(__name__)
#: seconds for which a discovery belongs to the conductor that took it
DISCOVERY_LEASE = 120.0


class ConductorService:
    """Everything a conductor does, from `start` to `stop`."""

    def __init__(self, conf: cfg.ConfigOpts, name: str | None = None) -> None:
        self.conf = conf
        self.name = name or f'{socket.gethostname()}:{os.getpid()}'
        self._stop = threading.Event()
        self._discoveries = threading.Event()
        self._pool = futures.ThreadPoolExecutor(4, 'discovery')
        self._leases = ownership.Leases(conf, self.name, self._take)
        self._threads = [
            threading.Thread(
                target=self._every,
                args=(1.0, self._beat, self._stop),
                name='heartbeats',
                daemon=True,
            ),
            threading.Thread(
                target=self._every,
                args=(2.0, self._discover, self._discoveries),
                name='discoveries',
                daemon=True,
            ),
        ]

    def start(self) -> None:
        """Connect and begin."""
        engines = engine_rpcapi.EngineAPI(self.conf)
        signer = keys.signer(self.conf)
        self._post = orders.Post(self.conf, signer, engines, self._leases.now, '')
        self._planning = planning.Planning(self.conf, self._post)
        self._post.digest = self._planning.projects.digest
        self._cloud = cloudwork.CloudWork(self.conf, self._leases, self._planning.inventory)
        self._manager = manager.ConductorManager(
            self.conf, self._leases, self._post, self._discoveries
        )
        self._server = rpc.get_server(
            self.conf, rpc.CONDUCTOR_EXCHANGE, rpc.CONDUCTOR_TOPIC, self.name, self._manager
        )
        self._leases.start()
        self._server.start()
        for thread in self._threads:
            thread.start()
        LOG.info('conductor %s is at work', self.name)

    def stop(self) -> None:
        """End in order: take nothing new, let turns end, give the leases free."""
        self._stop.set()
        self._discoveries.set()
        self._server.stop()
        self._leases.stop()
        self._cloud.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        LOG.info('conductor %s has ended', self.name)

    def _take(self, row: dict[str, Any]) -> broker.Broker:
        return broker.Broker(
            row, self.name, self._post, self._cloud, self._planning.plan, self.conf
        )

    def _every(self, seconds: float, work: Callable[[], None], event: threading.Event) -> None:
        while not self._stop.is_set():
            event.wait(seconds)
            if event is not self._stop:
                event.clear()
            try:
                work()
            except exception.Busy as e:
                LOG.warning('%s', e)
            except Exception:
                LOG.exception('%s failed; trying again', work.__name__)

    def _beat(self) -> None:
        self._manager.flush_heartbeats()

    def _discover(self) -> None:
        if self._stop.is_set():
            return
        for cluster in db.discovery_claim(context.system(), DISCOVERY_LEASE):
            self._pool.submit(self._planning.discover, cluster)
