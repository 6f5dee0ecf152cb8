"""Placement: a resource provider for each compute node, and who uses what of it."""

from typing import Any

from upgrade_service.simulator.cloud import Cloud, Node, Refused, identity
from upgrade_service.simulator.http import Api, Application, Request, Route, dotted

LOW, HIGH = (1, 0), (1, 39)
_CLASSES = ('VCPU', 'MEMORY_MB', 'DISK_GB')


def error(status: int, message: str) -> dict[str, Any]:
    """Shape an error as placement does."""
    return {'errors': [{'status': status, 'title': message, 'detail': message}]}


def versions(app: Application, request: Request) -> dict[str, Any]:
    """Describe the only version."""
    return {
        'versions': [
            {
                'id': 'v1.0',
                'status': 'CURRENT',
                'min_version': dotted(LOW),
                'max_version': dotted(HIGH),
                'links': [{'rel': 'self', 'href': ''}],
            }
        ]
    }


def _provider(request: Request, node: Node) -> dict[str, Any]:
    key = node.hypervisor_id
    names = ('self', 'inventories', 'usages', 'aggregates', 'traits', 'allocations')
    base = f'/placement/resource_providers/{key}'
    return {
        'uuid': key,
        'name': node.name,
        'generation': 1,
        'links': [{'rel': n, 'href': base if n == 'self' else f'{base}/{n}'} for n in names],
        'parent_provider_uuid': None,
        'root_provider_uuid': key,
    }


def _find(cloud: Cloud, key: str) -> Node:
    if key not in cloud.by_hypervisor:
        raise Refused(404, f'No resource provider with uuid {key} found')
    return cloud.by_hypervisor[key]


def providers(app: Application, request: Request) -> dict[str, Any]:
    """List providers; filters are name and uuid."""
    name, key = request.get('name'), request.get('uuid')
    rows = [
        node
        for node in app.cloud.compute_nodes
        if name in (None, node.name) and key in (None, node.hypervisor_id)
    ]
    return {'resource_providers': [_provider(request, node) for node in rows]}


def provider(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a provider."""
    return _provider(request, _find(app.cloud, key))


def inventories(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show what a provider has, before its allocation ratios."""
    node, spec = _find(app.cloud, key), app.cloud.spec
    totals = (node.spec.vcpus, node.spec.ram_mb, node.spec.disk_gb)
    ratios = (spec.cpu_ratio, spec.ram_ratio, 1.0)
    return {
        'resource_provider_generation': 1,
        'inventories': {
            name: {
                'total': total,
                'reserved': 0,
                'min_unit': 1,
                'max_unit': total,
                'step_size': 1,
                'allocation_ratio': ratio,
            }
            for name, total, ratio in zip(_CLASSES, totals, ratios, strict=True)
        },
    }


def usages(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show what is used of a provider."""
    node = _find(app.cloud, key)
    return {
        'resource_provider_generation': 1,
        'usages': dict(zip(_CLASSES, node.used, strict=True)),
    }


def provider_allocations(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show who uses a provider: servers, and migrations for what servers are leaving."""
    node = _find(app.cloud, key)
    return {
        'resource_provider_generation': 1,
        'allocations': {
            consumer: {
                'resources': dict(zip(_CLASSES, app.cloud.allocations[consumer][1], strict=True)),
                'consumer_generation': 1,
            }
            for consumer in sorted(node.consumers)
        },
    }


def allocations(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show what a consumer uses; nothing for one that is not known."""
    if key not in app.cloud.allocations:
        return {'allocations': {}}
    host, amounts = app.cloud.allocations[key]
    answer: dict[str, Any] = {
        'allocations': {
            app.cloud.nodes[host].hypervisor_id: {
                'generation': 1,
                'resources': dict(zip(_CLASSES, amounts, strict=True)),
            }
        },
        'project_id': identity('project', 'demo'),
        'user_id': identity('user', 'tenant'),
    }
    if request.version >= (1, 28):
        answer['consumer_generation'] = 1
    if request.version >= (1, 38):
        answer['consumer_type'] = 'INSTANCE' if key in app.cloud.servers else 'MIGRATION'
    return answer


def aggregates(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show the aggregates of a provider: that of its availability zone."""
    zone = _find(app.cloud, key).spec.az
    rows = [identity('aggregate', zone)] if zone else []
    return {'aggregates': rows, 'resource_provider_generation': 1}


def traits(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show a provider's traits; a disabled compute has one, as nova sets it."""
    node = _find(app.cloud, key)
    record = app.cloud.record(node.name, 'nova-compute')
    disabled = ['COMPUTE_STATUS_DISABLED'] if record and record.disabled else []
    return {'traits': ['COMPUTE_NODE', *disabled], 'resource_provider_generation': 1}


def resource_classes(app: Application, request: Request) -> dict[str, Any]:
    """List resource classes."""
    return {'resource_classes': [{'name': name, 'links': []} for name in _CLASSES]}


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/resource_providers', providers),
    ('GET', '/resource_providers/{key}', provider),
    ('GET', '/resource_providers/{key}/inventories', inventories),
    ('GET', '/resource_providers/{key}/usages', usages),
    ('GET', '/resource_providers/{key}/allocations', provider_allocations),
    ('GET', '/resource_providers/{key}/aggregates', aggregates),
    ('GET', '/resource_providers/{key}/traits', traits),
    ('GET', '/allocations/{key}', allocations),
    ('GET', '/resource_classes', resource_classes),
)

API = Api(
    prefix='placement',
    project='placement',
    routes=ROUTES,
    error=error,
    service_type='placement',
    low=LOW,
    high=HIGH,
)
