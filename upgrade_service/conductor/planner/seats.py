"""Room for instances: what a host can still take, and the choice among many hosts."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import heapq

from upgrade_service import model

#: hosts passed over so often have only crumbs left; they are asked last
_PATIENCE = 64
#: the policies of server groups that keep members apart, or together, without exception
APART, TOGETHER = 'anti-affinity', 'affinity'


@dataclasses.dataclass
class Seat:
    """The room on one host."""

    host: str
    vcpus: int
    ram_mb: int
    hypervisor: int | None = None
    depth: int = 0  #: hosts upgraded one after the other before it, itself included
    index: int = 0  #: place in the order of its zone
    groups: set[str] = dataclasses.field(default_factory=set)  #: of the servers on it
    passed_over: int = 0

    def fits(self, server: model.Server, hypervisor: int | None) -> bool:
        """Tell whether a server of a host with such a hypervisor may come here.

        Nova refuses a live migration to an older hypervisor, and scheduling knows the
        anti-affinity groups even when the target is named.
        """
        older = None not in (hypervisor, self.hypervisor) and (
            (self.hypervisor or 0) < (hypervisor or 0)
        )
        return (
            server.vcpus <= self.vcpus
            and server.ram_mb <= self.ram_mb
            and not older
            and not (server.group_policy == APART and server.group in self.groups)
        )

    def take(self, server: model.Server) -> None:
        """Count a server in."""
        self.vcpus -= server.vcpus
        self.ram_mb -= server.ram_mb
        if server.group:
            self.groups.add(server.group)


def seat_of(host: model.Host, guests: Iterable[model.Server], index: int = 0) -> Seat:
    """Return the room that `guests` leave on a host."""
    seat = Seat(
        host=host.name,
        vcpus=host.vcpus,
        ram_mb=host.ram_mb,
        index=index,
        hypervisor=host.hypervisor_version,
    )
    for server in guests:
        seat.take(server)
    return seat


class Pool:
    """Seats on upgraded hosts, handed out by a preference.

    flow: the seat that was free first, so that few drains wait for one another.
    spread: the seat with most memory, for one host at a time waits for nobody anyway.
    """

    def __init__(self, spread: bool) -> None:
        self._rank: Callable[[Seat], tuple[int, int]] = _most_free if spread else _first_free
        self._heap: list[tuple[tuple[int, int], str, Seat]] = []
        self._crumbs: list[Seat] = []

    def add(self, seat: Seat) -> None:
        """Offer the room of a host."""
        heapq.heappush(self._heap, (self._rank(seat), seat.host, seat))

    def pick(self, server: model.Server, hypervisor: int | None) -> Seat | None:
        """Seat a server on the best host that can take it, if there is one."""
        passed: list[Seat] = []
        found: Seat | None = None
        while self._heap and found is None:
            seat = heapq.heappop(self._heap)[2]
            if seat.fits(server, hypervisor):
                found = seat
            else:
                passed.append(seat)
        self._put_back(passed)
        if found is None:
            found = first_fit(self._crumbs, server, hypervisor)
        elif found.vcpus > server.vcpus and found.ram_mb > server.ram_mb:
            found.take(server)
            self.add(found)
        else:
            found.take(server)
        return found

    def _put_back(self, passed: Sequence[Seat]) -> None:
        for seat in passed:
            seat.passed_over += 1
            if seat.passed_over > _PATIENCE:
                self._crumbs.append(seat)
            else:
                self.add(seat)


def first_fit(seats: Iterable[Seat], server: model.Server, hypervisor: int | None) -> Seat | None:
    """Seat a server on the first host that can take it."""
    for seat in seats:
        if seat.fits(server, hypervisor):
            seat.take(server)
            return seat
    return None


def _first_free(seat: Seat) -> tuple[int, int]:
    return seat.depth, seat.index


def _most_free(seat: Seat) -> tuple[int, int]:
    return -seat.ram_mb, seat.index
