"""What one upgrade asks of the planner."""

from collections import Counter
from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from upgrade_service import model
from upgrade_service.projects import loader
from upgrade_service.projects import releases as releases_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """An operator's request, its policy merged with the defaults."""

    from_release: str  #: id: '2026.1'
    to_release: str  #: id: '2026.2', one hop away
    policy: Mapping[str, Any]  #: as projects.policy.merge_policy returns it
    upgrade_id: str = ''
    strategy: str = 'source'  #: name of the strategy that carries out host steps
    selection: model.Selection = dataclasses.field(default_factory=model.Selection)

    def selects(self, host: model.Host | None) -> bool:
        """Tell whether the upgrade may touch a host; each criterion narrows the others."""
        if host is None:
            return False
        wanted = self.selection
        by_name = wanted.hosts is None or host.name in wanted.hosts
        return by_name and (wanted.azs is None or host.az in wanted.azs)

    def selects_project(self, project: str) -> bool:
        """Tell whether the upgrade may touch a project."""
        wanted = self.selection.projects
        return project not in self.policy['skip_projects'] and (
            wanted is None or project in wanted
        )

    def commit(self, project: str) -> str | None:
        """Return the commit of a project's source that is asked for, if one is."""
        found: str | None = self.policy['commits'].get(project)
        return found

    def version(self, project: loader.Project, releases: releases_data.Releases) -> str | None:
        """Return the version that a project is to reach; a commit is a version of its own."""
        tag, commit = project.target(self.to_release, releases), self.commit(project.name)
        return f'{tag}+g{commit[:12]}' if tag and commit else tag

    def behind(
        self,
        service: model.Service,
        project: loader.Project | None,
        releases: releases_data.Releases,
    ) -> bool:
        """Tell whether a service has to change; one of unknown release has to."""
        if project is not None and (project.independent or self.commit(project.name)):
            return self.version(project, releases) not in (None, service.version)
        release, wanted = releases.get(service.release or ''), releases.get(self.to_release)
        return release is None or wanted is None or release < wanted


def share(amount: int | str | None, of: int) -> int:
    """Turn an amount of a policy ('5%' or 3) into a number of hosts, at least one."""
    if amount is None:
        return max(1, of)
    if isinstance(amount, str):
        return max(1, of * int(amount.rstrip('%')) // 100)
    return max(1, amount)


def shares(inventory: model.Inventory, hosts: Iterable[str], amount: Any) -> dict[str | None, int]:
    """Turn `per_az` of a policy into hosts that may be out in each zone; {}: no limit.

    It is one amount for every zone, or a mapping of zones to amounts.
    """
    if amount is None:
        return {}
    totals = Counter(inventory.hosts[host].az for host in hosts)
    if isinstance(amount, Mapping):
        return {az: share(amount[az], n) for az, n in totals.items() if az in amount}
    return {az: share(amount, n) for az, n in totals.items()}
