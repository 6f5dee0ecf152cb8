"""The order in which hosts are drained, found by playing the drains in a made-up time.

A host is taken out when the budget allows and every server of it has a seat on a host
that is upgraded by then. While few are, the emptiest hosts go first: they need the least
room and leave the most. Then come rounds, each with hosts of every length, ordered so
that all end together. Where no host is upgraded, *seeds* are emptied on to hosts that are
drained later: only their servers move twice.

What a host holds after its own drain is what is assigned to it here, whatever the order
in time turns out to be. It ends: each round takes a host out, brings one back, or is the
last; a host whose servers find no place is taken out with them on it, and they are named.
"""

from collections.abc import Collection
import dataclasses
import heapq

from upgrade_service.conductor.planner import people as peoples
from upgrade_service.conductor.planner import zones

#: rounds before the last two in which the slowest hosts go first
_LATE = 3


@dataclasses.dataclass
class Played:
    """One way to go through all hosts."""

    order: list[zones.Drain]
    seconds: float
    homeless: int
    twice: int  #: servers that move twice


def play(
    people: peoples.People, hosts: Collection[str], upgraded: Collection[str], limits: zones.Limits
) -> Played:
    """Drain all `hosts`; `upgraded` ones, and others outside, can take servers in."""
    return _Play(people, hosts, upgraded, limits).run()


class _Play:
    """All zones, in one made-up time."""

    def __init__(
        self,
        people: peoples.People,
        hosts: Collection[str],
        upgraded: Collection[str],
        limits: zones.Limits,
    ) -> None:
        self.people, self.limits = people, limits
        self._drains = {host: zones.Drain(host) for host in hosts}
        places: dict[str | None, list[str]] = {}
        for host in hosts:
            places.setdefault(people.hosts[host].az, []).append(host)
        self._zones = {
            az: zones.Zone(people, limits, az, places[az])
            for az in sorted(places, key=lambda name: name or '')
        }
        outside: dict[str | None, list[str]] = {az: [] for az in places}
        for name, known in sorted(people.hosts.items()):
            if known.az in outside and name not in self._drains and people.welcomes(name):
                outside[known.az].append(name)
        for az, zone in self._zones.items():
            zone.offer(outside[az], upgraded)
        self._now = 0.0
        self._out = 0
        self._settled = False  #: whose turn it is
        self._lanes: list[float] = []  # ends of the drains under way
        self._events: list[tuple[float, int, str]] = []  # when hosts come back
        self.order: list[zones.Drain] = []

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
            for h in z.cheapest(self._now)[: self.limits.out]
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
                else:  # servers have come to where they shelter
                    for zone in self._zones.values():
                        zone.stale = zone.stale and not zone.arrival

    def _may(self, zone: zones.Zone, most: int | None) -> bool:
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

    def _next(self, most: int | None) -> tuple[zones.Zone, str, zones.Trial] | None:
        """Find a host to take out: of the zone with most left to do."""
        while self._lanes and self._lanes[0] <= self._now:
            heapq.heappop(self._lanes)
        if len(self._lanes) * self.limits.parallel >= self.limits.total:
            return None
        if self._out >= self.limits.out:
            return None
        ramp = len(self.order) < self.limits.ramp
        if not ramp and not self._settled:
            self._settle()
        for zone in sorted(self._zones.values(), key=lambda z: z.turn):
            if not zone.left or not self._may(zone, most):
                continue
            found = zone.next(self._now)
            if found is None and not zone.out:
                found = self._forced(zone)
            if found is None and ramp and zone.hurried != zone.back:
                found = self._hurry(zone)
            if found is not None:
                return zone, *found
        return None

    def _settle(self) -> None:
        """Settle the turns of all hosts that are left."""
        self._settled = True
        lengths = sorted((z.seconds(h), h, z) for z in self._zones.values() for h in z.left)
        for turn, number in enumerate(rounds(len(lengths), self.limits.out)):
            _, host, zone = lengths[number]
            zone.queue[host] = turn

    def _hurry(self, zone: zones.Zone) -> tuple[str, zones.Trial] | None:
        """Let a few servers move twice so that another host can go at once."""
        spent = sum(len(z.twice) for z in self._zones.values())
        left = [z for z in self._zones.values() if z.hurried != z.back]
        share = (self.limits.twice - spent) // max(1, len(left))
        found = zone.hurry(self._now, min(share, self.limits.hurry)) if share > 0 else None
        if found is None:
            zone.hurried = zone.back
        return found

    def _forced(self, zone: zones.Zone) -> tuple[str, zones.Trial]:
        """Nobody comes back and nobody can go: shelter somebody, or name who has no place."""
        for host in zone.cheapest(self._now):
            trial = zone.seed(host, self._now)
            if trial is not None:
                return host, trial
        host = zone.cheapest(self._now)[0]
        return host, zone.give_up(host, self._now)

    def _start(self, zone: zones.Zone, host: str, trial: zones.Trial) -> None:
        self.order.append(zone.leave(host, trial, self._drains))
        zone.out += 1
        self._out += 1
        heapq.heappush(self._lanes, trial.end)
        number = len(self.order)
        heapq.heappush(self._events, (trial.end, number, ''))  # another may migrate
        back = trial.end + self.limits.upgrade(host)
        heapq.heappush(self._events, (back, number, host))


def rounds(count: int, out: int) -> list[int]:
    """Order the numbers 0 .. count-1, of hosts from the quickest to the slowest.

    Places in the budget come free at times spread over the length of one host. A round has
    a host for each place, of every length. In late ones the slowest goes first, so that a
    place that is free early gets more to do: the ends come closer together. The last ones
    are of middling hosts, for none of them may be late by much.
    """
    middle = range(max(0, count // 2 - out), min(count, count // 2 + out))
    others = [n for n in range(count) if n not in middle]
    parts = -(-len(others) // out)
    order: list[int] = []
    for number in range(parts):
        part = others[number::parts]
        slowest_first = number >= parts - _LATE or number % 2
        order.extend(reversed(part) if slowest_first else part)
    return [*order, *reversed(middle[::2]), *reversed(middle[1::2])]
