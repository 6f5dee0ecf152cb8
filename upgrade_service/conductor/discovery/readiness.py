"""Whether hosts and quorums are ready for an upgrade, from what the engines report. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from upgrade_service import model

Problems = Iterator[model.Problem]


#: what a fact has to hold to be believed: {kind of fact: {key: type}}
_FORMS: dict[str, dict[str, type]] = {
    'disks': {'free_mb': int, 'min_mb': int},
    'members': {'faults': list, 'size': int},
}


def sound(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of an engine's facts that tell whether it is ready, if they can be read."""
    found: dict[str, Any] = {}
    for kind, form in _FORMS.items():
        said = facts.get(kind)
        if isinstance(said, Mapping):
            found[kind] = {str(k): v for k, v in said.items() if _fits(v, form)}
    if _fits(facts.get('backup'), {'ready': bool, 'reason': str, 'provable': bool}):
        found['backup'] = facts['backup']
    return found


def _fits(value: Any, form: Mapping[str, type]) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(value.get(key), kind) for key, kind in form.items()
    )


def problems(inventory: model.Inventory, projects: Any) -> Problems:
    """Yield what stands in the way, by host."""
    for name, host in sorted(inventory.hosts.items()):
        yield from _disks(name, host)
        for project, said in sorted((host.readiness.get('members') or {}).items()):
            yield from _quorum(inventory, projects, name, project, said)


def _disks(name: str, host: model.Host) -> Problems:
    for path, disk in sorted((host.readiness.get('disks') or {}).items()):
        if disk['free_mb'] < disk['min_mb']:
            yield model.Problem(
                code='disk_low',
                severity='blocking',
                host=name,
                acceptable=True,
                message=f'Only {disk["free_mb"]} MiB are free in {path} on {name}, '
                f'{disk["min_mb"]} are wanted.',
                hint='make room, or change min_free_mb in engine.d on the host',
            )


def _quorum(
    inventory: model.Inventory, projects: Any, host: str, project: str, said: Mapping[str, Any]
) -> Problems:
    """Name a quorum that would not bear the loss of a member, and one that lost one already."""
    if said.get('faults'):
        yield model.Problem(
            code='quorum_broken',
            severity='blocking',
            host=host,
            service=project,
            message=f'{project} on {host}: {"; ".join(map(str, said["faults"]))}.',
            hint='bring every member back first: an upgrade takes out one more',
        )
    members = projects.get(project).quorum.get('members', ()) if project in projects else ()
    there = {s.host for s in inventory.services if s.binary in members}
    if said.get('cluster') and 0 < said.get('size', 0) < len(there):
        yield model.Problem(
            code='quorum_short',
            severity='blocking',
            host=host,
            service=project,
            acceptable=True,
            message=f'{host} sees {said["size"]} members of {project}, but {len(there)} hosts '
            'run it.',
            hint='let the others join again, or remove what is no member from those hosts',
        )


#: project -> how to remove a record that nothing stands behind
_REMOVE = {
    'nova': 'openstack compute service delete ID',
    'cinder': 'cinder-manage service remove BINARY HOST',
    'neutron': 'openstack network agent delete ID',
}


def orphans(inventory: model.Inventory) -> Iterator[tuple[model.Service, model.Problem]]:
    """Yield records of services that are down and that the engine of their host does not see."""
    for service in inventory.services:
        host = inventory.hosts[service.host]
        unseen = service.source == 'cloud' and service.state == 'down'
        if not unseen or host.agent_state != 'up' or host.facts_age is None:
            continue
        remove = _REMOVE.get(service.project, f'remove the record from {service.project}')
        yield (
            service,
            model.Problem(
                code='record_orphaned',
                severity='blocking',
                host=service.host,
                service=service.binary,
                acceptable=True,
                message=f'{service.project} keeps a record of {service.binary} on {service.host}, '
                'but nothing there runs it.',
                hint=f'if it is gone for good: {remove}; new code may refuse to start beside it',
            ),
        )
