"""Signed orders to engines, and when to say them again.

An order is re-sent, the same attempt, until its engine has answered: the row
``state = dispatched`` is the outbox.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service import trust
from upgrade_service.conductor import board as boards

LOG = log.getLogger(__name__)
MAX_BACKOFF = 30.0


class Post:
    """Seals and sends what one conductor has to say to engines."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        signer: trust.Signer,
        engines: Any,
        now: Callable[[], int],
        digest: str,
    ) -> None:
        self._conf, self._signer, self._engines = conf, signer, engines
        self.now = now
        #: of the project data orders are made with
        self.digest = digest

    def _seal(self, kind: str, agent: str, **body: Any) -> trust.Envelope:
        now = self.now()
        life = self._conf.trust.order_lifetime * 1000
        return self._signer.seal(
            {'v': 1, 'type': kind, 'aud': agent, 'nbf': now - 1000, 'exp': now + life, **body}
        )

    def order(
        self,
        upgrade: str,
        epoch: int,
        agent: str,
        nodes: Iterable[boards.Node],
        recorded: list[tuple[str, int]],
    ) -> None:
        """Send steps, with their current attempt, to their executor."""
        steps = [
            {
                'step': n.id,
                'attempt': n.attempt,
                'kind': n.kind,
                'direction': n.direction,
                'strategy': n.strategy,
                'host': n.host,
                'project': n.project,
                'params': dict(n.params),
                'timeout': n.what.timeout,
            }
            for n in nodes
        ]
        self._engines.order(
            agent,
            self._seal(
                'order',
                agent,
                upgrade=upgrade,
                epoch=epoch,
                digest=self.digest,
                recorded=recorded,
                steps=steps,
            ),
        )

    def revoke(
        self,
        upgrade: str,
        epoch: int,
        agent: str,
        nodes: Iterable[boards.Node],
        now: bool = False,
    ) -> None:
        """Ask an engine never to begin attempts that it has not begun.

        `now`: and to interrupt those that it has begun, as far as that is harmless.
        """
        self._about('revoke', upgrade, epoch, agent, nodes, **({'now': True} if now else {}))

    def probe(self, upgrade: str, epoch: int, agent: str, nodes: Iterable[boards.Node]) -> None:
        """Ask an engine how attempts stand."""
        self._about('probe', upgrade, epoch, agent, nodes)

    def _about(
        self,
        kind: str,
        upgrade: str,
        epoch: int,
        agent: str,
        nodes: Iterable[boards.Node],
        **more: Any,
    ) -> None:
        steps = [[n.id, n.attempt] for n in nodes]
        env = self._seal(kind, agent, upgrade=upgrade, epoch=epoch, steps=steps, **more)
        getattr(self._engines, kind)(agent, env)

    def recorded(self, agent: str, attempts: list[tuple[str, int]]) -> None:
        """Tell an engine that outcomes are in the database, so it need not repeat them."""
        self._engines.recorded(agent, self._seal('recorded', agent, attempts=attempts))

    def describe(self, agent: str) -> None:
        """Ask an engine for the facts of its host."""
        self._engines.describe(agent, self._seal('describe', agent))


class Outbox:
    """When each unanswered order is due again (monotonic seconds)."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._due: dict[str, tuple[float, float]] = {}

    def sent(self, nodes: Iterable[boards.Node], again: bool = False) -> None:
        """Note that an order went out; each repetition waits twice as long."""
        for n in nodes:
            wait = self._first
            if again and n.id in self._due:
                wait = min(self._due[n.id][1] * 2, MAX_BACKOFF)
            self._due[n.id] = (time.monotonic() + wait, wait)

    def due(self, nodes: Iterable[boards.Node]) -> dict[str, list[boards.Node]]:
        """Group, by executor, the steps whose order must be said again."""
        now = time.monotonic()
        found: dict[str, list[boards.Node]] = defaultdict(list)
        for n in nodes:
            if n.executor and self._due.get(n.id, (0.0, 0.0))[0] <= now:
                found[n.executor].append(n)
        return found
