"""What every process of a run is told, and the time scale they all live on."""

import dataclasses
import json
import os
import pathlib
import time
from typing import Any

Row = dict[str, Any]
HOSTS = ('cmp1', 'cmp2')
#: planted where secrets live; it must turn up nowhere else (I12)
CANARY = 'canary-7d1f3c'

CONFIG = """\
[DEFAULT]
transport_url = {rabbit}
use_stderr = true
[oslo_messaging_rabbit]
kombu_reconnect_delay = 0.1
rabbit_retry_interval = 1
[database]
connection = {database}
[api]
auth_strategy = noauth
port = {port}
mutations_per_minute = 0
[conductor]
clouds_file = {folder}/clouds.yaml
projects_dir = {folder}/projects.d
lease_ttl = 1
lease_renew = 0.2
scan_interval = 0.1
reconcile_interval = 0.3
resend_after = 0.2
agent_timeout = 5
[engine]
heartbeat = 1
[trust]
keys_dir = {folder}/keys
"""

#: constants of the code, made shorter; what they are used for stays as it is
SCALE: dict[str, float] = {
    'conductor.broker.PROBE_AFTER': 1.0,
    'conductor.broker.SETTLE_AFTER_TAKEOVER': 0.5,
    'conductor.ready.RETRY_MS': 50,
    'conductor.orders.MAX_BACKOFF': 1.0,
    'engine.reporter.FIRST': 0.3,
    'engine.reporter.LONGEST': 1.0,
    'engine.chain.ACCEPTED_AFTER': 0.15,
    'engine.runner.START_GRACE': 8.0,
    'engine.ticker.PERIOD': 0.1,
}


@dataclasses.dataclass(kw_only=True)
class Told:
    """What a process is to be, and what is to become of it."""

    role: str  #: conductor, engine, api or cloud
    name: str
    folder: str
    host: str = ''
    skew: float = 0.0  #: seconds its clock is ahead
    broken: str = ''  #: name of a broken build
    count: bool = False  #: note each boundary it comes to
    kill_at: tuple[str, int] | None = None  #: (boundary, n): die at the n-th time
    kill_after: int = 0  #: die at the n-th boundary, whichever it is
    lossy: float = 0.0  #: part of its messages that is lost, doubled or late
    seed: int = 0

    def path(self, *names: str) -> pathlib.Path:
        """A path in the folder of the run."""
        return pathlib.Path(self.folder, *names)


def append(path: str | os.PathLike[str], /, **said: Any) -> None:
    """Write a line of JSON, whole, at the end of a file that others write to as well."""
    line = json.dumps({'at': time.time(), **said}).encode() + b'\n'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)


def lines(path: str | os.PathLike[str]) -> list[Row]:
    """Read such a file."""
    try:
        text = pathlib.Path(path).read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]
