"""One family of errors; each class says its HTTP status and its stable machine code.

The docstring of a class is its message; ``{name}`` parts are filled from the keyword
arguments. Codes never change once published.
"""

from typing import Any


class UpgradeError(Exception):
    """An unexpected error happened in the upgrade service."""

    status = 500
    code = 'upgrade.internal_error'

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.details = details
        text = message or (type(self).__doc__ or '').strip().format(**details)
        super().__init__(text)


class Invalid(UpgradeError):
    """{field}: {rule}."""

    status = 400
    code = 'upgrade.invalid'


class InvalidPolicy(Invalid):
    """Policy key {field}: {rule}."""

    code = 'upgrade.policy.invalid'


class UnreachableRelease(Invalid):
    """{target} cannot be reached from {source}: {rule}."""

    code = 'upgrade.release.unreachable'


class UnknownRelease(Invalid):
    """There is no release {target}; `openstack upgrade path list` shows those there are."""

    code = 'upgrade.release.unknown'


class UnknownHost(Invalid):
    """Host {host} is not in cluster {cluster}; `openstack upgrade host list` shows its hosts."""

    code = 'upgrade.host.unknown'


class Forbidden(UpgradeError):
    """You are not allowed to do this: it needs {needs}."""

    status = 403
    code = 'upgrade.forbidden'


class NotFound(UpgradeError):
    """There is no {kind} {ref}."""

    status = 404
    code = 'upgrade.not_found'


class Conflict(UpgradeError):
    """{reason}."""

    status = 409
    code = 'upgrade.conflict'


class Exists(Conflict):
    """A {kind} named {ref} exists already."""

    code = 'upgrade.exists'


class IllegalVerb(Conflict):
    """The upgrade is {state}: {verb} is not possible now; possible: {allowed}."""

    code = 'upgrade.verb.illegal'


class NotStartable(Conflict):
    """The plan cannot be started: {reason}."""

    code = 'upgrade.not_startable'


class NoWayBack(Conflict):
    """Step {step} ({kind}{where}) is a point of no return; back as far as {lowest} is possible."""

    code = 'upgrade.rollback.no_way_back'


class Stale(UpgradeError):
    """The upgrade is at version {version} by now, not at the one you named; look again."""

    status = 412
    code = 'upgrade.version.stale'


class TooMany(UpgradeError):
    """More than {most} changes in a minute; try again in {retry_after} s."""

    status = 429
    code = 'upgrade.too_many_requests'


class Busy(UpgradeError):
    """The database or the message bus does not answer; try again in {retry_after} s."""

    status = 503
    code = 'upgrade.unavailable'


class LostOwnership(UpgradeError):
    """Upgrade {upgrade} has another owner by now (epoch {epoch} is over)."""

    code = 'upgrade.ownership.lost'


class PlanRefused(UpgradeError):
    """The plan breaks its own rules: {reason}."""

    code = 'upgrade.plan.refused'


class PlanImpossible(UpgradeError):
    """{reason}."""

    status = 409
    code = 'upgrade.plan.impossible'


class CloudUnavailable(UpgradeError):
    """{service} of cluster {cluster} does not answer: {reason}."""

    status = 503
    code = 'upgrade.cloud.unavailable'


class Untrusted(UpgradeError):
    """A message was refused: {reason}."""

    status = 403
    code = 'upgrade.message.untrusted'


class Refused(UpgradeError):
    """The engine refuses the order: {reason}."""

    status = 409
    code = 'upgrade.order.refused'


class JournalDamaged(UpgradeError):
    """Journal {path} is damaged at byte {offset}; its open attempts count as unknown."""

    code = 'upgrade.journal.damaged'
