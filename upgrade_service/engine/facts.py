"""What an engine says of its host: who it is, what runs there, what can be done there."""

import functools
from importlib import metadata
import pathlib
import platform
import time
from typing import Any

from upgrade_service.engine import settings


def now() -> int:
    """Return the time of this host, ms since the epoch."""
    return time.time_ns() // 1_000_000


@functools.cache
def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()


@functools.cache
def version() -> str:
    """Return the version of this service."""
    try:
        return metadata.version('upgrade-service')
    except metadata.PackageNotFoundError:
        return '0'


def operating_system() -> dict[str, str]:
    """Return {id, version, kernel}."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        'id': release.get('ID', ''),
        'version': release.get('VERSION_ID', ''),
        'kernel': platform.release(),
    }


def collect(agent: str, host: str, allowed: settings.Allowed) -> dict[str, Any]:
    """Make the payload of a `facts` message."""
    return {
        **allowed.facts(),  # first: no strategy may speak of who we are
        'v': 1,
        'type': 'facts',
        'agent': agent,
        'host': host,
        'boot_id': boot_id(),
        'at': now(),
        'version': version(),
        'data_digest': allowed.projects.digest,
        'os': operating_system(),
    }
