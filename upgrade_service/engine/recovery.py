"""At the start of an engine: what was under way when it ended, and what came of it.

The journal says what was accepted, the directories of the attempts say how far they came.
Nothing is started: what had not begun is given back, and the conductor orders it anew.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from oslo_log import log

from upgrade_service.engine import chain, facts, journal, runner
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
_TASK = frozenset(f.name for f in dataclasses.fields(base.Task))


def recover(parts: chain.Parts, adopt: Callable[[chain.Link], None]) -> None:
    """Settle every attempt that the journal holds open, and have results said again.

    :param adopt: takes an attempt that is still running.
    """
    book = parts.book
    if book.damaged:
        _restore(parts)
    begun = True  # of a chain only the first open step can have begun
    for entry in book.open_attempts():
        link = _link(entry, parts.runner.told(*entry.key))
        standing = _standing(parts, entry, begun)
        begun = False
        LOG.info('attempt %s of step %s: %s', entry.attempt, entry.step, standing.value)
        if standing is runner.Standing.RUNNING or _restarted(parts, entry, standing):
            adopt(link)
        elif standing is runner.Standing.NEVER_BEGUN:
            chain.revoke(book, entry.upgrade, 0, 0, [entry.key])
            parts.reporter.say(link.item('revoked'))
        else:
            _settle(parts, entry, link, standing)
    parts.reporter.say(*(e.item for e in book.unrecorded() if e.item))


def _standing(parts: chain.Parts, entry: journal.Entry, first: bool) -> runner.Standing:
    if entry.in_process:
        # it was done by the process that is gone: over, or never begun
        return runner.Standing.INTERRUPTED if first else runner.Standing.NEVER_BEGUN
    standing = parts.runner.standing(*entry.key)
    if standing is runner.Standing.NEVER_BEGUN and not parts.runner.forbid(*entry.key):
        standing = parts.runner.standing(*entry.key)  # a late shim was quicker
    return standing


def _restarted(parts: chain.Parts, entry: journal.Entry, standing: runner.Standing) -> bool:
    """Whether it is an attempt that was to end with the host: the second half is to be done."""
    ended = standing is runner.Standing.INTERRUPTED and not parts.book.damaged
    return ended and bool(parts.runner.told(*entry.key).get('reboots'))


def _settle(
    parts: chain.Parts, entry: journal.Entry, link: chain.Link, standing: runner.Standing
) -> None:
    changed = bool(entry.boot) and entry.boot != facts.boot_id()
    item = chain.ended(link, standing, parts, boot_changed=changed)
    if parts.book.damaged and item['what'] == 'interrupted':
        item = link.item('outcome', outcome=_unknown(), started_at=None, finished_at=None)
    record = {'r': 'ended', 't': facts.now(), 'items': [item]}
    try:
        parts.book.append([record], sync=False)
    except OSError as e:
        LOG.warning('the journal takes no result: %s', e)
        parts.book.note(record)


def _unknown() -> dict[str, object]:
    return {
        'result': base.Result.UNKNOWN.value,
        'rc': 1,
        'error': 'the journal of the engine was damaged while the step was under way: look at '
        'the host, then skip the step or retry it',
        'output': '',
        'data': {},
    }


def _restore(parts: chain.Parts) -> None:
    """Take attempts that a damaged journal lost from their directories."""
    for step, attempt in parts.runner.found():
        if (step, attempt) in parts.book.attempts:
            continue
        record = {
            'r': 'accepted',
            't': facts.now(),
            'upgrade': str(parts.runner.told(step, attempt).get('upgrade') or ''),
            'epoch': 0,
            'boot': '',
            'steps': [[step, attempt, False]],
        }
        parts.book.append([record], sync=True)


def _link(entry: journal.Entry, told: Mapping[str, Any]) -> chain.Link:
    task: dict[str, Any] = {
        'kind': '',
        'host': '',
        'project': None,
        'params': {},
        'timeout': 0,
    }
    found = told.get('task')
    if isinstance(found, dict):
        task |= {k: v for k, v in found.items() if k in _TASK}
    return chain.Link(
        task=base.Task(**{**task, 'step': entry.step, 'attempt': entry.attempt}),
        strategy=str(told.get('strategy') or ''),
        in_process=entry.in_process,
        upgrade=entry.upgrade,
    )
