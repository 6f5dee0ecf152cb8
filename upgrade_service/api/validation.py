"""Checks requests against their schemas and says what is wrong in one sentence."""

from collections.abc import Mapping
import functools
import json
from typing import Any

import jsonschema

from upgrade_service import exception, model

#: what a schema keyword asks for, in words
_RULES = {
    'type': 'must be of type {0}',
    'enum': 'must be one of {0}',
    'minimum': 'must be at least {0}',
    'maximum': 'must be at most {0}',
    'minLength': 'must not be empty',
    'maxLength': 'must have at most {0} characters',
    'minItems': 'must not be empty',
    'maxItems': 'must have at most {0} entries',
    'maxProperties': 'must have at most {0} keys',
    'uniqueItems': 'must not name anything twice',
    'pattern': 'has characters that are not allowed there, or at the wrong place',
}


@functools.lru_cache(maxsize=128)
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(schema))


def check(schema: Mapping[str, Any], value: Any, where: str) -> None:
    """Check a value.

    :raises Invalid: names the field and the rule; the value itself is not repeated.
    """
    error = jsonschema.exceptions.best_match(
        _validator(model.canonical(schema)).iter_errors(value)
    )
    if error is None:
        return
    path = '.'.join(str(part) for part in error.absolute_path)
    if error.validator == 'required':
        missing = next(n for n in error.validator_value if n not in error.instance)
        raise exception.Invalid(field=missing, rule='is required')
    if error.validator == 'additionalProperties':
        unknown = min(set(error.instance) - set(error.schema['properties']))
        known = ', '.join(sorted(error.schema['properties'])) or 'none'
        raise exception.Invalid(
            field=f'{path}.{unknown}'.lstrip('.')[:80],
            rule=f'is not known in the {where}; known: {known}',
        )
    raise exception.Invalid(field=path or where, rule=_rule(error))


def _rule(error: jsonschema.ValidationError) -> str:
    wanted: Any = error.validator_value
    text = ', '.join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
    return _RULES.get(str(error.validator), 'is not valid').format(text)


def query(schema: Mapping[str, Any], said: Mapping[str, str]) -> dict[str, Any]:
    """Check query arguments; return them with numbers as int.

    :raises Invalid: an argument is unknown or breaks its rule.
    """
    values: dict[str, Any] = {}
    for name, text in said.items():
        wanted = schema['properties'].get(name, {})
        number = wanted.get('type') == 'integer' and text.isascii() and text.isdecimal()
        values[name] = int(text) if number and len(text) < 20 else text
    check(schema, values, 'query')
    return values
