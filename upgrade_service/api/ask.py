"""What a controller gets and what it gives: a checked request, and an answer."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import threading
from typing import Any
import urllib.parse

from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from upgrade_service import context, exception, model
from upgrade_service.api import bell as bells
from upgrade_service.api import policy, types
from upgrade_service.db import api as db_api

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that is well-formed and may be made."""

    ctx: context.RequestContext
    conf: cfg.ConfigOpts
    enforcer: oslo_policy.Enforcer
    bell: bells.Bell
    waiters: threading.Semaphore  #: taken by requests that wait for something
    base: str  #: URL of the service's root, without a trailing slash
    path: str  #: '/v1/upgrades'
    refs: Mapping[str, str]  #: variables of the path
    query: Row  #: checked, with numbers as int
    body: Row  #: checked; {} without a body
    if_match: int | None
    status: int  #: of a good answer
    key: str | None = None  #: name under which the answer is kept
    digest: str = ''  #: of what is asked

    @property
    def limit(self) -> int:
        """Rows on this page."""
        most: int = self.conf.api.max_limit
        asked: int = self.query.get('limit', most)
        return min(asked, most)

    def filters(self, *names: str) -> Row:
        """Return those query arguments that are filters."""
        return {n: self.query[n] for n in names if n in self.query}

    def authorize(self, rule: str) -> None:
        """Ask the policy about more than the route's own rule.

        :raises Forbidden: the caller may not.
        """
        policy.authorize(self.enforcer, self.ctx, rule)

    def change(self, shown: 'Callable[[Row], Answer]') -> db_api.Asked:
        """Return what the database must keep beside a change, and hold against it.

        `shown` makes the answer of the changed row, inside the transaction.
        """

        def kept(row: Row) -> Row:
            answer = shown(row)
            return {
                'status': answer.status or self.status,
                'body': types.plain(answer.body),
                'headers': dict(answer.headers),
            }

        return db_api.Asked(
            shown=kept,
            key=self.key,
            request=self.digest,
            most=self.conf.api.mutations_per_minute,
        )

    def page(
        self,
        name: str,
        rows: Sequence[Row],
        marker: str,
        shown: Callable[[Row], Any],
        argument: str = 'marker',
    ) -> 'Answer':
        """Answer with one page of a list that was read with `limit + 1`.

        `marker` is the column that the next page goes on after, `argument` the query
        argument it is given in.
        """
        body: Row = {name: [shown(row) for row in rows[: self.limit]]}
        if len(rows) > self.limit:
            query = {**self.query, 'limit': self.limit, argument: rows[self.limit - 1][marker]}
            body['next'] = f'{self.base}{self.path}?{urllib.parse.urlencode(query)}'
        return Answer(body)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a controller answers; None as a body is 204."""

    body: Any
    status: int | None = None  #: by default that of the route
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def answered(asked: db_api.Asked) -> Answer:
    """Return the answer that was made with a change."""
    return Answer(**asked.answer)


def parse_if_match(said: str | None) -> int | None:
    """Read `If-Match`: the version of an upgrade, with or without quotes.

    :raises Invalid: it is no version.
    """
    if said is None or said.strip() == '*':
        return None
    text = said.strip().removeprefix('W/').strip('"')
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise exception.Invalid(field='If-Match', rule='must be the version of an upgrade')
    return int(text)


def key_of(ctx: context.RequestContext, said: str) -> str:
    """Return the name under which the answer to a caller's Idempotency-Key is kept."""
    return hashlib.sha256(f'{ctx.user_id}\n{ctx.project_id}\n{said}'.encode()).hexdigest()


def request_digest(method: str, path: str, body: Any) -> str:
    """Digest of what is asked, to tell a repetition from another use of the same key."""
    return model.digest([method, path, body])
