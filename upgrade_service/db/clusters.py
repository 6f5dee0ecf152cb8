"""Clusters and what discovery found in them."""

from typing import Any
import uuid

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from upgrade_service import context, exception, model
from upgrade_service.db import asked as askeds
from upgrade_service.db import base, models

Context = context.RequestContext
Row = dict[str, Any]


def _by_ref(session: orm.Session, ref: str) -> models.Cluster:
    found = (
        session.execute(
            sa.select(models.Cluster).where(
                sa.or_(models.Cluster.id == ref, models.Cluster.name == ref)
            )
        )
        .scalars()
        .first()
    )
    if found is None:
        raise exception.NotFound(kind='cluster', ref=ref)
    return found


@base.retry
def cluster_create(ctx: Context, values: Row, asked: askeds.Asked | None = None) -> Row:
    """Insert a cluster {name, cloud, inventories?, properties?} and ask for its discovery."""
    row = models.Cluster(
        id=str(uuid.uuid4()),
        name=values['name'],
        cloud=values['cloud'],
        inventories=values.get('inventories') or ['openstack'],
        properties=values.get('properties') or {},
        discover_wanted=0,
        discover_done=0,
        discover_lease=0,
    )
    try:
        with base.writer(ctx) as session:
            askeds.begin(session, asked)
            row.created_at = base.clock(session)
            session.add(row)
            session.flush()
            return askeds.end(session, asked, row.as_dict())
    except db_exc.DBDuplicateEntry as e:
        raise exception.Exists(kind='cluster', ref=values['name']) from e


def cluster_get(ctx: Context, ref: str) -> Row:
    """Return a cluster by id or name."""
    with base.reader(ctx) as session:
        return _by_ref(session, ref).as_dict()


def cluster_list(
    ctx: Context, filters: Row | None = None, limit: int | None = None, marker: str | None = None
) -> list[Row]:
    """List clusters by id; filters: name, cloud."""
    query = sa.select(models.Cluster).filter_by(**(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Cluster, query, models.Cluster.id, limit, marker)


@base.retry
def cluster_delete(ctx: Context, ref: str) -> None:
    """Delete a cluster that no upgrade refers to."""
    with base.writer(ctx) as session:
        row = _by_ref(session, ref)
        used = sa.select(models.Upgrade.id).filter_by(cluster_id=row.id).limit(1)
        if session.execute(used).first():
            raise exception.Conflict(reason=f'cluster {row.name} has upgrades; delete them first')
        session.delete(row)


@base.retry
def cluster_discover(ctx: Context, ref: str, asked: askeds.Asked | None = None) -> int:
    """Ask for a discovery; return the number that `discover_done` must reach."""
    with base.writer(ctx) as session:
        askeds.begin(session, asked)
        row = _by_ref(session, ref)
        session.execute(
            sa.update(models.Cluster)
            .filter_by(id=row.id)
            .values(discover_wanted=models.Cluster.discover_wanted + 1)
        )
        session.refresh(row)
        askeds.end(session, asked, row.as_dict())
        return row.discover_wanted


@base.retry
def discovery_claim(ctx: Context, ttl: float) -> list[Row]:
    """Take the discoveries that are wanted and that nobody does, for `ttl` seconds."""
    cluster = models.Cluster
    due = sa.and_(
        cluster.discover_wanted > cluster.discover_done, cluster.discover_lease < base.now_ms()
    )
    with base.reader(ctx) as session:
        rows = [c.as_dict() for c in session.execute(sa.select(cluster).where(due)).scalars()]
    taken = []
    for row in rows:
        with base.writer(ctx) as session:
            done = session.execute(
                sa.update(cluster)
                .where(
                    due, cluster.id == row['id'], cluster.discover_lease == row['discover_lease']
                )
                .values(discover_lease=base.now_ms() + int(ttl * 1000))
                .execution_options(synchronize_session=False)
            )
            if done.rowcount == 1:  # type: ignore[attr-defined]
                taken.append(row)
    return taken


@base.retry
def discovery_failed(ctx: Context, cluster_id: str, wanted: int, error: str) -> None:
    """Record that a discovery ended without an inventory; the old one stays."""
    with base.writer(ctx) as session:
        session.execute(
            sa.update(models.Cluster)
            .filter_by(id=cluster_id)
            .values(discover_done=wanted, discover_error=error, discover_lease=0)
        )


@base.retry
def inventory_save(
    ctx: Context,
    cluster_id: str,
    inventory: model.Inventory,
    wanted: int | None = None,
    facts: dict[str, Row] | None = None,
) -> None:
    """Replace hosts, services and problems of a cluster by those of an inventory.

    One transaction, so that no reader ever sees half of each. `facts`: host -> {facts,
    facts_at} as the engines reported them.
    """
    with base.writer(ctx) as session:
        for old in (models.Host, models.Service):
            session.execute(sa.delete(old).where(old.cluster_id == cluster_id))
        session.execute(
            sa.delete(models.Problem).filter_by(cluster_id=cluster_id, upgrade_id=None)
        )
        rows = [
            _host_row(cluster_id, h, (facts or {}).get(h.name, {}))
            for h in inventory.hosts.values()
        ]
        for table, values in (
            (models.Host, rows),
            (models.Service, [_service_row(cluster_id, s) for s in inventory.services]),
            (models.Problem, [problem_row(cluster_id, None, p) for p in inventory.problems]),
        ):
            if values:
                session.execute(sa.insert(table), values)
        done: Row = {
            'fingerprint': inventory.fingerprint(),
            'endpoints': dict(inventory.endpoints),
            'discovered_at': base.now_ms(),
            'discover_error': None,
            'discover_lease': 0,
        }
        if wanted is not None:
            done['discover_done'] = wanted
        session.execute(sa.update(models.Cluster).filter_by(id=cluster_id).values(**done))


def _host_row(cluster_id: str, host: model.Host, facts: Row) -> Row:
    return {
        'cluster_id': cluster_id,
        'name': host.name,
        'roles': sorted(host.roles),
        'az': host.az,
        'agent_id': host.agent,
        'agent_state': host.agent_state,
        'instances': host.instances,
        'volumes': host.volumes,
        'routers': host.routers,
        'facts': facts.get('facts'),
        'facts_at': facts.get('facts_at'),
    }


def _service_row(cluster_id: str, s: model.Service) -> Row:
    names = (
        'host',
        'project',
        'binary',
        'az',
        'state',
        'status',
        'disabled_reason',
        'forced_down',
        'version',
        'release',
        'how',
        'unit',
        'source',
    )
    return {'cluster_id': cluster_id, **{n: getattr(s, n) for n in names}}


def problem_row(cluster_id: str, upgrade_id: str | None, p: model.Problem) -> Row:
    """Return a problem as a row of the problems table."""
    names = ('code', 'severity', 'host', 'service', 'message', 'hint', 'acceptable')
    return {
        'cluster_id': cluster_id,
        'upgrade_id': upgrade_id,
        **{n: getattr(p, n) for n in names},
    }


def host_list(
    ctx: Context,
    cluster_id: str,
    filters: Row | None = None,
    limit: int | None = None,
    marker: str | None = None,
) -> list[Row]:
    """List the hosts of a cluster by name."""
    query = sa.select(models.Host).filter_by(cluster_id=cluster_id, **(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Host, query, models.Host.name, limit, marker)


def host_get(ctx: Context, cluster_id: str, name: str) -> Row:
    """Return one host."""
    rows = host_list(ctx, cluster_id, {'name': name})
    if not rows:
        raise exception.NotFound(kind='host', ref=name)
    return rows[0]


def service_list(
    ctx: Context,
    cluster_id: str,
    filters: Row | None = None,
    limit: int | None = None,
    marker: int | None = None,
) -> list[Row]:
    """List the services of a cluster; filters: host, project, binary, state, status."""
    query = sa.select(models.Service).filter_by(cluster_id=cluster_id, **(filters or {}))
    with base.reader(ctx) as session:
        return base.page(session, models.Service, query, models.Service.id, limit, marker)


def service_summary(ctx: Context, cluster_id: str) -> list[Row]:
    """Count services: [{project, release, total, up, hosts}], by project and release."""
    s = models.Service
    query = (
        sa.select(
            s.project,
            s.release,
            sa.func.count(),
            sa.func.sum(sa.case((s.state == 'up', 1), else_=0)),
            sa.func.count(sa.distinct(s.host)),
        )
        .where(s.cluster_id == cluster_id)
        .group_by(s.project, s.release)
    )
    with base.reader(ctx) as session:
        rows = session.execute(query).all()
    names = ('project', 'release', 'total', 'up', 'hosts')
    found = [dict(zip(names, (r[0], r[1], *map(int, r[2:])), strict=True)) for r in rows]
    return sorted(found, key=lambda r: (r['project'], r['release'] or ''))


def binary_hosts(ctx: Context, cluster_id: str) -> list[Row]:
    """Count the hosts of each binary: [{project, binary, hosts}]."""
    s = models.Service
    query = (
        sa.select(s.project, s.binary, sa.func.count(sa.distinct(s.host)))
        .where(s.cluster_id == cluster_id)
        .group_by(s.project, s.binary)
        .order_by(s.project, s.binary)
    )
    with base.reader(ctx) as session:
        rows = session.execute(query).all()
    return [{'project': r[0], 'binary': r[1], 'hosts': int(r[2])} for r in rows]


def problem_list(
    ctx: Context, cluster_id: str | None = None, upgrade_id: str | None = None
) -> list[Row]:
    """List problems of a cluster's discovery, or of an upgrade."""
    query = sa.select(models.Problem).filter_by(upgrade_id=upgrade_id)
    if cluster_id:
        query = query.filter_by(cluster_id=cluster_id)
    with base.reader(ctx) as session:
        return base.page(session, models.Problem, query, models.Problem.id, None, None)
