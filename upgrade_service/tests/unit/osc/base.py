"""Runs `openstack upgrade …` in this process, with stdout and stderr apart."""

import contextlib
import dataclasses
import io
import json
import shlex
from typing import Any

import fixtures
from openstackclient import shell
from osc_lib import clientmanager
from oslotest import base

from upgrade_service.osc import watch
from upgrade_service.tests.unit.osc import fake_api


@dataclasses.dataclass
class Ran:
    """What a command left."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Parse stdout, all of it."""
        return json.loads(self.out)


class ShellTestCase(base.BaseTestCase):
    """A shell, and an API to talk to."""

    def setUp(self) -> None:
        """Start the API; do not wait between two looks at it."""
        super().setUp()
        self.api = fake_api.FakeApi()
        self.server = fake_api.Server(self.api)
        self.addCleanup(self.server.close)
        # options, not variables: OSC keeps the environment's values of its first shell
        self.endpoint = self.server.url
        for name, value in (('OS_CLOUD', None), ('COLUMNS', '200')):
            self.useFixture(fixtures.EnvironmentVariable(name, value))
        # OSC keeps the first client for the life of a process
        vars(clientmanager.ClientManager)['upgrade']._handle = None
        self.useFixture(fixtures.MonkeyPatch('upgrade_service.osc.watch.POLL', 0.01))
        self.assertGreaterEqual(watch.IDLE_LOOKS, 2)

    def openstack(self, line: str, err: io.StringIO | None = None) -> Ran:
        """Run `openstack <line>`."""
        out, err = io.StringIO(), err or io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                app = shell.OpenStackShell()
                app.stdout, app.stderr = out, err
                status = app.run([*self.credentials(), *shlex.split(line)])
            except SystemExit as e:
                status = e.code if isinstance(e.code, int) else 1
        return Ran(int(status or 0), out.getvalue(), err.getvalue())

    def credentials(self) -> list[str]:
        """Return the options that say who asks whom."""
        return ['--os-auth-type', 'none', '--os-endpoint', self.endpoint]

    def posted(self, end: str) -> list[Any]:
        """Return the bodies of POSTs to paths with this end."""
        return [
            body
            for method, path, body in self.api.requests
            if method == 'POST' and path.endswith(end)
        ]
