"""The tables. Rows are the truth; messages are only hints that rows changed.

Times are BIGINT milliseconds since the epoch, by the database server's clock.
`version` of an upgrade changes with its state, next and policy only (that is what
If-Match compares); `seq` counts its events and orders their hash chain.
"""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql


class Json(sa.types.TypeDecorator[Any]):
    """JSON as text: the same on every backend, and large enough."""

    impl = sa.Text().with_variant(mysql.LONGTEXT(), 'mysql', 'mariadb')
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Serialize."""
        return None if value is None else json.dumps(value, separators=(',', ':'))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Parse."""
        return None if value is None else json.loads(value)


Long = sa.BigInteger()
#: SQLite numbers rows by itself only in a column of type INTEGER
Serial = Long.with_variant(sa.Integer, 'sqlite')
Uuid = sa.String(36)
Name = sa.String(255)
Word = sa.String(32)


class Base(orm.DeclarativeBase):
    """Base of all tables."""

    __table_args__: Any = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4'}

    def as_dict(self) -> dict[str, Any]:
        """Return the columns as a plain dict, the form every db.api function returns."""
        return {c.key: getattr(self, c.key) for c in self.__table__.columns}


def col(*args: Any, null: bool = False, **kw: Any) -> Any:
    """Declare a column, NOT NULL unless said otherwise."""
    return orm.mapped_column(*args, nullable=null, **kw)


def unique(*columns: str, name: str) -> Any:
    """Return table arguments with a unique constraint."""
    return (sa.UniqueConstraint(*columns, name=name), Base.__table_args__)


class Cluster(Base):
    """An OpenStack deployment under our care."""

    __tablename__ = 'clusters'
    id: orm.Mapped[str] = col(Uuid, primary_key=True)
    name: orm.Mapped[str] = col(Name, unique=True)
    cloud: orm.Mapped[str] = col(Name)
    inventories: orm.Mapped[list[str]] = col(Json)
    properties: orm.Mapped[dict[str, str]] = col(Json)
    discover_wanted: orm.Mapped[int] = col(sa.Integer, default=0)
    discover_done: orm.Mapped[int] = col(sa.Integer, default=0)
    discover_error: orm.Mapped[str | None] = col(sa.Text, null=True)
    discovered_at: orm.Mapped[int | None] = col(Long, null=True)
    discover_lease: orm.Mapped[int] = col(Long, default=0)
    fingerprint: orm.Mapped[str | None] = col(sa.String(64), null=True)
    endpoints: orm.Mapped[dict[str, str] | None] = col(Json, null=True)
    created_at: orm.Mapped[int] = col(Long)


class Host(Base):
    """A host of a cluster, as the last discovery saw it."""

    __tablename__ = 'hosts'
    __table_args__ = unique('cluster_id', 'name', name='uniq_hosts_cluster_name')
    id: orm.Mapped[int] = col(Serial, primary_key=True, autoincrement=True)
    cluster_id: orm.Mapped[str] = col(sa.ForeignKey('clusters.id', ondelete='CASCADE'))
    name: orm.Mapped[str] = col(Name)
    roles: orm.Mapped[list[str]] = col(Json)
    az: orm.Mapped[str | None] = col(Name, null=True)
    agent_id: orm.Mapped[str | None] = col(Uuid, null=True)
    agent_state: orm.Mapped[str | None] = col(Word, null=True)
    instances: orm.Mapped[int] = col(sa.Integer, default=0)
    volumes: orm.Mapped[int] = col(sa.Integer, default=0)
    routers: orm.Mapped[int] = col(sa.Integer, default=0)
    facts: orm.Mapped[dict[str, Any] | None] = col(Json, null=True)
    facts_at: orm.Mapped[int | None] = col(Long, null=True)


class Service(Base):
    """A service of a cluster, as the last discovery saw it."""

    __tablename__ = 'services'
    __table_args__ = unique('cluster_id', 'host', 'binary', name='uniq_services_host_binary')
    id: orm.Mapped[int] = col(Serial, primary_key=True, autoincrement=True)
    cluster_id: orm.Mapped[str] = col(sa.ForeignKey('clusters.id', ondelete='CASCADE'))
    host: orm.Mapped[str] = col(Name)
    project: orm.Mapped[str] = col(sa.String(64))
    binary: orm.Mapped[str] = col(sa.String(128))
    az: orm.Mapped[str | None] = col(Name, null=True)
    state: orm.Mapped[str] = col(Word)
    status: orm.Mapped[str] = col(Word)
    disabled_reason: orm.Mapped[str | None] = col(sa.Text, null=True)
    forced_down: orm.Mapped[bool] = col(sa.Boolean, default=False)
    version: orm.Mapped[str | None] = col(sa.String(128), null=True)
    release: orm.Mapped[str | None] = col(Word, null=True)
    how: orm.Mapped[str | None] = col(Word, null=True)
    unit: orm.Mapped[str | None] = col(Name, null=True)
    source: orm.Mapped[str] = col(Word)


class Problem(Base):
    """Something discovery (upgrade_id NULL) or a check of an upgrade found."""

    __tablename__ = 'problems'
    id: orm.Mapped[int] = col(Serial, primary_key=True, autoincrement=True)
    cluster_id: orm.Mapped[str] = col(sa.ForeignKey('clusters.id', ondelete='CASCADE'))
    upgrade_id: orm.Mapped[str | None] = col(Uuid, null=True, index=True)
    code: orm.Mapped[str] = col(sa.String(64))
    severity: orm.Mapped[str] = col(Word)
    host: orm.Mapped[str | None] = col(Name, null=True)
    service: orm.Mapped[str | None] = col(sa.String(128), null=True)
    step: orm.Mapped[int | None] = col(sa.Integer, null=True)  # its number
    message: orm.Mapped[str] = col(sa.Text)
    hint: orm.Mapped[str] = col(sa.Text)
    acceptable: orm.Mapped[bool] = col(sa.Boolean, default=False)


class Agent(Base):
    """The registered identity of an engine: a host name and a public key."""

    __tablename__ = 'agents'
    id: orm.Mapped[str] = col(Uuid, primary_key=True)
    host: orm.Mapped[str] = col(Name, index=True)
    pubkey: orm.Mapped[str] = col(sa.String(64), unique=True)
    state: orm.Mapped[str] = col(Word)
    seen_at: orm.Mapped[int | None] = col(Long, null=True)
    boot_id: orm.Mapped[str | None] = col(sa.String(64), null=True)
    version: orm.Mapped[str | None] = col(sa.String(64), null=True)
    facts: orm.Mapped[dict[str, Any] | None] = col(Json, null=True)
    facts_at: orm.Mapped[int | None] = col(Long, null=True)
    created_at: orm.Mapped[int] = col(Long)


class EnrollToken(Base):
    """A one-time right to enrol one host; only its hash is kept."""

    __tablename__ = 'enroll_tokens'
    hash: orm.Mapped[str] = col(sa.String(64), primary_key=True)
    host: orm.Mapped[str] = col(Name)
    exp: orm.Mapped[int] = col(Long)
    review: orm.Mapped[bool] = col(sa.Boolean, default=False)  # wait for an approval


class Upgrade(Base):
    """One operator's request: cluster to target release. It owns the state."""

    __tablename__ = 'upgrades'
    id: orm.Mapped[str] = col(Uuid, primary_key=True)
    name: orm.Mapped[str | None] = col(Name, null=True)
    cluster_id: orm.Mapped[str] = col(sa.ForeignKey('clusters.id'), index=True)
    live_cluster_id: orm.Mapped[str | None] = col(Uuid, null=True, unique=True)
    from_release: orm.Mapped[str | None] = col(Word, null=True)
    to_release: orm.Mapped[str] = col(Word)
    strategy: orm.Mapped[str] = col(sa.String(64))
    type: orm.Mapped[str] = col(Word)
    state: orm.Mapped[str] = col(Word, index=True)
    next: orm.Mapped[str | None] = col(Word, null=True)
    direction: orm.Mapped[str] = col(Word)
    blocked_reason: orm.Mapped[str | None] = col(Word, null=True)
    intent: orm.Mapped[dict[str, Any]] = col(Json)  # options of the verb that `next` is from
    gate: orm.Mapped[str | None] = col(Word, null=True)  # the gate it is paused at
    message: orm.Mapped[str] = col(sa.Text, default='')
    version: orm.Mapped[int] = col(sa.Integer, default=1)
    seq: orm.Mapped[int] = col(Long, default=0)
    owner: orm.Mapped[str | None] = col(Name, null=True)
    epoch: orm.Mapped[int] = col(sa.Integer, default=0)
    lease_until: orm.Mapped[int] = col(Long, default=0)
    revision: orm.Mapped[int] = col(sa.Integer, default=0)
    digest: orm.Mapped[str | None] = col(sa.String(64), null=True)
    fingerprint: orm.Mapped[str | None] = col(sa.String(64), null=True)
    policy: orm.Mapped[dict[str, Any]] = col(Json)
    selection: orm.Mapped[dict[str, Any]] = col(Json)
    approvals: orm.Mapped[list[str]] = col(Json)  # gates approved so far, or beforehand
    accepted: orm.Mapped[list[str]] = col(Json)  # codes of problems the operator accepted
    counters: orm.Mapped[dict[str, Any]] = col(Json)
    head_hash: orm.Mapped[str] = col(sa.String(64), default='')
    lost: orm.Mapped[dict[str, Any] | None] = col(Json, null=True)  # see regain.py
    user_id: orm.Mapped[str | None] = col(Name, null=True)
    project_id: orm.Mapped[str | None] = col(Name, null=True)
    created_at: orm.Mapped[int] = col(Long)
    started_at: orm.Mapped[int | None] = col(Long, null=True)
    finished_at: orm.Mapped[int | None] = col(Long, null=True)


class Step(Base):
    """A step of one revision of a plan, and where it stands."""

    __tablename__ = 'steps'
    __table_args__ = (
        sa.UniqueConstraint('upgrade_id', 'revision', 'ord', name='uniq_steps_upgrade_ord'),
        sa.Index('ix_steps_upgrade_changed', 'upgrade_id', 'changed_seq'),
        Base.__table_args__,
    )
    id: orm.Mapped[str] = col(Uuid, primary_key=True)
    upgrade_id: orm.Mapped[str] = col(sa.ForeignKey('upgrades.id', ondelete='CASCADE'))
    revision: orm.Mapped[int] = col(sa.Integer)
    ord: orm.Mapped[int] = col(sa.Integer)
    stage: orm.Mapped[str] = col(Word)
    kind: orm.Mapped[str] = col(Word)
    direction: orm.Mapped[str] = col(Word)
    undo_of: orm.Mapped[str | None] = col(Uuid, null=True)
    host: orm.Mapped[str | None] = col(Name, null=True)
    executor: orm.Mapped[str | None] = col(Uuid, null=True)  # agent id
    project: orm.Mapped[str | None] = col(sa.String(64), null=True)
    service: orm.Mapped[str | None] = col(sa.Text, null=True)
    strategy: orm.Mapped[str | None] = col(sa.String(64), null=True)
    params: orm.Mapped[dict[str, Any]] = col(Json)
    ponr: orm.Mapped[bool] = col(sa.Boolean, default=False)
    estimate: orm.Mapped[int] = col(sa.Integer, default=0)
    state: orm.Mapped[str] = col(Word)
    attempt: orm.Mapped[int] = col(sa.Integer, default=0)
    progress: orm.Mapped[dict[str, Any] | None] = col(Json, null=True)
    not_before: orm.Mapped[int | None] = col(Long, null=True)
    error: orm.Mapped[str | None] = col(sa.Text, null=True)
    final: orm.Mapped[bool] = col(sa.Boolean, default=False)  # trying again cannot help
    changed_seq: orm.Mapped[int] = col(Long, default=0)
    started_at: orm.Mapped[int | None] = col(Long, null=True)
    finished_at: orm.Mapped[int | None] = col(Long, null=True)


class Edge(Base):
    """`step_id` waits for `parent_id`."""

    __tablename__ = 'edges'
    __table_args__ = (sa.Index('ix_edges_upgrade', 'upgrade_id'), Base.__table_args__)
    step_id: orm.Mapped[str] = col(sa.ForeignKey('steps.id', ondelete='CASCADE'), primary_key=True)
    parent_id: orm.Mapped[str] = col(
        sa.ForeignKey('steps.id', ondelete='CASCADE'), primary_key=True
    )
    upgrade_id: orm.Mapped[str] = col(Uuid)


class Attempt(Base):
    """One try at a step: what is dispatched, journaled and recorded."""

    __tablename__ = 'attempts'
    step_id: orm.Mapped[str] = col(sa.ForeignKey('steps.id', ondelete='CASCADE'), primary_key=True)
    n: orm.Mapped[int] = col(sa.Integer, primary_key=True)
    upgrade_id: orm.Mapped[str] = col(Uuid, index=True)
    epoch: orm.Mapped[int] = col(sa.Integer)
    owner: orm.Mapped[str] = col(Name)
    agent_id: orm.Mapped[str | None] = col(Uuid, null=True)
    dispatched_at: orm.Mapped[int] = col(Long)
    finished_at: orm.Mapped[int | None] = col(Long, null=True)
    outcome: orm.Mapped[str | None] = col(Word, null=True)  # the details are in its event


class Event(Base):
    """The audit trail: append-only, gap-free and hash-chained within an upgrade."""

    __tablename__ = 'events'
    __table_args__ = (
        sa.UniqueConstraint('upgrade_id', 'seq', name='uniq_events_seq'),
        # NULL in `once` (late outcomes) never collides
        sa.UniqueConstraint('step_id', 'attempt', 'once', name='uniq_events_once'),
        sa.Index('ix_events_actor_at', 'actor', 'at'),
        Base.__table_args__,
    )
    id: orm.Mapped[int] = col(Serial, primary_key=True, autoincrement=True)
    upgrade_id: orm.Mapped[str] = col(Uuid)
    seq: orm.Mapped[int] = col(Long)
    kind: orm.Mapped[str] = col(Word)
    once: orm.Mapped[str | None] = col(Word, null=True)
    step_id: orm.Mapped[str | None] = col(Uuid, null=True)
    attempt: orm.Mapped[int | None] = col(sa.Integer, null=True)
    at: orm.Mapped[int] = col(Long)
    actor: orm.Mapped[str] = col(Name)
    project_id: orm.Mapped[str | None] = col(Name, null=True)  # of the actor
    request_id: orm.Mapped[str | None] = col(sa.String(64), null=True)
    remote: orm.Mapped[str | None] = col(sa.String(64), null=True)  # address of the actor
    detail: orm.Mapped[dict[str, Any]] = col(Json)
    hash: orm.Mapped[str] = col(sa.String(64))


class StepOutput(Base):
    """What an attempt printed: the tail that rode in its outcome."""

    __tablename__ = 'step_output'
    step_id: orm.Mapped[str] = col(sa.ForeignKey('steps.id', ondelete='CASCADE'), primary_key=True)
    attempt: orm.Mapped[int] = col(sa.Integer, primary_key=True)
    text: orm.Mapped[str] = col(sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb'))


class IdempotencyKey(Base):
    """An answered request, so that its repetition gets the same answer."""

    __tablename__ = 'idempotency_keys'
    key: orm.Mapped[str] = col(sa.String(64), primary_key=True)  # sha256 of user and key
    request: orm.Mapped[str] = col(sa.String(64))  # sha256 of method, path and body
    status: orm.Mapped[int] = col(sa.Integer)
    body: orm.Mapped[dict[str, Any]] = col(Json)
    at: orm.Mapped[int] = col(Long)
