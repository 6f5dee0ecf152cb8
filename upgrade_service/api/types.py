"""Everything the API answers with, as WSME types: the fields that clients rely on.

Times are milliseconds since the epoch by the database's clock; None: not yet.
"""

from typing import Any

import wsme
from wsme import types as wtypes
from wsme.rest import json as wsme_json

TEXT = wtypes.text


class Free(wtypes.UserType):
    """JSON data whose shape is documented elsewhere (policy, progress, details)."""

    basetype = dict
    name = 'json'

    @staticmethod
    def validate(value: Any) -> Any:
        """Take anything that is JSON."""
        return value


FREE = Free()
TEXTS = [TEXT]
COUNTS = {TEXT: int}


class Resource(wtypes.Base):
    """Base of all types; made from a row, of which it takes what it has a field for."""

    @classmethod
    def of(cls, row: dict[str, Any], **more: Any) -> 'Resource':
        """Make one; `more` wins over the row."""
        names = {attr.key for attr in wtypes.list_attributes(cls)}
        values = {k: v for k, v in row.items() if k in names}
        return cls(**{**values, **more})


def plain(value: Any) -> Any:
    """Turn types into JSON data, at any depth of lists and objects."""
    if isinstance(value, Resource):
        return wsme_json.tojson(type(value), value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


class Cluster(Resource):
    """A cloud under care."""

    id = TEXT
    name = TEXT
    cloud = TEXT
    inventories = TEXTS
    properties = {TEXT: TEXT}
    discover_wanted = int
    discover_done = int
    discover_error = TEXT
    discovered_at = int
    created_at = int


class Host(Resource):
    """A machine of a cluster."""

    name = TEXT
    roles = TEXTS
    az = TEXT
    release = TEXT
    release_mixed = bool
    agent = TEXT
    agent_state = TEXT
    services_up = int
    services_total = int
    instances = int
    volumes = int
    routers = int
    facts_at = int


class Service(Resource):
    """A binary on a host."""

    id = int
    project = TEXT
    binary = TEXT
    host = TEXT
    az = TEXT
    state = TEXT
    status = TEXT
    disabled_reason = TEXT
    version = TEXT
    release = TEXT
    forced_down = bool
    how = TEXT
    unit = TEXT
    source = TEXT


class Count(Resource):
    """A line of a summary: services of a project at a release."""

    project = TEXT
    release = TEXT
    total = int
    up = int
    hosts = int


class Problem(Resource):
    """Something that discovery or a check found."""

    code = TEXT
    severity = TEXT
    host = TEXT
    service = TEXT
    #: `ord` of the step that an alarm of a run is about
    step = int
    message = TEXT
    hint = TEXT
    acceptable = bool


class Summary(Resource):
    """A cluster on one page."""

    cluster = TEXT
    discovered_at = int
    services = [Count]
    problems = [Problem]


class Leg(Resource):
    """One hop of a path: how each project makes it, and whose API is out for how long."""

    source = TEXT
    target = TEXT
    projects = {TEXT: TEXT}
    down = COUNTS


class Path(Resource):
    """A release that can be reached; one upgrade makes one of the hops."""

    to = TEXT
    name = TEXT
    hops = TEXTS
    stops = TEXTS
    slurp = bool
    projects = {TEXT: TEXT}
    down = COUNTS
    legs = [Leg]


class Link(Resource):
    """Where something is."""

    rel = TEXT
    href = TEXT


class Progress(Resource):
    """Steps of a plan by how far they are."""

    total = int
    done = int
    running = int
    failed = int


class Hosts(Resource):
    """Hosts that a plan takes out of service."""

    total = int
    done = int
    held = int


class Selection(Resource):
    """The part of the cloud that an upgrade touches; None: all of it."""

    hosts = TEXTS
    azs = TEXTS
    projects = TEXTS


class Upgrade(Resource):
    """One operator's request: cluster to target release."""

    id = TEXT
    name = TEXT
    cluster = TEXT
    cluster_id = TEXT
    from_release = TEXT
    to_release = TEXT
    strategy = TEXT
    type = TEXT
    state = TEXT
    direction = TEXT
    next = TEXT
    gate = TEXT
    blocked_reason = TEXT
    message = TEXT
    progress = Progress
    hosts = Hosts
    selection = Selection
    policy = FREE
    approvals = TEXTS
    accepted = TEXTS
    eta_seconds = int
    #: ids of steps
    points_of_no_return = TEXTS
    #: `ord` of the last point of no return that was passed; nothing before it can be undone
    rollback_floor = int
    revision = int
    version = int
    user_id = TEXT
    project_id = TEXT
    created_at = int
    started_at = int
    finished_at = int
    links = [Link]


class Step(Resource):
    """A step of a plan."""

    id = TEXT
    ord = int
    stage = TEXT
    kind = TEXT
    title = TEXT
    direction = TEXT
    #: id of the step without which there is nothing to undo
    undo_of = TEXT
    host = TEXT
    project = TEXT
    service = TEXT
    strategy = TEXT
    params = FREE
    state = TEXT
    attempt = int
    progress = FREE
    parents = [int]
    reversible = bool
    idempotent = bool
    skippable = bool
    disruptive = bool
    ponr = bool
    estimate = int
    not_before = int
    started_at = int
    finished_at = int
    seconds = float
    error = TEXT


class Output(Resource):
    """What an attempt at a step printed, as far as it was kept."""

    step = int
    attempt = int
    text = TEXT


class Stage(Resource):
    """A named part of a plan."""

    name = TEXT
    steps = [Step]


class Plan(Resource):
    """The steps of an upgrade, in their stages."""

    upgrade = TEXT
    revision = int
    from_release = TEXT
    to_release = TEXT
    digest = TEXT
    stages = [Stage]
    #: what `rollback` would do, in its order; no step of it is begun before
    undo = [Stage]
    #: `ord` numbers of steps
    points_of_no_return = [int]
    #: server id -> host it ends on
    moves = {TEXT: TEXT}
    #: along the longest chain of steps
    estimate_seconds = int


class Event(Resource):
    """An entry of an upgrade's audit trail."""

    seq = int
    kind = TEXT
    step_id = TEXT
    attempt = int
    at = int
    actor = TEXT
    #: the actor's project, and where the request came from
    project_id = TEXT
    request_id = TEXT
    remote = TEXT
    detail = FREE
    hash = TEXT


class StageReport(Resource):
    """How long a stage took, there or back."""

    name = TEXT
    direction = TEXT
    steps = int
    done = int
    seconds = float


class HostReport(Resource):
    """What was done on a host."""

    host = TEXT
    steps = int
    #: of its steps, without the installation beside the running code
    seconds = float
    #: from disabled to enabled
    seconds_out = float
    failed = int


class Migration(Resource):
    """A server that was moved."""

    server = TEXT
    source = TEXT
    target = TEXT
    state = TEXT
    tries = int
    #: as nova's own record of it says
    seconds = float


class StepReport(Resource):
    """A step that did not just succeed."""

    ord = int
    kind = TEXT
    host = TEXT
    project = TEXT
    direction = TEXT
    state = TEXT
    attempt = int
    error = TEXT


class Request(Resource):
    """Something that a person asked for, or was refused."""

    at = int
    actor = TEXT
    verb = TEXT
    step_id = TEXT
    detail = FREE


class Report(Resource):
    """The final report of an upgrade."""

    upgrade = TEXT
    name = TEXT
    from_release = TEXT
    to_release = TEXT
    state = TEXT
    direction = TEXT
    message = TEXT
    revision = int
    started_at = int
    finished_at = int
    seconds = float
    stages = [StageReport]
    hosts = [HostReport]
    migrations = [Migration]
    failed = [StepReport]
    skipped = [StepReport]
    retried = [StepReport]
    requests = [Request]


class Agent(Resource):
    """The registered identity of an engine."""

    id = TEXT
    host = TEXT
    state = TEXT
    up = bool
    pubkey = TEXT
    version = TEXT
    seen_at = int
    facts_at = int
    created_at = int


class Enrolment(Resource):
    """The right of one host to have its engine trusted; it is shown once."""

    host = TEXT
    expires_at = int
    #: {token, host, keys, expires_at}, to be stored on the host as it is
    bundle = FREE


class Strategy(Resource):
    """A way to upgrade a host, as the engines report it."""

    name = TEXT
    ready = int
    hosts = int
    reasons = TEXTS


class Inventory(Resource):
    """A plugin that says what a cluster is made of."""

    name = TEXT
    package = TEXT
    version = TEXT


def fields(kind: Any) -> dict[str, Any]:
    """Return the attributes of a type and their datatypes."""
    return {attr.name: attr.datatype for attr in wtypes.list_attributes(kind)}


def is_unset(value: Any) -> bool:
    """Tell whether an attribute was never given."""
    return value is wsme.Unset
