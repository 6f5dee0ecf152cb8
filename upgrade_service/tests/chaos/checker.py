"""What must be true of a run whatever happened in it: I1 to I12, from independent witnesses.

It believes the lines that actions wrote, the log of the simulated cloud, what clients noted and
what was done to the service. The service's own rows are the accused: they are compared with
those. Nothing of the service's code is used here, not even to compute a hash.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
import dataclasses
import hashlib
import itertools
import json
import pathlib
from typing import Any

from upgrade_service.tests.chaos import place

Row = dict[str, Any]
TERMINAL = ('succeeded', 'cancelled', 'rolled_back')
ENDS = ('succeeded', 'failed', 'unknown', 'interrupted', 'refused')
#: kinds of events that begin an attempt
BEGINS = ('dispatched', 'started')
#: what a client may ask for, and the state that its acceptance ends
STOPS = ('pause', 'cancel')
ONCE = 'db_migrate'
ON_HOST = ('prefetch', 'upgrade_service', ONCE)
#: clocks of one machine, read by different programs (seconds)
SLACK = 0.02


@dataclasses.dataclass(frozen=True)
class Span:
    """One execution of a step as its action saw it; `end` is None if it was cut off."""

    host: str
    step: str
    attempt: int
    kind: str
    begin: float
    end: float | None
    good: bool


@dataclasses.dataclass
class History:
    """Everything that is known of a run."""

    folder: pathlib.Path
    spans: list[Span]
    cloud: list[Row]
    clients: list[Row]
    faults: list[Row]
    tables: dict[str, list[Row]]
    healed: float

    @classmethod
    def read(cls, folder: pathlib.Path, healed: float) -> 'History':
        """Read the folder of a run."""
        return cls(
            folder=folder,
            spans=[s for host in place.HOSTS for s in _spans(host, folder / host / 'actions')],
            cloud=json.loads((folder / 'cloud.json').read_text()),
            clients=place.lines(folder / 'clients'),
            faults=place.lines(folder / 'faults'),
            tables=json.loads((folder / 'rows.json').read_text()),
            healed=healed,
        )

    @property
    def upgrade(self) -> Row:
        """The row of the upgrade."""
        return self.tables['upgrades'][0]

    @property
    def events(self) -> list[Row]:
        """Its events in order."""
        return sorted(self.tables['events'], key=lambda e: e['seq'])

    @property
    def steps(self) -> dict[str, Row]:
        """Its steps by id."""
        return {s['id']: s for s in self.tables['steps']}

    def asked(self, verb: str, status: int = 202) -> list[Row]:
        """Answers of a kind that clients got, one for each key."""
        found = {
            c['key']: c
            for c in self.clients
            if c['verb'] == verb and (c['answer'] or {}).get('status') == status and not c['lost']
        }
        return list(found.values())

    def in_flight(self, at: float) -> bool:
        """Whether anything was under way at a time."""
        ms = at * 1000
        return any(
            a['dispatched_at'] <= ms <= (a['finished_at'] or ms) for a in self.tables['attempts']
        )

    def delivered(self) -> Counter[str]:
        """Count the faults that came while something was under way."""
        return Counter(f['kind'] for f in self.faults if self.in_flight(f['at']))


def _spans(host: str, path: pathlib.Path) -> Iterator[Span]:
    """Match begins and ends by the process that wrote them."""
    began: dict[tuple[str, str], Row] = {}
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    for line in text.splitlines():
        what, step, attempt, kind, at, pid = line.split()
        said: Row = {'step': step, 'attempt': int(attempt), 'kind': kind, 'begin': float(at)}
        if what == 'begin':
            began[step, pid] = said
        else:
            first = began.pop((step, pid))
            yield Span(host, **first, end=float(at), good=what == 'end')
    for said in began.values():
        yield Span(host, **said, end=None, good=False)


def check(h: History) -> list[str]:
    """Return what is wrong, a sentence each; it begins with the number of the invariant."""
    if not h.tables['upgrades']:
        return ['I11: there is no upgrade']
    return [f'{name}: {text}' for name, look in INVARIANTS for text in look(h)]


# -- executions --------------------------------------------------------------------------------


def _last_moment(h: History, span: Span) -> float:
    """When an execution was over for sure: at its end, or when its host was rebooted."""
    if span.end is not None:
        return span.end
    boots = [f['at'] for f in h.faults if f['kind'] == 'reboot' and f.get('host') == span.host]
    later = [at for at in boots if at > span.begin]
    return min(later, default=float('inf'))


def i1(h: History) -> Iterator[str]:
    """No two executions on a host overlap; so none of one step does."""
    for host in place.HOSTS:
        spans = sorted((s for s in h.spans if s.host == host), key=lambda s: s.begin)
        for one, two in itertools.pairwise(spans):
            if two.begin < _last_moment(h, one):
                yield (
                    f'on {host} {two.kind}.{two.attempt} began while {one.kind}.{one.attempt} ran'
                )


def i2(h: History) -> Iterator[str]:
    """No step begins before what it waits for really ended well."""
    parents = defaultdict(list)
    for edge in h.tables['edges']:
        parents[edge['step_id']].append(h.steps[edge['parent_id']])
    for span in h.spans:
        for parent in _witnessed(h, parents, span.step):
            if not _happened(h, parent, span.begin):
                yield f'{span.kind} on {span.host} began before {parent["kind"]} was done'


def _witnessed(h: History, parents: Any, step: str) -> Iterator[Row]:
    """Ancestors that left a trace; steps done inside an engine leave none."""
    for parent in parents[step]:
        if parent['kind'] in (*ON_HOST, 'disable_host'):
            yield parent
        else:
            yield from _witnessed(h, parents, parent['id'])


def _happened(h: History, step: Row, before: float) -> bool:
    if step['state'] == 'skipped':
        return True
    if step['kind'] == 'disable_host':
        return any(
            e['what'].startswith('disable') and e['host'] == step['host'] and e['at'] <= before
            for e in h.cloud
        )
    return any(s.step == step['id'] and s.good and s.end <= before for s in h.spans)  # type: ignore[operator]


def i3(h: History) -> Iterator[str]:
    """An attempt has one outcome at most, and a finished step has one."""
    ended = Counter(
        (e['step_id'], e['attempt']) for e in h.events if e['kind'] in ENDS and e['step_id']
    )
    for (step, attempt), n in ended.items():
        if n > 1:
            yield f'attempt {attempt} of {h.steps[step]["kind"]} has {n} outcomes'
    for step in h.tables['steps']:
        if step['state'] in ('succeeded', 'failed', 'unknown') and step['attempt']:
            if not ended[step['id'], step['attempt']]:
                yield f'{step["kind"]} on {step["host"]} is {step["state"]} without an outcome'


def i4(h: History) -> Iterator[str]:
    """Never more hosts out of service than the policy allows."""
    changes: list[tuple[float, int, str, str]] = []
    for e in h.cloud:
        if e['what'].startswith('disable'):
            changes.append((e['at'], 1, e['host'], 'off'))
        elif e['what'] == 'enable':
            changes.append((e['at'], -1, e['host'], 'off'))
    for s in h.spans:
        if s.kind == 'upgrade_service':
            changes.append((s.begin, 1, s.host, s.step))
            changes.append((_last_moment(h, s), -1, s.host, s.step))
    out: dict[str, set[str]] = defaultdict(set)
    most = int(h.upgrade['policy']['max_unavailable'])
    for at, what, host, why in sorted(changes):
        (out[host].add if what > 0 else out[host].discard)(why)
        now = sorted(x for x, reasons in out.items() if reasons)
        if len(now) > most:
            yield f'{" and ".join(now)} are out at once, {at - h.healed:+.2f} s'
            return


def i5(h: History) -> Iterator[str]:
    """In the end what we disabled is enabled or named; what others did is as they left it."""
    if h.upgrade['state'] not in TERMINAL:
        return
    state = {}
    for e in h.cloud:
        if e['what'].startswith('disable'):
            state[e['host']] = e.get('reason') or ''
        elif e['what'] == 'enable':
            if state.get(e['host'], '').startswith('others'):
                yield f'{e["host"]} was enabled, which others had disabled'
            state.pop(e['host'], None)
    named: list[str] = h.events[-1]['detail'].get('held_hosts', []) if h.events else []
    for host, reason in state.items():
        if not reason.startswith('others') and host not in named:
            yield f'{host} is still disabled and nobody says so'


def i6(h: History) -> Iterator[str]:
    """A recorded success happened; what happened is recorded."""
    good = {(s.step, s.attempt) for s in h.spans if s.good}
    for e in h.events:
        step = h.steps.get(e['step_id'] or '')
        if e['kind'] == 'succeeded' and step and step['kind'] in ON_HOST:
            if (step['id'], e['attempt']) not in good:
                yield f'{step["kind"]} on {step["host"]} is recorded as done and was not'
    said = {(a['step_id'], a['n']): a['outcome'] for a in h.tables['attempts']}
    for s in h.spans:
        outcome = said.get((s.step, s.attempt))
        if s.good and outcome != 'succeeded' and not _disturbed(h, s):
            yield f'{s.kind}.{s.attempt} on {s.host} was done and is recorded as {outcome}'


def _disturbed(h: History, span: Span) -> bool:
    """Whether the host was rebooted about then: it may be over before that was written."""
    return any(
        f['kind'] in ('reboot', 'shim killed', 'disk full')
        and f.get('host') == span.host
        and f['at'] >= span.begin - SLACK
        for f in h.faults
    )


def i7(h: History) -> Iterator[str]:
    """What must not be repeated begins once, and once more for each time a person says so."""
    begun = Counter(s.step for s in h.spans if s.kind == ONCE)
    for step, n in begun.items():
        ordinal = h.steps[step]['ord']
        # a request whose answer was lost may have counted
        keys = {
            c['key'] for c in h.clients
            if c['verb'] == 'retry' and c['path'] == f'steps/{ordinal}/'
            and (c['answer'] is None or c['answer']['status'] in (200, 202) or c['lost'])
        }  # fmt: skip
        if n > 1 + len(keys):
            yield f'{ONCE} on {h.steps[step]["host"]} began {n} times, {len(keys)} retries allowed'


# -- verbs -------------------------------------------------------------------------------------


def i8(h: History) -> Iterator[str]:
    """What was accepted is on record by then, once, and nothing begins against it."""
    yield from _intents(h)
    yield from begun_against_verbs(h)


def begun_against_verbs(h: History) -> Iterator[str]:
    """Name what began between the acceptance of a verb that stops and one that goes on."""
    stopped = ''
    for e in h.events:
        after = e['detail'].get('after')
        if e['kind'] in STOPS and not e['detail'].get('already'):
            stopped = e['kind']
        elif e['kind'] in ('resume', 'approve') or after in ('running',):
            stopped = ''
        elif e['kind'] in BEGINS and stopped:
            yield f'event {e["seq"]}: {e["kind"]} after {stopped} was accepted'


def _intents(h: History) -> Iterator[str]:
    for verb in ('pause', 'resume', 'cancel', 'retry', 'approve'):
        sure = h.asked(verb)
        at = [e['at'] / 1000 for e in h.events if e['kind'] == verb]
        heard = {
            c['key'] for c in h.clients if c['verb'] == verb and c['answer'] and not c['lost']
        }
        unsure = {c['key'] for c in h.clients if c['verb'] == verb} - heard
        if not len(sure) <= len(at) <= len(sure) + len(unsure):
            yield f'{len(sure)} times {verb} was accepted, {len(at)} are on record'
        for c in sure:
            answered = c['at'] + SLACK
            if sum(t <= answered for t in at) < sum(o['at'] <= c['at'] for o in sure):
                yield f'{verb} was accepted before it was on record'
    yield from _repeated(h)


def _told(said: Row) -> bool:
    """Whether a client knows what became of its request: not after a 5xx."""
    return bool(said['answer']) and said['answer']['status'] < 500 and not said['lost']


def _repeated(h: History) -> Iterator[str]:
    """The same request has the same answer, however often it is made."""
    answers: dict[str, Row] = {}
    for c in h.clients:
        if not c['answer'] or c['answer']['status'] >= 400:
            continue
        first = answers.setdefault(c['key'], c['answer'])
        if first != c['answer']:
            yield f'{c["verb"]} asked for again with its key has another answer'


# -- the trail ---------------------------------------------------------------------------------


def i9(h: History) -> Iterator[str]:
    """Events have no gap, their hashes follow one another, and the rows are what they say."""
    head = ''
    for n, e in enumerate(h.events, 1):
        if e['seq'] != n:
            yield f'event {n} is missing'
            return
        head = _hash(head, e)
        if head != e['hash']:
            yield f'event {n} has another hash than it should'
            return
    if (h.upgrade['seq'], h.upgrade['head_hash']) != (len(h.events), head):
        yield 'the upgrade does not name its last event'
    yield from _folded(h)


def _hash(head: str, event: Row) -> str:
    said = {k: v for k, v in event.items() if k not in ('id', 'hash')}
    text = json.dumps(said, sort_keys=True, separators=(',', ':'), default=str)
    return hashlib.sha256((head + text).encode()).hexdigest()


def _folded(h: History) -> Iterator[str]:
    steps = dict.fromkeys(h.steps, 'pending')
    state = 'draft'
    for e in h.events:
        before, after = e['detail'].get('before'), e['detail'].get('after')
        if after is None:
            continue
        if e['step_id'] is None:
            state = after
        elif before != steps[e['step_id']]:
            yield f'event {e["seq"]} says {before}, the events before it {steps[e["step_id"]]}'
        if e['step_id']:
            steps[e['step_id']] = after
    if state != h.upgrade['state']:
        yield f'the upgrade is {h.upgrade["state"]}, its events say {state}'
    for ident, said in steps.items():
        if h.steps[ident]['state'] != said:
            yield f'step {h.steps[ident]["ord"]} is {h.steps[ident]["state"]}, events say {said}'


def i10(h: History) -> Iterator[str]:
    """Who owns the upgrade changes in one direction only, and a past owner begins nothing."""
    begun = {(e['step_id'], e['attempt']): e['seq'] for e in h.events if e['kind'] in BEGINS}
    attempts = [a for a in h.tables['attempts'] if (a['step_id'], a['n']) in begun]
    attempts.sort(key=lambda a: begun[a['step_id'], a['n']])
    epochs = [a['epoch'] for a in attempts]
    if epochs != sorted(epochs):
        yield f'attempts were begun in epochs {epochs}'
    if epochs and epochs[-1] > h.upgrade['epoch']:
        yield f'an attempt of epoch {epochs[-1]}, the upgrade has {h.upgrade["epoch"]}'


def i11(h: History) -> Iterator[str]:
    """After the last fault the upgrade comes to an end by itself, or says whom it waits for."""
    row = h.upgrade
    if row['state'] not in TERMINAL:
        flying = [
            f'{s["kind"]}.{s["attempt"]} {s["state"]}'
            for s in h.tables['steps']
            if s['state'] not in ('succeeded', 'pending')
        ]
        yield f'still {row["state"]} ({row["next"]}): {row["message"]} {flying}'


def i12(h: History) -> Iterator[str]:
    """No secret is where it does not belong."""
    if place.CANARY in json.dumps(h.tables):
        yield 'the database holds the canary'
    for path in h.folder.glob('*.log'):
        if place.CANARY in path.read_text(errors='replace'):
            yield f'{path.name} holds the canary'


INVARIANTS: tuple[tuple[str, Callable[[History], Iterator[str]]], ...] = (
    ('I1', i1),
    ('I2', i2),
    ('I3', i3),
    ('I4', i4),
    ('I5', i5),
    ('I6', i6),
    ('I7', i7),
    ('I8', i8),
    ('I9', i9),
    ('I10', i10),
    ('I11', i11),
    ('I12', i12),
)
