"""Errors as `application/problem+json` (RFC 9457; ETSI GS MEC 009 clause 6.15): one table, one function around every handler.

Handlers raise what they find wrong; nothing below the HTTP edge knows a status code. 422 is never answered: a body that is
JSON of the wrong shape, or that contradicts itself, is a 400 that names the attribute, and an id that nobody has is a 404.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from mec_platform.enablement_api.notifications.targets import CallbackMalformed, CallbackNotAllowed
from mec_platform.registry.errors import (
    AppInstanceExists,
    ChangesCompacted,
    ClientExists,
    LastAdministrator,
    LivenessNotMonitored,
    LogUnavailable,
    QuotaExceeded,
    RegistrationKeyUsed,
    RegistryError,
    RevisionAhead,
    StateConflict,
    UnknownAppInstance,
    UnknownClient,
    UnknownJoinPermit,
    UnknownRule,
    UnknownService,
    UnknownSubscription,
    UnknownTransport,
)

logger = logging.getLogger(__name__)

LONGEST_TARGET = 6000
"""Characters of path and query; beyond it 414 (MEC 011 clause 8.2.3). aiohttp itself gives up at 8190 bytes a line."""

PROBLEM_JSON = "application/problem+json"

RETRY_UNAVAILABLE_S = "5"
"""Storage that fails may be back soon, and need not be asked by everybody every second."""


class BadRequest(Exception):
    """The request cannot be understood; the message says what to change."""


class Unauthenticated(Exception):
    """The request has no credentials that the platform knows. `challenge` is the WWW-Authenticate header (RFC 6750)."""

    def __init__(self, detail: str, challenge: str) -> None:
        super().__init__(detail)
        self.challenge = challenge


class Forbidden(Exception):
    """Whoever asks is known and may not do this. `challenge` tells a client that another token could (RFC 6750)."""

    def __init__(self, detail: str, challenge: str = "") -> None:
        super().__init__(detail)
        self.challenge = challenge


class NotAcceptable(Exception):
    """The client takes no JSON."""


class Conflict(Exception):
    """The resource is in a state that does not allow this."""


class PreconditionFailed(RegistryError):
    """The client has seen another version of the resource than the one it would change.

    A registry's error, because it is found where a change is decided.
    """


class UnsupportedMediaType(Exception):
    """The body is of a type that the resource does not read."""


class TooManyRequests(Exception):
    """The client is over its limit; the same request may be made again after `retry_after_s`."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


STATUSES: dict[type[Exception], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    Conflict: HTTPStatus.CONFLICT,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    CallbackMalformed: HTTPStatus.BAD_REQUEST,
    CallbackNotAllowed: HTTPStatus.FORBIDDEN,
    UnknownTransport: HTTPStatus.BAD_REQUEST,
    UnknownAppInstance: HTTPStatus.NOT_FOUND,
    UnknownService: HTTPStatus.NOT_FOUND,
    UnknownSubscription: HTTPStatus.NOT_FOUND,
    UnknownRule: HTTPStatus.NOT_FOUND,
    UnknownClient: HTTPStatus.NOT_FOUND,
    UnknownJoinPermit: HTTPStatus.NOT_FOUND,
    # Not 429, which is for rates: waiting does not help (MEC 009 clause 6.15.2: 403 with the reason in the details).
    QuotaExceeded: HTTPStatus.FORBIDDEN,
    ClientExists: HTTPStatus.CONFLICT,
    LastAdministrator: HTTPStatus.CONFLICT,
    AppInstanceExists: HTTPStatus.CONFLICT,
    RegistrationKeyUsed: HTTPStatus.CONFLICT,
    StateConflict: HTTPStatus.CONFLICT,
    LivenessNotMonitored: HTTPStatus.NOT_FOUND,
    ChangesCompacted: HTTPStatus.GONE,
    RevisionAhead: HTTPStatus.BAD_REQUEST,
    LogUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """MEC 009 clause 6.15.3. The type about:blank says that the title is the status's own."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str


def problem_response(
    instance: str, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer that tells a client what went wrong with its request for `instance`, a path."""
    problem = ProblemDetails(title=status.phrase, status=status, detail=detail, instance=instance)
    all_headers = {"Content-Type": PROBLEM_JSON, **(headers or {})}
    return web.Response(status=status, body=msgspec.json.encode(problem), headers=all_headers)


async def answer_or_problem(
    request: web.Request, handler: Handler, check: Callable[[web.Request], None]
) -> web.StreamResponse:
    """Turns every error, of `check` and then of the handler, into problem details; never lets a traceback out."""
    if len(request.raw_path) > LONGEST_TARGET:
        detail = f"the request target has {len(request.raw_path)} characters, at most {LONGEST_TARGET} are read"
        return problem_response(request.rel_url.raw_path, HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    try:
        check(request)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _of_http_error(request, error)
    except tuple(STATUSES) as error:
        return problem_response(request.rel_url.raw_path, _status(error), str(error), _headers(error))
    except Exception:
        # The last barrier before the client: whatever it is belongs into the log, not into an answer.
        path = request.rel_url.raw_path
        logger.exception("%s %s failed", request.method, path)
        detail = "the platform failed to handle this request; its log says why"
        return problem_response(path, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _status(error: Exception) -> HTTPStatus:
    return next(status for error_type, status in STATUSES.items() if isinstance(error, error_type))


def _headers(error: Exception) -> dict[str, str]:
    match error:
        case Unauthenticated() | Forbidden() if error.challenge:
            return {"WWW-Authenticate": error.challenge}
        case TooManyRequests():
            return {"Retry-After": str(error.retry_after_s)}
        case LogUnavailable():
            return {"Retry-After": RETRY_UNAVAILABLE_S}
    return {}


def _of_http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    path, headers = request.rel_url.raw_path, {}
    match error:
        case web.HTTPNotFound():
            detail = f"there is no resource {path}"
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
            headers["Allow"] = allowed
            if request.method == "OPTIONS":
                return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)
            detail = f"{request.method} is not supported here; supported: {allowed}"
        case web.HTTPRequestEntityTooLarge():
            detail = f"the body is larger than {request.client_max_size} bytes"
        case _:
            detail = error.text or error.reason
    return problem_response(path, HTTPStatus(error.status), detail, headers)
