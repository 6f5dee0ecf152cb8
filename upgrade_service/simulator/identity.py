"""Keystone: tokens by password, the catalog, and the lists an administrator reads."""

from typing import Any
import uuid

from upgrade_service.simulator.cloud import Refused, identity
from upgrade_service.simulator.http import Api, Application, Reply, Request, Route, plain_error

#: service type -> (name, path of its endpoint)
CATALOG: dict[str, tuple[str, str]] = {
    'identity': ('keystone', '/identity'),
    'compute': ('nova', '/compute/v2.1'),
    'network': ('neutron', '/network'),
    'block-storage': ('cinder', '/volume/v3'),
    'placement': ('placement', '/placement'),
    'image': ('glance', '/image'),
}
INTERFACES = ('public', 'internal', 'admin')
#: names of the projects that users may scope to
PROJECTS = ('admin', 'service', 'demo')
_LIFE = 3600
_DOMAIN = {'id': 'default', 'name': 'Default'}


def _base(request: Request) -> str:
    return request.root.rpartition('/')[0]


def versions(app: Application, request: Request) -> Reply:
    """List the only version; keystone does so with 300."""
    return Reply(300, {'versions': {'values': [_version(request)]}})


def version(app: Application, request: Request) -> dict[str, Any]:
    """Describe v3."""
    return {'version': _version(request)}


def _version(request: Request) -> dict[str, Any]:
    return {
        'id': 'v3.14',
        'status': 'stable',
        'updated': '2020-04-07T00:00:00Z',
        'links': [{'rel': 'self', 'href': f'{request.root}/v3/'}],
        'media-types': [
            {'base': 'application/json', 'type': 'application/vnd.openstack.identity-v3+json'}
        ],
    }


def issue(app: Application, request: Request) -> Reply:
    """Issue a token for a password, or for another token."""
    who = request.section('auth').get('identity', {})
    if 'password' in who.get('methods', ()):
        name = _authenticate(app, who['password'].get('user', {}))
    elif 'token' in who.get('methods', ()):
        name = _known(app, who['token'].get('id', ''))['user']
    else:
        raise Refused(401, 'Attempted to authenticate with an unsupported method.')
    scope = request.body['auth'].get('scope', {})
    system = isinstance(scope, dict) and 'system' in scope
    wanted = scope.get('project', {}) if isinstance(scope, dict) else {}
    key = uuid.uuid4().hex
    app.tokens[key] = {
        'user': name,
        'until': app.cloud.clock() + _LIFE,
        'project': None if system else _project(wanted.get('name') or wanted.get('id')),
    }
    app.cloud.note('call', 'token', user=name)
    body = {'token': _token(app, request, app.tokens[key])}
    return Reply(201, body, {'X-Subject-Token': key})


def _authenticate(app: Application, user: dict[str, Any]) -> str:
    """Check name (or ID) and password; return the name."""
    names = {identity('user', name): name for name in app.cloud.spec.users}
    name = str(user.get('name') or names.get(str(user.get('id')), ''))
    if app.cloud.spec.users.get(name, (None,))[0] != user.get('password', ''):
        raise Refused(401, 'The request you have made requires authentication.')
    return name


def _project(reference: str | None) -> str:
    """Name a project given by name or ID; those that do not exist are the admin's."""
    ids = {identity('project', name): name for name in PROJECTS}
    name = ids.get(reference or '', reference)
    return name if name in PROJECTS else 'admin'


def _known(app: Application, key: str) -> dict[str, Any]:
    token = app.tokens.get(key)
    if token is None or token['until'] < app.cloud.clock():
        raise Refused(404, 'Could not find token.')
    return token


def _token(app: Application, request: Request, token: dict[str, Any]) -> dict[str, Any]:
    user, roles = token['user'], app.cloud.spec.users[token['user']][1]
    body: dict[str, Any] = {
        'methods': ['password'],
        'user': {
            'id': identity('user', user),
            'name': user,
            'domain': _DOMAIN,
            'password_expires_at': None,
        },
        'roles': [{'id': identity('role', role), 'name': role} for role in roles],
        'audit_ids': ['simulated'],
        'issued_at': app.cloud.stamp(token['until'] - _LIFE) + 'Z',
        'expires_at': app.cloud.stamp(token['until']) + 'Z',
        'catalog': _catalog(app, request),
    }
    if token['project']:
        project = token['project']
        body['project'] = {
            'id': identity('project', project),
            'name': project,
            'domain': _DOMAIN,
        }
    else:
        body['system'] = {'all': True}
    return body


def _catalog(app: Application, request: Request) -> list[dict[str, Any]]:
    return [
        {
            **{key: service[key] for key in ('id', 'type', 'name')},
            'endpoints': [e for e in _endpoints(app, request) if e['service_id'] == service['id']],
        }
        for service in _services(app)
    ]


def _services(app: Application) -> list[dict[str, Any]]:
    known = {**{t: name for t, (name, _) in CATALOG.items()}, **app.cloud.extra_services}
    return [
        {'id': identity('service', kind), 'type': kind, 'name': name, 'enabled': True}
        for kind, name in known.items()
    ]


def _endpoints(app: Application, request: Request) -> list[dict[str, Any]]:
    urls = {kind: _base(request) + path for kind, (_, path) in CATALOG.items()}
    region = app.cloud.spec.region
    return [
        {
            'id': identity('endpoint', f'{kind}/{interface}'),
            'service_id': identity('service', kind),
            'interface': interface,
            'region': region,
            'region_id': region,
            'url': url,
            'enabled': True,
        }
        for kind, url in {**urls, **app.cloud.extra_endpoints}.items()
        for interface in INTERFACES
    ]


def _known_caller(app: Application, request: Request) -> None:
    if request.headers.get('x-auth-token') not in app.tokens:
        raise Refused(401, 'The request you have made requires authentication.')


def validate(app: Application, request: Request) -> Reply:
    """Show the token in X-Subject-Token, as keystonemiddleware asks."""
    _known_caller(app, request)
    key = request.headers.get('x-subject-token', '')
    return Reply(200, {'token': _token(app, request, _known(app, key))}, {'X-Subject-Token': key})


def revoke(app: Application, request: Request) -> Reply:
    """Forget the token in X-Subject-Token."""
    _known_caller(app, request)
    app.tokens.pop(request.headers.get('x-subject-token', ''), None)
    return Reply(204)


def catalog(app: Application, request: Request) -> dict[str, Any]:
    """Return the catalog of the token."""
    return {'catalog': _catalog(app, request), 'links': {'next': None}}


def services(app: Application, request: Request) -> dict[str, Any]:
    """List services by type and name."""
    return _list('services', _matching(request, _services(app), ('type', 'name')))


def endpoints(app: Application, request: Request) -> dict[str, Any]:
    """List endpoints by service, interface and region."""
    filters = ('service_id', 'interface', 'region_id')
    return _list('endpoints', _matching(request, _endpoints(app, request), filters))


def regions(app: Application, request: Request) -> dict[str, Any]:
    """List the one region."""
    row = {'id': app.cloud.spec.region, 'description': '', 'parent_region_id': None}
    return _list('regions', [row])


def roles(app: Application, request: Request) -> dict[str, Any]:
    """List the roles that any user has."""
    names = sorted({role for _, mine in app.cloud.spec.users.values() for role in mine})
    rows = [{'id': identity('role', n), 'name': n, 'domain_id': None} for n in names]
    return _list('roles', _matching(request, rows, ('name',)))


def projects(app: Application, request: Request) -> dict[str, Any]:
    """List projects."""
    rows = [
        {'id': identity('project', n), 'name': n, 'domain_id': 'default', 'enabled': True}
        for n in PROJECTS
    ]
    return _list('projects', _matching(request, rows, ('name',)))


def users(app: Application, request: Request) -> dict[str, Any]:
    """List users."""
    rows = [
        {'id': identity('user', n), 'name': n, 'domain_id': 'default', 'enabled': True}
        for n in app.cloud.spec.users
    ]
    return _list('users', _matching(request, rows, ('name',)))


def domains(app: Application, request: Request) -> dict[str, Any]:
    """List the one domain."""
    return _list('domains', [{**_DOMAIN, 'enabled': True}])


def _matching(
    request: Request, rows: list[dict[str, Any]], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    wanted = {name: request.get(name) for name in names if request.get(name)}
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def _list(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: rows, 'links': {'next': None, 'previous': None}}


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/v3/?', version),
    ('POST', '/v3/auth/tokens', issue),
    ('GET', '/v3/auth/tokens', validate),
    ('HEAD', '/v3/auth/tokens', validate),
    ('DELETE', '/v3/auth/tokens', revoke),
    ('GET', '/v3/auth/catalog', catalog),
    ('GET', '/v3/auth/projects', projects),
    ('GET', '/v3/services', services),
    ('GET', '/v3/endpoints', endpoints),
    ('GET', '/v3/regions', regions),
    ('GET', '/v3/roles', roles),
    ('GET', '/v3/projects', projects),
    ('GET', '/v3/users', users),
    ('GET', '/v3/domains', domains),
)

API = Api(
    prefix='identity',
    project='keystone',
    routes=ROUTES,
    error=plain_error,
    open=('/?', '/v3/?', '/v3/auth/tokens'),
)
