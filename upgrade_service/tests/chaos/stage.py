"""Where runs take place: servers, an empty database, a plan, identities of engines."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import shutil
import socket
import subprocess
from typing import Any

from oslo_config import cfg
import sqlalchemy as sa

from upgrade_service import conf as options
from upgrade_service import context, keys, model, rpc
from upgrade_service.db import api as db
from upgrade_service.db import migration, models
from upgrade_service.engine import enroll
from upgrade_service.tests.chaos import action, place, servers

Row = dict[str, Any]
CTX = context.RequestContext(user_id='harness', roles=['admin'])


def nursery() -> Any:
    """Return what makes processes: forked from one that imported everything, and is small."""
    made = multiprocessing.get_context('forkserver')
    made.set_forkserver_preload(
        ['upgrade_service.tests.chaos.process', 'upgrade_service.tests.chaos.suite']
    )
    return made


class Stage:
    """A database and a bus, used by one run after the other."""

    def __init__(self, server: servers.Servers, folder: str) -> None:
        self.servers = server
        self.database, self.rabbit = server.urls()
        self.folder = pathlib.Path(folder)
        self.nursery = nursery()
        action.declare()
        self.conf = cfg.ConfigOpts()
        options.register_opts(self.conf)
        self.conf([], default_config_files=[])
        self._create()
        self._number = 0

    def _create(self) -> None:
        server, _, name = self.database.rpartition('/')
        engine = sa.create_engine(server + '/')
        with engine.begin() as connection:
            connection.execute(sa.text(f'CREATE DATABASE IF NOT EXISTS {name}'))
        engine.dispose()
        db.configure(self.conf, self.database)
        migration.upgrade()

    def empty(self) -> None:
        """Remove every row."""
        with db.get_engine().begin() as connection:
            connection.execute(sa.text('SET FOREIGN_KEY_CHECKS = 0'))
            for table in models.Base.metadata.sorted_tables:
                connection.execute(sa.delete(table))

    def set(self, name: str) -> 'Scene':
        """Prepare everything for one run."""
        self.empty()
        self._number += 1
        folder = self.folder / f'{self._number:04}-{name}'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Scene(self, folder)


class Scene:
    """What one run starts with."""

    def __init__(self, stage: Stage, folder: pathlib.Path) -> None:
        self.stage, self.folder = stage, folder
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        text = place.CONFIG.format(
            rabbit=stage.rabbit, database=stage.database, port=self.port, folder=folder
        )
        (folder / 'service.conf').write_text(text)
        stage.conf.set_override('keys_dir', str(folder / 'keys'), 'trust')
        keys.create(stage.conf)
        self._disks: list[pathlib.Path] = []
        self.agents = {host: self._engine(host) for host in place.HOSTS}

    def _engine(self, host: str) -> str:
        """Make the identity of an engine, known already; return its id."""
        place_ = self.folder / host
        settings = place_ / 'engine.d'
        settings.mkdir(parents=True, mode=0o700)
        (settings / 'logged.yaml').write_text(json.dumps({'log': str(place_ / 'actions')}))
        os.chmod(settings / 'logged.yaml', 0o600)
        (place_ / 'boot').write_text('boot-1')
        (place_ / 'state').mkdir(mode=0o700)
        self._disk(place_ / 'state')
        token, _ = db.enroll_token_create(CTX, host)
        bundle = {'token': token, 'host': host, 'keys': keys.public(self.stage.conf)}
        identity = enroll.Identity(place_ / 'state', host, bundle)
        db.agent_enroll(CTX, token, host, identity.signer.public)
        identity.enrolled()
        (place_ / 'state' / 'journal').touch(mode=0o600)
        return identity.id

    def _disk(self, path: pathlib.Path) -> None:
        """Give the state of an engine a small disk of its own, so that it can be full."""
        subprocess.run(
            ['/bin/mount', '-t', 'tmpfs', '-o', 'size=1m,mode=700', 'chaos', str(path)], check=True
        )
        self._disks.append(path)

    def draft(self, seconds: float = 0.05, fails: tuple[int, ...] = (), **policy: Any) -> str:
        """Store an upgrade of the hosts; return its id.

        `fails`: the numbers of steps whose first attempt fails.
        """
        cluster = db.cluster_create(CTX, {'name': self.folder.name, 'cloud': 'simulated'})
        hosts = {h: model.Host(name=h, agent=self.agents[h]) for h in place.HOSTS}
        found = model.Inventory(cluster=cluster['name'], taken_at=0, hosts=hosts)
        db.inventory_save(CTX, cluster['id'], found)
        made = db.upgrade_create(CTX, {
            'cluster_id': cluster['id'], 'to_release': '2026.2', 'strategy': 'logged',
            'type': 'service', 'policy': {**POLICY, **policy}, 'selection': {},
        })  # fmt: skip
        row = next(r for r in db.ownership_claim(CTX, 'planner', 10) if r['id'] == made['id'])
        db.plan_store(CTX, row['id'], 'planner', row['epoch'], plan(seconds, fails), self.agents)
        return str(made['id'])

    def close(self, keep: bool) -> None:
        """Take the queues of this run away, and the folder unless it is of interest."""
        import kombu

        url = self.stage.rabbit.replace('rabbit://', 'amqp://')
        topics = [rpc.engine_topic(a) for a in self.agents.values()] + [rpc.CONDUCTOR_TOPIC]
        with contextlib.suppress(OSError), kombu.Connection(url) as connection:
            for topic in topics:
                with contextlib.suppress(connection.channel_errors), connection.channel() as c:
                    c.queue_delete(topic)
        for path in self._disks:
            subprocess.run(['/bin/umount', '--lazy', str(path)], check=False)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


POLICY = {
    **model.POLICY_DEFAULTS,
    'failure': {'max_consecutive': 1000, 'max_percent': 100},
    'gates': [],
}


def plan(seconds: float, fails: tuple[int, ...] = ()) -> model.Plan:
    """Each host: fetch, disable; change, change once, verify in one order; enable."""
    steps: list[model.Step] = []
    kinds = (
        'prefetch',
        'disable_host',
        'upgrade_service',
        action.ONCE,
        'verify_host',
        'enable_host',
    )
    for host in place.HOSTS:
        for at, kind in enumerate(kinds):
            n = len(steps)
            on_host = model.KINDS[kind].where == 'host'
            params = {'seconds': seconds, 'fails': int(n in fails)} if on_host else {}
            steps.append(model.Step(
                ord=n, stage='data_plane', kind=kind, host=host, params=params,
                strategy='logged' if on_host else None, parents=(n - 1,) if at else (),
            ))  # fmt: skip
    return model.Plan(
        from_release='2026.1', to_release='2026.2', steps=tuple(steps), fingerprint='f' * 64
    )
