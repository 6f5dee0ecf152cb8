"""One availability zone while its hosts are drained: room, guests, and who can go."""

from collections.abc import Callable, Collection, Iterable, Mapping
import dataclasses
import itertools

from upgrade_service import model
from upgrade_service.conductor.planner import people as peoples
from upgrade_service.conductor.planner import seats

#: hosts tried of those whose turn it is, and of the emptiest, before a zone is left alone
#: until another host is back
_TRIES = 3
#: of the emptiest hosts, those among which the one is found with fewest that move twice
_LOOK = 48


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What may happen at once, how long things take, and how much may move twice."""

    out: int  #: hosts out at once
    per_az: Mapping[str | None, int] = dataclasses.field(default_factory=dict)
    parallel: int = 1  #: migrations a host sends at once
    total: int = 64  #: migrations at once
    migration: Callable[[model.Server], float]  #: seconds
    upgrade: Callable[[str], float]  #: seconds that a host is out beside its drain
    canaries: int = 0  #: hosts that go through everything before the others begin
    twice: int = 0  #: servers that may move twice to speed things up
    ramp: int = 0  #: hosts that are taken the emptiest first; from then on the fullest first
    seeds: float = 1.0  #: part of them that may be spent before any host is upgraded
    hurry: int = 0  #: servers of one host that may move twice so that it can go at once
    seed_always: bool = True  #: speed up zones too that have an upgraded or empty host
    spread: bool = False  #: fill targets evenly, rather than few of them


@dataclasses.dataclass
class Drain:
    """The drain of one host."""

    host: str
    moves: dict[str, str] = dataclasses.field(default_factory=dict)  #: server id -> target
    leave: list[str] = dataclasses.field(default_factory=list)  #: servers that stay
    homeless: list[model.Server] = dataclasses.field(default_factory=list)  #: find no seat
    waits_enabled: set[str] = dataclasses.field(default_factory=set)  #: targets still to upgrade
    waits_drained: set[str] = dataclasses.field(default_factory=set)  #: seeds it shelters


@dataclasses.dataclass
class Trial:
    """Seats taken for the servers of one host, until it is clear that all have one."""

    lanes: list[float]  #: times at which the host can send the next server
    last: seats.Seat | None = None  #: the last seat taken on an upgraded host
    twice: int = 0  #: servers that have to move again
    taken: list[tuple[model.Server, seats.Seat, int, float, bool]] = dataclasses.field(
        default_factory=list
    )
    homeless: list[model.Server] = dataclasses.field(default_factory=list)

    @property
    def end(self) -> float:
        """When the host is empty."""
        return max(self.lanes)


class Zone:
    """One availability zone."""

    def __init__(
        self, people: peoples.People, limits: Limits, az: str | None, hosts: Iterable[str]
    ) -> None:
        self.az, self._people, self._limits = az, people, limits
        self.open = seats.Pool()  #: room on hosts that are upgraded and back
        self.shelters = seats.Pool()  #: room on hosts that are not upgraded
        self.out = 0
        self.back = 0  #: hosts that came back
        self.hurried = -1  #: how many those were when hurrying was of no use
        self.stale = False  #: nobody could go, and no host came back since
        self.guests = {host: people.movable(host) for host in hosts}
        self.sheltered: dict[str, set[str]] = {}  #: host -> seeds whose servers are there
        self.twice: set[str] = set()
        self.seat: dict[str, seats.Seat] = {}
        self._hosts = sorted(self.guests, key=self.load)
        self.left = dict.fromkeys(self._hosts)
        self.queue: dict[str, int] = {}  #: once it is settled: host -> its turn in the cloud
        self.arrival: dict[str, float] = {}  #: host -> when all that shelter there have come
        self.work = sum(map(self.seconds, self._hosts))
        for number, host in enumerate(self._hosts):
            last_first = len(self._hosts) - number
            self.seat[host] = people.seat(host, people.of(host), last_first)
            if people.welcomes(host):
                self.shelters.add(self.seat[host])

    def load(self, host: str) -> tuple[int, int, str]:
        """Return what makes a host need much room."""
        guests = self.guests[host]
        return sum(s.ram_mb for s in guests), len(guests), host

    def seconds(self, host: str) -> float:
        """Return how long a host is out."""
        moving = sum(map(self._limits.migration, self.guests[host]))
        return moving / self._limits.parallel + self._limits.upgrade(host)

    def offer(self, names: Iterable[str], upgraded: Collection[str]) -> None:
        """Count the room of hosts that are not drained."""
        for name in names:
            seat = self._people.seat(name, self._people.of(name), len(self.seat) + 1)
            self.seat[name] = seat
            (self.open if name in upgraded else self.shelters).add(seat)

    @property
    def has_room(self) -> bool:
        """Whether a host is upgraded already, or empty, and could hold the least loaded one."""
        wanted = next((self.load(h)[0] for h in self._hosts if self.guests[h]), 0)
        spare = [self.seat[h] for h in self.left if not self.guests[h] and h in self._welcoming]
        return any(s.ram_mb >= wanted for s in (*self.open.from_most(_NOBODY), *spare))

    @property
    def _welcoming(self) -> set[str]:
        return {h for h in self.left if self._people.welcomes(h)}

    # -- seats ---------------------------------------------------------------------------------

    def try_host(self, host: str, now: float, shelter: bool) -> Trial:
        """Seat every guest of a host: on upgraded hosts, and elsewhere only if `shelter`.

        With shelter the small ones are seated first, so that few have to move twice.
        """
        trial = Trial([now] * self._limits.parallel)
        hypervisor = self.seat[host].hypervisor
        guests = self.guests[host]
        for server in reversed(guests) if shelter and self.open else guests:
            seat = self._seat(server, hypervisor, min(trial.lanes), trial.last)
            if seat is None:
                trial.homeless.append(server)
                if not shelter:
                    break
            else:
                self._put(trial, server, seat, self.open)
        if shelter:
            self._shelter(trial, hypervisor)
        return trial

    def _shelter(self, trial: Trial, hypervisor: int) -> None:
        """Seat those who are homeless on hosts that are not upgraded, unless they came so."""
        homeless, trial.homeless = trial.homeless, []
        for server in sorted(homeless, key=_size):
            seat = None
            if server.id not in self.twice:
                seat = self._pick(self.shelters, server, hypervisor, min(trial.lanes))
            if seat is None:
                trial.homeless.append(server)
            else:
                self._put(trial, server, seat, self.shelters)

    def _put(self, trial: Trial, server: model.Server, seat: seats.Seat, pool: seats.Pool) -> None:
        """Take a seat, and the time of both hosts that the migration needs."""
        lane = trial.lanes.index(min(trial.lanes))
        slot = seat.slot(trial.lanes[lane])
        begin = max(trial.lanes[lane], seat.slots[slot])
        inside = pool is self.open
        trial.taken.append((server, seat, slot, seat.slots[slot], inside))
        trial.lanes[lane] = seat.slots[slot] = begin + self._limits.migration(server)
        pool.take(seat, server)
        trial.last = seat if inside else trial.last
        trial.twice += not inside

    def _seat(
        self, server: model.Server, hypervisor: int, now: float, last: seats.Seat | None
    ) -> seats.Seat | None:
        """Stay with the last target as long as it can take servers in: few targets wait less."""
        if (
            last is not None
            and not self._limits.spread
            and min(last.slots) <= now
            and self._fits(last, server, hypervisor)
        ):
            return last
        return self._pick(self.open, server, hypervisor, now)

    def _pick(
        self, pool: seats.Pool, server: model.Server, hypervisor: int, now: float
    ) -> seats.Seat | None:
        most = self._limits.spread and pool is self.open
        ranked = pool.from_most(server) if most else pool.from_least(server)
        fit = (s for s in ranked if self._fits(s, server, hypervisor))
        if server.group_policy != seats.SOFTLY_APART:
            return seats.choose(fit, now)
        alone = (s for s in fit if not s.groups.get(server.group or ''))
        again = pool.from_most(server) if most else pool.from_least(server)
        return seats.choose(alone, now) or seats.choose(
            (s for s in again if self._fits(s, server, hypervisor)), now
        )

    def _fits(self, seat: seats.Seat, server: model.Server, hypervisor: int) -> bool:
        return seat.fits(server, hypervisor) and self._people.accepts(seat.kind, server)

    def undo(self, trial: Trial) -> None:
        """Give the seats of a trial back."""
        for server, seat, slot, free_at, inside in reversed(trial.taken):
            (self.open if inside else self.shelters).take(seat, server, -1)
            seat.slots[slot] = free_at

    # -- hosts ---------------------------------------------------------------------------------

    def next(self, now: float) -> tuple[str, Trial] | None:
        """Find a host that can be emptied on to upgraded hosts now."""
        if self.stale:
            return None
        for host in self._candidates():
            if self.load(host)[0] > self.open.ram_mb or self.arrival.get(host, now) > now:
                continue
            trial = self._alone(host, now)
            if not trial.homeless:
                return host, trial
            self._back(host, trial)
        self.stale = True
        return None

    def _candidates(self) -> Iterable[str]:
        """Yield the hosts whose turn it is, if that is settled, then the emptiest."""
        turns = itertools.islice(self.queue, _TRIES)
        return dict.fromkeys([*turns, *itertools.islice(self.left, _TRIES)])

    @property
    def turn(self) -> float:
        """When its next host is due, among those of the cloud; the most work first till then."""
        return next(iter(self.queue.values()), -self.work)

    def _alone(self, host: str, now: float, shelter: bool = False) -> Trial:
        """Try a host while nobody shelters on it."""
        seat = self.seat[host]
        if seat in self.shelters:
            self.shelters.drop(seat)
        return self.try_host(host, now, shelter)

    def _back(self, host: str, trial: Trial) -> None:
        self.undo(trial)
        if self._people.welcomes(host):
            self.shelters.add(self.seat[host])

    def cheapest(self, now: float) -> list[str]:
        """Return the hosts by how many servers would move twice, those to come counted."""
        here = [h for h in self.left if self.arrival.get(h, now) <= now]
        return sorted(here or self.left, key=lambda h: (len(self.guests[h]), self.load(h)))

    def seed(self, host: str, now: float) -> Trial | None:
        """Find shelter for the guests of a host that no upgraded host takes in."""
        trial = self._alone(host, now, shelter=True)
        if trial.homeless:
            self._back(host, trial)
            return None
        return trial

    def hurry(self, now: float, most: int) -> tuple[str, Trial] | None:
        """Find a host of which few servers, at most `most`, have to move twice.

        The cheapest of the emptiest hosts, if it is cheaper than a whole host.
        """
        best: tuple[int, str] | None = None
        for host in [*itertools.islice(self.left, _LOOK)]:
            if self.arrival.get(host, now) > now:
                continue
            trial = self._alone(host, now, shelter=True)
            if not trial.homeless and (best is None or trial.twice < best[0]):
                best = trial.twice, host
            self._back(host, trial)
        if best is None or best[0] > most:
            return None
        return best[1], self._alone(best[1], now, shelter=True)

    def give_up(self, host: str, now: float) -> Trial:
        """Place whom it can; the others stay on the host."""
        return self._alone(host, now, shelter=True)

    def leave(self, host: str, trial: Trial, drains: Mapping[str, Drain]) -> Drain:
        """Take a host out: what was tried is what will be done."""
        self.work -= self.seconds(host)
        del self.left[host]
        self.queue.pop(host, None)
        drain = drains[host]
        drain.homeless = trial.homeless
        for server, seat, _, _, inside in trial.taken:
            drain.moves[server.id] = seat.host
            if inside and seat.host in drains:
                drain.waits_enabled.add(seat.host)
            elif not inside and seat.host in self.left:
                self.twice.add(server.id)
                self.sheltered.setdefault(seat.host, set()).add(host)
                self._receive(seat.host, server, trial.end)
        drain.waits_drained = self.sheltered.pop(host, set())
        stay = {s.id for s in trial.homeless}
        drain.leave = [
            s.id
            for s in (*self._people.of(host), *self.guests[host])
            if s.id in stay or self._people.why_immovable(s)
        ]
        drain.leave = list(dict.fromkeys(drain.leave))
        return drain

    def _receive(self, host: str, server: model.Server, at: float) -> None:
        self.work += self._limits.migration(server) / self._limits.parallel
        self.arrival[host] = max(at, self.arrival.get(host, 0.0))
        self.guests[host].append(server)
        self.guests[host].sort(key=_size)

    def enable(self, host: str, drain: Drain) -> None:
        """Take a host back: it has room for all but those that stayed."""
        self.out -= 1
        self.back += 1
        if self._people.welcomes(host):
            stay = set(drain.leave)
            known = {s.id: s for s in (*self._people.of(host), *self.guests[host])}
            left = [s for s in known.values() if s.id in stay]
            self.seat[host] = self._people.seat(host, left, self.seat[host].index)
            self.open.add(self.seat[host])
            self.stale = False


def _size(server: model.Server) -> tuple[int, int, str]:
    """Put the largest first."""
    return -server.ram_mb, -server.vcpus, server.id


_NOBODY = model.Server(id='', name='', host='', state='ACTIVE', vcpus=0, ram_mb=0)
