"""Create the tables."""

from typing import Any

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from upgrade_service.db import models

revision = 'e2027_1_initial'
down_revision = None
branch_labels = ('expand',)
depends_on = None

TABLE: dict[str, Any] = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4'}


def upgrade() -> None:
    """Create every table."""
    for create in CREATE:
        create()


def _agents() -> None:
    op.create_table(
        'agents',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=255), nullable=False),
        sa.Column('pubkey', sa.String(length=64), nullable=False),
        sa.Column('state', sa.String(length=32), nullable=False),
        sa.Column('seen_at', sa.BigInteger(), nullable=True),
        sa.Column('boot_id', sa.String(length=64), nullable=True),
        sa.Column('version', sa.String(length=64), nullable=True),
        sa.Column('facts', models.Json(), nullable=True),
        sa.Column('facts_at', sa.BigInteger(), nullable=True),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('pubkey'),
        **TABLE,
    )
    op.create_index(op.f('ix_agents_host'), 'agents', ['host'], unique=False)


def _clusters() -> None:
    op.create_table(
        'clusters',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=255), nullable=False),
        sa.Column('cloud', sa.String(length=255), nullable=False),
        sa.Column('inventories', models.Json(), nullable=False),
        sa.Column('properties', models.Json(), nullable=False),
        sa.Column('discover_wanted', sa.Integer(), nullable=False),
        sa.Column('discover_done', sa.Integer(), nullable=False),
        sa.Column('discover_error', sa.Text(), nullable=True),
        sa.Column('discovered_at', sa.BigInteger(), nullable=True),
        sa.Column('discover_lease', sa.BigInteger(), nullable=False),
        sa.Column('fingerprint', sa.String(length=64), nullable=True),
        sa.Column('endpoints', models.Json(), nullable=True),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('name'),
        **TABLE,
    )


def _enroll_tokens() -> None:
    op.create_table(
        'enroll_tokens',
        sa.Column('hash', sa.String(length=64), nullable=False),
        sa.Column('host', sa.String(length=255), nullable=False),
        sa.Column('exp', sa.BigInteger(), nullable=False),
        sa.Column('review', sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint('hash'),
        **TABLE,
    )


def _events() -> None:
    op.create_table(
        'events',
        sa.Column('id', models.Serial, autoincrement=True, nullable=False),
        sa.Column('upgrade_id', sa.String(length=36), nullable=False),
        sa.Column('seq', sa.BigInteger(), nullable=False),
        sa.Column('kind', sa.String(length=32), nullable=False),
        sa.Column('once', sa.String(length=32), nullable=True),
        sa.Column('step_id', sa.String(length=36), nullable=True),
        sa.Column('attempt', sa.Integer(), nullable=True),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('actor', sa.String(length=255), nullable=False),
        sa.Column('project_id', sa.String(length=255), nullable=True),
        sa.Column('request_id', sa.String(length=64), nullable=True),
        sa.Column('remote', sa.String(length=64), nullable=True),
        sa.Column('detail', models.Json(), nullable=False),
        sa.Column('hash', sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('step_id', 'attempt', 'once', name='uniq_events_once'),
        sa.UniqueConstraint('upgrade_id', 'seq', name='uniq_events_seq'),
        **TABLE,
    )
    op.create_index('ix_events_actor_at', 'events', ['actor', 'at'])


def _idempotency_keys() -> None:
    op.create_table(
        'idempotency_keys',
        sa.Column('key', sa.String(length=64), nullable=False),
        sa.Column('request', sa.String(length=64), nullable=False),
        sa.Column('status', sa.Integer(), nullable=False),
        sa.Column('body', models.Json(), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('key'),
        **TABLE,
    )


def _hosts() -> None:
    op.create_table(
        'hosts',
        sa.Column('id', models.Serial, autoincrement=True, nullable=False),
        sa.Column('cluster_id', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=255), nullable=False),
        sa.Column('roles', models.Json(), nullable=False),
        sa.Column('az', sa.String(length=255), nullable=True),
        sa.Column('agent_id', sa.String(length=36), nullable=True),
        sa.Column('agent_state', sa.String(length=32), nullable=True),
        sa.Column('instances', sa.Integer(), nullable=False),
        sa.Column('volumes', sa.Integer(), nullable=False),
        sa.Column('routers', sa.Integer(), nullable=False),
        sa.Column('facts', models.Json(), nullable=True),
        sa.Column('facts_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(['cluster_id'], ['clusters.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('cluster_id', 'name', name='uniq_hosts_cluster_name'),
        **TABLE,
    )


def _problems() -> None:
    op.create_table(
        'problems',
        sa.Column('id', models.Serial, autoincrement=True, nullable=False),
        sa.Column('cluster_id', sa.String(length=36), nullable=False),
        sa.Column('upgrade_id', sa.String(length=36), nullable=True),
        sa.Column('code', sa.String(length=64), nullable=False),
        sa.Column('severity', sa.String(length=32), nullable=False),
        sa.Column('host', sa.String(length=255), nullable=True),
        sa.Column('service', sa.String(length=128), nullable=True),
        sa.Column('step', sa.Integer(), nullable=True),
        sa.Column('message', sa.Text(), nullable=False),
        sa.Column('hint', sa.Text(), nullable=False),
        sa.Column('acceptable', sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(['cluster_id'], ['clusters.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id'),
        **TABLE,
    )
    op.create_index(op.f('ix_problems_upgrade_id'), 'problems', ['upgrade_id'], unique=False)


def _services() -> None:
    op.create_table(
        'services',
        sa.Column('id', models.Serial, autoincrement=True, nullable=False),
        sa.Column('cluster_id', sa.String(length=36), nullable=False),
        sa.Column('host', sa.String(length=255), nullable=False),
        sa.Column('project', sa.String(length=64), nullable=False),
        sa.Column('binary', sa.String(length=128), nullable=False),
        sa.Column('az', sa.String(length=255), nullable=True),
        sa.Column('state', sa.String(length=32), nullable=False),
        sa.Column('status', sa.String(length=32), nullable=False),
        sa.Column('disabled_reason', sa.Text(), nullable=True),
        sa.Column('forced_down', sa.Boolean(), nullable=False),
        sa.Column('version', sa.String(length=128), nullable=True),
        sa.Column('release', sa.String(length=32), nullable=True),
        sa.Column('how', sa.String(length=32), nullable=True),
        sa.Column('unit', sa.String(length=255), nullable=True),
        sa.Column('source', sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(['cluster_id'], ['clusters.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('cluster_id', 'host', 'binary', name='uniq_services_host_binary'),
        **TABLE,
    )


def _upgrades() -> None:
    op.create_table(
        'upgrades',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=255), nullable=True),
        sa.Column('cluster_id', sa.String(length=36), nullable=False),
        sa.Column('live_cluster_id', sa.String(length=36), nullable=True),
        sa.Column('from_release', sa.String(length=32), nullable=True),
        sa.Column('to_release', sa.String(length=32), nullable=False),
        sa.Column('strategy', sa.String(length=64), nullable=False),
        sa.Column('type', sa.String(length=32), nullable=False),
        sa.Column('state', sa.String(length=32), nullable=False),
        sa.Column('next', sa.String(length=32), nullable=True),
        sa.Column('direction', sa.String(length=32), nullable=False),
        sa.Column('blocked_reason', sa.String(length=32), nullable=True),
        sa.Column('intent', models.Json(), nullable=False),
        sa.Column('gate', sa.String(length=32), nullable=True),
        sa.Column('message', sa.Text(), nullable=False),
        sa.Column('version', sa.Integer(), nullable=False),
        sa.Column('seq', sa.BigInteger(), nullable=False),
        sa.Column('owner', sa.String(length=255), nullable=True),
        sa.Column('epoch', sa.Integer(), nullable=False),
        sa.Column('lease_until', sa.BigInteger(), nullable=False),
        sa.Column('revision', sa.Integer(), nullable=False),
        sa.Column('digest', sa.String(length=64), nullable=True),
        sa.Column('fingerprint', sa.String(length=64), nullable=True),
        sa.Column('policy', models.Json(), nullable=False),
        sa.Column('selection', models.Json(), nullable=False),
        sa.Column('approvals', models.Json(), nullable=False),
        sa.Column('accepted', models.Json(), nullable=False),
        sa.Column('counters', models.Json(), nullable=False),
        sa.Column('head_hash', sa.String(length=64), nullable=False),
        sa.Column('lost', models.Json(), nullable=True),
        sa.Column('user_id', sa.String(length=255), nullable=True),
        sa.Column('project_id', sa.String(length=255), nullable=True),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('started_at', sa.BigInteger(), nullable=True),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ['cluster_id'],
            ['clusters.id'],
        ),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('live_cluster_id'),
        **TABLE,
    )
    op.create_index(op.f('ix_upgrades_cluster_id'), 'upgrades', ['cluster_id'], unique=False)
    op.create_index(op.f('ix_upgrades_state'), 'upgrades', ['state'], unique=False)


def _steps() -> None:
    op.create_table(
        'steps',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('upgrade_id', sa.String(length=36), nullable=False),
        sa.Column('revision', sa.Integer(), nullable=False),
        sa.Column('ord', sa.Integer(), nullable=False),
        sa.Column('stage', sa.String(length=32), nullable=False),
        sa.Column('kind', sa.String(length=32), nullable=False),
        sa.Column('direction', sa.String(length=32), nullable=False),
        sa.Column('undo_of', sa.String(length=36), nullable=True),
        sa.Column('host', sa.String(length=255), nullable=True),
        sa.Column('executor', sa.String(length=36), nullable=True),
        sa.Column('project', sa.String(length=64), nullable=True),
        sa.Column('service', sa.Text(), nullable=True),
        sa.Column('strategy', sa.String(length=64), nullable=True),
        sa.Column('params', models.Json(), nullable=False),
        sa.Column('ponr', sa.Boolean(), nullable=False),
        sa.Column('estimate', sa.Integer(), nullable=False),
        sa.Column('state', sa.String(length=32), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('progress', models.Json(), nullable=True),
        sa.Column('not_before', sa.BigInteger(), nullable=True),
        sa.Column('error', sa.Text(), nullable=True),
        sa.Column('final', sa.Boolean(), nullable=False),
        sa.Column('changed_seq', sa.BigInteger(), nullable=False),
        sa.Column('started_at', sa.BigInteger(), nullable=True),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(['upgrade_id'], ['upgrades.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('upgrade_id', 'revision', 'ord', name='uniq_steps_upgrade_ord'),
        **TABLE,
    )
    op.create_index(
        'ix_steps_upgrade_changed', 'steps', ['upgrade_id', 'changed_seq'], unique=False
    )


def _attempts() -> None:
    op.create_table(
        'attempts',
        sa.Column('step_id', sa.String(length=36), nullable=False),
        sa.Column('n', sa.Integer(), nullable=False),
        sa.Column('upgrade_id', sa.String(length=36), nullable=False),
        sa.Column('epoch', sa.Integer(), nullable=False),
        sa.Column('owner', sa.String(length=255), nullable=False),
        sa.Column('agent_id', sa.String(length=36), nullable=True),
        sa.Column('dispatched_at', sa.BigInteger(), nullable=False),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.Column('outcome', sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(['step_id'], ['steps.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('step_id', 'n'),
        **TABLE,
    )
    op.create_index(op.f('ix_attempts_upgrade_id'), 'attempts', ['upgrade_id'], unique=False)


def _edges() -> None:
    op.create_table(
        'edges',
        sa.Column('step_id', sa.String(length=36), nullable=False),
        sa.Column('parent_id', sa.String(length=36), nullable=False),
        sa.Column('upgrade_id', sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(['parent_id'], ['steps.id'], ondelete='CASCADE'),
        sa.ForeignKeyConstraint(['step_id'], ['steps.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('step_id', 'parent_id'),
        **TABLE,
    )
    op.create_index('ix_edges_upgrade', 'edges', ['upgrade_id'], unique=False)


def _step_output() -> None:
    op.create_table(
        'step_output',
        sa.Column('step_id', sa.String(length=36), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column(
            'text',
            sa.Text()
            .with_variant(mysql.MEDIUMTEXT(), 'mariadb')
            .with_variant(mysql.MEDIUMTEXT(), 'mysql'),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(['step_id'], ['steps.id'], ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('step_id', 'attempt'),
        **TABLE,
    )


#: in the order that foreign keys ask for
CREATE = (
    _agents,
    _clusters,
    _enroll_tokens,
    _events,
    _idempotency_keys,
    _hosts,
    _problems,
    _services,
    _upgrades,
    _steps,
    _attempts,
    _edges,
    _step_output,
)
