"""What this host allows: the strategies that are installed, and their files in engine.d.

A strategy without a file may not be used: the presence of ``<strategy>.yaml`` is the
permission. Whoever can write that file decides what runs here as root, so it must belong
to root (or to the user the engine runs as) and to nobody else's pen.
"""

from collections.abc import Mapping
import functools
from importlib import metadata
import os
import pathlib
import stat
from typing import Any

import jsonschema
from oslo_log import log
import yaml

from upgrade_service import exception
from upgrade_service.projects import loader
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
NAMESPACE = 'upgrade_service.strategies'


@functools.cache
def project_data(directory: str | None) -> loader.Projects:
    """Read the project data once a process."""
    return loader.load_projects(directory)


@functools.cache
def installed() -> dict[str, base.UpgradeStrategy]:
    """Load every strategy that is installed; one that does not load is only logged."""
    found: dict[str, base.UpgradeStrategy] = {}
    for entry in metadata.entry_points(group=NAMESPACE):
        try:
            found[entry.name] = entry.load()()
        except Exception as e:
            LOG.warning('strategy %s cannot be loaded: %s', entry.name, e)
    return found


class Allowed:
    """The strategies of one engine identity, with the settings of each."""

    def __init__(
        self,
        host: str,
        config_dir: str,
        state_dir: str,
        projects: loader.Projects,
        strategies: Mapping[str, base.UpgradeStrategy] | None = None,
    ) -> None:
        self.projects = projects
        self._strategies = installed() if strategies is None else strategies
        self._sites: dict[str, base.Site] = {}
        #: strategy -> why it cannot be used here, or ''
        self.reasons: dict[str, str] = {}
        for name, strategy in self._strategies.items():
            try:
                settings = read(pathlib.Path(config_dir) / f'{name}.yaml')
                jsonschema.validate(settings, strategy.settings_schema)
            except (exception.UpgradeError, jsonschema.ValidationError) as e:
                self.reasons[name] = getattr(e, 'message', None) or str(e)
                continue
            self.reasons[name] = ''
            self._sites[name] = base.Site(
                host=host, settings=settings, state_dir=state_dir, projects=projects
            )

    def site(self, strategy: str) -> base.Site:
        """Return what the settings say for a strategy.

        :raises Refused: it may not be used on this host.
        """
        if strategy not in self._sites:
            why = self.reasons.get(strategy, f'there is no strategy {strategy[:64]}')
            raise exception.Refused(reason=why)
        return self._sites[strategy]

    def strategy(self, name: str) -> base.UpgradeStrategy:
        """Return a strategy that is allowed."""
        self.site(name)
        return self._strategies[name]

    def in_process(self, name: str, kind: str) -> bool:
        """Whether a strategy does steps of a kind itself, without a shim."""
        return name in self._sites and kind in self._strategies[name].in_process

    def refusal(self, task: base.Task, name: str) -> tuple[str, str] | None:
        """Return (code, sentence) if a step may not be done here, or None."""
        try:
            site = self.site(name)
        except exception.Refused as e:
            return 'not_allowed', str(e)
        strategy = self._strategies[name]
        if task.kind not in strategy.kinds:
            return 'not_allowed', f'strategy {name} knows no {task.kind[:64]}'
        try:
            if task.host != site.host and task.host not in strategy.hosts(site):
                return 'not_allowed', f'this is the engine of host {site.host}'
        except exception.Refused as e:
            return 'not_allowed', str(e)
        for error in _validator(type(strategy)).iter_errors(dict(task.params)):
            where = '.'.join(map(str, error.absolute_path)) or 'params'
            return 'bad_params', f'{where}: {error.message[:200]}'
        why = strategy.refusal(task, site)
        return ('not_allowed', why) if why else None

    def facts(self) -> dict[str, Any]:
        """Merge what the strategies see; one that breaks is reported as not ready."""
        merged: dict[str, Any] = {'strategies': {}, 'projects': {}}
        for name, reason in self.reasons.items():
            if not reason:
                try:
                    seen = self._strategies[name].facts(self._sites[name])
                    others = self._others(name)
                except exception.Refused as e:
                    reason = str(e)
                except Exception as e:
                    LOG.exception('strategy %s: no facts', name)
                    reason = f'{type(e).__name__}: {e}'
                else:
                    projects = seen.pop('projects', {})
                    merged['projects'] = {**projects, **merged['projects']}
                    merged.update(seen)
            merged['strategies'][name] = {'ready': not reason, 'reason': reason[:500]}
            if not reason:
                merged['strategies'][name].update(others)
        return merged

    def _others(self, name: str) -> dict[str, Any]:
        """Return the other hosts whose steps may be done from here, if there are any."""
        site = self._sites[name]
        others = self._strategies[name].hosts(site) - {site.host}
        return {'hosts': sorted(others)} if others else {}


@functools.cache
def _validator(kind: type[base.UpgradeStrategy]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(kind.params_schema)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read a settings file that only its owner can have written.

    :raises Refused: it is not there, is not ours alone, or is no mapping.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise exception.Refused(reason=f'not allowed on this host: there is no {path}') from None
    except OSError as e:
        raise exception.Refused(reason=f'{path}: {e.strerror}') from e
    with os.fdopen(fd) as f:
        _trust(os.fstat(fd), path)
        _trust(os.stat(path.parent), path.parent)
        try:
            data = yaml.safe_load(f) or {}
        except yaml.YAMLError as e:
            raise exception.Refused(reason=f'{path} is not YAML: {e}') from e
    if not isinstance(data, dict):
        raise exception.Refused(reason=f'{path} must be a mapping')
    return data


def _trust(found: os.stat_result, path: pathlib.Path) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise exception.Refused(reason=f'{path} must belong to root')
    # a directory that others can write to is as good as the file, unless it is sticky
    others = found.st_mode & 0o022
    if others and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        raise exception.Refused(reason=f'{path} must not be writable by group or others')
