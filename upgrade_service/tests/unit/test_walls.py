"""The walls between the rooms of the package, kept by reading every import.

A wall is what makes a room testable alone: the planner cannot touch a database that it cannot
import. The files are parsed, never imported, so a forbidden import is found in code that no test
reaches, inside functions and under TYPE_CHECKING too.
"""

import ast
from collections.abc import Iterator
import dataclasses
import pathlib
import warnings

import upgrade_service
from upgrade_service.tests import base

PACKAGE = 'upgrade_service'
ROOT = pathlib.Path(upgrade_service.__file__).parent
MAX_LINES = 500

CLIENTS = ('openstack', 'keystoneauth1', 'osc_lib', 'openstackclient')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wall:
    """What the modules of some rooms may not import, and the exceptions to it."""

    rooms: tuple[str, ...]
    forbidden: tuple[str, ...]
    allowed: tuple[str, ...] = ()


#: The pure rooms decide from what they are given: no storage, no messages, no clock.
PURE = ('conductor.planner', 'states', 'model', 'projects')

WALLS = (
    Wall(
        rooms=PURE,
        forbidden=(
            f'{PACKAGE}.db',
            f'{PACKAGE}.rpc',
            f'{PACKAGE}.api',
            f'{PACKAGE}.engine',
            f'{PACKAGE}.conductor',
            'oslo_db',
            'oslo_messaging',
            'oslo_utils.timeutils',
            'requests',
            'socket',
            'subprocess',
            'time',
            *CLIENTS,
        ),
        allowed=(f'{PACKAGE}.conductor.planner',),
    ),
    Wall(
        rooms=('api',),
        forbidden=(f'{PACKAGE}.conductor', f'{PACKAGE}.strategies'),
        allowed=(f'{PACKAGE}.conductor.rpcapi',),
    ),
    Wall(rooms=('engine',), forbidden=(f'{PACKAGE}.db', f'{PACKAGE}.conductor', *CLIENTS)),
)

#: Libraries that only some rooms may import. Nobody: the empty tuple.
ONLY = {
    'sqlalchemy': ('db',),
    'openstack': ('osc', 'conductor.cloud', 'conductor.discovery'),
    'eventlet': (),
}

#: Drawers into which everything would be thrown.
DRAWERS = frozenset({'common', 'helper', 'helpers', 'util', 'utils'})

#: Reading the clock, spelled as a call: datetime.datetime.now() and its relatives.
CLOCK_CALLS = frozenset({'now', 'utcnow', 'today'})


def within(name: str, prefix: str) -> bool:
    """Whether a dotted name is prefix or lies below it."""
    return name == prefix or name.startswith(f'{prefix}.')


def within_any(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(within(name, prefix) for prefix in prefixes)


def imported_names(module: str, tree: ast.AST, is_package: bool = False) -> Iterator[str]:
    """The absolute dotted names that a module imports, relative and by-name imports included."""
    parents = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            origin = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (f'{origin}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ('import_module', '__import__'):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def called(node: ast.Call) -> str:
    """The last word of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ''


def import_violations(module: str, names: list[str]) -> Iterator[str]:
    room = module.removeprefix(f'{PACKAGE}.')
    for name in names:
        for wall in WALLS:
            if (
                within_any(room, wall.rooms)
                and within_any(name, wall.forbidden)
                and not within_any(name, wall.allowed)
            ):
                yield f'{module} imports {name}'
        for library, rooms in ONLY.items():
            if within(name, library) and not within_any(room, rooms):
                yield f'{module} imports {name}: only {", ".join(rooms) or "nobody"} may'


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What a module does that its room may not, a sentence each."""
    tree = ast.parse(source)
    found = list(import_violations(module, list(imported_names(module, tree, is_package))))
    if within_any(module.removeprefix(f'{PACKAGE}.'), PURE):
        found += [
            f'{module} line {node.lineno} reads the clock'
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and called(node) in CLOCK_CALLS
        ]
    found += [f'{module} is a drawer' for part in module.split('.') if part in DRAWERS]
    return found


def modules() -> Iterator[tuple[str, pathlib.Path]]:
    """Each module of ours but the tests, with its file."""
    for path in sorted(ROOT.rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        if parts[0] != 'tests':
            yield '.'.join((PACKAGE, *parts)).removesuffix('.__init__'), path


class TestWalls(base.TestCase):
    def test_every_import_stays_within_its_walls(self):
        found = [
            sentence
            for module, path in modules()
            for sentence in violations(module, path.read_text(), path.name == '__init__.py')
        ]
        self.assertEqual([], found)

    def test_all_rooms_were_read(self):
        # A test that reads nothing finds nothing wrong.
        rooms = {module.split('.')[1] for module, _ in modules() if '.' in module}
        for room in ('api', 'conductor', 'db', 'engine', 'osc', 'strategies', 'projects'):
            self.assertIn(room, rooms)

    def test_long_files_are_reported(self):
        # A budget with a reason, not a law: a warning in the log of the run.
        for module, path in modules():
            lines = len(path.read_text().splitlines())
            if lines > MAX_LINES:
                warnings.warn(f'{module} has {lines} lines (> {MAX_LINES})', stacklevel=1)


class TestWallsCatch(base.TestCase):
    """The walls' own test: a violation of each kind is seen."""

    def assertCaught(self, module, source, is_package=False):
        found = violations(f'{PACKAGE}.{module}', source, is_package)
        self.assertEqual(1, len(found), str(found))

    def assertFree(self, module, source, is_package=False):
        self.assertEqual([], violations(f'{PACKAGE}.{module}', source, is_package))

    def test_absolute_import(self):
        self.assertCaught('conductor.planner.path', 'import upgrade_service.db.api')

    def test_from_import_of_a_room(self):
        self.assertCaught('conductor.planner.path', 'from upgrade_service import db')

    def test_relative_import(self):
        self.assertCaught('conductor.planner.path', 'from ...db import api')
        self.assertCaught('conductor.planner', 'from .. import broker', is_package=True)
        self.assertCaught('model', 'from . import db')

    def test_import_inside_a_function(self):
        self.assertCaught('engine.runner', 'def f():\n    from upgrade_service.db import api')

    def test_import_by_name(self):
        self.assertCaught('engine.runner', 'importlib.import_module("upgrade_service.db.api")')

    def test_clock(self):
        self.assertCaught('states', 'import time')
        self.assertCaught('conductor.planner.order', 'datetime.datetime.now()')
        self.assertFree('conductor.planner.order', 'import datetime')

    def test_api_reaches_the_conductor_by_messages_only(self):
        self.assertCaught(
            'api.controllers.upgrades', 'from upgrade_service.conductor import broker'
        )
        self.assertFree('api.controllers.upgrades', 'from upgrade_service.conductor import rpcapi')
        self.assertCaught('api.types', 'from upgrade_service.strategies import base')

    def test_engine_knows_no_cloud(self):
        self.assertCaught('engine.manager', 'from keystoneauth1 import session')

    def test_sqlalchemy_only_in_db(self):
        self.assertCaught('conductor.broker', 'import sqlalchemy as sa')
        self.assertFree('db.models', 'from sqlalchemy import orm')

    def test_openstacksdk_only_at_the_cloud(self):
        self.assertCaught('conductor.broker', 'import openstack')
        for room in ('osc.plugin', 'conductor.cloud.services', 'conductor.discovery.openstack'):
            self.assertFree(room, 'from openstack import connection')

    def test_eventlet_nowhere(self):
        self.assertCaught('cmd.api', 'import eventlet.patcher')

    def test_no_drawers(self):
        self.assertCaught('common.names', '')
        self.assertCaught('api.utils', '')

    def test_a_longer_name_is_another_module(self):
        self.assertFree('conductor.planner.path', 'import timeit')
        self.assertFree('engine.runner', 'from upgrade_service import dbus')
