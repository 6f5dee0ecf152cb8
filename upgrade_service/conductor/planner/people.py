"""Who lives where, what ties them to their host, and which hosts would take them in."""

from collections import Counter
from collections.abc import Iterable, Mapping

from upgrade_service import model
from upgrade_service.conductor.planner import seats

#: states in which nova live-migrates a server
MOVABLE = frozenset({'ACTIVE', 'PAUSED'})
#: nothing of theirs runs or will: they stay without a word
GONE = frozenset({'DELETED', 'SOFT_DELETED', 'SHELVED_OFFLOADED'})
#: extra specs (their beginning) with which a server hangs on a device of its host
DEVICES = ('pci_passthrough:', 'resources:VGPU', 'accel:', 'hw:pmem', 'hw:mem_encryption')
AGGREGATE = 'aggregate_instance_extra_specs:'
TENANT = 'filter_tenant_id'  #: key of an aggregate that is for some tenants only


class People:
    """The servers of an inventory, as far as moving them matters."""

    def __init__(self, inventory: model.Inventory, incoming: int) -> None:
        self.hosts = inventory.hosts
        self._incoming = incoming
        self._compute = {s.host: s for s in inventory.services if s.binary == 'nova-compute'}
        self._servers: dict[str, list[model.Server]] = {}
        for server in inventory.servers:
            self._servers.setdefault(server.host, []).append(server)
        self._together = Counter(
            s.group for s in inventory.servers if s.group_policy == seats.TOGETHER
        )
        self._kinds: dict[object, int] = {}
        self._kind_of: list[model.Host] = []
        self._accepts: dict[tuple[int, tuple[tuple[str, str], ...], str | None], bool] = {}

    def of(self, host: str) -> list[model.Server]:
        """Return the servers of a host."""
        return self._servers.get(host, [])

    def welcomes(self, host: str) -> bool:
        """Tell whether nova would send a server to a host (once it is up again)."""
        service = self._compute.get(host)
        return (
            service is not None
            and service.state != 'down'
            and not service.forced_down
            and service.status == 'enabled'
        )

    def why_immovable(self, server: model.Server) -> str | None:
        """Say why a server cannot be live-migrated, if so."""
        if server.state not in MOVABLE:
            return f'is {server.state}'
        if self._together.get(server.group or '', 0) > 1:
            return f'must stay with its affinity group {server.group}'
        device = next((key for key, _ in server.specs if key.startswith(DEVICES)), None)
        return f'hangs on a device of its host ({device})' if device else None

    def movable(self, host: str) -> list[model.Server]:
        """Return the servers of a host that can be moved, the largest first."""
        found = [s for s in self.of(host) if self.why_immovable(s) is None]
        return sorted(found, key=lambda s: (-s.ram_mb, -s.vcpus, s.id))

    def seat(self, host: str, guests: Iterable[model.Server], index: int) -> seats.Seat:
        """Return the room that guests leave on a host."""
        known = self.hosts[host]
        return seats.seat_of(known, guests, index, self._incoming, self._kind(known))

    def _kind(self, host: model.Host) -> int:
        """Number the kinds of host that servers can tell apart; most clouds have few."""
        key = host.traits, tuple(sorted((k, v) for k, v in host.aggregates.items()))
        if key not in self._kinds:
            self._kinds[key] = len(self._kind_of)
            self._kind_of.append(host)
        return self._kinds[key]

    def accepts(self, kind: int, server: model.Server) -> bool:
        """Tell whether nova's filters let a server on a kind of host."""
        key = kind, server.specs, server.tenant
        if key not in self._accepts:
            self._accepts[key] = accepts(self._kind_of[kind], server)
        return self._accepts[key]


def accepts(host: model.Host, server: model.Server) -> bool:
    """Tell whether traits, aggregates' metadata and tenants let a server on a host.

    As nova's placement request filters, AggregateInstanceExtraSpecsFilter and
    AggregateMultiTenancyIsolation would (nova admin guide, "Compute schedulers").
    """
    tenants = {t for k, v in host.aggregates.items() if k.startswith(TENANT) for t in v}
    if tenants and server.tenant not in {name for t in tenants for name in t.split(',')}:
        return False
    asked = dict(server.specs)
    isolated = {
        k for k, v in host.aggregates.items() if k.startswith('trait:') and 'required' in v
    }
    if any(asked.get(key) != 'required' for key in isolated):
        return False
    return all(_allowed(host.traits, host.aggregates, key, v) for key, v in asked.items())


def _allowed(
    traits: frozenset[str], aggregates: Mapping[str, frozenset[str]], key: str, value: str
) -> bool:
    if key.startswith('trait:'):
        return (key.removeprefix('trait:') in traits) == (value == 'required')
    if key.startswith(AGGREGATE):
        wanted = value.removeprefix('s== ').removeprefix('<or> ').split(' <or> ')
        return bool(aggregates.get(key.removeprefix(AGGREGATE), frozenset()) & set(wanted))
    return True
