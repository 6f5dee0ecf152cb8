"""How a field looks: for people in a table, for programs as the API gave it.

A list or show command names its fields; this module has the rest: titles, and the format
of each field that is more than a word.
"""

from collections.abc import Mapping, Sequence
import datetime
import json
from typing import Any

from cliff.columns import FormattableColumn

Row = dict[str, Any]


class Time(FormattableColumn[Any]):
    """Milliseconds since the epoch, or an ISO 8601 text that is left alone."""

    def human_readable(self) -> str:
        """Give the time in UTC."""
        return stamp(self._value)


class Words(FormattableColumn[Any]):
    """A list of words."""

    def human_readable(self) -> str:
        """Join them."""
        return ', '.join(str(w) for w in self._value or ())


class Steps(FormattableColumn[Any]):
    """Ids of steps: people are told how many; `plan show` marks them."""

    def human_readable(self) -> str:
        """Count them."""
        count = len(self._value)
        return f'{count} step' if count == 1 else f'{count} steps'


class Pairs(FormattableColumn[Any]):
    """A small mapping; inner mappings are flattened away from the reader's eyes."""

    def human_readable(self) -> str:
        """Write `key value` pairs; a key without a value says nothing."""
        return ', '.join(
            f'{k} {_inner(v)}' for k, v in (self._value or {}).items() if v is not None
        )


class Outages(FormattableColumn[Any]):
    """What is out, and for how many seconds."""

    def human_readable(self) -> str:
        """Write `heat 46 s, manila 1 min`."""
        return ', '.join(f'{k} {duration(v)}' for k, v in (self._value or {}).items())


class Progress(Pairs):
    """How far an upgrade or a step is; what else a step keeps there is for its owner."""

    told = ('total', 'done', 'running', 'failed', 'text')

    def human_readable(self) -> str:
        """Write the counts and the text."""
        pairs = ((k, self._value.get(k)) for k in self.told)
        return ', '.join(f'{k} {v}' for k, v in pairs if v not in (None, ''))


class Seconds(FormattableColumn[Any]):
    """A duration in seconds."""

    def human_readable(self) -> str:
        """Write it as people say it."""
        return duration(self._value)


class Document(dict[str, Any]):
    """A JSON object that is JSON in every output format."""

    def __str__(self) -> str:
        return json.dumps(self, sort_keys=True)


def _inner(value: Any) -> str:
    if isinstance(value, Mapping):
        return '(' + ', '.join(f'{k} {v}' for k, v in value.items()) + ')'
    if isinstance(value, list):
        return ' '.join(str(v) for v in value)
    return str(value)


def stamp(value: Any) -> str:
    """Write a time in UTC, to the second."""
    if isinstance(value, int):
        at = datetime.datetime.fromtimestamp(value / 1000, datetime.UTC)
        return at.strftime('%Y-%m-%dT%H:%M:%SZ')
    return str(value or '')


def duration(seconds: float | None) -> str:
    """Write seconds as `7 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return ''
    whole = int(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60} s' if whole % 60 else f'{whole // 60} min'
    return f'{whole // 3600} h {whole % 3600 // 60} min'


FORMATS: dict[str, type[FormattableColumn[Any]]] = {
    **dict.fromkeys(
        (
            'at',
            'created_at',
            'started_at',
            'finished_at',
            'discovered_at',
            'seen_at',
            'facts_at',
            'expires_at',
        ),
        Time,
    ),
    **dict.fromkeys(
        ('roles', 'inventories', 'parents', 'reasons', 'approvals', 'accepted', 'release'), Words
    ),
    'points_of_no_return': Steps,
    'progress': Progress,
    'down': Outages,
    **dict.fromkeys(
        ('properties', 'hosts', 'selection', 'projects', 'detail', 'params', 'policy'),
        Pairs,
    ),
    **dict.fromkeys(('eta_seconds', 'seconds', 'estimate'), Seconds),
}
#: what a format takes; a value of another type is shown as it is
_TAKES: dict[type[FormattableColumn[Any]], tuple[type, ...]] = {
    Time: (int, str),
    Words: (list, tuple),
    Steps: (list, tuple),
    Pairs: (dict,),
    Progress: (dict,),
    Outages: (dict,),
    Seconds: (int, float),
}


def cell(field: str, value: Any) -> Any:
    """Return what a table shows for a field."""
    form = FORMATS.get(field)
    if form is None or not isinstance(value, _TAKES[form]):
        return Words(value) if isinstance(value, list) else value
    return form(value)


def _says_nothing(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return not any(value) if isinstance(value, list) else value in (None, '')


def title(field: str) -> str:
    """Return the heading of a field in a list."""
    return {'id': 'ID', 'az': 'AZ', 'to': 'To Release', 'ord': 'Step', 'eta_seconds': 'ETA'}.get(
        field, field.replace('_', ' ').title()
    )


def table(rows: Sequence[Row], fields: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    """Return titles and cells for a list."""
    return (
        tuple(title(f) for f in fields),
        [tuple(cell(f, r.get(f)) for f in fields) for r in rows],
    )


def card(
    row: Row, fields: Sequence[str], spare: bool = False
) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return names and cells of one resource; fields the API did not send are left out.

    `spare`: leave out those that say nothing, too.
    """
    known = tuple(f for f in fields if f in row and not (spare and _says_nothing(row[f])))
    return known, tuple(cell(f, row[f]) for f in known)
