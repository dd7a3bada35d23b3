"""What the handlers of every MEC API share: reading JSON bodies and query parameters, links, and JSON answers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web

from mec_platform.enablement_api.problem_details import BadRequest

Message = TypeVar("Message")


class LinkType(msgspec.Struct, frozen=True):
    """MEC 011 clause 6.3.2."""

    href: str


async def read_message(request: web.Request, message_type: type[Message]) -> Message:
    """The request's body as `message_type`, taken for JSON whatever its Content-Type says.

    Raises:
        BadRequest: the body is no JSON or does not fit the type; the message names the attribute.
    """
    try:
        body = await request.read()
    except web.RequestPayloadError as error:
        raise BadRequest("the body cannot be read: its Content-Encoding or its chunks are broken") from error
    try:
        return msgspec.json.decode(body, type=message_type)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error


def read_query(request: web.Request, single: Set[str] = frozenset(), repeated: Set[str] = frozenset()) -> None:
    """Refuses query parameters that the resource does not have, and repetitions of those that have one value.

    Raises:
        BadRequest: naming the parameter.
    """
    for name in dict.fromkeys(request.query):
        if name not in single | repeated:
            known = ", ".join(sorted(single | repeated)) or "none"
            raise BadRequest(f"unknown query parameter {name!r}; known here: {known}")
        if name in single and len(request.query.getall(name)) > 1:
            raise BadRequest(f"query parameter {name} must be given once")


def resource_uri(request: web.Request, path: str) -> str:
    """Absolute URI of a resource of this platform, at the address under which the client has reached it."""
    try:
        return str(request.url.origin().with_path(path))
    except ValueError:
        # A Host header that is no host name: a reference relative to the root still is a valid URI reference.
        return path


def json_response(message: object, status: HTTPStatus = HTTPStatus.OK, location: str | None = None) -> web.Response:
    """A JSON answer, with a Location where a resource was created."""
    headers: Mapping[str, str] = {} if location is None else {"Location": location}
    return web.Response(
        status=status, body=msgspec.json.encode(message), content_type="application/json", headers=headers
    )


def no_content() -> web.Response:
    """204."""
    return web.Response(status=HTTPStatus.NO_CONTENT)
