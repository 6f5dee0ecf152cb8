"""Reads facts out of a wheel, or out of an unpacked package; nothing of it is executed.

What a release says of itself in its code beats any table kept by hand: which commands and
upgrade checks it has, which old services it still talks to, and which of its migrations
take something away. The code is parsed, never imported.
"""

import ast
from collections.abc import Iterator, Mapping
import configparser
import contextlib
import hashlib
import pathlib
import re
from typing import Any
import zipfile

#: calls of a migration after which the code before it does not find what it looks for
_TAKES_AWAY = frozenset({'drop_table', 'drop_column', 'rename_table'})
_TESTS = re.compile(r'(^|/)(tests?|testing|hacking)/')


class Tree:
    """The files of a distribution by their path inside it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._zip = None if path.is_dir() else zipfile.ZipFile(path)
        names = self._zip.namelist() if self._zip else _below(path)
        self.names = [name for name in names if not _TESTS.search(name)]

    def text(self, name: str) -> str:
        """Return the text of a file."""
        data = self._zip.read(name) if self._zip else (self.path / name).read_bytes()
        return data.decode(errors='replace')

    def parsed(self, suffix: str, *words: str) -> Iterator[tuple[str, ast.Module]]:
        """Yield (name, syntax tree) of files whose name ends so and whose text has the words."""
        for name in self.names:
            text = self.text(name) if name.endswith(suffix) else ''
            if text and all(word in text for word in words):
                with contextlib.suppress(SyntaxError):
                    yield name, ast.parse(text)


def _below(path: pathlib.Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob('*') if p.is_file())


def read(path: str | pathlib.Path, module: str) -> dict[str, Any]:
    """Return the facts of a distribution whose top module is `module`.

    {scripts, checks, contract, drops}, and for nova {services, rpc}: see `facts.Facts`.
    `path`: a wheel, or the directory into which a package was unpacked.

    :raises OSError: there is no such file. :raises zipfile.BadZipFile: it is no wheel.
    """
    tree = Tree(pathlib.Path(path))
    facts = {'scripts': _scripts(tree), 'checks': _checks(tree), **_migrations(tree)}
    return facts | _services(tree, module) | _rpc(tree, module)


def provenance(path: str | pathlib.Path) -> dict[str, str]:
    """Return {wheel, sha256}: which file the facts are from."""
    file = pathlib.Path(path)
    return {'wheel': file.name, 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}


# -- commands and checks -----------------------------------------------------------------------


def _scripts(tree: Tree) -> list[str]:
    found = {n.rpartition('/')[2] for n in tree.names if '.data/scripts/' in n}
    for name in tree.names:
        if name.endswith('/entry_points.txt'):
            parser = configparser.ConfigParser(delimiters=('=',), interpolation=None, strict=False)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            parser.read_string(tree.text(name))
            for section in ('console_scripts', 'wsgi_scripts'):
                found |= set(parser[section]) if parser.has_section(section) else set()
    return sorted(found)


def _checks(tree: Tree) -> list[str]:
    """Return the titles of the upgrade checks, in the order in which they run."""
    titles = []
    for _name, module in tree.parsed('.py', 'upgradecheck'):
        for node in ast.walk(module):
            for item in _listed_checks(node):
                title = _title(item.elts[0]) if isinstance(item, ast.Tuple) and item.elts else None
                titles += [title] if title else []
    return list(dict.fromkeys(titles))


def _listed_checks(node: ast.AST) -> list[ast.expr]:
    """Return the items of a literal list of checks."""
    value: ast.expr | None = None
    if isinstance(node, ast.Assign) and '_upgrade_checks' in map(_name, node.targets):
        value = node.value
    elif isinstance(node, ast.FunctionDef) and node.name == 'get_checks':
        value = next((n.value for n in ast.walk(node) if isinstance(n, ast.Return)), None)
    return value.elts if isinstance(value, ast.Tuple | ast.List) else []


def _title(node: ast.expr) -> str | None:
    """Return a text, be it marked for translation or not."""
    if isinstance(node, ast.Call) and node.args:
        node = node.args[0]
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


# -- migrations --------------------------------------------------------------------------------


def _migrations(tree: Tree) -> dict[str, list[str]]:
    """Return alembic's revisions that do harm to old code: of contract branches, and others."""
    contract, drops = set(), set()
    for name, module in tree.parsed('.py', 'revision', 'def upgrade'):
        revision = _constants(module).get('revision')
        body = _function(module, 'upgrade')
        if not isinstance(revision, str) or body is None:
            continue
        if _contracts(name, module):
            contract |= set() if _empty(body) else {revision}
        elif any(_called(node) in _TAKES_AWAY for node in ast.walk(body)):
            drops.add(revision)
    return {'contract': sorted(contract), 'drops': sorted(drops)}


def _contracts(name: str, module: ast.Module) -> bool:
    """Tell whether a migration is of a contract branch: by its place, name or label."""
    labels = _constants(module).get('branch_labels') or ()
    return '/contract/' in name or '_contract' in name or 'contract' in labels


def _empty(body: ast.FunctionDef) -> bool:
    return all(
        isinstance(line, ast.Pass)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in body.body
    )


# -- which old services are still talked to ----------------------------------------------------


def _services(tree: Tree, module: str) -> dict[str, Any]:
    """Return {services: {version, oldest, aliases}} of nova; before Wallaby it knew no oldest."""
    for _name, parsed in tree.parsed(f'{module}/objects/service.py', 'SERVICE_VERSION'):
        found = _constants(parsed)
        return {
            'services': {
                'version': found.get('SERVICE_VERSION'),
                'oldest': found.get('OLDEST_SUPPORTED_SERVICE_VERSION'),
                'aliases': found.get('SERVICE_VERSION_ALIASES', {}),
            }
        }
    return {}


def _rpc(tree: Tree, module: str) -> dict[str, Any]:
    """Return {rpc: {release: version}} of the RPC API of nova-compute."""
    for _name, parsed in tree.parsed(f'{module}/compute/rpcapi.py', 'VERSION_ALIASES'):
        for node in ast.walk(parsed):
            if isinstance(node, ast.ClassDef) and node.name == 'ComputeAPI':
                return {'rpc': _constants(node).get('VERSION_ALIASES', {})}
    return {}


# -- reading syntax ----------------------------------------------------------------------------


def _constants(node: ast.Module | ast.ClassDef) -> Mapping[str, Any]:
    """Return the names that are set to literal values directly in a module or class."""
    found: dict[str, Any] = {}
    for line in node.body:
        if isinstance(line, ast.Assign):
            with contextlib.suppress(ValueError):  # not a literal
                value = ast.literal_eval(line.value)
                found |= {name: value for name in map(_name, line.targets) if name}
    return found


def _function(module: ast.Module, name: str) -> ast.FunctionDef | None:
    functions = [n for n in module.body if isinstance(n, ast.FunctionDef)]
    return next((f for f in functions if f.name == name), None)


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _called(node: ast.AST) -> str | None:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return node.func.attr if called else None  # type: ignore[attr-defined]
