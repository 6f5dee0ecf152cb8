"""The engine of one host, wired from its configuration."""

import os

from oslo_config import cfg

from upgrade_service.engine import manager


class EngineService:
    """What `upgrade-service-engine` runs, from `start` to `stop`."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def start(self) -> None:
        """Open the identity of this host and begin.

        :raises Untrusted: the host was never enrolled and has no bundle.
        """
        options = self._conf.engine
        self.manager = manager.AgentManager(
            self._conf,
            options.host,
            os.path.abspath(options.state_dir),
            options.config_dir,
            bundle=options.enroll_bundle,
        )
        self.manager.start()

    def stop(self) -> None:
        """End in order; steps under a shim go on."""
        self.manager.stop()
