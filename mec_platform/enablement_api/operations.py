"""Every resource and method of the APIs is one row, an Operation: routes, authentication and the OpenAPI document are
made from the rows and from nothing else.

The APIs' classes list their rows in `operations()`; `routes` puts them on an aiohttp application. A middleware asks
`operation_of` which row a request has matched. Nothing here reads a request's content: that is `exchange`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from mec_platform.domain.credentials import Scope

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A query parameter: `type` is str, bool, int (plain or annotated with bounds) or an enumeration of strings.

    One that is not `repeated` may be given once. `exchange.read_values` reads it.
    """

    name: str
    type: Any
    description: str
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one resource.

    `path` has its parameters in braces, named as in the ETSI files: `{appInstanceId}` is what ownership goes by.
    `scope` is what a token must carry, None where everyone may ask. `body` is the msgspec type of the request's body;
    `answers` has the type of each successful answer's body, None where there is no body, and of errors that have a shape
    of their own. `errors` are the problems that
    this operation reports beside those that every one may (see `openapi`). `etag` marks a resource that answers with an
    ETag, and whose PUT honours If-Match. `notification` is the type of what a subscription's callback is sent.
    `media_type` is that of the answers, `body_media_type` that of the body.
    """

    method: str
    path: str
    operation_id: str
    summary: str
    tag: str
    handler: Handler
    scope: Scope | None
    answers: Mapping[HTTPStatus, Any]
    body: Any = None
    query: tuple[QueryParameter, ...] = ()
    errors: frozenset[HTTPStatus] = frozenset()
    etag: bool = False
    notification: Any = None
    media_type: str = JSON
    body_media_type: str = JSON


@dataclass(slots=True)
class OperationTable:
    """The rows of one application, and which of its resources and routes they have become."""

    by_id: dict[str, Operation] = field(default_factory=dict)
    resources: dict[str, web.Resource] = field(default_factory=dict)
    by_route: dict[web.AbstractRoute, Operation] = field(default_factory=dict)


OPERATIONS = web.AppKey("operations", OperationTable)


def operation_of(request: web.Request) -> Operation | None:
    """The row that a request has matched; None for paths and methods that no row has (404, 405, other routes)."""
    return request.app[OPERATIONS].by_route.get(request.match_info.route)


def operations_of(app: web.Application) -> Iterable[Operation]:
    """All rows of an application, in the order in which they were added: a live view."""
    return app[OPERATIONS].by_id.values()
