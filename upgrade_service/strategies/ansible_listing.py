"""Reads an inventory with Ansible's own `ansible-inventory --list`: any format, any plugin."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import subprocess
import threading
from typing import Any

from upgrade_service import exception

#: bytes of JSON; an inventory of 20,000 hosts with a page of variables each is less
MOST = 64 * 2**20
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def read(
    directory: str,
    inventory: Sequence[str],
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> dict[str, Any]:
    """Return what `ansible-inventory --list` says: groups, and `_meta.hostvars`.

    `directory` holds the command; `inventory` names files, directories or plugins' files.

    :raises Refused: it cannot be run, does not understand the inventory, or says too much.
    """
    sources = [word for path in inventory for word in ('-i', path)]
    argv = [f'{directory}/ansible-inventory', *sources, *options, '--list']
    environment = {'PATH': f'{directory}:{PATH}', 'LC_ALL': 'C.UTF-8', 'HOME': '/', **(env or {})}
    environment.setdefault('ANSIBLE_INVENTORY_UNPARSED_FAILED', 'true')
    process = None
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd='/',
            env=environment,
        )
        said, wrong = _capped(process, timeout)
    except OSError as e:
        raise exception.Refused(reason=f'{argv[0]}: {e.strerror}') from e
    if process.returncode:
        raise exception.Refused(reason=f'the inventory cannot be read: {_last(wrong)}')
    try:
        found = json.loads(said)
    except ValueError as e:
        raise exception.Refused(reason=f'{argv[0]} does not answer in JSON: {e}') from e
    if not isinstance(found, dict):
        raise exception.Refused(reason=f'{argv[0]} does not answer with a mapping')
    return found


def _capped(process: 'subprocess.Popen[bytes]', timeout: float) -> tuple[bytes, str]:
    """Read at most MOST bytes in at most `timeout` seconds."""
    late = threading.Timer(timeout, process.kill)
    late.start()
    wrong: list[bytes] = []
    assert process.stdout and process.stderr  # noqa: S101 - both are pipes
    reader = threading.Thread(
        target=lambda err: wrong.append(err.read(2**20)), args=[process.stderr]
    )
    reader.start()
    try:
        said = process.stdout.read(MOST + 1)
        if len(said) > MOST:
            process.kill()
            raise exception.Refused(reason=f'the inventory is larger than {MOST >> 20} MiB')
        process.wait()
        reader.join(5)
    finally:
        in_time = late.is_alive()
        late.cancel()
        process.stdout.close()
    if not in_time:
        raise exception.Refused(reason=f'ansible-inventory did not answer in {timeout:.0f} s')
    return said, b''.join(wrong).decode(errors='replace')


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(('[ERROR]', 'ERROR!', '[WARNING]'))]
    return ' '.join((errors or lines)[:1])[:500] or 'no reason was given'


def members(listing: Mapping[str, Any], group: str) -> set[str]:
    """Return the hosts of a group and of the groups below it."""
    found: set[str] = set()
    todo, done = [group], set()
    while todo:
        name = todo.pop()
        if name in done or not isinstance(listing.get(name), Mapping):
            continue
        done.add(name)
        found.update(map(str, listing[name].get('hosts') or ()))
        todo.extend(map(str, listing[name].get('children') or ()))
    return found


class Cache:
    """Keeps a listing until one of the inventory's files changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, ...], tuple[tuple[float, ...], dict[str, Any]]] = {}

    def read(
        self,
        directory: str,
        inventory: Sequence[str],
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Like the function of the same name."""
        key, stamp = (directory, *inventory, *options), _stamp(inventory)
        with self._lock:
            if key not in self._kept or self._kept[key][0] != stamp:
                self._kept[key] = (stamp, read(directory, inventory, options, env))
            return self._kept[key][1]


def _stamp(inventory: Sequence[str]) -> tuple[float, ...]:
    times = []
    for source in inventory:
        path = pathlib.Path(source)
        for one in (path, *(sorted(path.iterdir()) if path.is_dir() else ())):
            times.append(os.stat(one).st_mtime if one.exists() else 0.0)
    return tuple(times)
