"""What happens in a run, by name: one for each kind of fault, and one with all of them."""

from collections.abc import Callable
import contextlib
import random
import threading
import time
from typing import Any

from upgrade_service.tests.chaos import action, clients, place
from upgrade_service.tests.chaos import run as runs
from upgrade_service.tests.functional import service

Row = dict[str, Any]
Scene = Callable[[runs.Run, random.Random], None]
IN_FLIGHT = ('dispatched', 'running')


def begin(run: runs.Run, conductors: int = 2, more: Row | None = None, **draft: Any) -> None:
    """Have everything at work and the upgrade started; `more`: {process: what it is told}."""
    told = more or {}
    run.open(**draft)
    run.start_cloud()
    run.start('api', 'api', **told.get('api', {}))
    run.start('conductor', 'conductor1', **told.get('conductor1', {}))
    run.start_engines(**told)
    service.wait_for('the API', lambda: _asked(run))
    for n in range(1, conductors):
        until(run, lambda: run.row()['owner'] or run.row()['state'] in clients.OVER)
        run.start('conductor', f'conductor{n + 1}')


def _asked(run: runs.Run) -> bool:
    run.tend()
    return run.operator.there() and run.operator.ask('start') is not None


def until(run: runs.Run, look: Callable[[], Any], patience: float = 40.0) -> Any:
    """Wait for something to be so, while what dies is started again; None: it never was."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            if found := look():
                return found
        run.tend()
        time.sleep(0.02)
    return None


def at_work(run: runs.Run, kind: str, n: int = 0) -> bool:
    """Wait until a step of the n-th host is under way."""
    path = run.folder / place.HOSTS[n] / 'actions'

    def begun() -> bool:
        return path.exists() and any(
            line.startswith('begin') and f' {kind} ' in line
            for line in path.read_text().splitlines()
        )

    return bool(until(run, begun))


def in_flight(run: runs.Run) -> Any:
    """Wait until anything is under way."""
    return until(run, lambda: [s for s in run.steps() if s['state'] in IN_FLIGHT])


def owner(run: runs.Run) -> str:
    """Wait for an owner; return its name."""
    return str(until(run, lambda: run.row()['owner']) or 'conductor1')


def wait(run: runs.Run, seconds: float) -> None:
    """Let time pass; what died is there again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run.tend()
        time.sleep(0.02)


# -- one fault each ----------------------------------------------------------------------------


def quiet(run: runs.Run, dice: random.Random) -> None:
    """Nothing happens; a step fails at first."""
    begin(run, fails=(2,))


def conductor(run: runs.Run, dice: random.Random) -> None:
    """F1: the owner is killed again and again."""
    begin(run, seconds=0.3)
    for _ in range(3):
        in_flight(run)
        run.kill(owner(run))
        wait(run, 1.2)


def zombie(run: runs.Run, dice: random.Random) -> None:
    """F2, F3: the owner stands still until another has taken over, then goes on."""
    begin(run, seconds=0.5)
    for kind in ('prefetch', 'upgrade_service'):
        at_work(run, kind)
        run.freeze(owner(run), 2.2)
        wait(run, 2.6)


def api(run: runs.Run, dice: random.Random) -> None:
    """F4: the API is killed while clients ask."""
    begin(run, seconds=0.4)
    in_flight(run)
    asking = threading.Thread(target=_asking, args=(run, dice.random()))
    asking.start()
    for _ in range(4):
        wait(run, dice.uniform(0.05, 0.4))
        run.kill('api')
    while asking.is_alive():
        wait(run, 0.1)


def _asking(run: runs.Run, seed: float) -> None:
    client = clients.Client('client', run, lose=0.4, seed=int(seed * 1e6))
    for verb in ('pause', 'resume', 'pause', 'resume'):
        client.ask(verb)


def engine(run: runs.Run, dice: random.Random) -> None:
    """F5: an engine is killed while its step runs, and is there again."""
    begin(run, seconds=0.6)
    for kind in ('prefetch', 'upgrade_service', action.ONCE):
        at_work(run, kind)
        run.kill('cmp1')
        wait(run, 0.3)


def reboot(run: runs.Run, dice: random.Random) -> None:
    """F6: a host reboots in a step that can be done again, and in one that cannot."""
    begin(run, seconds=0.5)
    for kind in ('upgrade_service', action.ONCE):
        at_work(run, kind)
        run.reboot('cmp1')
        wait(run, 0.5)


def broker(run: runs.Run, dice: random.Random) -> None:
    """F8: the broker is killed and comes back; what waited in its queues is gone."""
    begin(run, seconds=0.5)
    at_work(run, 'prefetch')
    run.restart('rabbitmq')
    wait(run, 1.0)


def messages(run: runs.Run, dice: random.Random) -> None:
    """F9: half of all messages are lost, doubled or late."""
    lossy = {'lossy': 0.5, 'seed': dice.randrange(10**6)}
    names = ('conductor1', *place.HOSTS)
    begin(run, more={n: lossy for n in names}, seconds=0.3, fails=(2, 3))
    for _ in range(2):
        in_flight(run)
        run.operator.ask('pause')
        until(run, lambda: run.row()['state'] == 'paused', 8)
        run.operator.ask('resume')


def partition(run: runs.Run, dice: random.Random) -> None:
    """F10: a host is cut off while its step runs, another one before its order is sent."""
    begin(run, seconds=0.5)
    at_work(run, 'upgrade_service')
    with run.cut_off('cmp1'):
        wait(run, 1.0)
    with run.cut_off('cmp2'):
        until(run, lambda: [s for s in in_flight(run) if s['kind'] == 'upgrade_service'
                            and s['host'] == 'cmp2'])  # fmt: skip
        wait(run, 0.6)


def database(run: runs.Run, dice: random.Random) -> None:
    """F11: the database is killed and comes back."""
    begin(run, seconds=0.5)
    at_work(run, 'prefetch')
    run.restart('mariadb')
    wait(run, 0.5)


def connections(run: runs.Run, dice: random.Random) -> None:
    """F12: connections to the database end at any moment, also at COMMIT."""
    begin(run, seconds=0.2)
    for _ in range(25):
        in_flight(run)
        run.cut_database(dice)
        wait(run, 0.08)


def clock(run: runs.Run, dice: random.Random) -> None:
    """F16: the clock of a host is five minutes off, until somebody sets it."""
    begin(run, more={'cmp1': {'skew': dice.choice((-300.0, 300.0))}, 'cmp2': {'skew': 60.0}})
    run.fault('clock off', host='cmp1')
    wait(run, 1.5)
    run.set_clock('cmp1', 0.0)


def disk(run: runs.Run, dice: random.Random) -> None:
    """F17: the disk of an engine is full before it takes a step, and while one runs."""
    begin(run, seconds=0.6)
    for kind in ('prefetch', 'upgrade_service'):
        at_work(run, kind)
        with run.full_disk('cmp1'):
            wait(run, 1.0)


def verbs(run: runs.Run, dice: random.Random) -> None:
    """F23: three clients ask for what contradicts, twice, and lose answers."""
    begin(run, seconds=0.3)
    ended = threading.Event()
    threads = [
        threading.Thread(
            target=clients.bother,
            args=(clients.Client(f'client{n}', run, 0.3, n), ended, random.Random(n), VERBS),
        )
        for n in range(3)
    ]
    for t in threads:
        t.start()
    wait(run, 3.0)
    ended.set()
    for t in threads:
        t.join()


VERBS = ['pause', 'resume', 'resume']


def pauses(run: runs.Run, dice: random.Random) -> None:
    """Pause at moments that nobody chose."""
    begin(run, seconds=0.05)
    for _ in range(6):
        if run.row()['state'] in clients.OVER:
            break
        wait(run, dice.uniform(0.0, 0.5))
        run.operator.ask('pause')
        until(run, lambda: run.row()['state'] in ('paused', *clients.OVER), 20)
        run.operator.ask('resume')


def boundary(run: runs.Run, dice: random.Random) -> None:
    """A pause and a resume on the way; who dies where is said by the run."""
    begin(run, more=run.more, seconds=0.1, fails=(2,))
    at_work(run, 'prefetch', 0)
    run.operator.ask('pause')
    until(run, lambda: run.row()['state'] in ('paused', *clients.OVER), 20)
    run.operator.ask('resume')


# -- all at once -------------------------------------------------------------------------------


def _kill_owner(run: runs.Run, dice: random.Random) -> None:
    run.kill(dice.choice(('conductor1', 'conductor2')))


def _freeze(run: runs.Run, dice: random.Random) -> None:
    names = ('conductor1', 'conductor2', 'conductor1', 'conductor2', *place.HOSTS, 'api')
    run.freeze(dice.choice(names), dice.uniform(0.3, 2.5))


def _kill_engine(run: runs.Run, dice: random.Random) -> None:
    run.kill(dice.choice(place.HOSTS))


FAULTS: tuple[tuple[float, Scene], ...] = (
    (4, _kill_owner),
    (5, _kill_engine),
    (3, _freeze),
    (2, lambda run, dice: run.kill('api')),
    (4, lambda run, dice: run.cut_database(dice)),
    (1, lambda run, dice: run.reboot(dice.choice(place.HOSTS))),
    (2, lambda run, dice: run.wipe_queue(dice.choice(place.HOSTS))),
    (0.15, lambda run, dice: run.restart('mariadb')),
    (0.05, lambda run, dice: run.restart('rabbitmq')),
)


def anything(run: runs.Run, dice: random.Random) -> None:
    """Many faults of every kind, while clients ask for whatever comes to their minds."""
    part = dice.choice((0.0, 0.1, 0.25, 0.4))
    names = ('conductor1', *place.HOSTS)
    more = {n: {'lossy': part, 'seed': dice.randrange(10**6)} for n in names}
    more['cmp2']['skew'] = dice.choice((0.0, 0.0, 30.0, -30.0))
    fails = tuple(n for n in (0, 2, 3, 8, 9) if dice.random() < 0.2)
    begin(run, more=more, seconds=dice.choice((0.1, 0.3, 0.6)), fails=fails)
    ended = threading.Event()
    wanted = [*VERBS, *(['cancel'] if dice.random() < 0.15 else [])]
    client = clients.Client('client', run, 0.2, dice.randrange(10**6))
    asking = threading.Thread(
        target=clients.bother, args=(client, ended, random.Random(dice.random()), wanted)
    )
    asking.start()
    weights = [w for w, _ in FAULTS]
    for _ in range(dice.randint(10, 20)):
        wait(run, dice.uniform(0.02, 0.35))
        if run.over():
            break
        ((_, harm),) = dice.choices(FAULTS, weights)
        with contextlib.suppress(Exception):
            harm(run, dice)
    ended.set()
    while asking.is_alive():
        wait(run, 0.05)


SCENES: dict[str, Scene] = {
    f.__name__: f
    for f in (
        quiet, conductor, zombie, api, engine, reboot, broker, messages, partition, database,
        connections, clock, disk, verbs, pauses, boundary, anything,
    )
}  # fmt: skip
