"""What the API's tests run against: the real application on a real database file."""

import os
import pathlib
from typing import Any

import fixtures
from gabbi import fixture as gabbi_fixture
from oslo_config import cfg
from oslo_config import fixture as config_fixture
import webob

from upgrade_service import conf as options
from upgrade_service import context, keys, model
from upgrade_service.api import app, auth
from upgrade_service.db import api as db
from upgrade_service.db import migration


class RecordingBell:
    """Remembers what was rung."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str]] = []

    def advance(self, ctx: context.RequestContext, upgrade: str) -> None:
        """Remember an upgrade."""
        self.rung.append(('advance', upgrade))

    def discover(self, ctx: context.RequestContext, cluster: str) -> None:
        """Remember a cluster."""
        self.rung.append(('discover', cluster))


class RoleHeaders:
    """Stands where keystonemiddleware stands: `X-Test-Roles` says the caller's roles."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Identify the caller; without the header nobody is."""
        roles = environ.get('HTTP_X_TEST_ROLES')
        project = environ.get('HTTP_X_TEST_PROJECT', 'operators')
        auth.strip(environ)
        if roles is not None:
            environ.update(
                HTTP_X_IDENTITY_STATUS='Confirmed',
                HTTP_X_ROLES=roles,
                HTTP_X_USER_ID='alice',
                HTTP_X_PROJECT_ID=project,
            )
        return self._application(environ, start_response)


class Api(fixtures.Fixture):
    """The application, with authentication by :class:`RoleHeaders` or as configured."""

    def __init__(
        self, authenticate: Any = RoleHeaders, config_file: str = '', **api_options: Any
    ) -> None:
        super().__init__()
        self._config_file = config_file
        self._authenticate = authenticate
        self._options = {'auth_strategy': 'noauth', 'mutations_per_minute': 0, **api_options}

    def _setUp(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path
        config = self.useFixture(config_fixture.Config(cfg.ConfigOpts()))
        self.conf = config.conf
        options.register_opts(self.conf)
        path = os.path.join(folder, 'upgrade-service.conf')
        pathlib.Path(path).write_text(self._config_file)
        self.conf([], default_config_files=[path], default_config_dirs=[])
        config.config(group='api', **self._options)
        config.config(group='trust', keys_dir=os.path.join(folder, 'keys'))
        keys.create(self.conf)
        db.configure(self.conf, f'sqlite:///{os.path.join(folder, "upgrade.sqlite")}')
        self.addCleanup(db.get_engine().dispose)
        migration.upgrade()
        self.ctx = context.RequestContext(user_id='alice')
        self.bell = RecordingBell()
        self.app = app.build(self.conf, bell=self.bell, authenticate=self._authenticate)

    def request(
        self, method: str, path: str, body: Any = None, roles: str | None = 'admin', **headers: str
    ) -> webob.Response:
        """Send a request; `roles` None: as nobody. Header names are written with `_`."""
        said = {k.replace('_', '-'): v for k, v in headers.items()}
        if roles is not None:
            said['X-Test-Roles'] = roles
        request = webob.Request.blank(path, method=method, headers=said)
        if body is not None:
            request.json = body
            request.content_type = 'application/json'
        return request.get_response(self.app)


OWNER = 'conductor1'
CLOUD_HOSTS = ('ctl1', 'cmp1', 'cmp2')


def inventory(cluster: str = 'prod') -> model.Inventory:
    """Return a cloud of one control host and two compute hosts in two AZs, on 2026.1."""
    hosts = {
        name: model.Host(
            name=name,
            az=None if name == 'ctl1' else f'az{name[-1]}',
            roles=frozenset({'control' if name == 'ctl1' else 'compute'}),
        )
        for name in CLOUD_HOSTS
    }
    up = {'project': 'nova', 'state': 'up', 'version': '33.0.0', 'release': '2026.1'}
    services = [
        model.Service(binary='nova-conductor', host='ctl1', **up),  # type: ignore[arg-type]
        model.Service(binary='nova-compute', host='cmp1', **up),  # type: ignore[arg-type]
        model.Service(project='nova', binary='nova-compute', host='cmp2', state='down'),
    ]
    problems = [
        model.Problem(
            code='service_down',
            severity='warning',
            message='nova-compute is down',
            host='cmp2',
            service='nova-compute',
            hint='Start it.',
        )
    ]
    return model.Inventory(
        cluster=cluster, taken_at=0, hosts=hosts, services=services, problems=problems
    )


def plan(problems: tuple[model.Problem, ...] = ()) -> model.Plan:
    """Return a plan of three steps: a check, a disruptive one, and a point of no return."""
    steps = (
        model.Step(ord=1, stage='check', kind='check_host', host='cmp1', strategy='noop'),
        model.Step(
            ord=2,
            stage='data_plane',
            kind='upgrade_service',
            host='cmp1',
            project='nova',
            strategy='noop',
            parents=(1,),
            estimate=20,
        ),
        model.Step(
            ord=3,
            stage='finish',
            kind='online_migrations',
            host='ctl1',
            project='nova',
            strategy='noop',
            parents=(1, 2),
            ponr=True,
            estimate=10,
        ),
    )
    return model.Plan(
        from_release='2026.1',
        to_release='2026.2',
        steps=steps,
        fingerprint='f' * 64,
        problems=problems,
        moves={'5c1e2d9a-0000-4000-8000-000000000001': 'cmp2'},
    )


def discovered(ctx: context.RequestContext, name: str = 'prod') -> str:
    """Store a cluster that was discovered; return its id."""
    ident: str = db.cluster_create(ctx, {'name': name, 'cloud': name})['id']
    db.inventory_save(ctx, ident, inventory(name))
    return ident


def upgrade(
    ctx: context.RequestContext, cluster_id: str, name: str, made: model.Plan | None
) -> str:
    """Store an upgrade, a draft when there is a plan; return its id."""
    row = db.upgrade_create(
        ctx,
        {
            'cluster_id': cluster_id,
            'to_release': '2026.2',
            'strategy': 'noop',
            'type': 'service',
            'policy': model.POLICY_DEFAULTS,
            'selection': {},
            'name': name,
        },
    )
    epoch = owned(ctx, row['id'])
    if made is not None:
        db.plan_store(ctx, row['id'], OWNER, epoch, made, {})
    ident: str = row['id']
    return ident


def owned(ctx: context.RequestContext, ident: str) -> int:
    """Let the conductor own an upgrade; return the epoch."""
    db.ownership_claim(ctx, OWNER, 600)
    epoch: int = db.upgrade_get(ctx, ident)['epoch']
    return epoch


def at_gate(ctx: context.RequestContext, ident: str, gate: str) -> None:
    """Start a draft and let its owner pause it at a gate."""
    db.upgrade_verb(ctx, ident, 'start')
    move = db.UpgradeMove(state='paused', event='gate', values={'gate': gate})
    db.owner_turn(ctx, ident, OWNER, owned(ctx, ident), upgrade=move)


def failed_step(ctx: context.RequestContext, ident: str, number: int = 1) -> None:
    """Start a draft and let a step fail."""
    db.upgrade_verb(ctx, ident, 'start')
    epoch = owned(ctx, ident)
    step = db.step_get(ctx, ident, str(number))['id']
    dispatched = db.StepMove(
        step=step, old='pending', new='dispatched', attempt=0, event='dispatched', begins=True
    )
    failed = db.StepMove(
        step=step,
        old='dispatched',
        new='failed',
        attempt=1,
        event='outcome',
        error='exit status 1',
        output='boom',
    )
    for move in (dispatched, failed):
        db.owner_turn(ctx, ident, OWNER, epoch, moves=[move])


# -- for gabbi ---------------------------------------------------------------------------------

_served: list[Api] = []


def application() -> Any:
    """Return what passes requests to the application of the running gabbi file."""
    # gabbi asks for it when it reads the files, before any fixture is started
    return lambda environ, start_response: _served[-1].app(environ, start_response)


class Started(gabbi_fixture.GabbiFixture):
    """An API with a discovered cluster `prod` and upgrades in several states."""

    def start_fixture(self) -> None:
        """Fill the database; ids reach the files as environment variables."""
        self._api = Api()
        self._api.setUp()
        _served.append(self._api)
        ctx = self._api.ctx
        cluster = discovered(ctx)
        blocking = model.Problem(
            code='engine_missing',
            severity='blocking',
            message='cmp2 has no engine',
            host='cmp2',
            hint='Enrol one.',
        )
        for name, made in (
            ('planning', None),
            ('draft', plan()),
            ('blocked-draft', plan((blocking,))),
            ('gated', plan()),
            ('failed', plan()),
        ):
            home = cluster if name in ('planning', 'draft') else discovered(ctx, name)
            ident = upgrade(ctx, home, name, made)
            os.environ[f'UPGRADE_{name.upper().replace("-", "_")}'] = ident
            if name == 'gated':
                at_gate(ctx, ident, 'finish')
            if name == 'failed':
                failed_step(ctx, ident)

    def stop_fixture(self) -> None:
        """Forget it."""
        _served.remove(self._api)
        self._api.cleanUp()
