"""An API that plays a story: one upgrade of one cluster, moved on by whoever looks at it.

It speaks HTTP on loopback, so that OpenStackClient, openstacksdk and the sockets between are
the real ones. A story is a list of chapters; each request for events plays the next.
"""

from collections.abc import Callable
import http.server
import json
import re
import threading
from typing import Any
import urllib.parse

UPGRADE_ID = '11111111-2222-4333-8444-555555555555'
Row = dict[str, Any]


def step(ord_: int, kind: str, host: str | None = None, **kw: Any) -> Row:
    """Return a step as the API does."""
    return {
        'id': f'step-{ord_}',
        'ord': ord_,
        'stage': 'data_plane',
        'kind': kind,
        'host': host,
        'project': 'nova',
        'service': None,
        'strategy': 'source',
        'state': 'pending',
        'attempt': 0,
        'parents': [],
        'reversible': False,
        'idempotent': True,
        'ponr': False,
        'estimate': 10,
        'params': {},
        'progress': None,
        'error': None,
        'seconds': None,
        **kw,
    }


class FakeApi:
    """The state of the API and what becomes of it.

    `story`: callables that take this object; each look at the events plays one, once the
    upgrade has been started (or, while it plans, `planning`).
    """

    def __init__(self) -> None:
        self.clusters: dict[str, Row] = {
            'prod': {
                'id': 'c-1',
                'name': 'prod',
                'cloud': 'prod',
                'inventories': ['openstack'],
                'properties': {},
                'discovered_at': None,
                'discover_wanted': 0,
                'discover_done': 0,
                'discover_error': None,
                'created_at': 1760000000000,
            }
        }
        self.upgrade: Row | None = None
        self.steps = [step(1, 'drain_host', 'cmp1'), step(2, 'upgrade_service', 'cmp1')]
        self.stages = [{'name': 'data_plane', 'steps': self.steps}]
        self.problems: list[Row] = []
        self.events: list[Row] = []
        self.planning: list[Callable[[FakeApi], None]] = [lambda api: api.move('draft')]
        self.story: list[Callable[[FakeApi], None]] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.keys: dict[str, Any] = {}
        self.outage: list[int | None] = []  #: statuses of the next answers; None: no answer
        self.refuse: tuple[int, str, str] | None = None
        self.hosts: list[Row] = []

    # -- what chapters do ----------------------------------------------------------------------

    def event(self, kind: str, step_id: str | None = None, **detail: Any) -> None:
        """Append an event."""
        seq = len(self.events) + 1
        self.events.append(
            {
                'seq': seq,
                'kind': kind,
                'step_id': step_id,
                'attempt': 1,
                'at': 1760000000000 + seq * 1000,
                'actor': 'user:alice',
                'detail': detail,
            }
        )

    def move(self, state: str, **values: Any) -> None:
        """Move the upgrade."""
        assert self.upgrade is not None
        before = self.upgrade['state']
        self.upgrade.update(state=state, **values)
        self.event(
            {'draft': 'planned'}.get(state, state),
            before=before,
            after=state,
            steps=len(self.steps),
            problems=len(self.problems),
            gate=values.get('gate'),
            reason=values.get('blocked_reason'),
        )

    def move_step(self, ord_: int, state: str, error: str | None = None) -> None:
        """Move a step."""
        found = self.steps[ord_ - 1]
        before, found['state'], found['error'] = found['state'], state, error
        self.event(state, found['id'], before=before, after=state, error=error)
        assert self.upgrade is not None
        done = sum(s['state'] == 'succeeded' for s in self.steps)
        self.upgrade['progress'] = {
            'total': len(self.steps),
            'done': done,
            'running': 0,
            'failed': sum(s['state'] == 'failed' for s in self.steps),
        }

    # -- what it answers -----------------------------------------------------------------------

    def answer(self, method: str, path: str, query: Row, body: Any) -> tuple[int, Any]:
        """Return status and document of a request."""
        for verb, pattern, do in self.routes():
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                if method == 'POST' and self.refuse:
                    status, code, detail = self.refuse
                    return status, refusal(status, code, detail)
                return do(query, body, *found.groups())
        return 404, refusal(404, 'upgrade.not_found', f'There is no {path}')

    def routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        """Return method, path and function of all that is answered."""
        return [
            ('GET', '/v1/upgrades/[^/]+/events', self.get_events),
            ('GET', '/v1/upgrades/[^/]+/steps', self.get_steps),
            (
                'GET',
                '/v1/upgrades/[^/]+/steps/(?:step-)?([0-9]+)',
                lambda q, b, n: (200, self.steps[int(n) - 1]),
            ),
            (
                'GET',
                '/v1/upgrades/[^/]+/steps/([0-9]+)/log',
                lambda q, b, n: (200, {'attempt': 1, 'text': f'output of {n}\n'}),
            ),
            ('GET', '/v1/upgrades/[^/]+/plan', lambda q, b: (200, self.plan())),
            (
                'GET',
                '/v1/(?:upgrades|clusters)/[^/]+/problems',
                lambda q, b: (200, {'problems': self.problems}),
            ),
            ('GET', '/v1/upgrades/([^/]+)', self.get_upgrade),
            (
                'GET',
                '/v1/upgrades',
                lambda q, b: (200, {'upgrades': [self.upgrade] if self.upgrade else []}),
            ),
            ('POST', '/v1/upgrades', self.create),
            ('POST', '/v1/upgrades/[^/]+/(start|pause|resume|cancel|approve)', self.verb),
            ('DELETE', '/v1/upgrades/[^/]+', lambda q, b: (204, None)),
            ('POST', '/v1/upgrades/[^/]+/steps/([0-9]+)/(retry|skip)', self.step_verb),
            (
                'GET',
                '/v1/clusters',
                lambda q, b: (200, {'clusters': list(self.clusters.values())}),
            ),
            ('GET', '/v1/clusters/([^/]+)', self.get_cluster),
            ('POST', '/v1/clusters/([^/]+)/discover', self.discover),
            (
                'GET',
                '/v1/clusters/[^/]+/summary',
                lambda q, b: (
                    200,
                    {
                        'cluster': 'prod',
                        'discovered_at': None,
                        'problems': self.problems,
                        'services': [
                            {
                                'project': 'nova',
                                'release': '2026.1',
                                'total': 4,
                                'up': 3,
                                'hosts': 2,
                            }
                        ],
                    },
                ),
            ),
            ('GET', '/v1/clusters/[^/]+/hosts', self.get_hosts),
            (
                'POST',
                '/v1/agents',
                lambda q, b: (
                    201,
                    {
                        'host': b['host'],
                        'expires_at': 1760000000000,
                        'bundle': {'token': 't0', 'host': b['host'], 'keys': {'k1': 'AAA'}},
                    },
                ),
            ),
        ]

    def get_events(self, query: Row, body: Any) -> tuple[int, Any]:
        """Play the next chapter and tell the events."""
        assert self.upgrade is not None
        chapters = self.planning if self.upgrade['state'] == 'planning' else self.story
        if chapters and self.upgrade['state'] not in ('draft', 'paused'):
            chapters.pop(0)(self)
        after = int(query.get('after', 0))
        return 200, {'events': [e for e in self.events if e['seq'] > after]}

    def get_steps(self, query: Row, body: Any) -> tuple[int, Any]:
        """Filter by state."""
        wanted = query.get('state')
        return 200, {'steps': [s for s in self.steps if wanted in (None, s['state'])]}

    def get_upgrade(self, query: Row, body: Any, ref: str) -> tuple[int, Any]:
        """Know the upgrade by name and id."""
        if self.upgrade is None or ref not in (self.upgrade['id'], self.upgrade['name']):
            return 404, refusal(404, 'upgrade.not_found', f'There is no upgrade {ref}')
        return 200, self.upgrade

    def get_cluster(self, query: Row, body: Any, ref: str) -> tuple[int, Any]:
        """Finish a discovery the second time one looks."""
        cluster = self.clusters.get(ref)
        if cluster is None:
            return 404, refusal(404, 'upgrade.not_found', f'There is no cluster {ref}')
        seen = dict(cluster)
        cluster['discover_done'] = cluster['discover_wanted']
        return 200, seen

    def get_hosts(self, query: Row, body: Any) -> tuple[int, Any]:
        """Page by two."""
        names = [h['name'] for h in self.hosts]
        at = names.index(query['marker']) + 1 if 'marker' in query else 0
        size = int(query.get('limit', 2))
        answer: Row = {'hosts': self.hosts[at : at + size]}
        if at + size < len(names):
            answer['next'] = f'/v1/clusters/prod/hosts?marker={names[at + size - 1]}'
        return 200, answer

    def plan(self) -> Row:
        """Return the plan document."""
        return {
            'from_release': '2026.1',
            'to_release': '2026.2',
            'digest': 'ab' * 32,
            'stages': self.stages,
            'points_of_no_return': [],
            'moves': {},
            'estimate_seconds': 20,
        }

    def create(self, query: Row, body: Row) -> tuple[int, Any]:
        """Make the upgrade."""
        self.upgrade = {
            'id': UPGRADE_ID,
            'name': body.get('name'),
            'cluster': body['cluster'],
            'from_release': '2026.1',
            'to_release': body['to_release'],
            'strategy': 'source',
            'type': 'service',
            'state': 'planning',
            'direction': 'forward',
            'next': None,
            'gate': None,
            'blocked_reason': None,
            'message': '',
            'progress': {},
            'hosts': {},
            'eta_seconds': None,
            'points_of_no_return': [],
            'created_at': 1760000000000,
            'started_at': None,
            'finished_at': None,
            'version': 1,
        }
        self.event('created', cluster_id='c-1')
        return 202, self.upgrade

    def verb(self, query: Row, body: Any, verb: str) -> tuple[int, Any]:
        """Do what most verbs do."""
        assert self.upgrade is not None
        self.move(
            {
                'start': 'running',
                'resume': 'running',
                'approve': 'running',
                'pause': 'stopping',
                'cancel': 'stopping',
            }[verb],
            gate=None,
        )
        return 202, self.upgrade

    def step_verb(self, query: Row, body: Any, n: str, verb: str) -> tuple[int, Any]:
        """Retry or skip."""
        self.move_step(int(n), {'retry': 'pending', 'skip': 'skipped'}[verb])
        return 202, self.steps[int(n) - 1]

    def discover(self, query: Row, body: Any, ref: str) -> tuple[int, Any]:
        """Want one more discovery."""
        self.clusters[ref]['discover_wanted'] += 1
        return 202, {}


def refusal(status: int, code: str, detail: str) -> Row:
    """Return an error document."""
    return {
        'errors': [
            {
                'request_id': 'req-1',
                'code': code,
                'status': status,
                'title': 'No',
                'detail': detail,
            }
        ]
    }


def versions(base: str) -> Row:
    """Return the version document."""
    return {
        'versions': [
            {
                'id': 'v1.0',
                'status': 'CURRENT',
                'min_version': '1.0',
                'version': '1.0',
                'links': [{'rel': 'self', 'href': f'{base}/v1'}],
            }
        ]
    }


class Server:
    """Serves a :class:`FakeApi` on a port of loopback; can be closed and opened again."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.lock = threading.Lock()
        self.httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), self._handler())
        self.url = f'http://127.0.0.1:{self.httpd.server_address[1]}'
        self._thread = threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.httpd.shutdown()
        self.httpd.server_close()
        self._thread.join()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                with server.lock:
                    server.handle(self)

            do_GET = do_POST = do_DELETE = do_PUT = _answer

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        url = urllib.parse.urlparse(request.path)
        size = int(request.headers.get('Content-Length') or 0)
        body = json.loads(request.rfile.read(size)) if size else None
        versioned = url.path.startswith('/v1/')
        if versioned:
            self.api.requests.append((request.command, url.path, body))
        if versioned and self.api.outage and 'events' in url.path:
            status = self.api.outage.pop(0)
            if status is None:
                request.connection.close()  # as a killed server does
                return
            self._send(request, status, None)
            return
        if not versioned:
            self._send(request, 200, versions(self.url))
            return
        key = request.headers.get('Idempotency-Key')
        if request.command == 'POST' and not key:
            self._send(request, 400, refusal(400, 'test.no_key', 'no Idempotency-Key'))
            return
        query = dict(urllib.parse.parse_qsl(url.query))
        self._send(request, *self.api.answer(request.command, url.path, query, body))

    def _send(
        self, request: http.server.BaseHTTPRequestHandler, status: int, document: Any
    ) -> None:
        text = b'' if document is None else json.dumps(document).encode()
        request.send_response(status)
        request.send_header('Content-Type', 'application/json')
        request.send_header('Content-Length', str(len(text)))
        request.end_headers()
        request.wfile.write(text)
