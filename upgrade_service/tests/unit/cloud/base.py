"""Cloud steps against the simulated cloud, through real openstacksdk.

The clock of both is the simulator's: waiting moves it.
"""

from typing import Any

from oslo_config import cfg
import yaml

from upgrade_service import conf as options
from upgrade_service import model
from upgrade_service.conductor import cloud as cloud_steps
from upgrade_service.conductor.cloud import connect
from upgrade_service.conductor.discovery import merge, openstack
from upgrade_service.projects import loader, policy, releases
from upgrade_service.tests.unit.simulator import base

UPGRADE = '11111111-1111-1111-1111-111111111111'


class CloudTestCase(base.SimulatorTestCase):
    """A simulated cloud, and steps to run on it."""

    def setUp(self) -> None:
        super().setUp()
        path = self.create_tempfiles([('clouds', yaml.safe_dump(self.entry()))], '.yaml')[0]
        self.conf = cfg.ConfigOpts()
        options.register_opts(self.conf)
        self.conf([], default_config_files=[])
        self.set_option('clouds_file', path)
        self.cluster = {'name': 'sim', 'cloud': 'simulated'}
        self.saved: list[dict[str, Any]] = []
        self.stop_now = False
        connect.reset()
        self.addCleanup(connect.reset)

    def set_option(self, name: str, value: Any) -> None:
        """Set a conductor option for this test; option groups are shared by ConfigOpts."""
        self.conf.set_override(name, value, 'conductor')
        self.addCleanup(self.conf.clear_override, name, 'conductor')

    def entry(self) -> dict[str, Any]:
        """What clouds.yaml holds."""
        return self.simulator.clouds()

    def task(self, kind: str, host: str | None = None, **params: Any) -> cloud_steps.CloudTask:
        """Make a step's task; `drain` changes that part of the policy."""
        raw = {'drain': {'settle_seconds': 5, **params.pop('drain', {})}}
        return cloud_steps.CloudTask(
            conf=self.conf,
            cluster=self.cluster,
            upgrade_id=UPGRADE,
            epoch=1,
            step={
                'id': '22222222-2222-2222-2222-222222222222',
                'kind': kind,
                'host': host,
                'project': params.pop('project', None),
                'params': params,
            },
            policy=policy.merge_policy(raw),
            progress={},
            save=lambda progress: self.saved.append(yaml.safe_load(yaml.safe_dump(progress))),
            may_act=lambda seconds: None,
            stopping=lambda: self.stop_now,
            wait=self.sleep,
            inventory=self.inventory,
            clock=self.clock,
        )

    def run_step(self, kind: str, host: str | None = None, **params: Any) -> Any:
        """Run one step to its end."""
        return cloud_steps.run(self.task(kind, host, **params))

    def inventory(self) -> model.Inventory:
        """Discover, without engines."""
        found = openstack.OpenStackInventory().collect(self.conf, self.cluster)
        return merge.merge(
            'sim', [found], [], releases.load(), loader.load_projects(), merge.Clock(0, 90, 600)
        )

    def calls(self, what: str) -> list[Any]:
        """Return the changing calls of a kind that the cloud has seen."""
        return [e for e in self.cloud.log if e.kind == 'call' and e.what == what]

    def on(self, host: str) -> list[str]:
        """Return the ids of the servers on a host."""
        return [s.id for s in self.cloud.servers.values() if s.host == host]
