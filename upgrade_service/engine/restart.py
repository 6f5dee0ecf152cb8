"""The second half of a step that restarts its host: is it up again, and as it should be?

The shim ended with the host. Nothing of the step is done again: the engine of the new boot
only asks the strategy's check() until the goal is met or the time is over.
"""

import time
from typing import TYPE_CHECKING, Any

from oslo_log import log

from upgrade_service import exception
from upgrade_service.engine import facts, runner
from upgrade_service.strategies import base

if TYPE_CHECKING:
    from upgrade_service.engine import chain

LOG = log.getLogger(__name__)
PAUSE = 2.0  #: seconds between two looks
AT_LEAST = 60.0  #: seconds that a host has after its restart, however long that took


def settle(link: 'chain.Link', parts: 'chain.Parts') -> dict[str, Any] | None:
    """Wait for the end of a restart; None if the engine is stopped before that."""
    entry = parts.book.attempts[link.key]
    spent = (facts.now() - entry.at) / 1000
    # a clock that was wrong for the one boot or the other must not make it endless
    left = min(max(link.task.timeout - spent, AT_LEAST), float(link.task.timeout))
    until, why = time.monotonic() + left, ''
    while not parts.stopping.wait(PAUSE if why else 0.0):
        why = _look(link, parts, entry.boot)
        if not why:
            return _said(link, base.Result.SUCCEEDED, '')
        if time.monotonic() > until:
            changed = entry.boot != facts.boot_id()
            result = base.Result.FAILED if changed else base.Result.UNKNOWN
            return _said(link, result, why)
    return None


def _look(link: 'chain.Link', parts: 'chain.Parts', boot: str) -> str:
    """Say what is missing, or ''."""
    if facts.boot_id() == boot:
        return 'the restart of the host was asked for, but the host has not restarted'
    try:
        strategy = parts.allowed.strategy(link.strategy)
        if strategy.check(link.task, parts.allowed.site(link.strategy)):
            return ''
    except exception.Refused as e:
        return f'the host restarted, but {e}'
    except Exception as e:
        LOG.warning('the check after the restart broke: %s', e)
        return f'the host restarted, but its check broke: {type(e).__name__}: {e}'
    return 'the host restarted, but the goal of the step is not met'


def _said(link: 'chain.Link', result: base.Result, error: str) -> dict[str, Any]:
    data: dict[str, Any] = {'boot_id': facts.boot_id()}
    if error:
        data['final'] = True
    made = base.Outcome(result=result, rc=int(bool(error)), error=error, data=data)
    outcome = dict(runner.of_outcome(made))
    del outcome['output']  # what was printed before the restart is in the attempt's directory
    return link.item('outcome', outcome=outcome, started_at=None, finished_at=facts.now())
