"""A simulator with a clock that only tests move, and a real openstacksdk connected to it."""

import logging
import os
from typing import Any
import unittest.mock

import openstack
from openstack import exceptions
from openstack.connection import Connection
from oslotest import base

from upgrade_service.simulator import migrations, simulator
from upgrade_service.simulator import spec as specs


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def connect(running: simulator.Simulator, user: str = 'admin') -> Connection:
    """Connect as an operator would: through a clouds.yaml's contents alone."""
    entry = running.clouds(user=user)['clouds']['simulated']
    clean = {k: v for k, v in os.environ.items() if not k.startswith('OS_')}
    with unittest.mock.patch.dict(os.environ, clean, clear=True):
        return openstack.connect(
            load_yaml_config=False, load_envvars=False, app_name='simulator-tests', **entry
        )


class SimulatorTestCase(base.BaseTestCase):
    """One small cloud for each test."""

    spec = specs.default_spec(computes=6, servers=20)

    def setUp(self) -> None:
        super().setUp()
        logging.getLogger('keystoneauth').setLevel(logging.WARNING)
        self.clock = Clock()
        self.simulator = simulator.Simulator(self.spec, clock=self.clock)
        self.simulator.start()
        self.addCleanup(self.simulator.stop)
        self.cloud = self.simulator.cloud
        self.conn: Any = connect(self.simulator)
        self.addCleanup(self.conn.close)

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass, each timer at its moment."""
        end = self.clock.now + seconds
        while (due := self.cloud.next_due()) is not None and due <= end:
            self.clock.now = max(self.clock.now, due)
            with self.cloud.turn():
                pass
        self.clock.now = end

    def guest_on(self, host: str) -> Any:
        """Return a server of a host that is free to go anywhere in its zone."""
        rows = list(self.conn.compute.servers(all_projects=True, compute_host=host))
        return next(row for row in rows if not row.server_groups)

    def migrate(self, server: str, host: str | None = None, version: str = '2.30') -> Any:
        """Ask for a live migration at a microversion; return the response."""
        body: dict[str, Any] = {'host': host, 'block_migration': 'auto'}
        answer = self.conn.compute.post(
            f'/servers/{server}/action', json={'os-migrateLive': body}, microversion=version
        )
        exceptions.raise_from_response(answer)
        return answer

    def last_migration(self) -> migrations.Migration:
        """Return the newest migration's row."""
        row: migrations.Migration = self.cloud.migrations[len(self.cloud.migrations)]
        return row
