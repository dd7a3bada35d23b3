"""Errors as `application/problem+json` (RFC 9457; ETSI GS MEC 009 clause 6.15): one table, one middleware.

Handlers raise what they find wrong; nothing below the HTTP edge knows a status code.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from mec_platform.registry.errors import (
    LivenessNotMonitored,
    LogUnavailable,
    UnknownAppInstance,
    UnknownService,
    UnknownTransport,
)

logger = logging.getLogger(__name__)

LONGEST_TARGET = 6000
"""Characters of path and query; beyond it 414 (MEC 011 clause 8.2.3). aiohttp itself gives up at 8190 bytes a line."""


class BadRequest(Exception):
    """The request cannot be understood; the message says what to change."""


class NotAcceptable(Exception):
    """The client takes no JSON."""


class PreconditionFailed(Exception):
    """The client has seen another version of the resource than the one it would change."""


class UnsupportedMediaType(Exception):
    """The body is of a type that the resource does not read."""


STATUSES: dict[type[Exception], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnknownTransport: HTTPStatus.BAD_REQUEST,
    UnknownAppInstance: HTTPStatus.NOT_FOUND,
    UnknownService: HTTPStatus.NOT_FOUND,
    LivenessNotMonitored: HTTPStatus.NOT_FOUND,
    LogUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """MEC 009 clause 6.15.3. The type about:blank says that the title is the status's own."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str


def problem_response(request: web.BaseRequest, status: HTTPStatus, detail: str) -> web.Response:
    """The answer that tells a client what went wrong with this request."""
    problem = ProblemDetails(title=status.phrase, status=status, detail=detail, instance=request.rel_url.raw_path)
    return web.Response(status=status, body=msgspec.json.encode(problem), content_type="application/problem+json")


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into problem details; never lets a traceback out."""
    if len(request.raw_path) > LONGEST_TARGET:
        detail = f"the request target has {len(request.raw_path)} characters, at most {LONGEST_TARGET} are read"
        return problem_response(request, HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _of_http_error(request, error)
    except tuple(STATUSES) as error:
        return problem_response(request, _status(error), str(error))
    except Exception:
        # The last barrier before the client: whatever it is belongs into the log, not into an answer.
        logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
        detail = "the platform failed to handle this request; its log says why"
        return problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _status(error: Exception) -> HTTPStatus:
    return next(status for error_type, status in STATUSES.items() if isinstance(error, error_type))


def _of_http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    match error:
        case web.HTTPNotFound():
            detail = f"there is no resource {request.rel_url.raw_path}"
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.method} is not supported here; supported: {allowed}"
        case web.HTTPRequestEntityTooLarge():
            detail = f"the body is larger than {request.client_max_size} bytes"
        case _:
            detail = error.text or error.reason
    response = problem_response(request, HTTPStatus(error.status), detail)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
