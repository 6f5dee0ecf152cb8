"""Tables of the documentation that are made from the code's own tables at each build.

``.. upgrade-table:: NAME`` puts one of ``TABLES`` there, so that a page cannot tell of a
state, a verb or a default that the code does not have.
"""

from collections.abc import Callable, Iterator, Mapping
import json
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from upgrade_service import model, states
from upgrade_service.engine import accept
from upgrade_service.projects import loader

Rows = list[tuple[str, ...]]


def code(word: object) -> str:
    """Mark a word as one of the code's."""
    return f'``{word}``'


def sentences(what: str, table: Mapping[str, str]) -> Rows:
    """Return a table of words and what they mean."""
    return [(what, 'Meaning'), *((code(k), v) for k, v in table.items())]


def verbs() -> Rows:
    """Return for each state what each verb does in it."""
    head = [v for v in states.VERBS if v not in states.STEP_VERBS]
    rows: Rows = [('State', *(code(v) for v in head))]
    for state in states.UPGRADE_STATES:
        rows.append((code(state), *(_does(verb, state) for verb in head)))
    return rows


def _does(verb: str, state: str) -> str:
    next_ = 'paused' if state == 'stopping' else None
    move = states.decide(verb, state, next_, 'forward')
    if move is None:
        return '409'
    if move is states.ALREADY:
        return 'deletes it' if verb == 'delete' else 'as it is'
    return f'{move.state}, then {move.next}' if move.next else move.state


def moves(known: Mapping[str, str], pairs: frozenset[tuple[str, str]]) -> Rows:
    """Return for each state which others may follow it."""
    after = {a: [b for b in known if (a, b) in pairs] for a in known}
    return [
        ('From', 'To'),
        *((code(a), ', '.join(code(b) for b in found) or 'an end') for a, found in after.items()),
    ]


def kinds() -> Rows:
    """Return what is true of each kind of step."""
    marks = (
        ('disruptive', 'disruptive'),
        ('undo', 'undoable'),
        ('ponr', 'point of no return'),
        ('skippable', 'skippable'),
        ('interruptible', 'interruptible'),
    )
    rows: Rows = [('Kind', 'Done by', 'What it does', 'Facts')]
    who = {'host': 'the engine', 'cloud': 'the conductor', 'gate': 'nobody'}
    for name, kind in model.KINDS.items():
        facts = ', '.join(text for field, text in marks if getattr(kind, field))
        rows.append((code(name), who[kind.where], kind.title, facts))
    return rows


def policy() -> Rows:
    """Return each key of a policy with its default."""
    return [('Key', 'Default'), *((code(k), code(v)) for k, v in _flat(model.POLICY_DEFAULTS))]


def _flat(values: Mapping[str, Any], above: str = '') -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{above}{key}.')
        else:
            yield f'{above}{key}', json.dumps(value)


def projects() -> Rows:
    """Return the projects that can be upgraded, and how."""
    rows: Rows = [('Project', 'Services', 'To the next release', 'SLURP to SLURP')]
    known = loader.load_projects()
    for data in map(known.get, known.names()):
        if data.kind == 'project':
            hops = [manner(data.upgrade[hop]) for hop in ('adjacent', 'slurp')]
            rows.append((data.summary, ', '.join(code(b) for b in data.services), *hops))
    return rows


def manner(fact: Mapping[str, str]) -> str:
    """Say how a hop is made, and whether anybody has said so."""
    return fact['manner'] + (' (unproven)' if fact['proof'] == 'none' else '')


def infrastructure() -> Rows:
    """Return what is known of infrastructure: versions, and what stays up together."""
    rows: Rows = [('Infrastructure', 'Services', 'Series', 'Steps', 'One host at a time')]
    known = loader.load_projects()
    for data in map(known.get, known.names()):
        if data.kind == 'infrastructure':
            rule, members = data.versions, data.quorum.get('members', ())
            rows.append(
                (
                    data.summary,
                    ', '.join(code(b) for b in data.services),
                    ', '.join(rule['series']),
                    {'next': 'none skipped', 'lts': 'LTS to LTS', 'any': 'any later'}[
                        rule['step']
                    ],
                    ', '.join(code(b) for b in members),
                )
            )
    return rows


TABLES: dict[str, Callable[[], Rows]] = {
    'upgrade-states': lambda: sentences('State', states.UPGRADE_STATES),
    'upgrade-verbs': verbs,
    'upgrade-moves': lambda: moves(states.UPGRADE_STATES, states.OWNER_MOVES),
    'blocked-reasons': lambda: sentences('Reason', states.BLOCKED_REASONS),
    'step-states': lambda: sentences('State', states.STEP_STATES),
    'step-moves': lambda: moves(states.STEP_STATES, states.STEP_MOVES),
    'step-kinds': kinds,
    'agent-states': lambda: sentences('State', states.AGENT_STATES),
    'refusals': lambda: sentences('Code', accept.REASONS),
    'policy': policy,
    'projects': projects,
    'infrastructure': infrastructure,
}


class UpgradeTable(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table as a list-table and have it read."""
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f'no table {name}; known: {", ".join(TABLES)}')
        lines = ['.. list-table::', '   :header-rows: 1', '']
        for row in TABLES[name]():
            for at, cell in enumerate(row):
                lines.append(f'   {"* -" if at == 0 else "  -"} {cell}'.rstrip())
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source=f'table {name}'), 0, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive('upgrade-table', UpgradeTable)
    return {'parallel_read_safe': True}
