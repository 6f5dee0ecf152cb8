"""The real MariaDB and RabbitMQ of the suite, started, killed and started again."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from typing import Any
from urllib import parse

TOOL = pathlib.Path(__file__).parents[3] / 'tools' / 'servers.sh'


class Servers:
    """What tools/servers.sh starts, in a directory of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = pathlib.Path(folder)
        self._env = {
            **os.environ,
            'UPGRADE_TEST_SERVERS': folder,
            'UPGRADE_TEST_SERVER_LIST': 'mariadb rabbitmq',
        }

    def start(self) -> None:
        """Start both."""
        subprocess.run([TOOL, 'start'], env=self._env, check=True, timeout=180)

    def stop(self) -> None:
        """Stop both and remove their data."""
        subprocess.run([TOOL, 'stop'], env=self._env, check=False, timeout=180)

    def urls(self) -> tuple[str, str]:
        """Return the URLs of a database to be made, and of the bus."""
        said = subprocess.run(
            [TOOL, 'env'], env=self._env, check=True, timeout=60, capture_output=True, text=True
        ).stdout
        found = dict(line.removeprefix('export ').split('=', 1) for line in said.splitlines())
        connections = found['OS_TEST_DBAPI_ADMIN_CONNECTION'].strip("'").split(';')
        server = next(c for c in connections if c.startswith('mysql')).partition('/?')[0]
        self._urls = f'{server}/chaos', found['UPGRADE_TEST_RABBIT_URL'].strip("'")
        return self._urls

    def restart(self, name: str) -> None:
        """Kill a server without a word and start it as it was; its data stays."""
        pid_file = self.folder / f'{name}.pid'
        pid = int(pid_file.read_text())
        proc = pathlib.Path('/proc', str(pid))
        argv = [a.decode() for a in (proc / 'cmdline').read_bytes().split(b'\0')[:-1]]
        env = dict(
            e.decode().split('=', 1) for e in (proc / 'environ').read_bytes().split(b'\0') if e
        )
        owner: Any = {'user': proc.stat().st_uid, 'group': proc.stat().st_gid, 'extra_groups': []}
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        while _runs(pid):
            time.sleep(0.02)
        with open(self.folder / f'{name}.log', 'ab') as said:
            made = subprocess.Popen(
                argv, env=env, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                start_new_session=True, **owner,
            )  # fmt: skip
        pid_file.write_text(f'{made.pid}\n')
        self._children = [*getattr(self, '_children', []), made]

    def there(self) -> bool:
        """Whether both can be reached: a server is gone until it serves again."""
        database, bus = self._urls
        return _listens(database) and _listens(bus)


def _listens(url: str) -> bool:
    at = parse.urlsplit(url)
    with (
        contextlib.suppress(OSError),
        socket.create_connection((at.hostname or '', at.port or 0), timeout=1),
    ):
        return True
    return False


def _runs(pid: int) -> bool:
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False
