"""The SDK proxy of the upgrade service: resources, verbs, and errors in one line each.

Every answer passes :meth:`Proxy.request`, so what an API, a load balancer in front of it or
a keystone that is away can do to a client is told apart in one place: :class:`Refused` is
final, :class:`Away` may be over the next time one asks.
"""

from collections.abc import Iterable, Iterator, Mapping
import json
from typing import Any
import uuid

from keystoneauth1 import exceptions as ks_exc
from openstack import exceptions as sdk_exc
from openstack import proxy, service_description
from osc_lib import exceptions
import requests

from upgrade_service.osc import resources

SERVICE_TYPE = 'upgrade'
#: seconds an answer may take; a request that hangs is one that failed
ANSWER_TIMEOUT = 30
#: statuses that say nothing about the request itself
PASSING = frozenset({401, 408, 429, 500, 502, 503, 504})

Row = dict[str, Any]


class Refused(exceptions.CommandError):
    """The API says no; asking again changes nothing."""

    def __init__(self, message: str, status: int = 0, code: str = '') -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Away(Refused):
    """The API, or the keystone it needs, does not answer now."""


class Proxy(proxy.Proxy):
    """Version 1 of the API."""

    def request(self, url: str, method: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; answer errors with one-line exceptions.

        :raises Refused: a 4xx answer. :raises Away: no answer, or one that may pass.
        """
        kwargs.setdefault('timeout', ANSWER_TIMEOUT)
        try:
            response: requests.Response = super().request(url, method, *args, **kwargs)
        except (ks_exc.ClientException, sdk_exc.SDKException) as e:
            raise Away(no_answer(e), getattr(e, 'http_status', 0) or 0) from e
        if response.status_code >= 400:
            raise refusal(response)
        return response

    # -- reading -------------------------------------------------------------------------------

    def rows(
        self,
        of: type[resources._Resource],
        /,
        *,
        path: str | None = None,
        limit: int | None = None,
        **query: Any,
    ) -> Iterator[Row]:
        """Yield a collection as dicts; `limit` rows at most, else all pages."""
        asked = {k: v for k, v in query.items() if v is not None}
        if limit is not None:
            asked['limit'] = limit
        for found in self._list(of, base_path=path, paginated=limit is None, **asked):
            yield plain(found)

    def row(self, of: type[resources._Resource], ref: str, /, **uri: Any) -> Row:
        """Return one resource as a dict."""
        return plain(self._get(of, ref, **uri))

    def document(self, path: str) -> Row:
        """Return a document that is no resource, such as a plan."""
        found = self.get(path).json()
        if not isinstance(found, dict):
            raise Refused(f'{path}: expected a JSON object, got {type(found).__name__}')
        return found

    def upgrade(self, ref: str) -> Row:
        """Return an upgrade."""
        return self.row(resources.Upgrade, ref)

    def steps(self, ref: str, **query: Any) -> Iterator[Row]:
        """Yield steps of an upgrade in the plan's order."""
        return self.rows(resources.Step, upgrade_ref=ref, **query)

    def events(self, ref: str, after: int = 0) -> list[Row]:
        """Return the events of an upgrade that follow number `after`."""
        return list(self.rows(resources.Event, upgrade_ref=ref, after=after))

    def problems(self, *, cluster: str | None = None, upgrade: str | None = None) -> list[Row]:
        """Return the problems of a cluster or of an upgrade, the blocking ones first."""
        path = f'/upgrades/{upgrade}/problems' if upgrade else f'/clusters/{cluster}/problems'
        return by_severity(self.rows(resources.Problem, path=path))

    # -- asking for something ------------------------------------------------------------------

    def ask(self, path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Row:
        """POST; return the answer's document.

        The key makes a repetition harmless when the answer to the first was lost.
        """
        headers = {'Idempotency-Key': key or new_key()}
        response = self.post(path, json=dict(body or {}), headers=headers)
        found = response.json() if response.content else {}
        return found if isinstance(found, dict) else {}

    def remove(self, path: str) -> None:
        """DELETE."""
        self.delete(path)


class UpgradeService(service_description.ServiceDescription[Proxy]):
    """How openstacksdk finds the service in a catalog."""

    supported_versions = {'1': Proxy}


def reach(connection: Any) -> Any:
    """Return the service's proxy, or the SDK's stand-in when the catalog has no such service.

    The endpoint found now is kept: an upgrade restarts the keystone that would have to be
    asked for it again.

    :raises Away: the catalog or the service does not answer.
    """
    try:
        found = getattr(connection, SERVICE_TYPE)
        if isinstance(found, Proxy):
            found.endpoint_override = proxy.Proxy.get_endpoint(found)
    except (ks_exc.ClientException, sdk_exc.SDKException) as e:
        raise Away(no_answer(e)) from e
    return found


def by_severity(problems: Iterable[Row]) -> list[Row]:
    """Put the problems that block first."""
    return sorted(problems, key=lambda p: p.get('severity') != 'blocking')


def new_key() -> str:
    """Return an idempotency key for one request and its repetitions."""
    return str(uuid.uuid4())


def plain(found: resources._Resource) -> Row:
    """Return a resource's own fields, without what the SDK computes."""
    fields: Row = found.to_dict(computed=False, original_names=True)
    return fields


def one_line(text: object) -> str:
    """Return a message without line breaks."""
    return ' '.join(str(text).split())


def no_answer(error: Exception) -> str:
    """Say in one line why there was no answer; connection libraries nest their reasons."""
    text = one_line(getattr(error, 'message', None) or error)
    reason = text.rpartition('NewConnectionError')[2] if 'NewConnectionError' in text else ''
    cause = reason.strip('(\'"): ').partition(': ')[2] or reason
    where = text.partition(': HTTP')[0]
    return f'{where} ({cause.strip(chr(34) + chr(39) + ")( ")})' if cause else text[:300]


def refusal(response: requests.Response) -> Refused:
    """Translate an error answer, ours or that of something in between."""
    status = response.status_code
    kind = Away if status in PASSING else Refused
    try:
        said = response.json()['errors']
        text = '; '.join(f'{one_line(e["detail"]).rstrip(".")} ({e["code"]})' for e in said)
        code = str(said[0]['code'])
    except (json.JSONDecodeError, requests.JSONDecodeError, KeyError, TypeError, IndexError):
        text, code = f'{response.url} answered {status} {response.reason or ""}'.rstrip(), ''
    return kind(text, status, code)
