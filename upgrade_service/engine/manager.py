"""One engine identity: takes signed orders, has them done, says what came of them.

A process may hold several (the simulator's hosts do). Nothing starts here by itself: at
its start an engine only looks at what its journal says was under way, and reports it.
"""

from collections.abc import Mapping
from concurrent import futures
import fcntl
import os
import pathlib
import random
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log
import oslo_messaging as messaging

from upgrade_service import exception, rpc, trust
from upgrade_service.engine import (
    accept,
    chain,
    enroll,
    facts,
    journal,
    messages,
    recovery,
    rpcapi,
    runner,
    settings,
    ticker,
    together,
)
from upgrade_service.engine import reporter as reporters
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
Item = dict[str, Any]

#: worker threads of the process; a step under a shim needs one only to be watched
POOL = futures.ThreadPoolExecutor(128, 'engine')
#: seconds; changes of a host are described together
FACTS_AFTER = 1.0
ENROLL_EVERY = 10.0
COMPACT_EVERY = 3600.0
#: kinds after which the facts of the host are others
CHANGING = frozenset({'upgrade_packages', 'upgrade_service', 'restart_service'})


class AgentManager:
    """RPC endpoint and worker of one engine identity."""

    # 1.0: order, revoke, probe, recorded, describe, keys
    target = messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        host: str,
        state_dir: str,
        config_dir: str,
        *,
        bundle: enroll.Bundle | None = None,
        strategies: Mapping[str, base.UpgradeStrategy] | None = None,
    ) -> None:
        """Open the identity of `host` in `state_dir`; start() brings it to life.

        :param bundle: enrolment bundle, or its path; needed the first time only.
        :param strategies: in place of those that are installed.
        :raises Untrusted: not enrolled and no bundle, or another process has the identity.
        """
        self.conf, self.host = conf, host
        self._dir = pathlib.Path(state_dir).absolute()
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own = _own(self._dir / 'engine.lock')
        try:
            self._open(config_dir, bundle, strategies)
        except BaseException:
            os.close(self._own)
            raise
        self._chains: list[chain.Chain] = []
        self._known = self.identity.token is None
        self._due = {'heartbeat': 0.0, 'enroll': 0.0, 'compact': time.monotonic() + COMPACT_EVERY}
        self._rpc: Any = None

    def _open(
        self,
        config_dir: str,
        bundle: enroll.Bundle | None,
        strategies: Mapping[str, base.UpgradeStrategy] | None,
    ) -> None:
        self.identity = enroll.Identity(self._dir, self.host, bundle)
        projects = settings.project_data(self.conf.conductor.projects_dir)
        self.allowed = settings.Allowed(
            self.host, config_dir, str(self._dir), projects, strategies
        )
        self._conductors = reporters.Conductors(self.conf)
        run = runner.Runner(self._dir / 'attempts', self._dir / 'host.lock')
        book = journal.Journal(self._dir / 'journal', facts.now(), expected=not self.identity.new)
        self.parts = chain.Parts(
            book=book,
            runner=run,
            reporter=reporters.Reporter(self.identity, self._conductors, book, run.output),
            allowed=self.allowed,
            guard=threading.RLock(),
            stopping=threading.Event(),
        )

    @property
    def id(self) -> str:
        """The agent's id."""
        return self.identity.id

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Find out what was under way, listen, and speak."""
        recovery.recover(self.parts, self._adopt)
        topic = rpc.engine_topic(self.id)
        self._rpc = rpc.get_server(self.conf, topic, topic, self.host, self)
        self._rpc.start()
        self._tell_facts_in(0.0)
        ticker.shared().add(self)
        LOG.info('engine %s of host %s is at work', self.id, self.host)

    def stop(self) -> None:
        """Begin nothing new and end. Steps under a shim go on; the next start finds them."""
        ticker.shared().remove(self)
        self.parts.stopping.set()
        if self._rpc is not None:
            self._rpc.stop()
            self._rpc.wait()
        give_up = time.monotonic() + 5.0
        while self._chains and time.monotonic() < give_up:
            time.sleep(0.02)
        self.parts.reporter.flush()
        self.parts.book.close()
        os.close(self._own)

    def tick(self, now: float) -> None:
        """Do what is due; called a few times a second by the process's one timer."""
        for current in list(self._chains):
            self.parts.reporter.say(*current.tick(now))
        self.parts.reporter.flush()
        if self._is_due('heartbeat', now, self.conf.engine.heartbeat * random.uniform(0.9, 1.1)):  # noqa: S311
            self._conductors.cast(
                'heartbeat', agent=self.id, boot_id=facts.boot_id(), version=facts.version()
            )
        if self.identity.token and self._is_due('enroll', now, ENROLL_EVERY):
            self._conductors.cast(
                'enroll',
                token=self.identity.token,
                host=self.host,
                pubkey=self.identity.signer.public,
            )
        self.parts.reporter.repeat()
        if self._due.get('facts', now + 1) <= now:
            del self._due['facts']
            POOL.submit(self.tell_facts)
        if self._is_due('compact', now, COMPACT_EVERY):
            self.parts.runner.remove(self.parts.book.compact(facts.now()))

    def _is_due(self, what: str, now: float, pause: float) -> bool:
        if self._due[what] > now:
            return False
        self._due[what] = now + pause
        return True

    def _tell_facts_in(self, seconds: float) -> None:
        self._due['facts'] = time.monotonic() + seconds

    def tell_facts(self) -> None:
        """Report the facts of the host."""
        try:
            payload = facts.collect(self.id, self.host, self.allowed)
            self._conductors.cast('facts', env=self.identity.signer.seal(payload))
        except Exception:
            LOG.exception('the facts of %s cannot be told', self.host)

    # -- messages ------------------------------------------------------------------------------

    def _believed(self, env: trust.Envelope, kind: str) -> Item | None:
        """Return a message's payload if a conductor signed it for us, and in time."""
        try:
            said = trust.unseal(env, self.identity.keys, kind)
            if said.get('aud') != self.id:
                raise exception.Untrusted(reason='it is for another engine')
        except exception.Untrusted as e:
            LOG.warning('host %s: %s', self.host, e)
            return None
        why = messages.illegible(said, kind)
        if why:
            LOG.warning('host %s: a %s message is not understood: %s', self.host, kind, why)
            self._not_understood(said, kind, why)
            return None
        if not self._known:
            self._known = True
            self.identity.enrolled()
        return said

    def _not_understood(self, said: Item, kind: str, why: str) -> None:
        """Answer an order of which something is not known here: nothing of it is done."""
        if kind != 'order':
            return
        for step, attempt in messages.attempts(said):
            ids = {'upgrade': str(said.get('upgrade')), 'step': step, 'attempt': attempt}
            current = {'attempt': self.parts.book.highest.get(step, 0), 'epoch': 0}
            self.parts.reporter.say(
                {
                    **ids,
                    'what': 'refused',
                    'reason': 'not_understood',
                    'message': why,
                    'current': current,
                }
            )
        self.parts.reporter.flush()

    def _timely(self, said: Item) -> bool:
        late = accept.timely(said, self._situation())
        if late:
            LOG.warning('host %s: a %s message does not count: %s', self.host, said['type'], late)
        return late is None

    def _situation(self, busy: bool = False) -> accept.Situation:
        return accept.Situation(
            now=facts.now(),
            skew=self.conf.engine.clock_skew * 1000,
            digest=self.allowed.projects.digest,
            inhibited=(self._dir / 'inhibit').exists(),
            busy=busy,
        )

    @rpc.expose
    def order(self, ctxt: Item, env: trust.Envelope) -> None:
        """Do steps, one after the other; what cannot be taken is refused with a reason."""
        said = self._believed(env, 'order')
        if said is None:
            return
        self.parts.reporter.recorded([(s, n) for s, n in said['recorded']])
        links = [_link(said, s, self.allowed) for s in said['steps']]
        book = self.parts.book
        with self.parts.guard:
            if accept.outlived(said, book) == 'epoch_regressed':
                # also of what is known here: nothing goes on in silence
                self._refuse(links, 'epoch_regressed')
                self.parts.reporter.flush()
                return
            known = [n for n in links if n.key in book.attempts]
            self.parts.reporter.say(*(i for n in known for i in self._standing(n.key)))
            new = [n for n in links if n.key not in book.attempts]
            if new and not self.parts.stopping.is_set():
                self._take(said, new, self._orphans(links))
        self.parts.reporter.flush()

    def _orphans(self, links: list[chain.Link]) -> list[chain.Link]:
        """Return the new steps of an order behind one that was given back or went wrong.

        It was answered alone if this process died in between; what follows relies on it.
        """
        known = [self.parts.book.attempts.get(n.key) for n in links]
        bad = (at for at, e in enumerate(known) if e is not None and not _went_well(e))
        first = next(bad, len(links))
        return [n for n in links[first:] if n.key not in self.parts.book.attempts]

    def _take(self, said: Item, links: list[chain.Link], orphans: list[chain.Link]) -> None:
        """Accept steps up to the first that cannot be taken; answer the others."""
        lock = chain.HostLock(self._dir / 'host.lock')
        free = not self._chains and lock.take()
        try:
            why = accept.judge_order(said, self.parts.book, self._situation(busy=not free))
            if why:
                self._refuse(links, why)
                return
            self._give_back(said, orphans)
            good = self._refuse_steps(said, [n for n in links if n not in orphans])
            if not good or not self._accept(said, good):
                return
            made = together.chain_of(good, self.parts, lock)
            self._chains.append(made)
            free = False
            POOL.submit(made.run, self._chain_done)
        finally:
            if free:
                lock.leave()

    def _refuse_steps(self, said: Item, links: list[chain.Link]) -> list[chain.Link]:
        """Refuse what may not be done, with what follows it on its host; return the rest."""
        good: list[chain.Link] = []
        for at, link in enumerate(links):
            what = {'step': link.task.step, 'attempt': link.task.attempt}
            code = accept.judge_step(what, self.parts.book)
            why = (code, '') if code else self.allowed.refusal(link.task, link.strategy)
            if not why:
                good.append(link)
                continue
            self._refuse([link], *why)
            if together.hosts(links) == 1:
                self._give_back(said, links[at + 1 :])
                break
        return good

    def _refuse(self, links: list[chain.Link], code: str, message: str = '') -> None:
        for link in links:
            LOG.warning('host %s refuses %s: %s %s', self.host, link.task.kind, code, message)
            epoch, _ = self.parts.book.epochs.get(link.upgrade, (0, 0))
            current = {
                'attempt': self.parts.book.highest.get(link.task.step, 0),
                'epoch': epoch,
            }
            text = message or accept.REASONS[code]
            self.parts.reporter.say(
                link.item('refused', reason=code, message=text, current=current)
            )

    def _give_back(self, said: Item, links: list[chain.Link]) -> None:
        """What follows a refused step in its order must not begin either."""
        if links:
            self._revoke(said, [n.key for n in links])

    def _accept(self, said: Item, links: list[chain.Link]) -> bool:
        record = {
            'r': 'accepted',
            't': facts.now(),
            'upgrade': said['upgrade'],
            'epoch': said['epoch'],
            'nbf': said['nbf'],
            'boot': facts.boot_id(),
            'steps': [[*n.key, n.in_process] for n in links],
        }
        try:
            self.parts.book.append([record], sync=True)
        except OSError as e:
            self._refuse(links, 'journal', str(e))
            return False
        return True

    def _chain_done(self, made: chain.Chain) -> None:
        with self.parts.guard:
            if made in self._chains:
                self._chains.remove(made)
        if any(n.task.kind in CHANGING for n in made.links):
            self._tell_facts_in(FACTS_AFTER)

    def _adopt(self, link: chain.Link) -> None:
        """Watch a step that goes on since before this process began."""
        made = chain.Chain([link], self.parts, chain.HostLock(self._dir / 'host.lock'))
        self._chains.append(made)
        POOL.submit(made.adopt, link, self._chain_done)

    def _standing(self, key: journal.Attempt) -> list[Item]:
        """Say how an attempt that is known stands; of one that waits its turn, nothing."""
        entry = self.parts.book.attempts[key]
        ids = {'upgrade': entry.upgrade, 'step': entry.step, 'attempt': entry.attempt}
        if entry.item is not None:
            return [entry.item]
        if entry.state == 'revoked':
            return [{**ids, 'what': 'revoked'}]
        running = any(key in (n.key for n in c.current) for c in self._chains)
        return [{**ids, 'what': 'running'}] if running else []

    @rpc.expose
    def revoke(self, ctxt: Item, env: trust.Envelope) -> None:
        """Never begin attempts that have not begun; say how the others stand.

        However old it is: it is about attempts, and says the same of them at any time.
        With `now`, what runs and may be interrupted is.
        """
        said = self._believed(env, 'revoke')
        if said is None:
            return
        keys = [(s, n) for s, n in said['steps']]
        with self.parts.guard:
            for key in keys if said.get('now') else ():
                self.parts.runner.abort(*key)
            self._revoke(said, keys)
        self.parts.reporter.flush()

    def _revoke(self, said: Item, keys: list[journal.Attempt]) -> None:
        book = self.parts.book
        for key in keys:
            place = next(
                ((c, at) for c in self._chains if (at := c.revocable(key)) is not None), None
            )
            if place is not None:
                # what follows depends on it
                self.parts.reporter.say(*place[0].give_back(place[1]))
            elif key in book.attempts:
                self.parts.reporter.say(*self._standing(key))
            else:
                chain.revoke(book, said['upgrade'], said['epoch'], said['nbf'], [key])
                self.parts.reporter.say(*self._standing(key))

    @rpc.expose
    def probe(self, ctxt: Item, env: trust.Envelope) -> None:
        """Say how attempts stand."""
        said = self._believed(env, 'probe')
        if said is None:
            return
        with self.parts.guard:
            for step, attempt in said['steps']:
                if (step, attempt) in self.parts.book.attempts:
                    items = self._standing((step, attempt))
                else:
                    ids = {'upgrade': said['upgrade'], 'step': step, 'attempt': attempt}
                    items = [{**ids, 'what': 'not_running', 'done': False}]
                self.parts.reporter.say(*items)
        self.parts.reporter.flush()

    @rpc.expose
    def recorded(self, ctxt: Item, env: trust.Envelope) -> None:
        """Stop repeating results that are in the database."""
        said = self._believed(env, 'recorded')
        if said is not None:
            self.parts.reporter.recorded([(s, n) for s, n in said['attempts']])

    @rpc.expose
    def describe(self, ctxt: Item, env: trust.Envelope) -> None:
        """Report the facts of the host."""
        said = self._believed(env, 'describe')
        if said is not None and self._timely(said):
            self._tell_facts_in(0.0)

    @rpc.expose
    def keys(self, ctxt: Item, env: trust.Envelope) -> None:
        """Believe other keys from now on."""
        said = self._believed(env, 'keys')
        if said is not None and self._timely(said):
            self.identity.rotate(said['keys'])


def _went_well(entry: journal.Entry) -> bool:
    return entry.item is not None and chain.succeeded(entry.item)


def _link(said: Item, step: Item, allowed: settings.Allowed) -> chain.Link:
    task = base.Task(
        step=str(step['step']),
        attempt=int(step['attempt']),
        kind=str(step['kind']),
        host=str(step['host']),
        project=step.get('project'),
        params=dict(step.get('params') or {}),
        timeout=int(step['timeout']),
        direction=str(step.get('direction') or 'forward'),
    )
    name = str(step['strategy'])
    return chain.Link(
        task=task,
        strategy=name,
        in_process=allowed.in_process(name, task.kind),
        upgrade=str(said['upgrade']),
    )


def _own(path: pathlib.Path) -> int:
    """Make sure that no other process has this identity, for as long as this one lives."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        raise exception.Untrusted(reason=f'another process uses {path.parent}') from e
    return fd
