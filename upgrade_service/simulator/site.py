"""A simulated cloud under the care of the service in this process: to try it, and for tests.

The cloud's APIs are real HTTP on loopback, and each of its hosts has an engine with an
identity, key, journal and lock of its own; only the system below the engines is played.
"""

import contextlib
import os
import pathlib

from oslo_config import cfg
import yaml

from upgrade_service import context, keys
from upgrade_service.db import api as db
from upgrade_service.engine import manager
from upgrade_service.simulator import simulator, spec

CLOUD = 'simulated'
#: quicker than the real thing, and still slow enough to be watched
TIMING = spec.Timing(migration=(1.0, 2.0), restart=0.5)


class Site:
    """The simulated cloud and the engines of its hosts, started and stopped together."""

    def __init__(
        self, conf: cfg.ConfigOpts, what: spec.Spec | None = None, speed: float = 1.0
    ) -> None:
        self._conf = conf
        self.simulator = simulator.Simulator(what or spec.default_spec(timing=TIMING), speed=speed)
        self.engines: dict[str, manager.AgentManager] = {}

    def start(self) -> None:
        """Serve the cloud, say where it is in clouds.yaml, enrol and start its engines."""
        self.simulator.start()
        self._write_clouds()
        for host in self.simulator.cloud.nodes:
            self.engines[host] = self._engine(host)
            self.engines[host].start()

    def stop(self) -> None:
        """Stop the engines, then the cloud."""
        for engine in self.engines.values():
            engine.stop()
        self.simulator.stop()

    def _write_clouds(self) -> None:
        path = pathlib.Path(self._conf.conductor.clouds_file)
        known = {}
        with contextlib.suppress(FileNotFoundError):
            known = (yaml.safe_load(path.read_text()) or {}).get('clouds', {})
        known.update(self.simulator.clouds(CLOUD)['clouds'])
        path.write_text(yaml.safe_dump({'clouds': known}))

    def _engine(self, host: str) -> manager.AgentManager:
        state = pathlib.Path(self._conf.engine.state_dir, host)
        settings = state / 'engine.d'
        settings.mkdir(mode=0o700, parents=True, exist_ok=True)
        allowed = settings / 'simulated.yaml'
        allowed.write_text(yaml.safe_dump({'url': self.simulator.url}))
        os.chmod(allowed, 0o600)
        token, expires = db.enroll_token_create(context.system(), host)
        bundle = {
            'token': token, 'host': host, 'keys': keys.public(self._conf), 'expires_at': expires,
        }  # fmt: skip
        return manager.AgentManager(self._conf, host, str(state), str(settings), bundle=bundle)
