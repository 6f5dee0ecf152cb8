"""The tables of states.py against the verb x state x direction table of the specification."""

import itertools

from upgrade_service import states
from upgrade_service.tests import base

#: (state, next) that an upgrade can be in, in the order of the answers below
SITUATIONS = (
    ('planning', None), ('draft', None), ('running', None), ('running', 'paused'),
    ('stopping', 'paused'), ('stopping', 'cancelled'), ('stopping', 'back'), ('paused', None),
    ('blocked', None), ('blocked', 'paused'), ('succeeded', None), ('cancelled', None),
    ('rolled_back', None),
)  # fmt: skip
#: verb and option -> answer in each situation, for direction forward: '' is a 409, '=' is
#: already so, else the state it leads to, and what follows
EXPECTED = {
    'start': '| running| | | | | | | | | | |',
    'pause': ('| | stopping paused| stopping paused| =| | | =| blocked paused| =| | |'),
    'pause host': '| | running paused| =| =| | | =| blocked paused| =| | |',
    'resume': '| | =| running| running| | | running| running| running| | |',
    'cancel': (
        'cancelled| cancelled| stopping cancelled| stopping cancelled| stopping cancelled| =| |'
        'stopping cancelled| stopping cancelled| stopping cancelled| | =|'
    ),
    'cancel now': (
        'cancelled| cancelled| stopping cancelled| stopping cancelled| stopping cancelled|'
        'stopping cancelled| |'
        'stopping cancelled| stopping cancelled| stopping cancelled| | =|'
    ),
    'rollback': (
        '| | stopping back| stopping back| stopping back| | =| stopping back| stopping back|'
        'stopping back| | |'
    ),
    'approve': '| | | | | | | running| | | | |',
    'replan': '| planning| | | | | | planning| planning| planning| | |',
    'retry': '| | =| =| | | | =| =| =| | |',
    'skip': '| | =| =| | | | =| =| =| | |',
    'resolve': '| | =| =| | | | =| =| =| | |',
    'delete': '| =| | | | | | | | | =| =| =',
}
#: (direction, verb) -> the one answer in running, stopping, paused and blocked
TURNED = {
    ('release', 'cancel'): '=',
    ('release', 'cancel now'): '=',
    ('release', 'replan'): '',
    ('back', 'cancel'): '',
    ('back', 'cancel now'): '',
    ('back', 'rollback'): '=',
    ('back', 'replan'): '',
}
LIVE = frozenset({'running', 'stopping', 'paused', 'blocked'})


def cases():
    """Yield (verb, option, state, next, direction, expected answer)."""
    for called, row in EXPECTED.items():
        verb, _, option = called.partition(' ')
        answers = [a.strip() for a in row.split('|')]
        for (state, next_), answer in zip(SITUATIONS, answers, strict=True):
            for direction in sorted(states.DIRECTIONS):
                turned = TURNED.get((direction, called)) if state in LIVE else None
                expected = answer if turned is None else turned
                yield verb, option or None, state, next_, direction, expected


class TestVerbs(base.TestCase):
    def test_every_verb_in_every_state_and_direction(self):
        self.assertEqual(set(states.VERBS), {called.partition(' ')[0] for called in EXPECTED})
        self.assertEqual(set(states.VARIANTS), {tuple(c.split()) for c in EXPECTED if ' ' in c})
        found = 0
        for verb, option, state, next_, direction, expected in cases():
            move = states.decide(verb, state, next_, direction, option)
            said = '' if move is None else '=' if move is states.ALREADY else move.state
            if move and move.next:
                said = f'{said} {move.next}'
            self.assertEqual(expected, said, f'{verb} {option} in {state}({next_}) {direction}')
            found += 1
        self.assertEqual(len(EXPECTED) * len(SITUATIONS) * len(states.DIRECTIONS), found)

    def test_every_situation_is_in_the_table(self):
        self.assertEqual(set(states.UPGRADE_STATES), {state for state, _ in SITUATIONS})
        nexts = {next_ for _, next_ in SITUATIONS if next_}
        self.assertEqual(states.NEXTS, nexts)
        led = {
            (move.state, move.next)
            for table in (*states.VERBS.values(), *states.VARIANTS.values())
            for move in table.values()
            if move is not states.ALREADY
        }
        self.assertEqual(set(), led - set(SITUATIONS))

    def test_allowed_lists_what_is_not_refused(self):
        for (state, next_), direction in itertools.product(SITUATIONS, states.DIRECTIONS):
            allowed = states.allowed(state, next_, direction)
            for verb in states.VERBS:
                possible = states.decide(verb, state, next_, direction) is not None
                self.assertEqual(verb in allowed, possible)

    def test_all_names_exist(self):
        for old, new in states.OWNER_MOVES:
            self.assertIn(old, states.UPGRADE_STATES)
            self.assertIn(new, states.UPGRADE_STATES)
        for old, new in states.STEP_MOVES:
            self.assertIn(old, states.STEP_STATES)
            self.assertIn(new, states.STEP_STATES)

    def test_nothing_leaves_a_terminal_state(self):
        for state in states.TERMINAL:
            self.assertFalse([m for m in states.OWNER_MOVES if m[0] == state])
            for verb in set(states.VERBS) - {'delete'}:
                self.assertIn(states.decide(verb, state, None, 'forward'), (None, states.ALREADY))
