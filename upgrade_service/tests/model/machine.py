"""The real rows, broker, orders and journal in histories that Hypothesis makes up.

No thread, no bus and no clock but ours: a rule is a turn of a conductor, the arrival of a
message (any that was ever sent: again, late, or never), a step of an engine, a death, a verb.
Everything that happens between is the code that is shipped. The invariants are those of the
chaos suite, looked at after every rule or at the end of a history.
"""

from collections import Counter
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import tempfile
from typing import Any
from unittest import mock

from hypothesis import stateful
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_messaging import conffixture
import sqlalchemy as sa

from upgrade_service import conf as options
from upgrade_service import context, exception, model, rpc, trust
from upgrade_service.conductor import broker, orders
from upgrade_service.db import api as db
from upgrade_service.db import base as db_base
from upgrade_service.db import migration, models
from upgrade_service.engine import manager, recovery
from upgrade_service.strategies import base, noop
from upgrade_service.tests.chaos import checker

CTX = context.RequestContext(user_id='machine', roles=['admin'])
HOSTS = ('cmp1', 'cmp2')
ONCE = 'db_migrate'
KINDS = ('prefetch', 'upgrade_service', ONCE)
Row = dict[str, Any]


class Killed(BaseException):
    """The engine ends in the middle of a step."""


class Traced(noop.NoopUpgradeStrategy):
    """Tells the machine what is really done."""

    name = 'traced'
    settings_schema: Any = {'type': 'object'}

    def __init__(self) -> None:
        self.spans: list[checker.Span] = []
        self.death = ''  #: 'before' or 'after' the next effect
        self._time = itertools.count(1)

    def run(self, task: base.Task, site: base.Site) -> base.Outcome:
        """Do it, or die."""
        said: Row = {
            'host': site.host,
            'step': task.step,
            'attempt': task.attempt,
            'kind': task.kind,
        }
        begin, death, self.death = float(next(self._time)), self.death, ''
        if death == 'before':
            self.spans.append(checker.Span(**said, begin=begin, end=begin, good=False))
            raise Killed
        end = float(next(self._time))
        self.spans.append(checker.Span(**said, begin=begin, end=end, good=True))
        if death == 'after':
            raise Killed
        return base.Outcome(result=base.Result.SUCCEEDED)


class Waiting:
    """In place of the engine's threads: what was given is done when a rule says so."""

    def __init__(self) -> None:
        self.work: list[Any] = []

    def submit(self, function: Any, *args: Any) -> None:
        """Keep it for later."""
        self.work.append((function, args))


class Ground:
    """What every history of a process shares: a database, settings, keys."""

    def __init__(self, url: str | None = None) -> None:
        self.cleanup = contextlib.ExitStack()
        self.folder = pathlib.Path(self.cleanup.enter_context(tempfile.TemporaryDirectory()))
        self.conf = cfg.CONF
        options.register_opts(self.conf)
        bus = conffixture.ConfFixture(self.conf)
        bus.setUp()
        self.cleanup.callback(bus.cleanUp)
        bus.transport_url = 'fake:/'
        self.conf([], project='upgrade-service', default_config_files=[])
        rpc.reset()
        self.cleanup.callback(rpc.reset)
        db.configure(self.conf, url or f'sqlite:///{self.folder}/rows.sqlite')
        self.cleanup.callback(db.get_engine().dispose)
        migration.upgrade()
        self.signer = trust.Signer.generate('k1')
        self.settings = self.folder / 'engine.d'
        self.settings.mkdir(mode=0o700)
        (self.settings / 'traced.yaml').write_text('{}')
        once = dataclasses.replace(model.KINDS[ONCE], idempotent=False)
        for patch in (
            mock.patch.dict(model.KINDS, {ONCE: once}),
            # time is not trusted: whatever may be said again is said again at every turn
            mock.patch.object(orders.Outbox, 'due', _always_due),
        ):
            self.cleanup.enter_context(patch)

    def empty(self) -> None:
        """Remove every row."""
        with db_base.writer(CTX) as session:
            for table in reversed(models.Base.metadata.sorted_tables):
                session.execute(sa.delete(table))

    def dump(self) -> dict[str, list[Row]]:
        """Return every row."""
        with db_base.reader(CTX) as session:
            return {
                t.name: [dict(r._mapping) for r in session.execute(sa.select(t))]
                for t in models.Base.metadata.sorted_tables
            }


def _always_due(self: Any, nodes: Any) -> Any:
    found: dict[str, list[Any]] = {}
    for n in nodes:
        if n.executor:
            found.setdefault(n.executor, []).append(n)
    return found


class Machine(stateful.RuleBasedStateMachine):
    """Two conductors, two engines, one upgrade."""

    ground: Ground
    steps_taken = 0  #: of all histories

    def __init__(self) -> None:
        super().__init__()
        self.ground.empty()
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.ground.folder))
        self.traced = Traced()
        self.orders: list[tuple[str, str, trust.Envelope]] = []  #: (agent, method, envelope)
        self.reports: list[tuple[str, Row]] = []  #: (agent, item)
        self.brokers: dict[str, broker.Broker] = {}
        self.engines: dict[str, manager.AgentManager] = {}
        self.waiting: dict[str, Waiting] = {}
        self.retried: Counter[str] = Counter()
        self.agents: dict[str, str] = {}
        for host in HOSTS:
            self._boot(host)
        self._draft()

    # -- what there is -------------------------------------------------------------------------

    def _boot(self, host: str) -> None:
        state = self.folder / host
        bundle = {'token': 't', 'host': host, 'keys': {'k1': self.ground.signer.public}}
        made = manager.AgentManager(
            self.ground.conf,
            host,
            str(state),
            str(self.ground.settings),
            bundle=bundle,
            strategies={'traced': self.traced},
        )
        self.waiting[host] = Waiting()
        made._conductors = made.parts.reporter._conductors = _Ear(self, made.id)  # type: ignore[assignment]
        self.engines[host], self.agents[host] = made, made.id
        with mock.patch.object(manager, 'POOL', self.waiting[host]):
            recovery.recover(made.parts, made._adopt)
            made.parts.reporter.flush()

    def _draft(self) -> None:
        steps: list[model.Step] = []
        for host in HOSTS:
            for at, kind in enumerate(KINDS):
                n = len(steps)
                parents = (n - 1,) if at else ()
                steps.append(model.Step(
                    ord=n, stage='check', kind=kind, host=host, strategy='traced', parents=parents
                ))  # fmt: skip
        plan = model.Plan(
            from_release='2026.1', to_release='2026.2', steps=tuple(steps), fingerprint='f' * 64
        )
        cluster = db.cluster_create(CTX, {'name': 'c', 'cloud': 'c'})
        policy = {**model.POLICY_DEFAULTS, 'failure': {'max_consecutive': 99, 'max_percent': 100}}
        made = db.upgrade_create(CTX, {
            'cluster_id': cluster['id'], 'to_release': '2026.2', 'strategy': 'traced',
            'type': 'service', 'policy': policy, 'selection': {},
        })  # fmt: skip
        self.id = str(made['id'])
        (row,) = db.ownership_claim(CTX, 'planner', 10)
        db.plan_store(CTX, self.id, 'planner', row['epoch'], plan, self.agents)
        db.upgrade_verb(CTX, self.id, 'start')

    def send(self, agent: str, method: str, env: trust.Envelope) -> None:
        """Take what a conductor says to an engine."""
        self.orders.append((agent, method, env))

    # -- conductors ----------------------------------------------------------------------------

    @stateful.rule(name=st.sampled_from(('one', 'two')))
    def takes_over(self, name: str) -> None:
        """A lease ends, and a conductor is there."""
        with db_base.writer(CTX) as session:
            session.execute(sa.update(models.Upgrade).values(lease_until=0))
        for row in db.ownership_claim(CTX, name, 60):
            post = orders.Post(
                self.ground.conf, self.ground.signer, _Voice(self), _now, _digest(self)
            )
            made = broker.Broker(row, name, post, _Sky(), None, self.ground.conf)  # type: ignore[arg-type]
            self.brokers[name] = made

    @stateful.rule(name=st.sampled_from(('one', 'two')))
    def turns(self, name: str) -> None:
        """A conductor that thinks it owns the upgrade does what it does again and again."""
        made = self.brokers.get(name)
        if made is None:
            return
        made._gather(0)
        try:
            made._turn()
        except db.Mismatch:
            made._board = None
        except exception.LostOwnership:
            del self.brokers[name]
        else:
            if made._stop.is_set():
                del self.brokers[name]

    @stateful.rule(name=st.sampled_from(('one', 'two')))
    def conductor_dies(self, name: str) -> None:
        """A conductor is killed."""
        self.brokers.pop(name, None)

    @stateful.precondition(lambda self: self.reports)
    @stateful.rule(data=st.data(), name=st.sampled_from(('one', 'two')))
    def report_arrives(self, data: Any, name: str) -> None:
        """Something that an engine has said, ever, reaches a conductor."""
        agent, item = _one_of(data, self.reports)
        if name in self.brokers:
            self.brokers[name].deliver({**item, 'agent': agent})

    # -- engines -------------------------------------------------------------------------------

    @stateful.precondition(lambda self: self.orders)
    @stateful.rule(data=st.data())
    def order_arrives(self, data: Any) -> None:
        """Something that a conductor has said, ever, reaches an engine."""
        self._deliver(*_one_of(data, self.orders))

    def _deliver(self, agent: str, method: str, env: trust.Envelope) -> None:
        host = next(h for h, ident in self.agents.items() if ident == agent)
        with mock.patch.object(manager, 'POOL', self.waiting[host]):
            getattr(self.engines[host], method)({}, env)

    @stateful.rule(host=st.sampled_from(HOSTS))
    def works(self, host: str) -> None:
        """An engine does the steps it has taken."""
        work, self.waiting[host].work = self.waiting[host].work, []
        for function, args in work:
            function(*args)

    @stateful.rule(host=st.sampled_from(HOSTS), when=st.sampled_from(('idle', 'before', 'after')))
    def engine_dies(self, host: str, when: str) -> None:
        """An engine is killed, perhaps in the middle of a step, and starts again."""
        dead = self.engines[host]
        self.traced.death = '' if when == 'idle' else when
        dead.parts.reporter._conductors = _Ear(None, '')  # type: ignore[assignment]
        if self.traced.death:
            work, self.waiting[host].work = self.waiting[host].work, []
            for function, args in work:
                with contextlib.suppress(Killed):
                    function(*args)
        self.traced.death = ''
        for made in dead._chains:
            made._lock.leave()
        dead.parts.book.close()
        os.close(dead._own)
        self._boot(host)

    @stateful.rule(host=st.sampled_from(HOSTS))
    def repeats(self, host: str) -> None:
        """An engine says again what nobody has recorded."""
        reporter = self.engines[host].parts.reporter
        reporter.say(*(e.item for e in self.engines[host].parts.book.unrecorded() if e.item))
        reporter.flush()

    @stateful.rule(rounds=st.integers(1, 3))
    def all_is_well(self, rounds: int) -> None:
        """For a while nothing goes wrong: who owns the upgrade turns, and is heard."""
        for _ in range(rounds):
            name = db.upgrade_get(CTX, self.id)['owner']
            if name not in self.brokers:
                self.takes_over('one')
                name = 'one'
            sent, heard = len(self.orders), len(self.reports)
            self.turns(name)
            for agent, method, env in self.orders[sent:]:
                self._deliver(agent, method, env)
            for host in HOSTS:
                self.works(host)
            for agent, item in self.reports[heard:]:
                if name in self.brokers:
                    self.brokers[name].deliver({**item, 'agent': agent})

    # -- people --------------------------------------------------------------------------------

    @stateful.rule(verb=st.sampled_from(('pause', 'resume', 'pause', 'resume', 'cancel')))
    def asks(self, verb: str) -> None:
        """Somebody asks for something."""
        with contextlib.suppress(exception.Conflict, exception.IllegalVerb):
            db.upgrade_verb(CTX, self.id, verb)

    @stateful.rule(ordinal=st.integers(0, len(HOSTS) * len(KINDS) - 1))
    def retries(self, ordinal: int) -> None:
        """Somebody takes the risk."""
        with contextlib.suppress(exception.Conflict, exception.IllegalVerb):
            step = db.step_verb(CTX, self.id, str(ordinal), 'retry', {'acknowledge_risk': True})
            self.retried[step['id']] += 1

    # -- what must hold ------------------------------------------------------------------------

    @stateful.invariant()
    def holds(self) -> None:
        """What can be said at any moment."""
        type(self).steps_taken += 1
        done = {s.step for s in self.traced.spans if s.good}
        rows = {s['id']: s for s in db.step_list(CTX, self.id)}
        for ident, row in rows.items():
            assert row['state'] != 'succeeded' or ident in done, f'I6: {row["ord"]}'
        out = {r['host'] for r in rows.values() if r['kind'] == 'upgrade_service'
               and r['state'] in ('dispatched', 'running', 'failed', 'unknown')}  # fmt: skip
        assert len(out) <= 1, f'I4: {out}'
        begun = Counter(s.step for s in self.traced.spans if s.kind == ONCE)
        for ident, n in begun.items():
            assert n <= 1 + self.retried[ident], f'I7: {rows[ident]["ord"]} began {n} times'

    def teardown(self) -> None:
        """What can be said of a whole history."""
        h = checker.History(
            folder=self.folder, spans=self.traced.spans, cloud=[], clients=[], faults=[],
            tables=json.loads(json.dumps(self.ground.dump(), default=str)), healed=0.0,
        )  # fmt: skip
        for engine in self.engines.values():
            engine.parts.book.close()
            os.close(engine._own)
        looks = (
            checker.i2, checker.i3, checker.i9, checker.i10, checker.begun_against_verbs,
        )  # fmt: skip
        wrong = [text for look in looks for text in look(h)]
        assert not wrong, wrong


def _one_of(data: Any, things: list[Any]) -> Any:
    """Draw one, the newest first: those are what matters most."""
    return things[-1 - data.draw(st.integers(0, min(len(things), 8) - 1))]


def _now() -> int:
    return int(db.now(CTX))


def _digest(machine: Machine) -> str:
    return str(next(iter(machine.engines.values())).allowed.projects.digest)


class _Sky:
    """In place of the cloud: nobody looks at it here."""

    def survey(self, owner: broker.Broker, row: Row) -> None:
        """See nothing."""


class _Voice:
    """In place of the bus to engines."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, method: str) -> Any:
        return lambda agent, env: self._machine.send(agent, method, env)


class _Ear:
    """In place of the bus to conductors; without a machine it is cut."""

    def __init__(self, machine: Machine | None, agent: str) -> None:
        self._machine, self._agent = machine, agent

    def cast(self, method: str, **what: Any) -> bool:
        """Note what an engine says."""
        if self._machine is not None and method == 'report':
            items = trust.peek(what['env'])['items']
            self._machine.reports += [(self._agent, i) for i in items]
        return True
