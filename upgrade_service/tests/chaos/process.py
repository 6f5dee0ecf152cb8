"""A process of the service, forked from one that has imported everything already.

`main` is what the child runs: it takes the time scale, its clock, its broken build and the
faults it is told of, and is then a conductor, an engine, the API or the simulated cloud.
"""

from collections.abc import Callable
import ctypes
import functools
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service.api import server
from upgrade_service.conductor import service
from upgrade_service.db import api as db
from upgrade_service.engine import facts, manager, settings
from upgrade_service.projects import loader
from upgrade_service.simulator import simulator, spec
from upgrade_service.tests.chaos import action, boundary, broken, place, wires


def main(told: place.Told) -> None:
    """Be a process of the service until killed."""
    os.setsid()
    # whoever ends the suite ends what it has started
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    log = os.open(told.path(f'{told.name}.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stderr = sys.stdout = os.fdopen(2, 'w', buffering=1)
    action.declare()
    _scale()
    _clock(told.skew)
    options.parse(cfg.CONF, [], [str(told.path('service.conf'))])
    logging.getLogger('upgrade_service').setLevel(logging.INFO)
    if told.broken:
        broken.BUILDS[told.broken].apply()
    if told.count or told.kill_at or told.kill_after:
        boundary.install(told)
    if told.lossy:
        wires.install(told)
    ROLES[told.role](told)
    place.append(told.path('started'), name=told.name, pid=os.getpid())
    threading.Event().wait()


def _scale() -> None:
    for name, value in place.SCALE.items():
        module, _, constant = name.rpartition('.')
        setattr(importlib.import_module(f'upgrade_service.{module}'), constant, value)


def _clock(skew: float) -> None:
    """Have a clock that is wrong; the monotonic one is right everywhere."""
    if skew:
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() + skew
        time.time_ns = lambda: real_ns() + int(skew * 1e9)


def _conductor(told: place.Told) -> None:
    loader.load_projects = functools.cache(loader.load_projects)
    db.configure(cfg.CONF)
    service.ConductorService(cfg.CONF, told.name).start()


def _api(told: place.Told) -> None:
    db.configure(cfg.CONF)
    server.Server(cfg.CONF).start()


def _engine(told: place.Told) -> None:
    boot = told.path(told.host, 'boot').read_text()
    broken.put(facts, 'boot_id', lambda: boot)
    manager.AgentManager(
        cfg.CONF,
        told.host,
        str(told.path(told.host, 'state')),
        str(told.path(told.host, 'engine.d')),
        strategies={'logged': action.LoggedUpgradeStrategy()},
    ).start()


def _cloud(told: place.Told) -> None:
    made = simulator.Simulator(
        spec.default_spec(
            controllers=1, computes=len(place.HOSTS), servers=0, azs=1, routers=0, groups=0,
            volumes=0,
        ),
        speed=50.0,
        clock=time.time,
    )  # fmt: skip
    users: Any = made.cloud.spec.users
    users['admin'] = (place.CANARY, *users['admin'][1:])
    made.start()
    clouds = made.clouds()
    told.path('clouds.new').write_text(json.dumps(clouds))
    told.path('cloud.url').write_text(made.url)
    os.replace(told.path('clouds.new'), told.path('clouds.yaml'))


ROLES: dict[str, Callable[[place.Told], None]] = {
    'conductor': _conductor,
    'api': _api,
    'engine': _engine,
    'cloud': _cloud,
}
#: loaded and read once, in the process that the others are forked from
for _name in ('oslo_messaging._drivers.impl_rabbit', 'pymysql', 'kombu.transport.pyamqp'):
    importlib.import_module(_name)
settings.project_data(None)
