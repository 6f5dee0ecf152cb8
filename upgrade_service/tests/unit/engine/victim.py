"""An engine in a process of its own that kills itself at a given point of one order.

stdin: {state, settings, host, bundle, projects_dir, order, point}. It needs no bus: what it
would report is dropped.
"""

import json
import os
import signal
import sys
import time

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg  # noqa: E402
from oslo_messaging import conffixture  # noqa: E402

from upgrade_service import conf as options  # noqa: E402
from upgrade_service.engine import chain, journal, manager, reporter, runner  # noqa: E402
from upgrade_service.tests.unit.engine import test_manager  # noqa: E402


def die(*args, **kw):
    os.kill(os.getpid(), signal.SIGKILL)


def after(function):
    def wrapped(*args, **kw):
        function(*args, **kw)
        die()

    return wrapped


def in_run(standing):
    """Die as soon as the step is under way."""

    def wait(self, step, attempt, *args):
        while standing(self, step, attempt) is not runner.Standing.RUNNING:
            time.sleep(0.01)
        die()

    return wait


#: where it dies: what is put in the place of what
POINTS = {
    'before accept': lambda: setattr(journal.Journal, 'append', die),
    'after accept': lambda: setattr(journal.Journal, 'append', after(journal.Journal.append)),
    'before spawn': lambda: setattr(runner.Runner, 'spawn', die),
    'after spawn': lambda: setattr(runner.Runner, 'spawn', after(runner.Runner.spawn)),
    'in run': lambda: setattr(runner.Runner, 'wait', in_run(runner.Runner.standing)),
    'after outcome': lambda: setattr(chain.Chain, '_report', die),
    'after report': lambda: setattr(reporter.Reporter, '_send', die),
}


def main():
    told = json.load(sys.stdin)
    conf = cfg.CONF
    options.register_opts(conf)
    conf([], project='upgrade-service', default_config_files=[])
    bus = conffixture.ConfFixture(conf)
    bus.setUp()
    bus.transport_url = 'fake:/'
    conf.set_override('projects_dir', told['projects_dir'], 'conductor')
    engine = manager.AgentManager(
        conf,
        told['host'],
        told['state'],
        told['settings'],
        bundle=told['bundle'],
        strategies={'shell': test_manager.Shell()},
    )
    engine._conductors.cast = lambda *a, **kw: True
    POINTS[told['point']]()
    engine.order({}, told['order'])
    signal.pause()


if __name__ == '__main__':
    main()
