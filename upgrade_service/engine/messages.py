"""The form of what conductors say to engines, version 1.

A newer conductor may mean more than this engine knows. So a version, a field or a type that
is not this one's is refused and never guessed at.
"""

from collections.abc import Mapping
from typing import Any

VERSION = 1
Form = Mapping[str, type]

_ALL: Form = {'v': int, 'type': str, 'aud': str, 'nbf': int, 'exp': int}
_ABOUT: Form = {**_ALL, 'upgrade': str, 'epoch': int, 'steps': list}
#: type of message -> its fields
FORMS: Mapping[str, Form] = {
    'order': {**_ABOUT, 'digest': str, 'recorded': list},
    'revoke': {**_ABOUT, 'now': bool},
    'probe': _ABOUT,
    'recorded': {**_ALL, 'attempts': list},
    'describe': _ALL,
    'keys': {**_ALL, 'keys': dict},
}
#: a step of an order; `project` may be None, and `direction` may be left out
STEP: Form = {
    'step': str,
    'attempt': int,
    'kind': str,
    'strategy': str,
    'host': str,
    'project': str,
    'params': dict,
    'timeout': int,
    'direction': str,
}
_STEP_OR_NONE = frozenset({'project'})
_STEP_TOO = frozenset({'direction'})
#: type of message -> fields that may be left out
_TOO: Mapping[str, frozenset[str]] = {'revoke': frozenset({'now'})}


def illegible(said: Mapping[str, Any], kind: str) -> str | None:
    """Say why a message that a conductor has signed cannot be understood, or None."""
    if said.get('v') != VERSION:
        return f'version {str(said.get("v"))[:16]} of messages is not known here'
    why = _misformed(said, FORMS[kind], too=_TOO.get(kind, frozenset()))
    if why:
        return why
    if kind == 'order':
        whys = [_misformed(s, STEP, _STEP_OR_NONE, _STEP_TOO) for s in said['steps']]
        whys.append(None if _pairs(said['recorded']) else 'recorded: no attempts')
    else:
        whys = [
            None if _pairs(said.get(name, [])) else f'{name}: no attempts'
            for name in ('steps', 'attempts')
        ]
    return next((w for w in whys if w), None)


def _misformed(
    said: Any, form: Form, none: frozenset[str] = frozenset(), too: frozenset[str] = frozenset()
) -> str | None:
    if not isinstance(said, Mapping):
        return 'an object is missing'
    for name in said:
        if name not in form:
            return f'field {str(name)[:64]} is not known here'
    for name, wanted in form.items():
        if name not in said and name in too:
            continue
        value = said.get(name)
        if type(value) is not wanted and not (value is None and name in none):
            return f'field {name} must be {wanted.__name__}'
    return None


def _pairs(value: list[Any]) -> bool:
    return all(
        isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) and type(v[1]) is int
        for v in value
    )


def attempts(said: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the attempts of an order that cannot be understood, as far as they can be read."""
    steps = said.get('steps')
    found = [s for s in steps if isinstance(s, Mapping)] if isinstance(steps, list) else []
    return [
        (s['step'], s['attempt'])
        for s in found
        if isinstance(s.get('step'), str) and type(s.get('attempt')) is int
    ]
