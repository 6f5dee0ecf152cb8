"""What a program that the shim runs may tell it beside its output.

A line that begins with the ASCII record separator is an event, JSON in one line; every
other line is output. Only programs of ours speak so (`Op.events`), and what they pass on
from others they clean of control characters, so nothing can be slipped in between.
"""

from collections.abc import Mapping
import json
import re
import sys
from typing import Any

MARK = '\x1e'
#: bytes; a longer line would be cut by the shim and would no longer be JSON
MOST = 7 * 1024
_CONTROL = re.compile(r'\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]')


def say(text: str) -> None:
    """Print output."""
    for line in text.splitlines():
        sys.stdout.write(clean(line) + '\n')
    sys.stdout.flush()


def clean(text: str) -> str:
    """Return a text without escapes and control characters."""
    return _CONTROL.sub('', text)


def progress(text: str, done: int | None = None, total: int | None = None) -> None:
    """Say how far it is: what is done now, and how many parts of how many are behind it."""
    _tell({'progress': {'text': clean(text)[:200], 'done': done, 'total': total}})


def outcome(
    host: str,
    result: str,
    error: str = '',
    output: str = '',
    data: Mapping[str, Any] | None = None,
) -> None:
    """Say what became of a host: `result` as in an outcome, `output` what concerns it."""
    said = {'result': result, 'error': clean(error)[:1000], 'data': dict(data or {})}
    room = (MOST - 256 - len(json.dumps(said))) // 2
    _tell({'host': host, **said, 'output': output[-room:]})


def _tell(event: Mapping[str, Any]) -> None:
    sys.stdout.write(f'{MARK}{json.dumps(event)}\n')
    sys.stdout.flush()
