"""Where every server goes while its host is upgraded.

Several ways to go through the hosts are played (`flow`), and the best is taken: the one
that leaves nobody without a place, and of those the quickest, or in mode `min-migrations`
the one that moves least. What cannot be moved becomes a problem with a name.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import dataclasses

from upgrade_service import model
from upgrade_service.conductor.planner import flow, zones
from upgrade_service.conductor.planner import people as peoples
from upgrade_service.conductor.planner import request as requests

Drain = zones.Drain
#: servers named in one problem; of the rest the number is given
_NAMED = 5
#: mode -> of a thousand servers, those that may move twice: at least; for each part of the
#: hosts that is out at once (the more go at once, the more it takes to get them going); at most
TWICE = {'min-migrations': (0.9, 0.0, 0.9), 'balanced': (0.0, 190.0, 45.0)}
#: servers that are seated on trial, in all ways that are played, before the best is taken
_EFFORT = 400_000
#: what is tried: emptiest hosts first for so many budgets, share of those that move twice
#: for seeds, and how many of one host may move twice so that it can go at once
_WAYS = ((8, 1.0, 2), (3, 1.0, 2), (8, 0.8, 8), (8, 0.6, 4), (4, 1.0, 0), (2, 1.0, 4))
#: seconds of a migration beside the copying, and how often memory is copied (pages change)
_MIGRATION, _COPIES = 10.0, 1.2
#: seconds a host is taken to be out beside its drain if less is expected: an order that
#: counts on hosts coming back late is good as well if they come early
_UPGRADE = 600.0


@dataclasses.dataclass
class Drains:
    """The drains of a plan, in an order that they can be carried out in."""

    order: list[Drain] = dataclasses.field(default_factory=list)
    problems: list[model.Problem] = dataclasses.field(default_factory=list)

    def last_hosts(self) -> dict[str, str]:
        """Return where each server that moves ends up."""
        return {server: target for drain in self.order for server, target in drain.moves.items()}


def migration_seconds(policy: Mapping[str, object]) -> Callable[[model.Server], float]:
    """Return what tells how long a server's live migration takes at the policy's bandwidth."""
    rate = float(str(policy['mib_per_second']))
    return lambda server: _MIGRATION + _COPIES * server.ram_mb / rate


def plan_drains(
    inventory: model.Inventory,
    hosts: Sequence[str],
    upgraded: Collection[str],
    policy: Mapping[str, object],
    upgrade: Callable[[str], float],
) -> Drains:
    """Plan the drains of `hosts`; what cannot be moved becomes a problem.

    `upgraded`: hosts at the target already. `upgrade`: seconds a host is out beside its
    drain. A pure function of what is left to do, so a plan that the cloud has drifted away
    from is made anew by calling it with the hosts that are done as `upgraded`.
    """
    rules: Mapping[str, object] = policy['drain']  # type: ignore[assignment]
    people = peoples.People(inventory, int(str(rules['incoming'])))
    best: flow.Played | None = None
    for limits in _ways(inventory, hosts, policy, upgrade):
        played = flow.play(people, hosts, upgraded, limits)
        if best is None or _rank(played) < _rank(best):
            best = played
    order = best.order if best else []
    return Drains(order, list(_problems(people, order, str(rules['on_immovable']))))


def _rank(played: flow.Played) -> tuple[float, ...]:
    return played.homeless, played.seconds, played.twice


def _ways(
    inventory: model.Inventory,
    hosts: Sequence[str],
    policy: Mapping[str, object],
    upgrade: Callable[[str], float],
) -> Iterator[zones.Limits]:
    """Yield the ways that are worth a try, the most promising first, within the effort."""
    rules: Mapping[str, object] = policy['drain']  # type: ignore[assignment]
    out = requests.share(policy['max_unavailable'], len(hosts))  # type: ignore[arg-type]
    per_az = requests.shares(inventory, hosts, policy.get('per_az'))
    chosen = frozenset(hosts)
    moving = sum(1 for s in inventory.servers if s.host in chosen)
    canary: Mapping[str, int] = policy['canary']  # type: ignore[assignment]
    base = zones.Limits(
        out=out,
        per_az=per_az,
        parallel=int(str(rules['parallel'])),
        total=int(str(rules['total'])),
        migration=migration_seconds(rules),
        upgrade=lambda host: max(_UPGRADE, upgrade(host)),
        canaries=canary['hosts'],
        twice=_twice(str(rules['mode']), moving, out / max(1, len(hosts))),
        seed_always=rules['mode'] != 'min-migrations',
    )
    if out == 1:  # nobody waits for anybody, so what is left is to fill targets evenly
        yield dataclasses.replace(base, ramp=len(hosts), twice=0, spread=True)
        yield dataclasses.replace(base, ramp=len(hosts), twice=0)
        return
    tries = max(1, _EFFORT // max(1, moving))
    for ramp, seeds, hurry in _WAYS[:tries]:
        count = min(ramp * out, len(hosts) * 2 // 5)
        yield dataclasses.replace(base, ramp=count, seeds=seeds, hurry=hurry)


def _twice(mode: str, moving: int, part: float) -> int:
    least, each, most = TWICE[mode]
    return int(moving * min(most, max(least, each * part)) / 1000)


# -- what stands in the way ---------------------------------------------------------------------


def _problems(
    people: peoples.People, order: Sequence[Drain], on_immovable: str
) -> Iterator[model.Problem]:
    for drain in order:
        named = [
            f'{s.name} {why}'
            for s in people.of(drain.host)
            if s.state not in peoples.GONE and (why := people.why_immovable(s))
        ]
        if named:
            yield _immovable(drain.host, named, on_immovable)
        if drain.homeless:
            yield _no_room(people, drain.host, drain.homeless)


def _immovable(host: str, named: Sequence[str], on_immovable: str) -> model.Problem:
    more = f' and {len(named) - _NAMED} more' if len(named) > _NAMED else ''
    return model.Problem(
        code='immovable_servers',
        severity='blocking' if on_immovable == 'block' else 'warning',
        host=host,
        message=f'{host} cannot be emptied: {"; ".join(named[:_NAMED])}{more}',
        hint='start or delete them, or set the policy drain.on_immovable to skip: they then '
        'stay on the host during its upgrade',
    )


def _no_room(people: peoples.People, host: str, homeless: Sequence[model.Server]) -> model.Problem:
    vcpus, ram = sum(s.vcpus for s in homeless), sum(s.ram_mb for s in homeless)
    zone = people.hosts[host].az or 'its zone'
    return model.Problem(
        code='no_capacity',
        severity='blocking',
        host=host,
        message=f'{len(homeless)} servers of {host} ({vcpus} vCPUs, {ram} MB) find no room '
        f'on other hosts of {zone} that nova would accept',
        hint=f'free {vcpus} vCPUs and {ram} MB on hosts of {zone}, add or enable a host '
        'there, or set the policy drain.instances to none',
    )
