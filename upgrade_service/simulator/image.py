"""Glance: one image, enough to boot from and to see that the API answers."""

from typing import Any

from upgrade_service.simulator.cloud import Refused, identity
from upgrade_service.simulator.http import Api, Application, Reply, Request, Route, plain_error

_ID = identity('image', 'cirros')


def versions(app: Application, request: Request) -> Reply:
    """List versions; glance does so with 300 at its root, with 200 at /versions."""
    link = {'rel': 'self', 'href': f'{request.root}/v2/'}
    rows = [
        {'id': 'v2.17', 'status': 'CURRENT', 'links': [link]},
        {'id': 'v2.16', 'status': 'SUPPORTED', 'links': [link]},
    ]
    return Reply(200 if request.path.startswith('/versions') else 300, {'versions': rows})


def _image(app: Application) -> dict[str, Any]:
    return {
        'id': _ID,
        'name': 'cirros',
        'status': 'active',
        'visibility': 'public',
        'protected': False,
        'container_format': 'bare',
        'disk_format': 'qcow2',
        'size': 21430272,
        'min_disk': 0,
        'min_ram': 0,
        'owner': identity('project', 'admin'),
        'tags': [],
        'created_at': '2026-01-01T00:00:00Z',
        'updated_at': '2026-01-01T00:00:00Z',
        'self': f'/v2/images/{_ID}',
        'file': f'/v2/images/{_ID}/file',
        'schema': '/v2/schemas/image',
    }


def images(app: Application, request: Request) -> dict[str, Any]:
    """List images, by name if asked."""
    rows = [_image(app)] if request.get('name') in (None, 'cirros') else []
    if request.get('marker'):
        rows = []
    return {'images': rows, 'first': '/v2/images', 'schema': '/v2/schemas/images'}


def image(app: Application, request: Request, key: str) -> dict[str, Any]:
    """Show the image."""
    if key != _ID:
        raise Refused(404, f'Failed to find image {key}')
    return _image(app)


ROUTES: tuple[Route, ...] = (
    ('GET', '/?', versions),
    ('GET', '/versions/?', versions),
    ('GET', '/v2/images', images),
    ('GET', '/v2/images/{key}', image),
)

API = Api(
    prefix='image',
    project='glance',
    routes=ROUTES,
    error=plain_error,
    open=('/?', '/versions/?'),
)
