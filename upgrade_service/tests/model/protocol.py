"""The protocol between rows, conductors and engines, small enough to be looked at whole.

A :class:`World` is everything that survives or matters; :func:`moves` yields every world that
can be next. Orders, revocations and answers are never taken out of their sets, so a message may
be lost, doubled, delayed or overtaken. A lease may end at any moment: time is not trusted. What
one transaction, one write or one process does is one move; a process may die between any two.

:class:`Rules` says which plan, within which bounds, and which guards are taken away.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

OWNED = ('running', 'stopping', 'blocked')
Attempt = tuple[int, int]  #: (step, number)
Move = tuple[str, 'World']


class Broken(Exception):
    """An invariant of reliability does not hold; the text begins with its number."""


class Step(NamedTuple):
    """A step of the plan."""

    host: int
    parents: tuple[int, ...] = ()


#: one host, one order for two steps; two hosts, one after the other; two hosts, one at a time
PLANS: dict[str, tuple[Step, ...]] = {
    'chain': (Step(0), Step(0, (0,))),
    'hosts': (Step(0), Step(1, (0,))),
    'budget': (Step(0), Step(1)),
}


class Bounds(NamedTuple):
    """How often things may happen in one history."""

    epochs: int = 2
    attempts: int = 2
    kills: int = 1
    reboots: int = 1
    verbs: int = 2


class Rules(NamedTuple):
    """What is looked at."""

    plan: str = 'chain'
    once: bool = True  #: steps that must not be tried again without a person
    removed: frozenset[str] = frozenset()
    bounds: Bounds = Bounds()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The plan."""
        return PLANS[self.plan]

    def guarded(self, guard: str) -> bool:
        """Whether a guard is in place."""
        return guard not in self.removed


class Mind(NamedTuple):
    """What a conductor remembers of the upgrade: nothing, after it was killed."""

    epoch: int = 0
    view: Any = None  #: (state, steps) as it read them
    unsent: tuple[Any, ...] = ()  #: orders that it has committed and not sent


class Engine(NamedTuple):
    """What an engine process remembers; what it has on disk is in World.book and World.seen."""

    alive: bool = True
    chain: tuple[Attempt, ...] = ()  #: accepted, not begun
    current: Attempt | None = None


class World(NamedTuple):
    """One state of everything."""

    state: str  #: of the upgrade
    next: str
    epoch: int
    steps: tuple[tuple[str, int], ...]  #: (state, attempt): pending, dispatched, ok, unknown
    minds: tuple[Mind, ...]
    engines: tuple[Engine, ...]
    seen: tuple[int, ...]  #: the highest epoch in each engine's journal
    book: tuple[tuple[int, str], ...]  #: of each step the last attempt journaled, and its state
    orders: frozenset[Any] = frozenset()
    revokes: frozenset[Attempt] = frozenset()
    answers: frozenset[Any] = frozenset()
    late: frozenset[Attempt] = frozenset()  #: shims that were spawned and have not begun
    running: frozenset[Attempt] = frozenset()
    effects: tuple[int, ...] = ()  #: how often each step was really done
    starts: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()  #: starts of a step that a person has authorised
    recorded: tuple[int, ...] = ()  #: successes recorded
    used: tuple[int, int, int] = (0, 0, 0)  #: kills, reboots, verbs


def first(rules: Rules) -> World:
    """Return the world in which the upgrade was just started."""
    n = len(rules.steps)
    hosts = 1 + max(s.host for s in rules.steps)
    return World(
        state='running',
        next='',
        epoch=0,
        steps=(('pending', 0),) * n,
        minds=(Mind(), Mind()),
        engines=(Engine(),) * hosts,
        seen=(0,) * hosts,
        book=((0, ''),) * n,
        effects=(0,) * n,
        starts=(0,) * n,
        allowed=(1,) * n,
        recorded=(0,) * n,
    )


def put(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    """Return `values` with another one at a place."""
    return (*values[:at], value, *values[at + 1 :])


def moves(rules: Rules, w: World) -> Iterator[Move]:
    """Yield everything that can happen next."""
    yield from _operator(rules, w)
    for c in range(len(w.minds)):
        yield from _conductor(rules, w, c)
    for h, engine in enumerate(w.engines):
        if engine.alive:
            yield from _engine(rules, w, h)
        else:
            yield f'engine {h} starts again', _recovered(rules, w, h)
    yield from _processes(rules, w)


# -- a person ----------------------------------------------------------------------------------

_VERBS = (
    ('pause', 'running', '', 'stopping', 'paused'),
    ('resume', 'stopping', 'paused', 'running', ''),
    ('resume', 'paused', '', 'running', ''),
    ('cancel', 'running', '', 'stopping', 'cancelled'),
    ('cancel', 'stopping', 'paused', 'stopping', 'cancelled'),
    ('cancel', 'paused', '', 'stopping', 'cancelled'),
    ('cancel', 'blocked', '', 'stopping', 'cancelled'),
)


def _operator(rules: Rules, w: World) -> Iterator[Move]:
    kills, reboots, verbs = w.used
    if verbs >= rules.bounds.verbs:
        return
    used = (kills, reboots, verbs + 1)
    for verb, state, next_, then, later in _VERBS:
        if (w.state, w.next) == (state, next_):
            yield verb, w._replace(state=then, next=later, used=used)
    for i, (state, n) in enumerate(w.steps):
        if state == 'unknown' and w.state in ('running', 'blocked') and n < rules.bounds.attempts:
            yield (
                f'retry {i}',
                w._replace(
                    steps=put(w.steps, i, ('pending', n)),
                    allowed=put(w.allowed, i, w.allowed[i] + 1),
                    used=used,
                ),
            )


# -- conductors --------------------------------------------------------------------------------


def _conductor(rules: Rules, w: World, c: int) -> Iterator[Move]:
    mind = w.minds[c]
    if (w.state in OWNED and mind.epoch != w.epoch) or not w.epoch:
        if w.epoch and not rules.guarded('alone'):
            # a second thread of the same owner
            yield f'conductor {c} joins', _think(w, c, Mind(w.epoch))
        elif w.epoch < rules.bounds.epochs:
            taken = w._replace(epoch=w.epoch + 1)
            yield f'conductor {c} takes it over', _think(taken, c, Mind(w.epoch + 1))
    if not mind.epoch:
        return
    kills, reboots, verbs = w.used
    if kills < rules.bounds.kills:
        dead = w._replace(used=(kills + 1, reboots, verbs))
        yield f'conductor {c} is killed', _think(dead, c, Mind())
    if mind.unsent:
        sent = _think(w, c, mind._replace(unsent=()))
        yield f'conductor {c} sends', sent._replace(orders=w.orders | set(mind.unsent))
    elif mind.view is None:
        # whoever reads that another owns it ends
        view = mind._replace(view=(w.state, w.steps))
        yield f'conductor {c} reads', _think(w, c, view if _mine(rules, w, mind) else Mind())
    else:
        yield from _decided(rules, w, c)
    if _mine(rules, w, mind) and w.state in OWNED:
        yield from _recorded(rules, w, c)


def _think(w: World, c: int, mind: Mind) -> World:
    return w._replace(minds=put(w.minds, c, mind))


def _mine(rules: Rules, w: World, mind: Mind) -> bool:
    return mind.epoch == w.epoch or not rules.guarded('epoch')


def _decided(rules: Rules, w: World, c: int) -> Iterator[Move]:
    """What follows from what it read, be that stale by now."""
    mind = w.minds[c]
    state, steps = mind.view
    out = {i: n for i, (s, n) in enumerate(steps) if s == 'dispatched'}
    if state == 'running':
        chains = _ready(rules, steps)
        if chains:
            yield f'conductor {c} dispatches', _dispatched(rules, w, c, chains)
        lone = {(i, n) for i, n in out.items() if not _whole(rules, steps, i)}
        for h in {rules.steps[i].host for i in out}:
            links = tuple(a for a in out.items() if rules.steps[a[0]].host == h and a not in lone)
            again = w.orders | {(mind.epoch, links)} if links else w.orders
            if again != w.orders:
                yield f'conductor {c} sends again to {h}', w._replace(orders=again)
        if lone - w.revokes:
            yield f'conductor {c} takes {lone} back', w._replace(revokes=w.revokes | lone)
        if not rules.guarded('answer'):
            yield from _impatient(rules, w, c, out)
    elif state == 'stopping':
        missing = set(out.items()) - w.revokes
        if missing:
            yield f'conductor {c} revokes', w._replace(revokes=w.revokes | missing)
    yield f'conductor {c} will read again', _think(w, c, mind._replace(view=None))
    if _mine(rules, w, mind) and (w.state, w.steps) == mind.view:
        yield from _settled(w, c)


def _ready(rules: Rules, steps: tuple[tuple[str, int], ...]) -> list[tuple[int, ...]]:
    """Return the chains to begin: on each free host, a step and what needs nothing but it."""
    busy = {rules.steps[i].host for i, (s, _) in enumerate(steps) if s == 'dispatched'}
    room = 1 - sum(s in ('dispatched', 'unknown') for s, _ in steps)
    chains: list[tuple[int, ...]] = []
    for i, step in enumerate(rules.steps):
        if step.host in busy or (rules.plan == 'budget' and room - len(chains) < 1):
            continue
        if _can(rules, steps, i, ()):
            chain: tuple[int, ...] = (i,)
            for j in range(i + 1, len(steps)):
                if rules.steps[j].host == step.host and _can(rules, steps, j, chain):
                    chain += (j,)
            chains.append(chain)
            busy.add(step.host)
    return chains


def _whole(rules: Rules, steps: tuple[tuple[str, int], ...], i: int) -> bool:
    """Whether what a dispatched step needs was not given back meanwhile."""
    parents = rules.steps[i].parents if rules.guarded('whole') else ()
    return all(steps[p][0] in ('ok', 'dispatched') for p in parents)


def _can(rules: Rules, steps: tuple[tuple[str, int], ...], i: int, inside: Any) -> bool:
    state, n = steps[i]
    parents = rules.steps[i].parents if rules.guarded('parents') else ()
    done = all(p in inside or steps[p][0] == 'ok' for p in parents)
    return state == 'pending' and n < rules.bounds.attempts and done


def _dispatched(rules: Rules, w: World, c: int, chains: list[tuple[int, ...]]) -> World:
    """One transaction, with its guards; if one of them does not hold, nothing was written."""
    mind = w.minds[c]
    _, seen = mind.view
    begun = [i for chain in chains for i in chain]
    same = all(w.steps[i] == seen[i] for i in begun) or not rules.guarded('compare')
    right = w.state == 'running' or not rules.guarded('state')
    if not (_mine(rules, w, mind) and same and right):
        return _think(w, c, mind._replace(view=None))
    if w.state != 'running':
        raise Broken('I8: dispatched after the verb that forbids it was accepted')
    steps = w.steps
    for i in begun:
        steps = put(steps, i, ('dispatched', seen[i][1] + 1))
    orders = tuple((mind.epoch, tuple((i, steps[i][1]) for i in chain)) for chain in chains)
    return _think(w._replace(steps=steps), c, Mind(mind.epoch, None, orders))


def _impatient(rules: Rules, w: World, c: int, out: dict[int, int]) -> Iterator[Move]:
    """A silent engine gets a new attempt: what must never be done."""
    for i, n in out.items():
        if w.steps[i] == ('dispatched', n) and n < rules.bounds.attempts:
            new = w._replace(steps=put(w.steps, i, ('dispatched', n + 1)))
            order = (w.minds[c].epoch, ((i, n + 1),))
            yield f'conductor {c} gives up on {i}', new._replace(orders=w.orders | {order})


def _settled(w: World, c: int) -> Iterator[Move]:
    """What the upgrade becomes once nothing is in flight."""
    states = {s for s, _ in w.steps}
    if 'dispatched' in states:
        return
    if w.state == 'stopping':
        yield f'conductor {c}: {w.next}', w._replace(state=w.next, next='')
    elif w.state == 'running' and states == {'ok'}:
        yield f'conductor {c}: succeeded', w._replace(state='succeeded')
    elif w.state == 'running' and 'unknown' in states:
        yield f'conductor {c}: blocked', w._replace(state='blocked')
    elif w.state == 'blocked' and 'unknown' not in states:
        yield f'conductor {c}: unblocked', w._replace(state='running')


def _recorded(rules: Rules, w: World, c: int) -> Iterator[Move]:
    for i, n, what in w.answers:
        state, at = w.steps[i]
        counts = state == 'dispatched' and at == n
        if not rules.guarded('match'):
            counts = state in ('dispatched', 'ok')
        if not counts:
            continue
        new, recorded = 'pending', w.recorded
        if what == 'ok':
            new, recorded = 'ok', put(recorded, i, min(2, recorded[i] + 1))
        elif what == 'interrupted' and (rules.once or at >= rules.bounds.attempts):
            new = 'unknown'
        after = w._replace(steps=put(w.steps, i, (new, at)), recorded=recorded)
        if after != w:
            yield f'conductor {c} records {i}.{n} {what}', after


# -- engines -----------------------------------------------------------------------------------


def _engine(rules: Rules, w: World, h: int) -> Iterator[Move]:
    engine = w.engines[h]
    kills, reboots, verbs = w.used
    if kills < rules.bounds.kills:
        dead = Engine(alive=False)
        yield (
            f'engine {h} is killed',
            _be(w, h, dead)._replace(used=(kills + 1, reboots, verbs), book=_forgotten(rules, w)),
        )
    for epoch, links in w.orders:
        if rules.steps[links[0][0]].host == h:
            yield from _ordered(rules, w, h, epoch, links)
    for i, n in w.revokes:
        if rules.steps[i].host == h:
            yield from _revoked(rules, w, h, i, n)
    if engine.current is not None:
        yield from _watched(rules, w, h)
    elif engine.chain:
        yield from _begun(rules, w, h)


def _be(w: World, h: int, engine: Engine) -> World:
    return w._replace(engines=put(w.engines, h, engine))


def _forgotten(rules: Rules, w: World) -> tuple[tuple[int, str], ...]:
    return w.book if rules.guarded('journal') else ((0, ''),) * len(w.book)


def _busy(rules: Rules, w: World, h: int) -> bool:
    engine = w.engines[h]
    if engine.chain or engine.current:
        return True
    at_work = any(rules.steps[i].host == h for i, _ in w.running)
    return at_work and rules.guarded('lock')


def _ordered(rules: Rules, w: World, h: int, epoch: int, links: Any) -> Iterator[Move]:
    """The rule of acceptance; a refusal changes nothing, so it is no move."""
    if _busy(rules, w, h) or (epoch < w.seen[h] and rules.guarded('seen')):
        return
    good: list[Attempt] = []
    rest: list[Attempt] = []
    whole = True  # what comes before a link in its order is taken with it, or has succeeded
    for i, n in links:
        known, state = w.book[i]
        if n > known or not rules.guarded('remember'):
            whole = whole and state != 'open'
            (good if whole else rest).append((i, n))
        elif (known, state) != (n, 'ok') and rules.guarded('prefix'):
            whole = False
    book, answers = w.book, w.answers
    for i, n in good:
        book = put(book, i, (n, 'open'))
    for i, n in rest:
        if n > book[i][0]:
            book, answers = put(book, i, (n, 'revoked')), answers | {(i, n, 'revoked')}
    if book != w.book or good:
        after = _be(w, h, Engine(chain=tuple(good)))
        seen = put(w.seen, h, max(epoch, w.seen[h]))
        yield f'engine {h} accepts {good}', after._replace(book=book, answers=answers, seen=seen)


def _given_back(w: World, h: int, at: int) -> World:
    """Promise never to begin what is in the chain from a place on, and say so."""
    engine = w.engines[h]
    book, answers = w.book, w.answers
    for i, n in engine.chain[at:]:
        book, answers = put(book, i, (n, 'revoked')), answers | {(i, n, 'revoked')}
    kept = engine._replace(chain=engine.chain[:at])
    return _be(w, h, kept)._replace(book=book, answers=answers)


def _revoked(rules: Rules, w: World, h: int, i: int, n: int) -> Iterator[Move]:
    engine = w.engines[h]
    name = f'engine {h} gives {i}.{n} back'
    if (i, n) in engine.chain:
        after = _given_back(w, h, engine.chain.index((i, n)))
        if not rules.guarded('revoked'):
            # it says so and begins them all the same
            after = after._replace(engines=w.engines)
        if after != w:
            yield name, after
    elif n > w.book[i][0]:
        book = put(w.book, i, (n, 'revoked')) if rules.guarded('promise') else w.book
        after = w._replace(book=book, answers=w.answers | {(i, n, 'revoked')})
        if after != w:
            yield name, after


def _begun(rules: Rules, w: World, h: int) -> Iterator[Move]:
    engine = w.engines[h]
    (i, n), rest = engine.chain[0], engine.chain[1:]
    if w.book[i] != (n, 'open') and rules.guarded('revoked'):
        yield f'engine {h} drops its chain', _be(w, h, Engine())
        return
    after = _be(w, h, Engine(chain=rest, current=(i, n)))
    yield f'engine {h} spawns {i}.{n}', after._replace(late=w.late | {(i, n)})


def _watched(rules: Rules, w: World, h: int) -> Iterator[Move]:
    """The end of the step under way: the next follows only if it went well."""
    engine = w.engines[h]
    assert engine.current is not None
    i, n = engine.current
    if (i, n) in w.late or (i, n) in w.running:
        return
    number, state = w.book[i]
    what = state if number == n and state != 'open' else 'interrupted'
    after = _be(w, h, engine._replace(current=None))
    if what != 'ok' and rules.guarded('failure'):
        after = _given_back(after, h, 0)
    yield (
        f'engine {h} reports {i}.{n} {what}',
        after._replace(answers=after.answers | {(i, n, what)}),
    )


def _recovered(rules: Rules, w: World, h: int) -> World:
    """What an engine finds when it starts; it begins nothing."""
    book, answers, engine = w.book, w.answers, Engine()
    for i, step in enumerate(rules.steps):
        n, state = book[i]
        if step.host != h or not n:
            continue
        if state == 'open' and not rules.guarded('rest'):
            engine = engine._replace(chain=(*engine.chain, (i, n)))
            continue
        if state == 'open':
            if (i, n) in w.running and rules.guarded('lock'):
                engine = engine._replace(current=(i, n))
                continue
            state = 'interrupted' if (i, n) in w.running else 'revoked'
            book = put(book, i, (n, state))
        answers |= {(i, n, state)}
    return _be(w, h, engine)._replace(book=book, answers=answers)


# -- the processes that do the work ------------------------------------------------------------


def _processes(rules: Rules, w: World) -> Iterator[Move]:
    for i, n in w.late:
        yield from _shim_starts(rules, w._replace(late=w.late - {(i, n)}), i, n)
    for i, n in w.running:
        done = w._replace(
            running=w.running - {(i, n)}, effects=put(w.effects, i, min(2, w.effects[i] + 1))
        )
        # the shim itself writes the outcome; only for its own attempt
        book = put(w.book, i, (n, 'ok')) if w.book[i] == (n, 'open') else w.book
        yield f'step {i}.{n} ends', done._replace(book=book)
    yield from _accidents(rules, w)


def _shim_starts(rules: Rules, w: World, i: int, n: int) -> Iterator[Move]:
    host = rules.steps[i].host
    if w.book[i] != (n, 'open') and rules.guarded('forbid'):
        yield f'the shim of {i}.{n} comes too late', w
        return
    if any(rules.steps[j].host == host for j, _ in w.running) and rules.guarded('lock'):
        book = put(w.book, i, (n, 'interrupted')) if w.book[i] == (n, 'open') else w.book
        yield f'the shim of {i}.{n} finds the host taken', w._replace(book=book)
        return
    starts = put(w.starts, i, min(3, w.starts[i] + 1))
    yield f'step {i}.{n} begins', w._replace(running=w.running | {(i, n)}, starts=starts)


def _accidents(rules: Rules, w: World) -> Iterator[Move]:
    kills, reboots, verbs = w.used
    for h in range(len(w.engines)):
        here = [(i, n) for i, n in w.running if rules.steps[i].host == h]
        if not here:
            continue
        book = w.book
        for i, n in here:
            book = put(book, i, (n, 'interrupted')) if book[i] == (n, 'open') else book
        gone = w._replace(
            running=w.running - set(here), late=frozenset(a for a in w.late if a not in here)
        )
        if reboots < rules.bounds.reboots:
            booted = _be(gone, h, Engine(alive=False))
            late = frozenset((i, n) for i, n in w.late if rules.steps[i].host != h)
            yield (
                f'host {h} reboots',
                booted._replace(book=book, late=late, used=(kills, reboots + 1, verbs)),
            )
        if kills < rules.bounds.kills:
            yield (
                f'the step on {h} is killed',
                gone._replace(book=book, used=(kills + 1, reboots, verbs)),
            )


# -- what must hold ----------------------------------------------------------------------------


def check(rules: Rules, w: World) -> None:
    """Look whether a world may be.

    :raises Broken: it may not.
    """
    hosts = [rules.steps[i].host for i, _ in w.running]
    if len(hosts) > len(set(hosts)):
        raise Broken('I1: two executions on one host at once')
    for i, _ in w.running:
        if any(not w.effects[p] for p in rules.steps[i].parents):
            raise Broken('I2: a step runs before what it needs was done')
    for i, (state, _) in enumerate(w.steps):
        if w.recorded[i] > 1:
            raise Broken('I3: an outcome was recorded twice')
        if state == 'ok' and not w.effects[i]:
            raise Broken('I6: a success is recorded that never was')
        if rules.once and w.starts[i] > w.allowed[i]:
            raise Broken('I7: a step was begun again that nobody allowed to be')
    out = sum(s in ('dispatched', 'unknown') for s, _ in w.steps)
    if rules.plan == 'budget' and out > 1:
        raise Broken('I4: more hosts are out than allowed')
