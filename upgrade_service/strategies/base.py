"""The contract of a strategy: how one way of deploying OpenStack is upgraded.

A strategy has two halves that share nothing but data. The *planning* half
(:meth:`UpgradeStrategy.steps`) is a pure function that the conductor's planner calls:
it says which steps a project needs. The *engine* half runs on the host: it turns a
step's few parameters, through the engine's own root-owned settings, into a
:class:`Job` of absolute commands, or does an ``in_process`` action itself. No argv,
path, URL or environment ever comes out of a message.
"""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
import enum
from typing import Any

from upgrade_service import model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of a job; the shim knows exactly these (`do`) and no others.

    run      argv (absolute argv[0]), env, cwd, user, timeout (s), exits {code: meaning},
             stdout: file (mode) that takes its output instead of the log,
             limit and pause (s): how often, and how fast, 'again' is done again;
             words {code: sentence}: what a failure with that exit status means;
             events: its output may hold events (see events.py): progress, and the outcome
             of each host
    symlink  path, target: replaced atomically
    mkdir    path, mode
    remove   path: a file, link or tree below one of the job's `roots`
    write    path, text, mode
    rename   path, target
    expect   path, text: a file whose last 4 KiB hold the text
    wait_http  url, timeout (s), codes: until it answers with one of the codes
    wait_unit  path (of systemctl), text (unit), timeout (s): until it is active
    """

    do: str
    title: str  #: for people, appears in the log
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str = '/'
    user: str | None = None
    path: str | None = None
    target: str | None = None
    text: str | None = None
    mode: int = 0o644
    url: str | None = None
    codes: tuple[int, ...] = ()
    timeout: int = 600
    #: meaning of an exit status: 'done', 'again', 'stop' (succeed, skip the rest),
    #: 'warning', 'broken' (the checker itself failed: a warning), 'failed' (the default)
    exits: Mapping[int, str] = dataclasses.field(default_factory=lambda: {0: 'done'})
    #: run together with the neighbours that carry the same group, and wait for all
    group: str | None = None
    stdout: str | None = None
    limit: int = 1000
    pause: float = 0.0
    #: `run`: keep the lines it prints (20 at most) as the outcome's data of this name
    gather: str | None = None
    words: Mapping[int, str] = dataclasses.field(default_factory=dict)
    events: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the shim carries out for one attempt: operations in order."""

    ops: tuple[Op, ...]
    timeout: int  #: seconds for the whole job
    #: may be ended at the deadline; otherwise it is only flagged as overdue
    interruptible: bool = False
    #: the host restarts at its end: it has succeeded once the host runs again and check()
    #: says that the goal is met, within the step's timeout. It is never begun a second time.
    reboots: bool = False
    user: str | None = None
    roots: tuple[str, ...] = ()  #: nothing outside of these trees is removed
    diagnose: tuple[Op, ...] = ()  #: when it failed: commands whose output tells why
    always: tuple[Op, ...] = ()  #: done at the end, whatever came of the others
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: of a success


class Result(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = 'succeeded'
    FAILED = 'failed'
    UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an attempt; fits in a journal's outcome slot (4 KiB) without its output."""

    result: Result
    rc: int = 0
    error: str = ''  #: one sentence: what, to what, what next
    output: str = ''  #: tail of what was printed, secrets masked
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: e.g. {'version': …}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One step of an order, as the engine hands it to a strategy."""

    step: str
    attempt: int
    kind: str
    host: str
    project: str | None
    params: Mapping[str, Any]
    timeout: int
    direction: str = 'forward'  #: 'back': undo it; the params lead back already


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """What the engine's own configuration says about this host."""

    host: str
    settings: Mapping[str, Any]  #: engine.d/<strategy>.yaml
    state_dir: str
    projects: Any = None  #: the project data (projects.loader.Projects)
    rehearsal: bool = False  #: a dry run: look, and change not even a cache


#: params of a step; there are no others, and none of them is a path, a command or a URL
PARAMS_SCHEMA: dict[str, Any] = {
    'type': 'object',
    'additionalProperties': False,
    'properties': {
        'version': {'$ref': '#/$defs/version'},
        'from_version': {'anyOf': [{'type': 'null'}, {'$ref': '#/$defs/version'}]},
        'release': {'type': 'string', 'pattern': r'^[0-9a-z][0-9a-z.]{0,31}\Z'},
        'from_release': {'type': 'string', 'pattern': r'^[0-9a-z][0-9a-z.]{0,31}\Z'},
        'days': {'type': 'integer', 'minimum': 1, 'maximum': 36500},
        'commit': {'type': 'string', 'pattern': r'^[0-9a-f]{40}\Z'},
        # of a host whose projects change together: what each of them is to be
        'projects': {
            'type': 'object',
            'maxProperties': 64,
            'propertyNames': {'pattern': r'^[a-z0-9][a-z0-9_-]{0,62}\Z'},
            'additionalProperties': {'$ref': '#/$defs/version'},
        },
        'units': {
            'type': 'array',
            'maxItems': 64,
            'uniqueItems': True,
            'items': {'type': 'string', 'pattern': r'^[a-z0-9][a-z0-9_-]{0,62}\Z'},
        },
    },
    '$defs': {
        'version': {'type': 'string', 'pattern': r'^[0-9A-Za-z][0-9A-Za-z.+~-]{0,127}\Z'},
    },
}


class UpgradeStrategy(abc.ABC):
    """Base of every strategy plugin (entry point `upgrade_service.strategies`)."""

    name: str
    summary: str  #: one line for `openstack upgrade strategy list`
    unit_of_change = 'project'  #: or 'host': a host's projects change together
    #: kinds done in a worker thread of the engine: idempotent, no child, about a second
    in_process: frozenset[str] = frozenset()
    #: kinds this strategy knows
    kinds: frozenset[str] = frozenset()
    #: kinds of which one job can do the steps of several hosts (see `run_together`)
    together: frozenset[str] = frozenset()
    #: schema (JSON) of its file in engine.d
    settings_schema: Mapping[str, Any] = {'type': 'object'}
    #: schema (JSON) of a step's params
    params_schema: Mapping[str, Any] = PARAMS_SCHEMA

    # -- planning half: pure, no I/O ---------------------------------------------------------

    def steps(
        self,
        services: Sequence[model.Service],
        facts: Mapping[str, Any],
        target: Mapping[str, Any],
    ) -> list[str]:
        """Name the host step kinds needed to bring one project on one host to the target.

        `services`: the project's services on the host. `facts`: what its engine reported.
        `target`: {'project', 'version', 'release', 'data': the project's data}.
        """
        return ['prefetch', 'upgrade_service', 'verify_host']

    # -- engine half ---------------------------------------------------------------------------

    @abc.abstractmethod
    def facts(self, site: Site) -> dict[str, Any]:
        """Report what this strategy sees on the host: {'projects': {name: {...}}, …}.

        A project's entry: {'version', 'how', 'path', 'services': [{'binary', 'unit',
        'state'}]}; `state` is systemd's ActiveState. Read-only and quick.
        """

    def hosts(self, site: Site) -> frozenset[str]:
        """Name the hosts whose steps may be done from here; by default only this one.

        A strategy that changes other hosts (Ansible does) names them from its settings;
        the conductor believes that of hosts in its own `deployment_hosts` only.
        """
        return frozenset({site.host})

    def refusal(self, task: Task, site: Site) -> str | None:
        """Say why the settings of this host do not allow a step; None if they do."""
        return None

    def check(self, task: Task, site: Site) -> bool:
        """Tell whether the goal of the step is met already, so that nothing need be done."""
        return False

    @abc.abstractmethod
    def run(self, task: Task, site: Site) -> Job | Outcome:
        """Return the job of a step, or its outcome for an in-process kind.

        :raises Refused: the settings do not allow it; nothing was changed.
        """

    def run_together(self, tasks: Sequence[Task], site: Site) -> Job:
        """Return one job for steps that differ in their host only; a kind in `together`.

        Its events say the outcome of each host; `direction` is in the tasks.

        :raises Refused: the settings do not allow it; nothing was changed.
        """
        raise NotImplementedError(f'{self.name} does one host at a time')

    def undo(self, task: Task, site: Site) -> Job | Outcome:
        """Return the job of a step of the way back, or its outcome.

        The planner has swapped from and to: `version` and `release` are those that ran
        before, `from_version` is the one to get rid of. Where the way back is the way
        there with other versions, there is nothing to add to `run`.

        :raises Refused: the settings do not allow it; nothing was changed.
        """
        return self.run(task, site)
