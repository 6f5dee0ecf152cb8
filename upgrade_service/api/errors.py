"""Every refusal in one form: the API-SIG's `{"errors": [{...}]}`.

This is the outermost layer but the request id: whatever is refused below it, by us, by
pecan, by keystonemiddleware, or by a bug, leaves in the same form. A 5xx never carries
the text of an exception.
"""

from collections.abc import Mapping
import json
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from oslo_db import exception as db_exc
from oslo_log import log
import webob
from webob import exc
import webob.dec

from upgrade_service import exception
from upgrade_service.api import microversion

LOG = log.getLogger(__name__)
JSON = 'application/json'
#: stable codes of refusals that HTTP itself knows
CODES = {
    400: 'upgrade.bad_request',
    401: 'upgrade.unauthenticated',
    403: 'upgrade.forbidden',
    404: 'upgrade.not_found',
    405: 'upgrade.method_not_allowed',
    406: 'upgrade.version.unsupported',
    411: 'upgrade.length_required',
    413: 'upgrade.too_large',
    415: 'upgrade.media_type',
    429: 'upgrade.too_many_requests',
    503: 'upgrade.unavailable',
}
#: headers of a foreign answer that mean something to clients
KEPT = ('WWW-Authenticate', 'Allow', 'Retry-After', 'Location')
#: facts of an exception that a client can act on
TOLD = ('state', 'next', 'version', 'codes')
#: what something that is away raises, and what clients are told
_AWAY = (
    (
        (db_exc.DBConnectionError, db_exc.DBDeadlock),
        'The database does not answer; try again later.',
    ),
    (
        (ks_exc.ConnectFailure, ks_exc.DiscoveryFailure),
        'Keystone does not answer; try again later.',
    ),
)
#: seconds after which a request that met a dead database may be repeated
RETRY_AFTER = 5


def document(
    request_id: str | None, status: int, code: str, detail: str, **more: Any
) -> dict[str, Any]:
    """Return the body of an error."""
    title = webob.util.status_reasons.get(status, 'Error')
    return {
        'errors': [
            {
                'request_id': request_id,
                'code': code,
                'status': status,
                'title': title,
                'detail': detail,
                **more,
            }
        ]
    }


def answer(
    request_id: str | None,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> webob.Response:
    """Return an error as a response."""
    body = json.dumps(document(request_id, status, code, detail, **more)).encode()
    response = webob.Response(body=body, status=status, content_type=JSON, charset='UTF-8')
    response.headers.update(headers or {})
    microversion.stamp(response.headers)
    return response


class ErrorTranslator:
    """WSGI middleware that gives every refusal the form of :func:`document`."""

    def __init__(self, application: Any) -> None:
        self._application = application

    @webob.dec.wsgify
    def __call__(self, request: webob.Request) -> webob.Response:
        """Answer a request; never raises."""
        request_id = request.environ.get('openstack.request_id')
        try:
            response = request.get_response(self._application)
        except exc.HTTPException as e:
            response = e
        except Exception as e:
            return _of_exception(request_id, e)
        if response.status_int < 400:
            return response
        cause = request.environ.get('pecan.original_exception', response)
        return _of_response(request_id, response, getattr(cause, 'detail', None))


def _of_exception(request_id: str | None, error: Exception) -> webob.Response:
    for kinds, sentence in _AWAY:
        if isinstance(error, kinds):
            error = exception.Busy(sentence, retry_after=RETRY_AFTER)
    if not isinstance(error, exception.UpgradeError) or error.status == 500:
        LOG.error('Request failed', exc_info=error)
        return answer(
            request_id,
            500,
            exception.UpgradeError.code,
            'The service failed; the log has the reason under this request id.',
        )
    more = {k: error.details[k] for k in TOLD if k in error.details}
    if isinstance(error, exception.IllegalVerb):
        more['allowed'] = error.details.get('verbs', [])
    headers = {}
    if error.status in (429, 503):
        headers['Retry-After'] = str(error.details.get('retry_after', RETRY_AFTER))
    return answer(request_id, error.status, error.code, str(error), headers, **more)


def _of_response(
    request_id: str | None, response: webob.Response, detail: str | None
) -> webob.Response:
    status = response.status_int
    headers = {k: response.headers[k] for k in KEPT if k in response.headers}
    if status == 503:
        headers.setdefault('Retry-After', str(RETRY_AFTER))
    code = CODES.get(status, CODES[400] if status < 500 else exception.UpgradeError.code)
    if not detail or status >= 500:
        detail = _SENTENCES.get(status, webob.util.status_reasons.get(status, 'Error'))
    return answer(request_id, status, code, detail, headers)


_SENTENCES = {
    401: 'Who asks? Send a valid token in X-Auth-Token.',
    404: 'There is nothing at this address; /v1/openapi.json lists what there is.',
    405: 'This address does not take that method; the Allow header lists those it takes.',
    503: 'Something the service needs does not answer; try again later.',
}
