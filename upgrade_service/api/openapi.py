"""Describes the API as OpenAPI 3.1, from the table of routes and its schemas."""

from collections.abc import Sequence
import functools
import re
from typing import Any

from wsme import types as wtypes

from upgrade_service.api import errors, microversion, routes, types

Doc = dict[str, Any]
_JSON_TYPES = {str: 'string', int: 'integer', float: 'number', bool: 'boolean', dict: 'object'}
#: what is between the words of a path
_WORDS = re.compile(r'[^A-Za-z0-9]+')
_VARIABLE = re.compile(r'\{(\w+)\}')


def document(table: Sequence[routes.Route], base: str) -> Doc:
    """Return the document; `base` is the URL of the root."""
    return {**_fixed(tuple(table)), 'servers': [{'url': base or '/'}]}


@functools.cache
def _fixed(table: tuple[routes.Route, ...]) -> Doc:
    paths: Doc = {}
    kinds: dict[str, Any] = {}
    for route in table:
        _collect(route.returns, kinds)
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        'openapi': '3.1.0',
        'info': {'title': 'Upgrade Service', 'version': microversion.text(microversion.MAX)},
        'paths': paths,
        'components': {
            'schemas': {'Error': _ERROR, **{n: _object(k) for n, k in sorted(kinds.items())}},
            'securitySchemes': {
                'token': {'type': 'apiKey', 'in': 'header', 'name': 'X-Auth-Token'}
            },
        },
    }


def _operation(route: routes.Route) -> Doc:
    operation: Doc = {
        'summary': (route.answers.__doc__ or '').strip().splitlines()[0],
        'operationId': route.method.lower() + _WORDS.sub('_', route.path).rstrip('_'),
        'parameters': _parameters(route),
        'security': [] if route.public else [{'token': []}],
        'responses': {str(route.status): _answer(route), 'default': _REFUSAL},
    }
    if route.body is not None:
        operation['requestBody'] = {
            'required': bool(route.body.get('required')),
            'content': {errors.JSON: {'schema': route.body}},
        }
    return operation


def _parameters(route: routes.Route) -> list[Doc]:
    found = [
        {'name': name, 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
        for name in _VARIABLE.findall(route.path)
    ]
    found += [
        {'name': name, 'in': 'query', 'schema': schema}
        for name, schema in route.query['properties'].items()
    ]
    if route.method in ('POST', 'DELETE'):
        found += [
            {'name': name, 'in': 'header', 'schema': {'type': 'string'}}
            for name in ('Idempotency-Key', 'If-Match')
        ]
    return found


def _answer(route: routes.Route) -> Doc:
    if route.status == 204:
        return {'description': 'Done'}
    schema: Doc = {'type': 'object'}
    if route.returns is not None:
        schema = _schema(route.returns)
    if route.many:
        schema = {
            'type': 'object',
            'required': [route.many],
            'properties': {
                route.many: {'type': 'array', 'items': schema},
                'next': {'type': 'string'},
            },
        }
    return {
        'description': 'Accepted' if route.status == 202 else 'Done',
        'content': {errors.JSON: {'schema': schema}},
    }


def _collect(kind: Any, found: dict[str, Any]) -> None:
    """Gather a type and those of its fields, by name."""
    if isinstance(kind, wtypes.ArrayType):
        _collect(kind.item_type, found)
    elif isinstance(kind, type) and issubclass(kind, types.Resource):
        found[kind.__name__] = kind
        for datatype in types.fields(kind).values():
            _collect(datatype, found)


def _schema(kind: Any) -> Doc:
    if isinstance(kind, wtypes.ArrayType):
        return {'type': 'array', 'items': _schema(kind.item_type)}
    if isinstance(kind, wtypes.DictType):
        return {'type': 'object', 'additionalProperties': _schema(kind.value_type)}
    if isinstance(kind, type) and issubclass(kind, types.Resource):
        return {'$ref': f'#/components/schemas/{kind.__name__}'}
    return {'type': _JSON_TYPES.get(getattr(kind, 'basetype', kind), 'string')}


def _nullable(schema: Doc) -> Doc:
    if '$ref' in schema:
        return schema
    return {**schema, 'type': [schema['type'], 'null']}


def _object(kind: Any) -> Doc:
    return {
        'type': 'object',
        'description': (kind.__doc__ or '').strip(),
        'properties': {n: _nullable(_schema(t)) for n, t in types.fields(kind).items()},
    }


_ERROR: Doc = {
    'type': 'object',
    'required': ['errors'],
    'properties': {
        'errors': {
            'type': 'array',
            'items': {
                'type': 'object',
                'required': ['request_id', 'code', 'status', 'title', 'detail'],
                'properties': {
                    'request_id': {'type': ['string', 'null']},
                    'code': {'type': 'string'},
                    'status': {'type': 'integer'},
                    'title': {'type': 'string'},
                    'detail': {'type': 'string'},
                },
            },
        }
    },
}
_REFUSAL: Doc = {
    'description': 'Refused',
    'content': {errors.JSON: {'schema': {'$ref': '#/components/schemas/Error'}}},
}
