"""The whole service as it is deployed: real processes on a real message bus and database.

A test gets a simulated cloud with an engine for each host in one process, and conductors and
the API in processes of their own; it asks over HTTP and may kill what it likes. All runs share
one bus, whose queues are named for the service, so only one of them is under way at a time.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
import urllib.error
import urllib.request

import fixtures

from upgrade_service import keys
from upgrade_service.db import api as db
from upgrade_service.tests import database

Row = dict[str, Any]
PATIENCE = 90.0  #: seconds; far more than anything takes
RABBIT = os.environ.get('UPGRADE_TEST_RABBIT_URL', '')
CLOUD = 'upgrade_service.tests.functional.cloud_process'
#: makes the strategy of `scripted.py` an installed plugin of every process
PLUGIN = '[upgrade_service.strategies]\nscripted = {0}.scripted:ScriptedUpgradeStrategy\n'

CONFIG = """\
[DEFAULT]
transport_url = {rabbit}
[database]
connection = {database}
[api]
auth_strategy = noauth
port = {port}
mutations_per_minute = 0
[conductor]
clouds_file = {folder}/clouds.yaml
projects_dir = {folder}/projects.d
lease_ttl = 2
lease_renew = 0.5
scan_interval = 0.2
reconcile_interval = 0.3
resend_after = 0.5
[engine]
heartbeat = 2
state_dir = {folder}/engines
config_dir = {folder}/engine.d
[trust]
keys_dir = {folder}/keys
"""


def wait_for(what: str, look: Any, patience: float = PATIENCE) -> Any:
    """Return what `look` returns once it is true; fail if it never is."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f'it never came: {what}')


class Process(fixtures.Fixture):
    """A program in a session of its own; what it says goes to a file."""

    def __init__(self, name: str, argv: list[str], folder: str, env: Row) -> None:
        super().__init__()
        self.argv, self._env = argv, env
        self.log = pathlib.Path(folder, f'{name}.log')

    def _setUp(self) -> None:
        with open(self.log, 'ab') as said:
            self._popen = subprocess.Popen(
                self.argv, stdout=said, stderr=said, start_new_session=True, env=self._env
            )
        self.addCleanup(self.kill)

    def kill(self) -> None:
        """End it and all its children at once, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.cleanUp()
        self.setUp()

    def said(self, text: str) -> int:
        """Count how often it said something."""
        return self.log.read_text(errors='replace').count(text)


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, status: int, body: Row) -> None:
        super().__init__(f'{status}: {body}')
        self.status, self.body = status, body


class Service(fixtures.Fixture):
    """Everything, at work. `spec`: arguments of the simulator's `default_spec`.

    `apart`: hosts whose engine is a real `upgrade-service-engine`, a process of its own.
    `projects`: name -> what `projects.d` says of it.
    """

    def __init__(
        self, url: str, apart: tuple[str, ...] = (), projects: Row | None = None, **spec: Any
    ) -> None:
        super().__init__()
        self._url, self._apart, self._projects = url, apart, projects or {}
        self._spec = {'controllers': 1, 'computes': 2, 'servers': 2, 'azs': 1, **spec}
        self._spec.update(routers=0, groups=0, volumes=2)

    def _setUp(self) -> None:
        self._alone()
        self.folder = self.useFixture(fixtures.TempDir()).path
        self._database = self.useFixture(database.Database(self._url))
        self.ctx = self._database.ctx
        self.conductors: list[Any] = []
        self.engines: dict[str, Any] = {}
        self._configure()
        self.api = self.start('api', 'upgrade-service-api')
        self.cloud_process = self._start_cloud()
        self.conductor()
        self.url = f'http://127.0.0.1:{self.port}'
        try:
            wait_for('the API', self._api_answers)
            self._enrol()
            wait_for('facts of every host', self._all_known)
        except AssertionError as e:
            raise AssertionError(f'{e}\n{self.logs()}') from None
        self.request('POST', '/v1/clusters', {'name': 'simulated'})

    def _alone(self) -> None:
        path = os.path.join(tempfile.gettempdir(), f'upgrade-bus-{RABBIT.rpartition(":")[2]}'[:40])
        lock = open(path.rstrip('/'), 'w')
        self.addCleanup(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX)

    def _configure(self) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        place = pathlib.Path(self.folder)
        self.config = CONFIG.format(
            rabbit=RABBIT, database=self._url, port=self.port, folder=self.folder
        )
        (place / 'service.conf').write_text(self.config)
        (place / 'clouds.yaml').write_text('clouds: {}\n')
        (place / 'projects.d').mkdir()
        for name, data in self._projects.items():
            said = json.dumps({'project': name, **data})  # JSON is YAML too
            (place / 'projects.d' / f'{name}.yaml').write_text(said)
        plugin = place / 'plugin' / 'scripted-1.0.dist-info'
        plugin.mkdir(parents=True)
        (plugin / 'METADATA').write_text('Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n')
        (plugin / 'entry_points.txt').write_text(PLUGIN.format(__package__))
        self._database.conf.set_override('keys_dir', str(place / 'keys'), 'trust')
        keys.create(self._database.conf)

    def start(self, name: str, program: str, *arguments: str, config: str = '') -> Process:
        """Start one of the service's programs."""
        path = os.path.join(os.path.dirname(sys.executable), program)
        argv = [path, '--config-file', config or f'{self.folder}/service.conf', *arguments]
        return self._process(name, argv)

    def _process(self, name: str, argv: list[str]) -> Process:
        env = {**os.environ, 'PYTHONPATH': f'{self.folder}/plugin'}
        return self.useFixture(Process(name, argv, self.folder, env))

    def conductor(self) -> Process:
        """Start one more conductor."""
        name = f'conductor{len(self.conductors) + 1}'
        self.conductors.append(self.start(name, 'upgrade-service-conductor'))
        return self.conductors[-1]

    def _start_cloud(self) -> Process:
        place = pathlib.Path(self.folder)
        told = {'spec': self._spec, 'folder': self.folder, 'speed': 20.0}
        (place / 'cloud.json').write_text(json.dumps(told))
        argv = [sys.executable, '-m', CLOUD, f'{self.folder}/service.conf', str(place)]
        return self._process('cloud', argv)

    def _enrol(self) -> None:
        place = pathlib.Path(self.folder)
        computes = [f'cmp{n + 1}' for n in range(self._spec['computes'])]
        self.hosts = ['ctl1', *computes]
        bundles = {
            h: self.request('POST', '/v1/agents', {'host': h})['bundle'] for h in self.hosts
        }
        here = {h: b for h, b in bundles.items() if h not in self._apart}
        temporary = place / 'bundles.new'
        temporary.write_text(json.dumps(here))
        os.replace(temporary, place / 'bundles.json')
        wait_for('the simulated cloud', (place / 'cloud.url').exists)
        self.cloud_url = (place / 'cloud.url').read_text()
        for host in self._apart:
            self.engines[host] = self._engine(host, bundles[host])

    def _engine(self, host: str, bundle: Row) -> Process:
        bundle_file = pathlib.Path(self.folder, f'{host}.bundle')
        bundle_file.touch(mode=0o600)
        bundle_file.write_text(json.dumps(bundle))
        config = self.config.replace(
            '[engine]\n', f'[engine]\nhost = {host}\nenroll_bundle = {bundle_file}\n'
        ).replace(f'{self.folder}/engine', f'{self.folder}/{host}-engine')
        settings = pathlib.Path(f'{self.folder}/{host}-engine.d')
        settings.mkdir(mode=0o700)
        told = {'url': self.cloud_url, 'trace': f'{self.folder}/trace'}
        (settings / 'scripted.yaml').write_text(json.dumps(told))
        os.chmod(settings / 'scripted.yaml', 0o600)
        path = pathlib.Path(self.folder, f'{host}.conf')
        path.write_text(config)
        return self.start(host, 'upgrade-service-engine', config=str(path))

    def _api_answers(self) -> bool:
        try:
            return bool(self.request('GET', '/'))
        except (Refused, OSError):
            return False

    def _all_known(self) -> bool:
        known = {a['host'] for a in db.agent_list(self.ctx) if a['facts_at']}
        return known == set(self.hosts)

    # -- asking --------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Row | None = None) -> Row:
        """Send a request to the API; return its answer.

        :raises Refused: the answer is an error.
        """
        return call(f'{self.url}{path}', method, body)

    def all(self, path: str) -> list[Row]:
        """Return every row of a list."""
        found, url = [], f'{self.url}{path}'
        while url:
            page = call(url)
            url = page.pop('next', None)
            found += next(iter(v for v in page.values() if isinstance(v, list)))
        return found

    def simulated(self) -> list[Row]:
        """Return the simulated cloud's hosts as they are."""
        hosts: list[Row] = call(f'{self.cloud_url}/hosts')['hosts']
        return hosts

    def cloud_log(self) -> list[Row]:
        """Return what was asked of the simulated cloud."""
        log: list[Row] = call(f'{self.cloud_url}/control/log')['log']
        return log

    def fault(self, kind: str, **match: Any) -> None:
        """Have something fail in the simulated cloud."""
        call(f'{self.cloud_url}/control/faults', 'POST', {'kind': kind, **match})

    def mend(self) -> None:
        """End all faults."""
        call(f'{self.cloud_url}/control/faults', 'DELETE')

    def computes(self) -> list[Row]:
        """Return nova's records of the nova-compute services."""
        scope = {'project': {'name': 'admin', 'domain': {'name': 'Default'}}}
        user = {'name': 'admin', 'password': 'simulated', 'domain': {'name': 'Default'}}
        identity = {'methods': ['password'], 'password': {'user': user}}
        _, headers = send(
            f'{self.cloud_url}/identity/v3/auth/tokens',
            'POST',
            {'auth': {'identity': identity, 'scope': scope}},
        )
        token = {'X-Auth-Token': headers['X-Subject-Token']}
        url = f'{self.cloud_url}/compute/v2.1/os-services?binary=nova-compute'
        found: list[Row] = send(url, 'GET', None, token)[0]['services']
        return found

    # -- an upgrade ----------------------------------------------------------------------------

    def upgrade(self, start: bool = True, policy: Row | None = None, **more: Any) -> 'Upgrade':
        """Have an upgrade of the cloud planned, and started."""
        rules = {'drain': {'settle_seconds': 0}, **(policy or {})}
        body = {'cluster': 'simulated', 'to_release': '2026.2', 'strategy': 'simulated', **more}
        asked = self.request('POST', '/v1/upgrades', {**body, 'policy': rules})
        made = Upgrade(self, asked['id'])
        row = made.wait('draft', 'cancelled')
        if row['state'] != 'draft':
            raise AssertionError(f'no plan: {row["message"]}\n{self.logs()}')
        if start:
            made.verb('start')
        return made

    def logs(self) -> str:
        """Return the end of what each process said."""
        parts = sorted(pathlib.Path(self.folder).glob('*.log'))
        return '\n'.join(f'== {p.name}\n{p.read_text(errors="replace")[-4000:]}' for p in parts)


class Upgrade:
    """One upgrade, seen through the API."""

    def __init__(self, service: Service, ident: str) -> None:
        self.id = ident
        self.service = service
        self.path = f'/v1/upgrades/{ident}'

    @property
    def row(self) -> Row:
        """What the API says of it."""
        return self.service.request('GET', self.path)

    def verb(self, verb: str, **body: Any) -> Row:
        """Ask for something."""
        return self.service.request('POST', f'{self.path}/{verb}', body)

    def step_verb(self, step: Row, verb: str, **body: Any) -> Row:
        """Ask for something for one step."""
        return self.service.request('POST', f'{self.path}/steps/{step["ord"]}/{verb}', body)

    def wait(self, *wanted: str) -> Row:
        """Wait for a state; any other one that a person must act on fails the test."""
        resting = {'blocked', 'paused', 'succeeded', 'cancelled', 'rolled_back'} - set(wanted)
        row: Row = {}

        def look() -> bool:
            row.update(self.row)
            return row['state'] in wanted or row['state'] in resting

        try:
            wait_for(f'state {wanted}', look)
        except AssertionError:
            raise AssertionError(f'still {row["state"]}: {self.picture()}') from None
        if row['state'] not in wanted:
            raise AssertionError(f'{row["state"]}, not {wanted}: {self.picture()}')
        return row

    def wait_past(self, held: str, *wanted: str) -> Row:
        """Wait until it is no longer held, then for a state."""
        wait_for(f'the end of {held}', lambda: self.row['state'] != held)
        return self.wait(*wanted)

    def picture(self) -> str:
        """Say how it stands, for whoever reads a failed test."""
        events = [(e['kind'], e.get('detail')) for e in self.events()[-12:]]
        return f'{self.row["message"]}\n{events}\n{self.service.logs()}'

    def steps(self, **match: Any) -> list[Row]:
        """List its steps."""
        rows = self.service.all(f'{self.path}/steps')
        return [r for r in rows if all(r[k] == v for k, v in match.items())]

    def wait_step(self, **match: Any) -> Row:
        """Wait until there is a step like this; return it."""
        try:
            found = wait_for(f'a step {match}', lambda: self.steps(**match))
        except AssertionError as e:
            raise AssertionError(f'{e}: {self.picture()}') from None
        first: Row = found[0]
        return first

    def events(self) -> list[Row]:
        """List what happened to it."""
        return self.service.all(f'{self.path}/events')


def send(
    url: str, method: str = 'GET', body: Row | None = None, headers: Row | None = None
) -> tuple[Row, Any]:
    """Send a request; return (JSON of the answer, its headers)."""
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={'Content-Type': 'application/json', **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b'{}'), answer.headers
    except urllib.error.HTTPError as e:
        with e:
            text = e.read().decode(errors='replace')
        with contextlib.suppress(ValueError):
            raise Refused(e.code, json.loads(text)) from None
        raise Refused(e.code, {'text': text}) from None


def call(url: str, method: str = 'GET', body: Row | None = None) -> Row:
    """Send a request; return its answer."""
    return send(url, method, body)[0]
