"""What a cloud step is given: its rows, its cloud, and the right to act.

The owning conductor runs cloud steps itself. A step saves what it is about to do before
it does it, and asks `may_act` before each call that changes the cloud: the lease must
outlast the call. So a new owner finds every intent and reads the cloud to see which of
them came true.
"""

from collections.abc import Callable, Mapping
import dataclasses
import time
from typing import Any, TypeVar

import openstack
from oslo_config import cfg
from oslo_log import log

from upgrade_service import exception, model
from upgrade_service.conductor.cloud import connect
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
T = TypeVar('T')
TAG = 'upgrade-service:'  #: what our disabled_reason begins with


class Interrupted(Exception):
    """The owner stops: the step goes back to pending with its progress kept."""


class Unfit(Exception):
    """The step fails: its text says what, to what, and what to do next."""

    def __init__(self, text: str, **data: Any) -> None:
        super().__init__(text)
        self.data = data


@dataclasses.dataclass
class CloudTask:
    """One cloud step in the hands of its owner."""

    conf: cfg.ConfigOpts
    cluster: Mapping[str, Any]  #: row; `cloud` names the entry of clouds.yaml
    upgrade_id: str
    epoch: int
    step: Mapping[str, Any]  #: row: id, kind, host, project, params
    policy: Mapping[str, Any]
    progress: dict[str, Any]  #: as the last owner saved it
    save: Callable[[dict[str, Any]], None]  #: raises LostOwnership
    may_act: Callable[[float], None]  #: seconds the call may take; raises LostOwnership
    stopping: Callable[[], bool]
    wait: Callable[[float], None]  #: seconds; may return early when stopping
    inventory: Callable[[], model.Inventory]
    poll: float = 1.0  #: seconds between two looks at the cloud
    clock: Callable[[], float] = time.monotonic

    @property
    def host(self) -> str:
        """The host it is about."""
        return str(self.step['host'])

    @property
    def params(self) -> Mapping[str, Any]:
        """What the planner said."""
        return self.step.get('params') or {}

    @property
    def act_timeout(self) -> float:
        """Seconds a changing call may take: it must fit into what is left of a lease."""
        return float(min(5.0, self.conf.conductor.lease_ttl / 2))

    def tag(self) -> str:
        """The disabled_reason of what this step disables."""
        return f'{self.mark()}{self.step["id"]}:{self.epoch} being upgraded'

    def mark(self) -> str:
        """What a disabled_reason begins with that belongs to this upgrade."""
        return f'{TAG}{self.upgrade_id}:'

    def pause(self, seconds: float | None = None) -> None:
        """Wait between two looks.

        :raises Interrupted: the owner is stopping.
        """
        if not self.stopping():
            self.wait(self.poll if seconds is None else seconds)
        if self.stopping():
            raise Interrupted()

    def read(self, what: str, ask: Callable[[openstack.connection.Connection], T]) -> T:
        """Ask the cloud, patiently: it may be away because it is being upgraded.

        :raises Unfit: it was away for longer than [conductor] control_plane_grace.
        """
        gone_at, delay = None, 1.0
        while True:
            try:
                return ask(connect.connect(self.conf, self.cluster['cloud']))
            except Exception as error:
                if not connect.is_away(error):
                    raise
                connect.forget(self.conf, self.cluster['cloud'])
                gone_at = gone_at or self.clock()
                if self.clock() - gone_at > self.conf.conductor.control_plane_grace:
                    raise Unfit(
                        f'{what}: the cloud did not answer for '
                        f'{self.conf.conductor.control_plane_grace} s ({error}); '
                        'look at its APIs, then retry the step'
                    ) from error
                LOG.warning('Waiting for the cloud (%s): %s', what, error)
                self.pause(delay)
                delay = min(delay * 2, 10.0)

    def act(
        self,
        intent: Mapping[str, Any],
        change: Callable[[openstack.connection.Connection, float], T],
    ) -> T:
        """Save the intent, make sure that we still own it, then make one change.

        `change` gets the connection and the seconds it may take. Whatever it raises may
        mean that the change was made all the same: read the cloud again.
        """
        self.progress.update(intent)
        self.save(self.progress)
        cloud = connect.connect(self.conf, self.cluster['cloud'])
        self.may_act(self.act_timeout)
        return change(cloud, self.act_timeout)


def done(**data: Any) -> base.Outcome:
    """Return a good outcome."""
    return base.Outcome(result=base.Result.SUCCEEDED, data=data)


def failed(error: str, **data: Any) -> base.Outcome:
    """Return a bad outcome; `error` says what, to what, what next."""
    return base.Outcome(result=base.Result.FAILED, rc=1, error=error, data=data)


#: errors that are not the step's to report
PASS = (Interrupted, exception.LostOwnership)
