"""What requests may say, as JSON schemas; checked before anything else reads them.

Sizes are those of the security specification: host names 253, names 255 without control
characters, pages 1,000, lists 20,000.
"""

from typing import Any

from upgrade_service import model, states

Schema = dict[str, Any]

#: `$` alone would let a line break pass at the end
_END = r'$(?!\n)'
#: no control characters, no leading or trailing blank
NAME = {
    'type': 'string',
    'minLength': 1,
    'maxLength': 255,
    'pattern': r'^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?' + _END,
}
HOST = {
    'type': 'string',
    'maxLength': 253,
    'pattern': r'^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*' + _END,
}
WORD = {'type': 'string', 'maxLength': 64, 'pattern': r'^[A-Za-z0-9][A-Za-z0-9_.-]*' + _END}
TEXT = {'type': 'string', 'minLength': 1, 'maxLength': 1024, 'pattern': r'^[^\x00]*' + _END}
NUMBER = {'type': 'integer', 'minimum': 0, 'maximum': 2**53}


def _object(properties: Schema, *required: str) -> Schema:
    return {
        'type': 'object',
        'properties': properties,
        'required': list(required),
        'additionalProperties': False,
    }


def _list(items: Schema, most: int = 20000) -> Schema:
    # an empty list is refused by a sentence of its own, see `upgrades.selection`
    return {'type': 'array', 'items': items, 'maxItems': most, 'uniqueItems': True}


# -- query arguments ---------------------------------------------------------------------------

_LIMIT = {'limit': {'type': 'integer', 'minimum': 1, 'maximum': 1000}}
_PAGE = {**_LIMIT, 'marker': NAME}
NO_QUERY = _object({})
PAGE = _object(_PAGE)
CLUSTERS = _object({**_PAGE, 'name': NAME, 'cloud': NAME})
HOSTS = _object({**_PAGE, 'az': NAME})
SERVICES = _object(
    {
        **_LIMIT,
        'marker': NUMBER,
        'host': HOST,
        'project': WORD,
        'binary': WORD,
        'state': WORD,
        'status': WORD,
    }
)
UPGRADES = _object(
    {**_PAGE, 'cluster': NAME, 'name': NAME, 'state': {'enum': sorted(states.UPGRADE_STATES)}}
)
STEPS = _object(
    {
        **_LIMIT,
        'marker': NUMBER,
        'state': {'enum': sorted(states.STEP_STATES)},
        'stage': {'enum': list(model.STAGES)},
        'kind': {'enum': sorted(model.KINDS)},
        'host': HOST,
        'project': WORD,
        'direction': {'enum': ['forward', 'back']},
    }
)
EVENTS = _object(
    {**_LIMIT, 'after': NUMBER, 'wait': {'type': 'integer', 'minimum': 0, 'maximum': 60}}
)
LOG = _object({'attempt': {'type': 'integer', 'minimum': 1, 'maximum': 10**6}})
AGENTS = _object({**_PAGE, 'host': HOST, 'state': {'enum': sorted(states.AGENT_STATES)}})

# -- bodies ------------------------------------------------------------------------------------

NO_BODY = _object({})
CLUSTER_CREATE = _object(
    {
        'name': NAME,
        'cloud': NAME,
        'inventories': {**_list(WORD, 8), 'minItems': 1},
        'properties': {
            'type': 'object',
            'maxProperties': 64,
            'propertyNames': WORD,
            'additionalProperties': TEXT,
        },
    },
    'name',
)
UPGRADE_CREATE = _object(
    {
        'cluster': NAME,
        'to_release': WORD,
        'name': NAME,
        'strategy': WORD,
        'type': {'enum': ['service']},
        # keys and values are checked by projects/policy.py, which names what is wrong
        'policy': {'type': 'object'},
        'hosts': _list(HOST),
        'azs': _list(NAME, 1000),
        'projects': _list(WORD, 256),
        'approve_ponr': {'type': 'boolean'},
    },
    'cluster',
    'to_release',
)
#: a step by its number or id, or the very start
STEP = {
    'type': 'string',
    'maxLength': 36,
    'pattern': '^(start|[0-9]{1,9}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})' + _END,
}
PAUSE = _object({'at': {'enum': ['host']}})
CANCEL = _object({'now': {'type': 'boolean'}})
ROLLBACK = _object({'to': STEP})
DECLARE_LOST = _object({'fenced': {'const': True}, 'reason': TEXT}, 'fenced', 'reason')
START = _object({'accept': _list(WORD, 64)})
RESUME = _object({'acknowledge': {'enum': sorted(states.BLOCKED_REASONS)}})
APPROVE = _object({'gate': WORD})
RETRY = _object({'acknowledge_risk': {'type': 'boolean'}})
RESOLVE = _object(
    {'outcome': {'enum': ['succeeded', 'failed']}, 'evidence': TEXT}, 'outcome', 'evidence'
)
SKIP = _object({'force': {'type': 'boolean'}, 'reason': TEXT})
AGENT_CREATE = _object({'host': HOST, 'review': {'type': 'boolean'}}, 'host')
