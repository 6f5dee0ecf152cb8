"""The tables of states.py against the verb x state table of the specification."""

from upgrade_service import states
from upgrade_service.tests import base

#: verb -> answer in draft, running, stopping(paused), stopping(cancelled), paused, blocked,
#: succeeded, cancelled; '' is a 409, '=' is already so, else the state it leads to
EXPECTED = {
    'start': ('running', '', '', '', '', '', '', ''),
    'pause': ('', 'stopping', '=', '', '=', 'blocked', '', ''),
    'resume': ('', '=', 'running', '', 'running', 'running', '', ''),
    'cancel': ('cancelled', 'stopping', 'stopping', '=', 'stopping', 'stopping', '', '='),
    'approve': ('', '', '', '', 'running', '', '', ''),
    'retry': ('', '=', '', '', '=', '=', '', ''),
    'skip': ('', '=', '', '', '=', '=', '', ''),
    'delete': ('=', '', '', '', '', '', '=', '='),
}
SITUATIONS = (
    ('draft', None), ('running', None), ('stopping', 'paused'), ('stopping', 'cancelled'),
    ('paused', None), ('blocked', None), ('succeeded', None), ('cancelled', None),
)  # fmt: skip


class TestVerbs(base.TestCase):
    def test_every_verb_in_every_state(self):
        self.assertEqual(set(EXPECTED), set(states.VERBS))
        for verb, answers in EXPECTED.items():
            for (state, next_), expected in zip(SITUATIONS, answers, strict=True):
                move = states.decide(verb, state, next_, 'forward')
                found = '' if move is None else '=' if move is states.ALREADY else move.state
                self.assertEqual(expected, found, f'{verb} in {state}({next_})')

    def test_allowed_lists_what_is_not_refused(self):
        for state, next_ in SITUATIONS:
            allowed = states.allowed(state, next_, 'forward')
            for verb in states.VERBS:
                self.assertEqual(
                    verb in allowed, states.decide(verb, state, next_, 'forward') is not None
                )

    def test_cancel_of_a_release_is_already_so(self):
        self.assertIs(states.ALREADY, states.decide('cancel', 'running', None, 'release'))

    def test_cancel_of_a_rollback_is_refused(self):
        self.assertIsNone(states.decide('cancel', 'running', None, 'back'))

    def test_pause_asked_for_while_blocked_is_remembered(self):
        move = states.decide('pause', 'blocked', None, 'forward')
        self.assertEqual(('blocked', 'paused'), (move.state, move.next))

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
