"""One run for the steps of several hosts: one child, one attempt and outcome for each host.

Such an order reaches the engine of a deployment host. Its steps are of one kind and differ
in their host only; each keeps an attempt, a place and an outcome of its own, so whatever
becomes of the run is found again and reported step by step, as if each had been alone.
"""

from collections.abc import Callable, Iterable
import subprocess
from typing import Any

from oslo_log import log

from upgrade_service import exception
from upgrade_service.engine import chain, facts
from upgrade_service.engine import runner as runners

LOG = log.getLogger(__name__)


def hosts(links: Iterable[chain.Link]) -> int:
    """Count the hosts that steps are for."""
    return len({n.task.host for n in links})


def chain_of(links: list[chain.Link], parts: chain.Parts, lock: chain.HostLock) -> chain.Chain:
    """Make the chain that carries an order out: for several hosts one run, if that is possible."""
    first = links[0]
    alike = {(n.strategy, n.task.kind, n.task.project, n.task.direction) for n in links}
    one_run = (
        len(links) == hosts(links) > 1
        and len(alike) == 1
        and first.task.kind in parts.allowed.strategy(first.strategy).together
        and all(n.task.params == first.task.params for n in links)
    )
    return (Together if one_run else chain.Chain)(links, parts, lock)


class Together(chain.Chain):
    """The steps of an order that one job does for several hosts."""

    def run(self, done: Callable[[chain.Chain], None]) -> None:
        """Do the steps; never raises."""
        items: list[chain.Item] = []
        try:
            begun = [n for n in self.links if self._begin(n)]
            items = self._outcomes(begun) if begun else []
        except Exception:
            LOG.exception('a run for several hosts broke')
        finally:
            self.current = []
            self._lock.leave()
            done(self)
            self._report(items)

    def _outcomes(self, links: list[chain.Link]) -> list[chain.Item]:
        """Do the steps; return what came of each, but for those that a later engine finds."""
        began = facts.now()
        process: subprocess.Popen[bytes] | None = None
        try:
            process = self._start(links)
        except exception.Refused as e:
            items = [self._failed(n, str(e), began, final=True) for n in links]
        except Exception as e:
            LOG.exception('a run for %d hosts could not begin', len(links))
            why = f'cannot be started: {type(e).__name__}: {e}'
            items = [self._failed(n, why, began) for n in links]
        else:
            items = [i for n in links if (i := self._watch(n, process)) is not None]
        known = {n.key: n for n in links}
        for item in items:
            self._note(known[item['step'], item['attempt']], item)
        return items

    def _start(self, links: list[chain.Link]) -> 'subprocess.Popen[bytes] | None':
        strategy = self._parts.allowed.strategy(links[0].strategy)
        site = self._parts.allowed.site(links[0].strategy)
        tasks = [n.task for n in links]
        job = strategy.run_together(tasks, site)
        self._lock.leave()  # the shim takes it for itself
        name = links[0].strategy
        self._parts.runner.prepare(tasks[0], job, links[0].upgrade, tasks[1:], name)
        try:
            return self._parts.runner.spawn(tasks[0])
        except (OSError, subprocess.SubprocessError) as e:
            LOG.warning('a run for %d hosts: %s', len(links), e)
            return None  # whether it began, its directories tell

    def _failed(self, link: chain.Link, why: str, began: int, final: bool = False) -> chain.Item:
        made: dict[str, Any] = dict(runners.of_outcome(chain.failed(why, final)))
        return link.item('outcome', outcome=made, started_at=began, finished_at=facts.now())
