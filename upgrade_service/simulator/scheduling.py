"""Where a server may go: the filters of nova's scheduler that matter to a drain.

After nova/scheduler/filters (ComputeFilter, ServerGroup*Filter), the placement query made
of the flavor, and the aggregate that an availability zone is.
"""

from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import Cloud, Node, Server


def unfit(cloud: Cloud, server: Server, node: Node) -> str | None:
    """Say why the scheduler would pass a host over for a server, or None."""
    record = cloud.record(node.name, 'nova-compute')
    if record is None or not cloud.up(record):
        return 'service_down'
    if record.disabled:
        return 'service_disabled'
    if server.pinned_az and server.pinned_az != node.spec.az:
        return 'availability_zone'
    need = specs.FLAVORS[server.flavor]
    room = cloud.capacity(node)
    if any(have + more > most for have, more, most in zip(node.used, need, room, strict=True)):
        return 'capacity'
    if too_old(cloud, server, node):
        return 'DestinationHypervisorTooOld'
    return _group_forbids(cloud, server, node)


def too_old(cloud: Cloud, server: Server, node: Node) -> bool:
    """Whether the server would come to an older hypervisor than it runs on.

    The conductor's check, not a filter; but it makes the scheduler try the next host.
    """
    home = cloud.nodes.get(server.host or '')
    return home is not None and node.hypervisor_version < home.hypervisor_version


def _group_forbids(cloud: Cloud, server: Server, node: Node) -> str | None:
    if server.group is None:
        return None
    group = cloud.groups[server.group]
    others = [m for m in group['members'] if m != server.id and m in cloud.servers]
    if group['policy'] == 'anti-affinity':
        # a member that is on its way here already holds an allocation here
        taken = any(m in node.servers or m in node.consumers for m in others)
        return 'anti_affinity' if taken else None
    if group['policy'] == 'affinity':
        homes = {cloud.servers[m].host for m in others}
        return 'affinity' if homes and node.name not in homes else None
    return None


def choose(cloud: Cloud, server: Server, but: str | None = None) -> Node | None:
    """Return the fitting host with the most free memory, as nova's RAM weigher prefers."""
    fitting = [
        node
        for node in cloud.compute_nodes
        if node.name != but and unfit(cloud, server, node) is None
    ]
    return max(fitting, key=lambda n: cloud.capacity(n)[1] - n.used[1], default=None)
