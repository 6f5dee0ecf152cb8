"""Reads the project data: one YAML file per project, checked against ``schema.json``.

A site adds or overrides facts with files of the same shape in ``projects.d``; a file
for a known project needs only the keys that differ. The digest names the facts that a
plan was made with: an engine with other facts refuses its orders.
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

_HERE = pathlib.Path(__file__).parent
_RELEASES = 'openstack-releases.yaml'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binary:
    """One service of a project."""

    name: str
    plane: str  #: 'control' or 'data'
    start: int = 1  #: services of a host with a lower number are upgraded first
    record: str | None = None  #: cloud API that lists it: 'compute', 'network', 'volume'
    serves: str | None = None  #: 'routers' or 'networks' that it carries for tenants
    after: tuple[str, ...] = ()  #: binaries that go before it on the same host
    api: Mapping[str, Any] | None = None  #: {type, path, codes} if it answers HTTP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a kind; argv[0] is a console script of the project."""

    argv: tuple[str, ...]  #: a literal '{config}' stands for the project's `config.args`
    code: str  #: whose script: 'target' or 'current'
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
    """What is known of one OpenStack project; attributes are the keys of its file."""

    project: str
    distribution: str
    module: str
    summary: str
    sources: tuple[Mapping[str, str], ...]
    upgrade: Mapping[str, Any]  #: {rolling, skip_level, source, proof}
    services: Mapping[str, Binary]
    commands: Mapping[str, tuple[Command, ...]]
    prove: Mapping[str, tuple[str, ...]]  #: {imports, control, data, scripts}
    after: tuple[After, ...] = ()
    config: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    databases: tuple[str, ...] = ()
    before: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finish: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: what a rehearsal must know: {cells: {database, table, column, bus}}
    rehearse: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: records of services: {database, table, by, agree, host, where}
    records: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The name of the deliverable."""
        return self.project

    def plane(self, binary: str) -> str:
        """Tell the plane of a binary; one that the data do not know is of the control plane."""
        known = self.services.get(binary)
        return known.plane if known else 'control'


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
        if path.name != _RELEASES:
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
        merged[key] = _merge(merged[key], value) if both else value
    return merged


@functools.cache
def _schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((_HERE / 'schema.json').read_text()))


def _check(data: Mapping[str, Any], name: str) -> None:
    # JSON has no integer keys: exit statuses are checked as the text they would be
    problems = _schema().iter_errors(json.loads(json.dumps(data)))
    for problem in problems:
        field = '.'.join([name, *map(str, problem.absolute_path)])
        raise exception.Invalid(field=field, rule=problem.message)
    known = {source['id'] for source in data['sources']}
    for fact in [data['upgrade'], *data.get('after', ())]:
        if fact['source'] not in known:
            raise exception.Invalid(field=name, rule=f'source {fact["source"]} is not listed')


def _project(data: Mapping[str, Any]) -> Project:
    services = {name: _binary(name, facts) for name, facts in data['services'].items()}
    commands = {kind: tuple(_command(c) for c in some) for kind, some in data['commands'].items()}
    return Project(
        **{key: data[key] for key in ('project', 'distribution', 'module', 'summary', 'upgrade')},
        sources=tuple(data['sources']),
        services=services,
        commands=commands,
        after=tuple(After(**edge) for edge in data.get('after', ())),
        prove=_tuples(data['prove']),
        config=_tuples(data.get('config', {})),
        databases=tuple(data.get('databases', ())),
        before=data.get('before', {}),
        finish=data.get('finish', {}),
        rehearse=data.get('rehearse', {}),
        records=tuple(data.get('records', ())),
    )


def _binary(name: str, facts: Mapping[str, Any]) -> Binary:
    return Binary(name=name, **{**facts, 'after': tuple(facts.get('after', ()))})


def _command(data: Mapping[str, Any]) -> Command:
    exits = {int(status): meaning for status, meaning in data.get('exits', {0: 'done'}).items()}
    return Command(argv=tuple(data['argv']), code=data['code'], exits=exits)


def _tuples(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(value) for key, value in data.items()}
