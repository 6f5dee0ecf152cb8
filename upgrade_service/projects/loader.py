"""Reads the project data: one YAML file per project, checked against ``schema.json``.

A site adds or overrides facts with files of the same shape in ``projects.d``; a file
for a known project needs only the keys that differ: mappings are merged key by key,
sources are added, everything else is replaced, and a key that is null goes away. The
digest names the facts that a plan was made with: an engine with other facts refuses its
orders.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jsonschema
import yaml

from upgrade_service import exception, model
from upgrade_service.projects import releases as releases_data

_HERE = pathlib.Path(__file__).parent
#: files beside the projects' own, with loaders of their own
_OTHERS = frozenset({'openstack-releases.yaml', 'wheel-facts.yaml'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binary:
    """One service of a project."""

    name: str
    plane: str  #: 'control' or 'data'
    start: int = 1  #: services of a host with a lower number are upgraded first
    wave: int = 1  #: control plane: those of a lower wave are upgraded first, on all hosts
    record: str | None = None  #: cloud API that lists it: 'compute', 'network', 'volume'
    serves: str | None = None  #: 'routers' or 'networks' that it carries for tenants
    after: tuple[str, ...] = ()  #: binaries that go before it on the same host
    api: Mapping[str, Any] | None = None  #: {type, path, codes} if it answers HTTP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a kind; argv[0] is a console script of the project."""

    argv: tuple[str, ...]  #: a literal '{config}' stands for the project's `config.args`
    code: str  #: whose script: 'target' or 'current'
    source: str
    proof: str
    #: exit status -> done, again, stop, warning, broken, failed; others: failed
    exits: Mapping[int, str] = dataclasses.field(default_factory=lambda: {0: 'done'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class After:
    """An order between projects: the owner comes after `project` if both are present."""

    project: str
    source: str
    proof: str  #: 'wheel', 'doc' or 'none'
    soft: bool = False  #: given up where it would close a cycle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """What is known of one project or piece of infrastructure: the keys of its file."""

    project: str
    summary: str
    sources: tuple[Mapping[str, str], ...]
    services: Mapping[str, Binary]
    kind: str = 'project'  #: or 'infrastructure': upgraded before any project
    cadence: str = 'coordinated'  #: or 'independent': its versions belong to no release
    distribution: str = ''
    module: str = ''
    #: {adjacent, slurp}: {manner, source, proof} of a hop to the next release, and SLURP to SLURP
    upgrade: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    commands: Mapping[str, tuple[Command, ...]] = dataclasses.field(default_factory=dict)
    #: {imports, control, data, scripts}
    prove: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    after: tuple[After, ...] = ()
    config: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    databases: tuple[str, ...] = ()
    before: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finish: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: what a rehearsal must know: {cells: {database, table, column, bus}}
    rehearse: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: records of services: {database, table, by, agree, host, where}
    records: tuple[Mapping[str, Any], ...] = ()
    targets: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: release -> version
    #: {series, step, source, proof}: versions in their order, and which step between them is legal
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: {members, source, proof}: binaries of which no two hosts are ever out together
    quorum: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: {code, when, text, source, proof}: what a person has to do 'before' or 'after'
    manual: tuple[Mapping[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The name of the deliverable."""
        return self.project

    @property
    def independent(self) -> bool:
        """Whether its versions belong to no release; it changes only if a target is named."""
        return self.kind == 'infrastructure' or self.cadence == 'independent'

    def target(self, release: str, releases: releases_data.Releases) -> str | None:
        """Return the version that a release (its id) means: a site's choice, or the newest."""
        newest = None if self.independent else releases.latest(self.project, release)
        return self.targets.get(release, newest)

    def plane(self, binary: str) -> str:
        """Tell the plane of a binary; one that the data do not know is of the control plane."""
        known = self.services.get(binary)
        return known.plane if known else 'control'

    def wave(self, binary: str) -> int:
        """Tell the wave of a binary."""
        known = self.services.get(binary)
        return known.wave if known else 1


class Projects:
    """Every project that is known, by name."""

    def __init__(self, raw: Mapping[str, Mapping[str, Any]]) -> None:
        self._projects = {name: _project(data) for name, data in sorted(raw.items())}
        self._binaries = {
            binary: project for project in self._projects.values() for binary in project.services
        }
        self.raw = raw
        self.digest = model.digest(raw)

    def get(self, name: str) -> Project:
        """Return a project.

        :raises NotFound: nothing is known of it.
        """
        if name not in self._projects:
            raise exception.NotFound(kind='project', ref=name)
        return self._projects[name]

    def names(self) -> list[str]:
        """List the projects by name."""
        return list(self._projects)

    def __contains__(self, name: object) -> bool:
        return name in self._projects

    def by_binary(self, binary: str) -> Project | None:
        """Return the project that a binary belongs to."""
        return self._binaries.get(binary)


def load_projects(overrides_dir: str | None = None) -> Projects:
    """Read the packaged data and, over them, the files of `overrides_dir`.

    :raises Invalid: a file is not of the shape that ``schema.json`` asks for.
    """
    raw = {name: dict(data) for name, data in _packaged().items()}
    for path in _override_files(overrides_dir):
        data = _read(path)
        name = str(data.get('project', path.stem))
        raw[name] = _merge(raw.get(name, {}), data)
        _check(raw[name], path.name)
    return Projects(raw)


@functools.cache
def _packaged() -> dict[str, dict[str, Any]]:
    raw = {}
    for path in sorted(_HERE.glob('*.yaml')):
        if path.name not in _OTHERS:
            data = _read(path)
            _check(data, path.name)
            raw[data['project']] = data
    return raw


def _override_files(directory: str | None) -> Iterable[pathlib.Path]:
    return sorted(pathlib.Path(directory).glob('*.yaml')) if directory else []


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise exception.Invalid(field=path.name, rule=f'is not YAML: {error}') from error
    if not isinstance(data, dict):
        raise exception.Invalid(field=path.name, rule='must be a mapping')
    return data


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        if key == 'sources' and isinstance(value, list):
            value = [*merged.get(key, ()), *value]
        merged[key] = _merge(merged[key], value) if both else value
        if value is None:
            del merged[key]
    return merged


@functools.cache
def _schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((_HERE / 'schema.json').read_text()))


def _check(data: Mapping[str, Any], name: str) -> None:
    # JSON has no integer keys: exit statuses are checked as the text they would be
    problem = jsonschema.exceptions.best_match(_schema().iter_errors(json.loads(json.dumps(data))))
    if problem is not None:
        field = '.'.join([name, *map(str, problem.absolute_path)])
        raise exception.Invalid(field=field, rule=_rule(problem))
    known = {source['id'] for source in data['sources']}
    for field, fact in _facts(data, name):
        if fact['source'] not in known:
            rule = f'source {fact["source"]} is not listed; there are: {", ".join(sorted(known))}'
            raise exception.Invalid(field=field, rule=rule)
    for binary, facts in data['services'].items():
        if binary in facts.get('after', ()):
            raise exception.Invalid(field=f'{name}.services.{binary}', rule='comes after itself')


def _rule(problem: jsonschema.ValidationError) -> str:
    """Say what is wrong in one line, whatever was in the file."""
    if problem.validator == 'not':
        return 'infrastructure has `versions` and `quorum`, not `upgrade`'
    return problem.message if len(problem.message) < 300 else f'breaks {problem.validator}'


def _facts(data: Any, field: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield (where, fact) of everything that names its source."""
    if isinstance(data, Mapping):
        if 'source' in data:
            yield field, data
        for key, value in data.items():
            yield from _facts(value, f'{field}.{key}')
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _facts(value, f'{field}.{number}')


#: keys of a file that are taken as they are
_PLAIN = (
    'project', 'kind', 'cadence', 'distribution', 'module', 'summary', 'upgrade', 'before',
    'finish', 'targets', 'versions', 'quorum',
)  # fmt: skip


def _project(data: Mapping[str, Any]) -> Project:
    services = {name: _binary(name, facts) for name, facts in data['services'].items()}
    commands = {
        kind: tuple(_command(c) for c in some) for kind, some in data.get('commands', {}).items()
    }
    return Project(
        **{key: data[key] for key in _PLAIN if key in data},
        sources=tuple(data['sources']),
        services=services,
        commands=commands,
        after=tuple(After(**edge) for edge in data.get('after', ())),
        prove=_tuples(data.get('prove', {})),
        config=_tuples(data.get('config', {})),
        databases=tuple(data.get('databases', ())),
        manual=tuple(data.get('manual', ())),
        rehearse=data.get('rehearse', {}),
        records=tuple(data.get('records', ())),
    )


def _binary(name: str, facts: Mapping[str, Any]) -> Binary:
    return Binary(name=name, **{**facts, 'after': tuple(facts.get('after', ()))})


def _command(data: Mapping[str, Any]) -> Command:
    exits = {int(status): meaning for status, meaning in data.get('exits', {0: 'done'}).items()}
    return Command(**{**data, 'argv': tuple(data['argv']), 'exits': exits})


def _tuples(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(value) for key, value in data.items()}
