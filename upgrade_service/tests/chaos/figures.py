"""How long things take when something dies: measured, printed, never asserted.

The lease is 1 s here (10 s by default); what counts is the time beyond it.
"""

from collections.abc import Callable
import functools
import random
import time
from typing import Any

from upgrade_service.tests.chaos import checker, place, scenes
from upgrade_service.tests.chaos import run as runs

LEASE = 1.0


def measure(suite: Any, count: int, until: float) -> None:
    """Measure take-overs, answers of engines that start again, and pauses, `count` of each."""
    for name, look in FIGURES.items():
        found: list[float] = []
        while len(found) < count and time.monotonic() < until:
            made = runs.Run(suite.stage.set(f'figure-{name}'))
            try:
                found += look(made, random.Random(len(found)))
                made.finish()
            finally:
                wrong = checker.check(made.close())
                made.scene.close(keep=bool(wrong))
            suite.passed, suite.failed = suite.passed + (not wrong), suite.failed + bool(wrong)
            for text in wrong:
                print(f'     {name}: {text}', flush=True)
        print(f'{name}: {_said(found)}', flush=True)


def _said(found: list[float]) -> str:
    if not found:
        return 'not measured'
    found.sort()
    p50, p99 = found[len(found) // 2], found[min(len(found) - 1, int(len(found) * 0.99))]
    return f'n {len(found)}, median {p50:.2f}, p99 {p99:.2f}, most {found[-1]:.2f}'


def _takeover(run: runs.Run, dice: random.Random) -> list[float]:
    """Seconds from the death of the owner until a peer owns the upgrade."""
    scenes.begin(run, seconds=0.5)
    found = []
    for _ in range(3):
        if not scenes.in_flight(run):
            break
        row = run.row()
        began = time.monotonic()
        run.kill(row['owner'])
        while run.row()['epoch'] == row['epoch'] and time.monotonic() < began + 30:
            time.sleep(0.01)
        found.append(time.monotonic() - began)
        scenes.wait(run, 1.0)
    return found


def _answer(run: runs.Run, dice: random.Random) -> list[float]:
    """Seconds from the start of an engine until what its step came to is on record."""
    scenes.begin(run, seconds=0.2)
    found = []
    for host in place.HOSTS:
        scenes.at_work(run, 'upgrade_service', place.HOSTS.index(host))
        run.kill(host)
        time.sleep(0.6)  # the step ends meanwhile
        run.revive(host)
        started = scenes.until(run, functools.partial(_started, run, host, 2))

        def recorded(host: str = host) -> bool:
            return any(
                s['host'] == host and s['kind'] == 'upgrade_service' and s['state'] == 'succeeded'
                for s in run.steps()
            )

        if started and scenes.until(run, recorded, 30):
            found.append(time.time() - started)
    return found


def _started(run: runs.Run, name: str, n: int) -> float:
    times = [r['at'] for r in place.lines(run.folder / 'started') if r['name'] == name]
    return float(times[n - 1]) if len(times) >= n else 0.0


def _pause(run: runs.Run, dice: random.Random) -> list[float]:
    """Seconds from a pause's 202 until nothing is in flight; I8 counts what began meanwhile."""
    scenes.begin(run, seconds=0.05)
    found = []
    for _ in range(5):
        scenes.wait(run, dice.uniform(0.0, 0.4))
        if run.over():
            break
        run.operator.ask('pause')
        began = time.monotonic()
        if scenes.until(run, lambda: run.row()['state'] == 'paused', 20):
            found.append(time.monotonic() - began)
        run.operator.ask('resume')
    return found


FIGURES: dict[str, Callable[[runs.Run, random.Random], list[float]]] = {
    f'take-over after the death of the owner, s (the lease is {LEASE:.0f} s)': _takeover,
    'outcome on record after the start of an engine, s': _answer,
    'paused after the 202, s (0 began meanwhile, or I8 fails)': _pause,
}
