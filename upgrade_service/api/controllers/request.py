"""What is asked for when an upgrade is created, checked against what is known."""

from collections.abc import Iterable, Sequence
from typing import Any

from upgrade_service import exception
from upgrade_service.api import ask as asks
from upgrade_service.api.controllers import clusters
from upgrade_service.db import api as db_api
from upgrade_service.projects import loader, paths, policy, releases

Ask = asks.Ask
Row = dict[str, Any]
#: gate before the points of no return
PONR_GATE = 'finish'
#: strategies that are never meant unless they are named
_NEVER_MEANT = frozenset({'noop'})
FALLBACK_STRATEGY = 'source'
#: the strategy that builds a project from a commit
COMMIT_STRATEGY = 'source'


def values(ask: Ask) -> Row:
    """Return the columns of a new upgrade.

    :raises NotFound: no such cluster. :raises UnknownRelease: no such release.
    :raises UnreachableRelease: it cannot be reached in one hop.
    :raises InvalidPolicy: names the key. :raises UnknownHost: not a host of the cluster.
    :raises Invalid: an empty, unknown or contradictory selection, or an unknown strategy.
    """
    body = ask.body
    cluster = db_api.cluster_get(ask.ctx, body['cluster'])
    source, oldest = clusters.oldest(ask, cluster['id'])
    paths.check_target(releases.load(), source, body['to_release'], oldest)
    target = releases.load().get(body['to_release'])
    strategy = _strategy(ask)
    merged = merged_policy(ask, body.get('policy', {}))
    if merged['commits'] and strategy != COMMIT_STRATEGY:
        rule = f'strategy {strategy} takes no commits, only {COMMIT_STRATEGY} does'
        raise exception.InvalidPolicy(field='commits', rule=rule)
    chosen = selection(ask, cluster)
    consistent(chosen, merged)
    return {
        'name': body.get('name'),
        'cluster_id': cluster['id'],
        'from_release': source,
        'to_release': target.id if target else body['to_release'],
        'strategy': strategy,
        'type': body.get('type', 'service'),
        'policy': merged,
        'selection': chosen,
        'approvals': [PONR_GATE] if body.get('approve_ponr') else [],
    }


def merged_policy(ask: Ask, raw: Row) -> Row:
    """Return the policy over its defaults; its projects must be known ones."""
    merged = policy.merge_policy(raw)
    for key in ('skip_projects', 'commits'):
        _all_known(f'policy.{key}', merged[key], _projects(ask))
    return merged


def _projects(ask: Ask) -> list[str]:
    return loader.load_projects(ask.conf.conductor.projects_dir).names()


def selection(ask: Ask, cluster: Row) -> Row:
    """Return {hosts, azs, projects}, each a list or absent; an empty list means none at all."""
    wanted: Row = {k: ask.body[k] for k in ('hosts', 'azs', 'projects') if k in ask.body}
    for field, chosen in wanted.items():
        if not chosen:
            raise exception.Invalid(
                field=field, rule='an empty list selects nothing; leave it out to select all'
            )
    _all_known('projects', wanted.get('projects', ()), _projects(ask))
    # before a discovery nothing is known to compare with: the planner will
    if cluster['discovered_at'] and ('hosts' in wanted or 'azs' in wanted):
        _in_cluster(ask, cluster, wanted)
    if cluster['discovered_at'] and 'projects' in wanted:
        there = {row['project'] for row in db_api.binary_hosts(ask.ctx, cluster['id'])}
        _all_known('projects', wanted['projects'], sorted(there), f'in {cluster["name"]}')
    return wanted


def consistent(wanted: Row, merged: Row) -> None:
    """Refuse a selection and a policy that contradict one another.

    :raises Invalid: names the key and what would make it possible.
    """
    chosen, skipped = wanted.get('projects'), merged['skip_projects']
    if chosen is not None and set(chosen) <= set(skipped):
        rule = f'it skips all that is selected ({", ".join(sorted(chosen))}); take it out of one'
        raise exception.Invalid(field='policy.skip_projects', rule=rule)
    for project in sorted(merged['commits']):
        if project in skipped or (chosen is not None and project not in chosen):
            rule = f'{project} is not part of this upgrade; select it, or name no commit of it'
            raise exception.Invalid(field='policy.commits', rule=rule)


def _in_cluster(ask: Ask, cluster: Row, wanted: Row) -> None:
    hosts = db_api.host_list(ask.ctx, cluster['id'])
    names = {h['name'] for h in hosts}
    unknown = next((h for h in wanted.get('hosts', ()) if h not in names), None)
    if unknown is not None:
        raise exception.UnknownHost(host=unknown, cluster=cluster['name'])
    _all_known('azs', wanted.get('azs', ()), sorted({h['az'] for h in hosts if h['az']}))
    named = [h for h in hosts if h['name'] in wanted.get('hosts', names)]
    if not any(h['az'] in wanted.get('azs', (h['az'],)) for h in named):
        where = ', '.join(f'{h["name"]} is in {h["az"] or "none"}' for h in named[:5])
        raise exception.Invalid(field='azs', rule=f'no host that is named is in one: {where}')


def _all_known(
    field: str, wanted: Iterable[str], known: Sequence[str], where: str = 'known'
) -> None:
    unknown = next((w for w in wanted if w not in known), None)
    if unknown is not None:
        there = ', '.join(known) or 'none'
        raise exception.Invalid(field=field, rule=f'{unknown} is not {where}; there are: {there}')


def _strategy(ask: Ask) -> str:
    """Return the strategy asked for, or the one that most engines offer."""
    offered = {row['name']: row['ready'] for row in db_api.strategy_rows(ask.ctx)}
    asked: str | None = ask.body.get('strategy')
    if asked is not None:
        if offered:
            _all_known('strategy', [asked], sorted(offered))
        return asked
    meant = {name: n for name, n in offered.items() if n and name not in _NEVER_MEANT}
    return max(
        sorted(meant),
        key=lambda name: (meant[name], name == FALLBACK_STRATEGY),
        default=FALLBACK_STRATEGY,
    )
