"""The policy of an upgrade: what the request says, over the defaults, checked by schema."""

from collections.abc import Mapping
import copy
import functools
from typing import Any

import jsonschema

from upgrade_service import exception, model


def merge_policy(raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the whole policy: `raw` over the defaults.

    :raises InvalidPolicy: names the key (``drain.on_stuck``) and the rule it breaks.
    """
    wanted = {} if raw is None else raw
    _check(wanted)
    return _over(copy.deepcopy(model.POLICY_DEFAULTS), wanted)


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(model.POLICY_SCHEMA)


def _check(raw: Any) -> None:
    for error in _validator().iter_errors(raw):
        path = [str(part) for part in error.absolute_path]
        unknown = _unknown_key(error)
        if unknown:
            known = ', '.join(sorted(_properties(error)))
            raise exception.InvalidPolicy(
                field='.'.join([*path, unknown]), rule=f'there is no such key; known: {known}'
            )
        raise exception.InvalidPolicy(field='.'.join(path) or 'policy', rule=_rule(error))


def _unknown_key(error: jsonschema.ValidationError) -> str | None:
    if error.validator != 'additionalProperties' or not isinstance(error.instance, dict):
        return None
    return min(str(key) for key in set(error.instance) - set(_properties(error)))


def _properties(error: jsonschema.ValidationError) -> Mapping[str, Any]:
    schema: Any = error.schema
    return dict(schema['properties'])


def _rule(error: jsonschema.ValidationError) -> str:
    """Say a rule in words; jsonschema's own would quote whatever was sent, at any length."""
    value = str(error.instance)[:40]
    limit: Any = error.validator_value
    schema: Any = error.schema
    if 'description' in schema:
        return f'{value!r} must be {schema["description"]}'
    if error.validator == 'enum':
        return f'{value!r} must be one of {", ".join(map(str, limit))}'
    if error.validator == 'anyOf':
        return f"{value!r} must be a whole number from 1, or a share such as '5%'"
    return f'{value!r} breaks {error.validator}: {limit}'


def _over(base: dict[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in raw.items():
        nested = isinstance(base.get(key), dict) and isinstance(value, Mapping)
        base[key] = _over(base[key], value) if nested else value
    return base
