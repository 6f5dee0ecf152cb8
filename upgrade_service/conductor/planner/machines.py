"""Hosts whose operating system is upgraded: what is done to one, and in which turn.

A compute host is drained, so it may restart; as many at a time as the budget allows. Any
other host may hold a member of a quorum (a database, a message bus, a routing service):
those go strictly one after the other, and each is looked at before the next one begins.
"""

from upgrade_service import model
from upgrade_service.conductor.planner import draft as drafts
from upgrade_service.conductor.planner import scope as scopes

#: name of the strategy that does it
STRATEGY = 'host'
KINDS = ('upgrade_host', 'reboot_host')


def change(draft: drafts.Draft, scope: scopes.Scope, host: str, last: int | None) -> int | None:
    """Add the steps that bring a host's operating system up to date, if that is asked for."""
    if host in scope.machines:
        for kind in (*KINDS, 'verify_host'):
            last = draft.add(kind, after=[last], host=host, strategy=STRATEGY)
    return last


def look(draft: drafts.Draft, scope: scopes.Scope, host: str, last: int | None) -> int | None:
    """Let the conductor look at the services of a host, one project after the other."""
    found: dict[str, list[model.Service]] = {}
    for service in scope.inventory.of_host(host):
        if service.project in scope.projects:
            found.setdefault(service.project, []).append(service)
    for project in sorted(filter(scope.request.selects_project, found)):
        binaries = sorted(s.binary for s in found[project])
        last = draft.add(
            'verify_service',
            after=[last],
            host=host,
            project=project,
            binaries=binaries,
            params={'binaries': binaries},
        )
    return last


def check(draft: drafts.Draft, scope: scopes.Scope) -> None:
    """See on each host what would keep its packages from changing."""
    for host in scope.machines:
        draft.add('check_host', host=host, strategy=STRATEGY)


def prefetch(draft: drafts.Draft, scope: scopes.Scope) -> None:
    """Download what is to be installed."""
    for host in scope.machines:
        draft.add('prefetch', host=host, strategy=STRATEGY)


def control(draft: drafts.Draft, scope: scopes.Scope, last: int | None) -> None:
    """Take the control hosts without instances one after the other."""
    for host in scope.machines:
        if host in scope.members and host not in scope.compute_hosts:
            last = _one(draft, scope, host, last)


def others(draft: drafts.Draft, scope: scopes.Scope) -> int | None:
    """Take the hosts that neither control anything nor hold instances; return the last step."""
    last: int | None = None
    for host in scope.machines:
        if host not in scope.members and host not in scope.compute_hosts:
            last = _one(draft, scope, host, last)
    return last


def _one(draft: drafts.Draft, scope: scopes.Scope, host: str, last: int | None) -> int | None:
    last = change(draft, scope, host, last)
    return look(draft, scope, host, last)


def first_stage(scope: scopes.Scope) -> str | None:
    """Name the stage in which the first host changes for good."""
    if not scope.machines:
        return None
    if any(h in scope.members and h not in scope.compute_hosts for h in scope.machines):
        return 'control_plane'
    canaries = scope.request.policy['canary']['hosts']
    return 'canary' if canaries and scope.compute_hosts else 'data_plane'
