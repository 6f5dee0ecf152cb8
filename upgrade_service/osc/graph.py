"""A plan as a graph in the language of Graphviz: steps, what they wait for, stages as boxes."""

from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]

#: shape and colours of a step: the first that is true of it
_LOOKS = (
    ('ponr', 'shape=octagon, color=firebrick, penwidth=2'),
    ('person', 'shape=diamond, color=darkorange, penwidth=2'),
    ('gate', 'shape=diamond'),
    ('reversible', 'shape=box, style=rounded'),
)


def dot(plan: Row) -> str:
    """Return the text for `dot`; a pipe makes a picture of it: `… -f dot | dot -Tsvg`."""
    return '\n'.join(_lines(plan)) + '\n'


def _lines(plan: Row) -> Iterator[str]:
    yield 'digraph plan {'
    yield '  rankdir=LR; node [shape=box, fontname="sans-serif"];'
    yield f'  label={_quoted(_title(plan))};'
    steps = []
    for number, stage in enumerate(plan.get('stages') or ()):
        yield f'  subgraph cluster_{number} {{'
        yield f'    label={_quoted(stage["name"])};'
        for step in stage['steps']:
            steps.append(step)
            yield f'    s{step["ord"]} [label={_quoted(_label(step))}, {_look(step)}];'
        yield '  }'
    drawn = {step['ord'] for step in steps}
    for step in steps:
        for parent in step.get('parents') or ():
            if parent in drawn:
                yield f'  s{parent} -> s{step["ord"]};'
    yield '}'


def _title(plan: Row) -> str:
    digest = str(plan.get('digest') or '')[:12]
    return f'{plan.get("from_release")} to {plan.get("to_release")}, digest {digest}'


def _label(step: Row) -> str:
    what = f'{step["ord"]} {step["kind"]}'
    where = ' '.join(str(step[k]) for k in ('host', 'project', 'service') if step.get(k))
    return f'{what}\n{where}' if where else what


def _look(step: Row) -> str:
    facts = {
        **step,
        'gate': step['kind'] == 'gate',
        'person': (step.get('params') or {}).get('person'),
    }
    return next((look for key, look in _LOOKS if facts.get(key)), 'shape=box')


def _quoted(text: str) -> str:
    escaped = text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')
    return f'"{escaped}"'
