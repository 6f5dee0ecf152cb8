"""The suite: which runs are made, what is printed of them, and what is kept."""

import argparse
from collections import Counter
import dataclasses
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from upgrade_service.tests.chaos import broken, checker, figures, place, scenes, servers, stage
from upgrade_service.tests.chaos import run as runs

Row = dict[str, Any]
LEDGER = pathlib.Path(__file__).parents[3] / 'tools' / 'ledger-chaos.txt'


@dataclasses.dataclass
class Result:
    """What came of one run."""

    name: str
    wrong: list[str]
    faults: Counter[str]
    seconds: float
    history: checker.History | None = None


class Suite:
    """Makes runs and counts."""

    def __init__(self, where: stage.Stage, keep: bool = False) -> None:
        self.stage, self._keep = where, keep
        self.passed = self.failed = 0
        self.faults: Counter[str] = Counter()

    def once(
        self, name: str, scene: str, seed: int = 0, build: str = '', more: Row | None = None
    ) -> Result:
        """Make a run; nothing is tried twice."""
        began = time.monotonic()
        history = None
        made = runs.Run(self.stage.set(name), build, more)
        try:
            scenes.SCENES[scene](made, random.Random(seed))
            made.finish(12.0 if build else runs.PATIENCE)
        except Exception as e:
            wrong = [f'indeterminate: {type(e).__name__}: {e}']
            made.close()
        else:
            history = made.close()
            wrong = checker.check(history)
        faults = history.delivered() if history else Counter()
        made.scene.close(keep=self._keep or (bool(wrong) and not build))
        return Result(name, wrong, faults, time.monotonic() - began, history)

    def judge(self, result: Result, good: bool, more: str = '') -> None:
        """Count a run and print a line about it."""
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        self.faults.update(result.faults)
        said = f'{"ok" if good else "FAILED"} {result.name} {result.seconds:.1f} s'
        print(f'{said}, {result.faults.total()} faults in flight{more}', flush=True)
        if not good:
            for text in result.wrong or ['not caught']:
                print(f'     {text}', flush=True)

    def play(self, *names: str) -> None:
        """One run of each scene."""
        for name in names:
            result = self.once(name, name, seed=1)
            self.judge(result, not result.wrong)

    def seeds(self, first: int, count: int, until: float) -> tuple[int, int]:
        """Random faults; return (seeds, violations)."""
        done = violations = 0
        for seed in range(first, first + count):
            if time.monotonic() > until:
                break
            result = self.once(f'seed-{seed}', 'anything', seed)
            self.judge(result, not result.wrong)
            done, violations = done + 1, violations + len(result.wrong)
        return done, violations

    # -- death at every boundary ---------------------------------------------------------------

    def counted(self, name: str) -> Counter[str]:
        """Return how often a process comes to each boundary when nothing happens to it."""
        found: Counter[str] | None = None
        for _ in range(2):
            made = runs.Run(self.stage.set(f'count-{name}'), more={name: {'count': True}})
            scenes.SCENES['boundary'](made, random.Random(0))
            made.finish()
            seen = Counter(r['name'] for r in place.lines(made.folder / f'{name}.boundaries'))
            result = checker.check(made.close())
            made.scene.close(keep=False)
            if result:
                print(f'FAILED count-{name} {result}')
                self.failed += 1
            found = seen if found is None else found & seen
        return found or Counter()

    def sites(self, names: tuple[str, ...], share: tuple[int, int] = (0, 1)) -> None:
        """Kill at the first and at the last time a process comes to each place.

        `share`: (which, of how many) slices of the last ones.
        """
        for name in names:
            counts = self.counted(name)
            targets = [(site, 1) for site in sorted(counts)]
            last = [(site, n) for site, n in sorted(counts.items()) if n > 1]
            targets += last[share[0] :: share[1]]
            reached = sum(self._die(name, {'kill_at': target}, f'{target}') for target in targets)
            print(
                f'{name}: K = {counts.total()} boundaries at {len(counts)} places; '
                f'killed at {reached} of {len(targets)} targets',
                flush=True,
            )

    def every(self, names: tuple[str, ...], until: float) -> None:
        """Kill at the k-th boundary, k = 1, 2 … until the upgrade ends before it."""
        for name in names:
            k = 0
            while time.monotonic() < until:
                k += 1
                if not self._die(name, {'kill_after': k}, f'{k}'):
                    print(f'{name}: K/K = {k - 1}/{k - 1}', flush=True)
                    break
            else:
                print(f'{name}: {k} of K, the time is over', flush=True)

    def _die(self, name: str, told: Row, what: str) -> bool:
        result = self.once(f'die-{name}', 'boundary', more={name: told})
        reached = bool(result.history) and any(
            f['kind'] == 'kill' and f.get('where')
            for f in result.history.faults  # type: ignore[union-attr]
        )
        self.judge(result, not result.wrong, f'; {what}{"" if reached else " (not reached)"}')
        return reached

    # -- builds that are broken on purpose -----------------------------------------------------

    def broken(self, names: list[str]) -> None:
        """Each must be caught, by an invariant that it breaks."""
        for name in names:
            build = broken.BUILDS[name]
            result = Result(name, [], Counter(), 0.0)
            for seed in range(build.tries):
                result = self.once(name, build.scene, seed, name)
                caught = [w for w in result.wrong if w.partition(':')[0] in build.breaks]
                if caught:
                    break
            self.judge(result, bool(caught), f'; broken build, {(caught or ["NOT CAUGHT"])[0]}')


def commit() -> str:
    """Return the commit that is tested."""
    said = subprocess.run(
        ['/usr/bin/git', '-C', str(LEDGER.parent), 'rev-parse', '--short', 'HEAD'],
        capture_output=True, text=True,
    )  # fmt: skip
    return said.stdout.strip() or 'unknown'


#: processes that die at boundaries
VICTIMS = ('conductor1', 'cmp1', 'api')
#: one run for each row of the fault table that can be shown here
ROWS = (
    'quiet', 'conductor', 'zombie', 'api', 'engine', 'reboot', 'broker', 'messages', 'partition',
    'database', 'connections', 'clock', 'disk', 'verbs', 'pauses',
)  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='chaos', description=__doc__)
    parser.add_argument('--rows', action='store_true', help='a run for each kind of fault')
    parser.add_argument('--scene', nargs='+', default=[], help='these runs only')
    parser.add_argument('--sites', action='store_true', help='die at each place, first and last')
    parser.add_argument('--every', action='store_true', help='die at every boundary, K/K')
    parser.add_argument('--victim', nargs='+', default=list(VICTIMS), help='who dies')
    parser.add_argument(
        '--broken', nargs='*', help='builds to catch: names, quick, or none for all'
    )
    parser.add_argument('--seeds', type=int, default=0, help='runs with random faults')
    parser.add_argument('--first', type=int, default=1, help='the first seed')
    parser.add_argument('--figures', type=int, default=0, help='measure so many of each')
    parser.add_argument('--minutes', type=float, default=600, help='end after these')
    parser.add_argument('--slice', default='0/1', help='which part of the last hits: 2/5')
    parser.add_argument('--keep', action='store_true', help='keep the folders of good runs too')
    parser.add_argument('--folder', help='where runs are (default: a temporary directory)')
    parser.add_argument('--ledger', action='store_true', help=f'add a line to {LEDGER.name}')
    return parser.parse_args()


def main() -> int:
    """Run what is asked for; the last line is "N passed, N failed, N skipped"."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = asked.folder or tempfile.mkdtemp(prefix='chaos.')
    pathlib.Path(folder).mkdir(exist_ok=True)
    pathlib.Path(folder).chmod(0o755)
    server = servers.Servers(f'{folder}/servers')
    server.start()
    try:
        suite = Suite(stage.Stage(server, f'{folder}/runs'), asked.keep)
        _run(suite, asked)
    finally:
        server.stop()
    print(f'faults in flight: {suite.faults.total()} {dict(suite.faults)}')
    print(f'{suite.passed} passed, {suite.failed} failed, 0 skipped')
    return int(suite.failed > 0)


def _run(suite: Suite, asked: argparse.Namespace) -> None:
    until = time.monotonic() + asked.minutes * 60
    suite.play(*asked.scene)
    if asked.rows:
        suite.play(*ROWS)
    if asked.sites:
        which, _, of = asked.slice.partition('/')
        suite.sites(tuple(asked.victim), (int(which), int(of)))
    if asked.every:
        suite.every(tuple(asked.victim), until)
    if asked.figures:
        figures.measure(suite, asked.figures, until)
    if asked.broken is not None:
        named = [n for n in asked.broken if n != 'quick']
        suite.broken(named or list(broken.QUICK if asked.broken else broken.BUILDS))
    if asked.seeds:
        done, violations = suite.seeds(asked.first, asked.seeds, until)
        line = (
            f'{time.strftime("%Y-%m-%d")} {commit()} seeds {asked.first}-{asked.first + done - 1}:'
            f' {done} seeds, {suite.faults.total()} faults in flight, {violations} violations'
        )
        print(line)
        if asked.ledger:
            with open(LEDGER, 'a') as ledger:
                ledger.write(f'{line}\n')


if __name__ == '__main__':
    sys.exit(main())
