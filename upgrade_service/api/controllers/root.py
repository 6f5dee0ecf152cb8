"""Every address of the API, and the one controller that pecan dispatches to.

A request passes, in this order: the route, the caller's identity, the microversion, the
policy (see ``hooks.py``), the schemas, the repetition check, and then its function.
"""

from typing import Any

from oslo_serialization import jsonutils
import pecan

from upgrade_service import exception
from upgrade_service.api import ask as asks
from upgrade_service.api import door, openapi, routes, schemas, types, validation
from upgrade_service.api.controllers import agents, clusters, steps, upgrades, versions
from upgrade_service.db import api as db_api

#: where hooks leave what they found out, in the WSGI environ
ROUTE, REFS, CONTEXT = 'upgrade.route', 'upgrade.refs', 'upgrade.context'


def description(ask: asks.Ask) -> asks.Answer:
    """Describe the API as OpenAPI 3.1."""
    return asks.Answer(openapi.document(TABLE.routes, ask.base))


def _get(
    path: str,
    answers: Any,
    rule: str | None,
    returns: Any = None,
    many: str | None = None,
    query: Any = schemas.NO_QUERY,
) -> routes.Route:
    return routes.Route(
        method='GET',
        path=path,
        answers=answers,
        rule=rule,
        query=query,
        returns=returns,
        many=many,
    )


def _post(
    path: str,
    answers: Any,
    rule: str,
    returns: Any,
    body: Any = schemas.NO_BODY,
    status: int = 202,
    replays: bool = True,
) -> routes.Route:
    return routes.Route(
        method='POST',
        path=path,
        answers=answers,
        rule=rule,
        returns=returns,
        body=body,
        status=status,
        replays=replays,
    )


def _delete(path: str, answers: Any, rule: str) -> routes.Route:
    return routes.Route(method='DELETE', path=path, answers=answers, rule=rule, status=204)


CLUSTER = '/v1/clusters/{cluster}'
UPGRADE = '/v1/upgrades/{upgrade}'
STEP = f'{UPGRADE}/steps/{{step}}'
AGENT = '/v1/agents/{agent}'

TABLE = routes.Table(
    [
        _get('/', versions.index, None),
        _get('/v1', versions.show, None),
        _get('/v1/openapi.json', description, None),
        _get(
            '/v1/clusters',
            clusters.index,
            'clusters:list',
            types.Cluster,
            'clusters',
            schemas.CLUSTERS,
        ),
        _post(
            '/v1/clusters',
            clusters.create,
            'clusters:create',
            types.Cluster,
            schemas.CLUSTER_CREATE,
            201,
        ),
        _get(CLUSTER, clusters.show, 'clusters:get', types.Cluster),
        _delete(CLUSTER, clusters.delete, 'clusters:delete'),
        _post(f'{CLUSTER}/discover', clusters.discover, 'clusters:discover', types.Cluster),
        _get(f'{CLUSTER}/hosts', clusters.hosts, 'hosts:get', types.Host, 'hosts', schemas.HOSTS),
        _get(f'{CLUSTER}/hosts/{{host}}', clusters.host, 'hosts:get', types.Host),
        _post(
            f'{CLUSTER}/hosts/{{host}}/declare-lost',
            clusters.declare_lost,
            'hosts:declare_lost',
            types.Host,
            schemas.DECLARE_LOST,
        ),
        _get(
            f'{CLUSTER}/services',
            clusters.services,
            'clusters:get',
            types.Service,
            'services',
            schemas.SERVICES,
        ),
        _get(f'{CLUSTER}/summary', clusters.summary, 'clusters:get', types.Summary),
        _get(f'{CLUSTER}/paths', clusters.paths, 'clusters:get', types.Path, 'paths'),
        _get(f'{CLUSTER}/problems', clusters.problems, 'clusters:get', types.Problem, 'problems'),
        _get(
            '/v1/upgrades',
            upgrades.index,
            'upgrades:list',
            types.Upgrade,
            'upgrades',
            schemas.UPGRADES,
        ),
        _post(
            '/v1/upgrades',
            upgrades.create,
            'upgrades:create',
            types.Upgrade,
            schemas.UPGRADE_CREATE,
        ),
        _get(UPGRADE, upgrades.show, 'upgrades:get', types.Upgrade),
        _delete(UPGRADE, upgrades.delete, 'upgrades:delete'),
        _post(f'{UPGRADE}/start', upgrades.start, 'upgrades:start', types.Upgrade, schemas.START),
        _post(f'{UPGRADE}/pause', upgrades.pause, 'upgrades:pause', types.Upgrade, schemas.PAUSE),
        _post(
            f'{UPGRADE}/resume', upgrades.resume, 'upgrades:resume', types.Upgrade, schemas.RESUME
        ),
        _post(
            f'{UPGRADE}/cancel', upgrades.cancel, 'upgrades:cancel', types.Upgrade, schemas.CANCEL
        ),
        _post(
            f'{UPGRADE}/rollback',
            upgrades.rollback,
            'upgrades:rollback',
            types.Upgrade,
            schemas.ROLLBACK,
        ),
        _post(f'{UPGRADE}/replan', upgrades.replan, 'upgrades:replan', types.Upgrade),
        _post(
            f'{UPGRADE}/approve',
            upgrades.approve,
            'upgrades:approve',
            types.Upgrade,
            schemas.APPROVE,
        ),
        _get(f'{UPGRADE}/plan', upgrades.plan, 'upgrades:get', types.Plan),
        _get(f'{UPGRADE}/report', upgrades.report, 'upgrades:get', types.Report),
        _get(f'{UPGRADE}/problems', upgrades.problems, 'upgrades:get', types.Problem, 'problems'),
        _get(
            f'{UPGRADE}/events',
            upgrades.events,
            'upgrades:get',
            types.Event,
            'events',
            schemas.EVENTS,
        ),
        _get(f'{UPGRADE}/steps', steps.index, 'steps:get', types.Step, 'steps', schemas.STEPS),
        _get(STEP, steps.show, 'steps:get', types.Step),
        _get(f'{STEP}/log', steps.log, 'steps:log', types.Output, query=schemas.LOG),
        _post(f'{STEP}/retry', steps.retry, 'steps:retry', types.Step, schemas.RETRY),
        _post(f'{STEP}/skip', steps.skip, 'steps:skip', types.Step, schemas.SKIP),
        _post(f'{STEP}/resolve', steps.resolve, 'steps:resolve', types.Step, schemas.RESOLVE),
        _get('/v1/agents', agents.index, 'agents:get', types.Agent, 'agents', schemas.AGENTS),
        # a kept answer would keep the token, which is stored as a hash only
        _post(
            '/v1/agents',
            agents.enroll,
            'agents:enroll',
            types.Enrolment,
            schemas.AGENT_CREATE,
            201,
            replays=False,
        ),
        _get(AGENT, agents.show, 'agents:get', types.Agent),
        _delete(AGENT, agents.delete, 'agents:delete'),
        _post(f'{AGENT}/approve', agents.approve, 'agents:approve', types.Agent, status=200),
        _post(f'{AGENT}/revoke', agents.revoke, 'agents:revoke', types.Agent, status=200),
        _get(
            '/v1/inventories',
            clusters.inventories,
            'inventories:list',
            types.Inventory,
            'inventories',
        ),
        _get('/v1/strategies', agents.strategies, 'strategies:list', types.Strategy, 'strategies'),
    ]
)


class RootController:
    """What pecan knows of the API."""

    def __init__(self, shared: dict[str, Any]) -> None:
        """Take what every :class:`~ask.Ask` carries: conf, enforcer, bell, waiters."""
        self._shared = shared

    @pecan.expose()
    def _route(self, args: list[str], request: Any) -> Any:
        route, refs = TABLE.find(request.method, request.path_info)
        request.environ.update({ROUTE: route, REFS: refs})
        return self.serve, []

    @pecan.expose(content_type='application/json')
    def serve(self) -> Any:
        """Answer the request."""
        request = pecan.request
        route: routes.Route = request.environ[ROUTE]
        ask = self._ask(request, route)
        return _respond(ask, _once(ask, route) if ask.key else route.answers(ask))

    def _ask(self, request: Any, route: routes.Route) -> asks.Ask:
        body = request.environ[door.BODY]
        if body is not None and route.body is None:
            raise exception.Invalid(field='body', rule='there is none with this method')
        if route.body is not None:
            body = {} if body is None else body
            validation.check(route.body, body, 'body')
        conf = self._shared['conf']
        said = request.headers.get('Idempotency-Key')
        if said is not None:
            validation.check(schemas.NAME, said, 'Idempotency-Key')
        keyed = said is not None and route.method in ('POST', 'DELETE') and route.replays
        base = (conf.api.public_endpoint or request.application_url).rstrip('/')
        return asks.Ask(
            **self._shared,
            ctx=request.environ[CONTEXT],
            base=base,
            path=request.path_info,
            refs=request.environ[REFS],
            query=validation.query(route.query, request.GET),
            body=body or {},
            if_match=asks.parse_if_match(request.headers.get('If-Match')),
            status=route.status,
            key=asks.key_of(request.environ[CONTEXT], said) if keyed else None,
            digest=asks.request_digest(route.method, request.path_info, body) if keyed else '',
        )


def _once(ask: asks.Ask, route: routes.Route) -> asks.Answer:
    """Answer a request that names an Idempotency-Key: the second time as the first."""
    key = ask.key or ''
    kept = db_api.answer_get(ask.ctx, key)
    if kept is None:
        if key.startswith('0'):  # one in sixteen tidies up
            db_api.answers_sweep(ask.ctx)
        try:
            return route.answers(ask)
        except db_api.Repeated:  # an equal request was faster by a moment
            kept = db_api.answer_get(ask.ctx, key)
    if kept is None:
        raise exception.Busy(retry_after=1)
    if kept['request'] != ask.digest:
        raise exception.Conflict(reason='this Idempotency-Key was used for another request')
    return asks.Answer(**kept['body'])


def _respond(ask: asks.Ask, answer: asks.Answer) -> Any:
    response = pecan.response
    response.status = answer.status or ask.status
    response.headers.update(answer.headers)
    body = types.plain(answer.body)
    return '' if body is None else jsonutils.dumps(body)
