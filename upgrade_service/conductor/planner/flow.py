"""The order in which hosts are drained, found by playing the drains in a made-up time.

A host is taken out when the budget allows and every server of it has a seat on a host
that is upgraded by then. While few are, the emptiest hosts go first: they need the least
room and leave the most. Once the budget is used up the fullest go first, so that all
ends together. Where no host is upgraded, *seeds* are emptied on to hosts that are drained
later: only their servers move twice.

What a host holds after its own drain is what is assigned to it here, whatever the order
in time turns out to be. It ends: each round takes a host out, brings one back, or is the
last; a host whose servers find no place is taken out with them on it, and they are named.
"""

import bisect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import dataclasses
import heapq

from upgrade_service import model
from upgrade_service.conductor.planner import people as peoples
from upgrade_service.conductor.planner import seats

#: hosts tried from each end before a zone is left alone until another host is back
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
class Played:
    """One way to go through all hosts."""

    order: list[Drain]
    seconds: float
    homeless: int
    twice: int  #: servers that move twice


def play(
    people: peoples.People, hosts: Collection[str], upgraded: Collection[str], limits: Limits
) -> Played:
    """Drain all `hosts`; `upgraded` ones, and others outside, can take servers in."""
    return _Play(people, hosts, upgraded, limits).run()


@dataclasses.dataclass
class _Trial:
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


class _Zone:
    """One availability zone."""

    def __init__(self, play: '_Play', az: str | None, hosts: Iterable[str]) -> None:
        people, limits = play.people, play.limits
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
        self._times = sorted((self.seconds(host), host) for host in self._hosts)
        self.work = sum(seconds for seconds, _ in self._times)
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

    def try_host(self, host: str, now: float, shelter: bool) -> _Trial:
        """Seat every guest of a host: on upgraded hosts, and elsewhere only if `shelter`.

        With shelter the small ones are seated first, so that few have to move twice.
        """
        trial = _Trial([now] * self._limits.parallel)
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

    def _shelter(self, trial: _Trial, hypervisor: int) -> None:
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

    def _put(
        self, trial: _Trial, server: model.Server, seat: seats.Seat, pool: seats.Pool
    ) -> None:
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

    def undo(self, trial: _Trial) -> None:
        """Give the seats of a trial back."""
        for server, seat, slot, free_at, inside in reversed(trial.taken):
            (self.open if inside else self.shelters).take(seat, server, -1)
            seat.slots[slot] = free_at

    # -- hosts ---------------------------------------------------------------------------------

    def next(self, now: float, wanted: float | None) -> tuple[str, _Trial] | None:
        """Find a host that can be emptied on to upgraded hosts now.

        `wanted`: seconds that it had best be out; None: the emptiest.
        """
        if self.stale or not self.left:
            return None
        for host in self._candidates(wanted):
            if self.load(host)[0] > self.open.ram_mb:
                continue
            trial = self._alone(host, now)
            if not trial.homeless:
                return host, trial
            self._back(host, trial)
        self.stale = True
        return None

    def _candidates(self, wanted: float | None) -> Iterable[str]:
        """Yield the hosts that come closest to what is wanted, then the emptiest."""
        light = [h for _, h in zip(range(_TRIES), self.left, strict=False)]
        if wanted is None:
            return light
        return dict.fromkeys([host for _, host in self._near(wanted)] + light)

    def distance(self, wanted: float | None) -> float:
        """Tell how far the best host is from what is wanted."""
        near = self._near(wanted) if wanted is not None else ()
        return abs(near[0][0] - (wanted or 0)) if near else 0.0

    def lengths(self) -> list[float]:
        """Return how long each host that is left will be out."""
        return [seconds for seconds, _ in self._times]

    def _near(self, wanted: float) -> list[tuple[float, str]]:
        at = bisect.bisect(self._times, (wanted, ''))
        near = self._times[max(0, at - _TRIES) : at + _TRIES]
        return sorted(near, key=lambda t: (abs(t[0] - wanted), t[1]))[:_TRIES]

    def _alone(self, host: str, now: float, shelter: bool = False) -> _Trial:
        """Try a host while nobody shelters on it."""
        seat = self.seat[host]
        if seat in self.shelters:
            self.shelters.drop(seat)
        return self.try_host(host, now, shelter)

    def _back(self, host: str, trial: _Trial) -> None:
        self.undo(trial)
        if self._people.welcomes(host):
            self.shelters.add(self.seat[host])

    def cheapest(self) -> list[str]:
        """Return the hosts by how many servers would move twice."""
        return sorted(self.left, key=lambda h: (len(self.guests[h]), self.load(h)))

    def seed(self, host: str, now: float) -> _Trial | None:
        """Find shelter for the guests of a host that no upgraded host takes in."""
        trial = self._alone(host, now, shelter=True)
        if trial.homeless:
            self._back(host, trial)
            return None
        return trial

    def hurry(self, now: float, most: int) -> tuple[str, _Trial] | None:
        """Find a host of which few servers, at most `most`, have to move twice.

        The cheapest of the emptiest hosts, if it is cheaper than a whole host.
        """
        best: tuple[int, str] | None = None
        for _, host in zip(range(_LOOK), self.left, strict=False):
            trial = self._alone(host, now, shelter=True)
            if not trial.homeless and (best is None or trial.twice < best[0]):
                best = trial.twice, host
            self._back(host, trial)
        if best is None or best[0] > most:
            return None
        return best[1], self._alone(best[1], now, shelter=True)

    def give_up(self, host: str, now: float) -> _Trial:
        """Place whom it can; the others stay on the host."""
        return self._alone(host, now, shelter=True)

    def leave(self, host: str, trial: _Trial, drains: Mapping[str, Drain]) -> Drain:
        """Take a host out: what was tried is what will be done."""
        self._forget_time(host)
        del self.left[host]
        drain = drains[host]
        drain.homeless = trial.homeless
        for server, seat, _, _, inside in trial.taken:
            drain.moves[server.id] = seat.host
            if inside and seat.host in drains:
                drain.waits_enabled.add(seat.host)
            elif not inside and seat.host in self.left:
                self.twice.add(server.id)
                self.sheltered.setdefault(seat.host, set()).add(host)
                self._receive(seat.host, server)
        drain.waits_drained = self.sheltered.pop(host, set())
        stay = {s.id for s in trial.homeless}
        drain.leave = [
            s.id
            for s in (*self._people.of(host), *self.guests[host])
            if s.id in stay or self._people.why_immovable(s)
        ]
        drain.leave = list(dict.fromkeys(drain.leave))
        return drain

    def _receive(self, host: str, server: model.Server) -> None:
        self._forget_time(host)
        guests = self.guests[host]
        guests.append(server)
        guests.sort(key=_size)
        bisect.insort(self._times, (self.seconds(host), host))
        self.work += self.seconds(host)

    def _forget_time(self, host: str) -> None:
        seconds = self.seconds(host)
        self._times.pop(bisect.bisect_left(self._times, (seconds, host)))
        self.work -= seconds

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


class _Play:
    """All zones, in one made-up time."""

    def __init__(
        self,
        people: peoples.People,
        hosts: Collection[str],
        upgraded: Collection[str],
        limits: Limits,
    ) -> None:
        self.people, self.limits = people, limits
        self._drains = {host: Drain(host) for host in hosts}
        zones: dict[str | None, list[str]] = {}
        for host in hosts:
            zones.setdefault(people.hosts[host].az, []).append(host)
        self._zones = {
            az: _Zone(self, az, zones[az]) for az in sorted(zones, key=lambda name: name or '')
        }
        outside: dict[str | None, list[str]] = {az: [] for az in zones}
        for name, known in sorted(people.hosts.items()):
            if known.az in outside and name not in self._drains and people.welcomes(name):
                outside[known.az].append(name)
        for az, zone in self._zones.items():
            zone.offer(outside[az], upgraded)
        self._now = 0.0
        self._out = 0
        #: lengths of time shared out: to hosts that are out, and to places that are free
        self._turns: dict[str, list[float]] | None = None
        self._free: list[list[float]] = []
        self._since = 0  #: hosts begun since then
        self._lanes: list[float] = []  # ends of the drains under way
        self._events: list[tuple[float, int, str]] = []  # when hosts come back
        self.order: list[Drain] = []

    def run(self) -> Played:
        """Play until every host is done."""
        canaries = min(self.limits.canaries, len(self._drains))
        if canaries:
            self._seeds(0, canaries)
            self._go(canaries)
        self._seeds(int(self.limits.twice * self.limits.seeds), None)
        self._go(None)
        return Played(
            order=self.order,
            seconds=self._now,
            homeless=sum(len(d.homeless) for d in self.order),
            twice=sum(len(z.twice) for z in self._zones.values()),
        )

    # -- seeds ---------------------------------------------------------------------------------

    def _seeds(self, twice: int, most: int | None) -> None:
        """Begin where no host is upgraded: with hosts whose servers move twice.

        One for each zone that has none; more as long as `twice` servers suffice.
        """
        for zone in self._zones.values():
            if zone.left and not zone.has_room and not zone.open and self._may(zone, most):
                self._start(zone, *self._forced(zone))
        spent = sum(len(z.twice) for z in self._zones.values())
        cheap = [
            (len(z.guests[h]), z.load(h), z)
            for z in self._zones.values()
            if self.limits.seed_always or not (z.has_room or z.open)
            for h in z.cheapest()[: self.limits.out]
        ]
        for count, load, zone in sorted(cheap, key=lambda c: c[:2]):
            if spent + count > twice:
                break
            if load[2] in zone.left and self._may(zone, most):
                trial = zone.seed(load[2], self._now)
                if trial is not None:
                    self._start(zone, load[2], trial)
                    spent += count

    # -- time ----------------------------------------------------------------------------------

    def _go(self, most: int | None) -> None:
        while self._fill(most) or self._events:
            if self._events:
                self._now, _, host = heapq.heappop(self._events)
                if host:
                    self._zones[self.people.hosts[host].az].enable(host, self._drains[host])
                    self._out -= 1
                    if self._turns is not None:
                        self._free.append(self._turns.pop(host))

    def _may(self, zone: _Zone, most: int | None) -> bool:
        return (
            self._out < self.limits.out
            and zone.out < self.limits.per_az.get(zone.az, self.limits.out)
            and (most is None or len(self.order) < most)
        )

    def _fill(self, most: int | None) -> bool:
        """Take out as many hosts as may go; tell whether there was one."""
        began = False
        while found := self._next(most):
            self._start(*found)
            began = True
        return began

    def _next(self, most: int | None) -> tuple[_Zone, str, _Trial] | None:
        """Find a host to take out: of the zone with most left to do."""
        while self._lanes and self._lanes[0] <= self._now:
            heapq.heappop(self._lanes)
        if len(self._lanes) * self.limits.parallel >= self.limits.total:
            return None
        if self._out >= self.limits.out:
            return None
        wanted = self._wanted()
        for zone in sorted(self._zones.values(), key=lambda z: (z.distance(wanted), -z.work)):
            if not self._may(zone, most):
                continue
            found = zone.next(self._now, wanted)
            if found is None and zone.left and not zone.out:
                found = self._forced(zone)
            if found is None and wanted is None and zone.hurried != zone.back and zone.left:
                found = self._hurry(zone)
            if found is not None:
                return zone, *found
        return None

    def _wanted(self) -> float | None:
        """Return how long the next host had best be out, so that all end at one time.

        While few hosts are upgraded the emptiest are wanted; so None.
        """
        if len(self.order) < self.limits.ramp:
            return None
        if self._turns is None or self._since >= self.limits.out:
            self._turns, self._since = self._assigned(), 0
        return next((turn[0] for turn in self._free if turn), 0.0)

    def _assigned(self) -> dict[str, list[float]]:
        """Share out what is left, as lengths of time, among the places in the budget."""
        backs = {host: at for at, _, host in self._events if host}
        free = [f'free {n}' for n in range(self.limits.out - len(backs))]
        lengths = [t for z in self._zones.values() for t in z.lengths()]
        ready = [*backs.values(), *([self._now] * len(free))]
        turns = dict(zip([*backs, *free], share_out(ready, lengths), strict=True))
        self._free = [turns.pop(name) for name in free]
        return turns

    def _hurry(self, zone: _Zone) -> tuple[str, _Trial] | None:
        """Let a few servers move twice so that another host can go at once."""
        spent = sum(len(z.twice) for z in self._zones.values())
        left = [z for z in self._zones.values() if z.hurried != z.back]
        share = (self.limits.twice - spent) // max(1, len(left))
        found = zone.hurry(self._now, min(share, self.limits.hurry)) if share > 0 else None
        if found is None:
            zone.hurried = zone.back
        return found

    def _take_turn(self) -> list[float]:
        turn = next((t for t in self._free if t), self._free[0])
        self._free.remove(turn)
        return turn[1:]

    def _forced(self, zone: _Zone) -> tuple[str, _Trial]:
        """Nobody comes back and nobody can go: shelter somebody, or name who has no place."""
        for host in zone.cheapest():
            trial = zone.seed(host, self._now)
            if trial is not None:
                return host, trial
        host = zone.cheapest()[0]
        return host, zone.give_up(host, self._now)

    def _start(self, zone: _Zone, host: str, trial: _Trial) -> None:
        if self._turns is not None:
            self._turns[host] = self._take_turn()
            self._since += 1
        self.order.append(zone.leave(host, trial, self._drains))
        zone.out += 1
        self._out += 1
        heapq.heappush(self._lanes, trial.end)
        number = len(self.order)
        heapq.heappush(self._events, (trial.end, number, ''))  # another may migrate
        back = trial.end + self.limits.upgrade(host)
        heapq.heappush(self._events, (back, number, host))


def share_out(ready: Sequence[float], lengths: Sequence[float]) -> list[list[float]]:
    """Share lengths of time out among places, so that all of them end together.

    `ready`: when each place is free. First how many each gets, then which: the longest
    left goes where most is missing for each that is still to come.
    """
    if not lengths:
        return [[] for _ in ready]
    end = (sum(ready) + sum(lengths)) / len(ready)
    wish = [(end - at) * len(lengths) / sum(lengths) for at in ready]
    counts = _rounded(wish, len(lengths))
    rest = [end - at for at in ready]
    heap = [(-rest[n] / counts[n], n) for n in range(len(ready)) if counts[n]]
    heapq.heapify(heap)
    shares: list[list[float]] = [[] for _ in ready]
    for length in sorted(lengths, reverse=True):
        place = heapq.heappop(heap)[1]
        shares[place].append(length)
        rest[place] -= length
        counts[place] -= 1
        if counts[place]:
            heapq.heappush(heap, (-rest[place] / counts[place], place))
    return shares


def _rounded(wish: Sequence[float], total: int) -> list[int]:
    """Round numbers so that they make up a total, each moved as little as can be."""
    counts = [max(0, int(w)) for w in wish]
    heap = [(counts[n] - w, n) for n, w in enumerate(wish)]
    heapq.heapify(heap)
    while sum(counts) < total:
        short, n = heapq.heappop(heap)
        counts[n] += 1
        heapq.heappush(heap, (short + 1, n))
    while (over := sum(counts) - total) > 0:
        n = max(range(len(counts)), key=lambda n: (counts[n] > 0, counts[n] - wish[n]))
        counts[n] -= min(over, counts[n], 1)
    return counts
