"""Room for servers: what a host can still take, and the choice among many hosts."""

import bisect
from collections.abc import Iterable, Iterator
import dataclasses

from upgrade_service import model

#: the policies of server groups that keep members apart, or together, without exception
APART, TOGETHER = 'anti-affinity', 'affinity'
SOFTLY_APART = 'soft-anti-affinity'
#: hosts looked at, of those with room, for one that can take a server in at once
_LOOK = 24
_PLENTY = 1 << 40  #: disk where nobody counts it
Past = tuple['Seat', int, int, float]


@dataclasses.dataclass(slots=True, eq=False)
class Seat:
    """The room on one host, and when it can take the next server in."""

    host: str
    index: int
    vcpus: int
    ram_mb: int
    disk_gb: int
    pcpus: int
    kind: int = 0  #: of host, as far as servers ask for one
    hypervisor: int = 0  #: 0: unknown
    groups: dict[str, int] = dataclasses.field(default_factory=dict)  #: of the servers on it
    slots: list[float] = dataclasses.field(default_factory=list)  #: times they are free at

    def fits(self, server: model.Server, hypervisor: int) -> bool:
        """Tell whether there is room for a server of a host with such a hypervisor.

        Nova refuses a live migration to an older hypervisor, and scheduling knows the
        anti-affinity groups even when the target is named.
        """
        return (
            server.ram_mb <= self.ram_mb
            and server.vcpus <= self.vcpus
            and server.disk_gb <= self.disk_gb
            and server.pcpus <= self.pcpus
            and not (0 < self.hypervisor < hypervisor)
            and not (
                server.group_policy == APART
                and self.groups.get(server.group or '', 0) >= server.group_max
            )
        )

    def take(self, server: model.Server, sign: int = 1) -> None:
        """Count a server in; with `sign` -1, out."""
        self.vcpus -= sign * server.vcpus
        self.ram_mb -= sign * server.ram_mb
        self.disk_gb -= sign * server.disk_gb
        self.pcpus -= sign * server.pcpus
        if server.group:
            self.groups[server.group] = self.groups.get(server.group, 0) + sign

    def slot(self, now: float) -> int:
        """Return the number of the slot to use: of those that are free, the last one used.

        So servers that come one after the other leave the other slots free meanwhile.
        """
        free = [(at, n) for n, at in enumerate(self.slots) if at <= now]
        return max(free)[1] if free else self.slots.index(min(self.slots))


def seat_of(
    host: model.Host,
    guests: Iterable[model.Server],
    index: int = 0,
    incoming: int = 1,
    kind: int = 0,
) -> Seat:
    """Return the room that `guests` leave on a host."""
    seat = Seat(
        host=host.name,
        index=index,
        vcpus=host.vcpus,
        ram_mb=host.ram_mb,
        disk_gb=_PLENTY if host.disk_gb is None else host.disk_gb,
        pcpus=host.pcpus,
        kind=kind,
        hypervisor=host.hypervisor_version or 0,
        slots=[0.0] * incoming,
    )
    for server in guests:
        seat.take(server)
    return seat


class Pool:
    """Seats in the order of their free memory."""

    def __init__(self) -> None:
        self._keys: list[tuple[int, int]] = []
        self._seats: dict[int, Seat] = {}
        self.ram_mb = 0  #: free in all

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, seat: Seat) -> bool:
        return seat.index in self._seats

    def add(self, seat: Seat) -> None:
        """Offer the room of a host."""
        self._seats[seat.index] = seat
        bisect.insort(self._keys, (seat.ram_mb, seat.index))
        self.ram_mb += seat.ram_mb

    def drop(self, seat: Seat) -> None:
        """Take the room of a host back."""
        self._keys.pop(bisect.bisect_left(self._keys, (seat.ram_mb, seat.index)))
        self.ram_mb -= seat.ram_mb
        del self._seats[seat.index]

    def from_least(self, server: model.Server) -> Iterator[Seat]:
        """Yield seats with enough memory, the tightest first."""
        for at in range(bisect.bisect_left(self._keys, (server.ram_mb, -1)), len(self._keys)):
            yield self._seats[self._keys[at][1]]

    def from_most(self, server: model.Server) -> Iterator[Seat]:
        """Yield seats with enough memory, the emptiest first."""
        for at in range(len(self._keys) - 1, -1, -1):
            if self._keys[at][0] < server.ram_mb:
                return
            yield self._seats[self._keys[at][1]]

    def take(self, seat: Seat, server: model.Server, sign: int = 1) -> None:
        """Count a server in on a seat of the pool, or on one that has left it."""
        inside = seat.index in self._seats
        if inside:
            self.drop(seat)
        seat.take(server, sign)
        if inside:
            self.add(seat)


def choose(seats: Iterable[Seat], now: float) -> Seat | None:
    """Choose the first that can take a server in at once, or else the one that can soonest."""
    best: Seat | None = None
    soonest = float('inf')
    for number, seat in enumerate(seats):
        free = min(seat.slots)
        if free <= now:
            return seat
        if free < soonest:
            best, soonest = seat, free
        if number >= _LOOK:
            break
    return best
