"""Hold configuration files against the options that a release knows: a configuration rehearsal.

    options.py [--current PYTHON] [--before NAME] NAME FILE...

Run it with the interpreter of the target's environment: every installed distribution says
there, in its entry points `oslo.config.opts`, which options it reads. An option that the
target does not know counts as removed only if the code in use (`--current`) knew it; one that
neither knows is a plug-in's or a mistake, and is listed. Values are never printed.

Exit status: 0 nothing to do, 1 renamed or deprecated options, 2 removed ones.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import functools
from importlib import metadata
import json
import logging
import subprocess
import sys
from typing import Any
from unittest import mock

#: modules that a namespace may lack: drivers of hardware that nobody has here
MOST_MISSING = 40
#: [group][option] -> what is known of it
Schema = dict[str, dict[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """An option that a file sets."""

    file: str
    line: int
    group: str
    name: str

    def __str__(self) -> str:
        return f'{self.file}:{self.line} [{self.group}] {self.name}'


# -- what a release knows ----------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """Ask every distribution of this environment: {options: Schema, broken: {namespace: why}}."""
    options: Schema = {}
    broken: dict[str, str] = {}
    for entry in metadata.entry_points(group='oslo.config.opts'):
        try:
            listed = _load(entry)
        except Exception as e:
            broken[entry.name] = f'{type(e).__name__}: {e}'
            continue
        for group, opts in listed:
            name = getattr(group, 'name', group) or 'DEFAULT'
            known = options.setdefault(_group(name), {})
            known.update({o.dest: _facts(o, name, entry.name) for o in opts})
    return {'options': options, 'broken': broken}


def _load(entry: metadata.EntryPoint) -> list[tuple[Any, list[Any]]]:
    """List the options of a namespace; libraries that it lacks are stood in for."""
    for _ in range(MOST_MISSING):
        try:
            return list(entry.load()())
        except ModuleNotFoundError as e:
            if not e.name or e.name in sys.modules:
                raise
            sys.modules[e.name] = mock.MagicMock(__path__=[], __name__=e.name)
    raise RuntimeError('too many libraries are missing')


def _facts(opt: Any, group: str, namespace: str) -> dict[str, Any]:
    old = [(_group(d.group or group), (d.name or opt.name)) for d in opt.deprecated_opts]
    return {
        'namespace': namespace,
        'old': [(g, n.replace('-', '_')) for g, n in old],
        'deprecated': bool(opt.deprecated_for_removal),
        'since': opt.deprecated_since,
        'reason': ' '.join((opt.deprecated_reason or '').split())[:200],
    }


@functools.cache
def auth_options() -> frozenset[str]:
    """Return what keystoneauth's plug-ins read in the section of any service; nobody lists it."""
    try:
        from keystoneauth1 import loading
    except ImportError:
        return frozenset()
    loaders: Any = loading.get_available_plugin_loaders().values()
    plain = {o.dest for loader in loaders for o in loader.get_options()}
    adapter = {o.dest for o in loading.get_adapter_conf_options()}
    return frozenset({'auth_type', 'auth_section'} | plain | adapter)


def _group(name: str) -> str:
    return name if name == 'DEFAULT' else name.lower()


# -- what the files set ------------------------------------------------------------------------


def settings(path: str) -> Iterator[Setting]:
    """Read the options of a file, in oslo.config's dialect of INI."""
    group = 'DEFAULT'
    with open(path, encoding='utf-8', errors='replace') as f:
        for number, line in enumerate(f, 1):
            text = line.strip()
            if not text or text[0] in '#;' or line[0].isspace():
                continue  # nothing, a comment, or more of the value above
            if text[0] == '[' and ']' in text:
                group = text[1 : text.index(']')].strip()
            elif ends := [text.index(c) for c in '=:' if c in text]:
                name = text[: min(ends)].strip().replace('-', '_')
                yield Setting(path, number, group, name)


# -- the judgement -----------------------------------------------------------------------------


class Judge:
    """Knows the target's options, and the current ones once somebody has to ask."""

    def __init__(self, target: dict[str, Any], current: str | None, name: str, before: str):
        self._target, self._broken = target['options'], target['broken']
        self._python = current
        self._current: Schema | None = None
        self._name, self._before = name, before
        self._renamed = {
            old: (group, new)
            for group, opts in self._target.items()
            for new, facts in opts.items()
            for old in facts['old']
        }

    def verdict(self, one: Setting) -> tuple[str, str]:
        """Return (fine | deprecated | renamed | removed | unknown, what is to be said)."""
        group = _group(one.group)
        facts = self._target.get(group, {}).get(one.name)
        if facts is None and (group, one.name) in self._renamed:
            return 'renamed', 'is now [{}] {}'.format(*self._renamed[group, one.name])
        if facts is None:
            return self._unknown(group, one.name)
        if facts['deprecated']:
            since = f'since {facts["since"]}: ' if facts['since'] else ''
            return 'deprecated', f'{since}{facts["reason"]}'.strip() or 'will be removed'
        return 'fine', ''

    def _unknown(self, group: str, name: str) -> tuple[str, str]:
        """Tell an option that is gone from one that was never listed."""
        before = self._known_before(group, name)
        if before is None and name in auth_options():
            return 'fine', ''
        if before is None:
            return 'unknown', f'neither {self._before} nor {self._name} lists it'
        if before['namespace'] in self._broken:
            why = self._broken[before['namespace']]
            return 'unknown', f'the options of {before["namespace"]} cannot be listed: {why}'
        return 'removed', f'{self._before} knew it, {self._name} does not'

    def _known_before(self, group: str, name: str) -> dict[str, Any] | None:
        """Return what the code in use knows; a section of a site's own has anybody's options."""
        options = self._of_current()
        if group in options or group in self._target:
            return options.get(group, {}).get(name)
        if any(name in opts for opts in self._target.values()):
            return None
        return next((opts[name] for opts in options.values() if name in opts), None)

    def _of_current(self) -> Schema:
        if self._current is None:
            self._current = {}
            if self._python:
                argv = [self._python, '-I', '-W', 'ignore', __file__, '--schema', '-', '-']
                said = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
                self._current = json.loads(said.stdout)['options']
        return self._current


def judge(judgement: Judge, files: list[str]) -> int:
    """Print what is to be said of each option; return the exit status."""
    found: dict[str, list[Setting]] = {}
    read = 0
    for path in files:
        for one in settings(path):
            read += 1
            kind, why = judgement.verdict(one)
            found.setdefault(kind, []).append(one)
            if kind != 'fine':
                print(f'{one}: {kind}: {why}')
    counts = ', '.join(f'{len(found.get(k, ()))} {k}' for k in KINDS)
    print(f'{read} options in {len(files)} files: {counts}')
    removed = found.get('removed', [])
    if removed:
        print(f'removed in {judgement._name}: {"; ".join(map(str, removed))}')
    return 2 if removed else int('renamed' in found or 'deprecated' in found)


KINDS = ('removed', 'renamed', 'deprecated', 'unknown')


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--current', help='interpreter of the code in use')
    parser.add_argument('--before', default='the code in use', help='its name')
    parser.add_argument('--schema', action='store_true', help='print the options as JSON')
    parser.add_argument('name', help='what the target is called')
    parser.add_argument('files', nargs='+')
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if args.schema:
        json.dump(schema(), sys.stdout)
        return 0
    return judge(Judge(schema(), args.current, args.name, args.before), args.files)


if __name__ == '__main__':
    sys.exit(main())
