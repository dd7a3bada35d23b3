"""What the handlers of every MEC API share: reading JSON bodies, query parameters and conditions, links, JSON answers.

The counterpart of `operations`: what a row promises is checked and read here. Nothing here knows a resource.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web
from yarl import URL

from mec_platform.enablement_api.operations import JSON, Operation, QueryParameter
from mec_platform.enablement_api.problem_details import (
    BadRequest,
    NotAcceptable,
    PreconditionFailed,
    UnsupportedMediaType,
)

Message = TypeVar("Message")

PUBLIC_URI = web.AppKey("public_uri", str)
"""Scheme and authority of the platform as its clients see it; empty where it is as they say."""

_IN_PATHS = "/:@!$&'()*+,;=-._~"
_BOOLEANS = {"true": True, "false": False}
_TAG = re.compile(r'(?:W/)?"[^"]*"')


class LinkType(msgspec.Struct, frozen=True):
    """MEC 011 clause 6.3.2."""

    href: str


class TimeStamp(msgspec.Struct, frozen=True, rename="camel"):
    """Unix time."""

    seconds: int
    nano_seconds: int


async def read_message(request: web.Request, message_type: type[Message]) -> Message:
    """The request's body as `message_type`.

    Raises:
        UnsupportedMediaType: its Content-Type says that the body is no JSON.
        BadRequest: the body is no JSON or does not fit the type; the message names the attribute.
    """
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    if not means_json(content_type):
        raise UnsupportedMediaType(f"the body must be {JSON}, not {content_type}")
    try:
        body = await request.read()
    except web.RequestPayloadError as error:
        raise BadRequest("the body cannot be read: its Content-Encoding or its chunks are broken") from error
    except ConnectionError as error:
        # Nobody is left to read this, but neither has the platform failed.
        raise BadRequest("the connection ended before the body did") from error
    try:
        return msgspec.json.decode(body, type=message_type)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error


@lru_cache(maxsize=256)
def means_json(content_type: str) -> bool:
    """Whether a body of this Content-Type is read as JSON.

    Clients send JSON as `*/*`, as unknown bytes or as nothing at all, so only what names another type is refused.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("", "*/*", "application/octet-stream", JSON) or "/" not in media_type:
        return True
    return media_type.startswith("application/") and media_type.endswith("+json")


@lru_cache(maxsize=256)
def accepts_json(accept: str) -> bool:
    """Whether an Accept header lets JSON be answered (RFC 9110 clause 12.5.1): the most specific range that fits decides.

    What cannot be parsed counts as not said.
    """
    fits = {JSON: 3, "application/*": 2, "*/*": 1}
    decision = (0, True)
    for media_range in accept.split(","):
        name, *parameters = (part.strip().lower() for part in media_range.split(";"))
        if "/" in name:
            quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            decision = max(decision, (fits.get(name, 0), name in fits and quality.strip("0.") != ""))
    named = any("/" in each for each in accept.split(","))
    return decision[1] if decision[0] else not named


def check_exchange(request: web.Request, operation: Operation) -> None:
    """Refuses what no handler of this row could answer: query parameters that it does not have, or that are repeated
    though they have one value, and an Accept header that excludes JSON.

    Raises:
        BadRequest: naming the parameter.
        NotAcceptable: the answer is JSON, which the client does not take.
    """
    accept = request.headers.get(hdrs.ACCEPT)
    if accept is not None and operation.media_type == JSON and not accepts_json(accept):
        raise NotAcceptable(f"answers here are {JSON}; Accept says {accept}")
    if not request.rel_url.raw_query_string:
        return
    parameters = {each.name: each for each in operation.query}
    for name in dict.fromkeys(request.query):
        if name not in parameters:
            known = ", ".join(sorted(parameters)) or "none"
            raise BadRequest(f"unknown query parameter {name!r}; known here: {known}")
        if not parameters[name].repeated and len(request.query.getall(name)) > 1:
            raise BadRequest(f"query parameter {name} must be given once")


def read_values(request: web.Request, parameter: QueryParameter) -> list[Any]:
    """The values of a query parameter, of its type; none where it is absent.

    Raises:
        BadRequest: a value that the parameter does not take.
    """
    return [_value(parameter, text) for text in request.query.getall(parameter.name, [])]


def read_list(request: web.Request, parameter: QueryParameter) -> list[Any]:
    """As `read_values`, where commas separate values too, as MEC 012 has it. Raises BadRequest likewise."""
    texts = request.query.getall(parameter.name, [])
    return [_value(parameter, each) for text in texts for each in text.split(",")]


def read_value(request: web.Request, parameter: QueryParameter) -> Any:
    """The value of a query parameter that is given once, or None. Raises BadRequest as `read_values` does."""
    return next(iter(read_values(request, parameter)), None)


def _value(parameter: QueryParameter, text: str) -> Any:
    if parameter.type is bool:
        if text not in _BOOLEANS:
            raise BadRequest(f"{parameter.name} must be true or false")
        return _BOOLEANS[text]
    if isinstance(parameter.type, type) and issubclass(parameter.type, StrEnum):
        if text not in set(parameter.type):
            raise BadRequest(f"{parameter.name} must be one of {', '.join(parameter.type)}")
        return parameter.type(text)
    try:
        return msgspec.convert(text, parameter.type, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{parameter.name}: {error}") from error


def entity_tag(message: object) -> str:
    """A strong ETag (RFC 9110 clause 8.8.3) for a resource that is answered as `message`: equal content, equal tag."""
    return f'"{hashlib.blake2b(msgspec.json.encode(message), digest_size=12).hexdigest()}"'


def check_if_match(request: web.Request, tag: str) -> None:
    """Holds a change to the version that its client has seen (RFC 9110 clause 13.1.1); `*` means any that exists.

    To be called where the change is decided, with the tag of what is about to be replaced. Weak tags never match.

    Raises:
        PreconditionFailed: If-Match is there and names other versions only.
    """
    lines = request.headers.getall("If-Match", [])
    if not lines:
        return
    wanted = ",".join(lines)
    if wanted.strip() != "*" and tag not in _TAG.findall(wanted):
        raise PreconditionFailed(f"If-Match names {wanted}, but the resource is now at {tag}; GET it and try again")


def base_uri(request: web.Request) -> str:
    """What the absolute URIs of this platform's resources begin with: the address under which the client has reached it,
    or the one that the operator has set, for a platform behind a proxy. Empty where the Host header is no host name: a
    reference relative to the root is a valid URI reference too.
    """
    return request.app[PUBLIC_URI] or _origin(request.scheme, request.headers.get(hdrs.HOST, ""))


@lru_cache(maxsize=256)
def _origin(scheme: str, host: str) -> str:
    try:
        return str(URL.build(scheme=scheme, authority=host).origin())
    except ValueError:
        return ""


def resource_uri(request: web.Request, path: str) -> str:
    """Absolute URI of a resource of this platform; `path` as it is, with its characters not yet escaped."""
    return absolute_uri(base_uri(request), path)


def absolute_uri(base: str, path: str) -> str:
    """As `resource_uri`, where there is no request at hand but its `base_uri` was kept."""
    return f"{base}{quote(path, safe=_IN_PATHS)}"


def json_response(
    message: object, status: HTTPStatus = HTTPStatus.OK, location: str | None = None, etag: str | None = None
) -> web.Response:
    """A JSON answer, with a Location where a resource was created, and an ETag where it has one."""
    headers = {hdrs.CONTENT_TYPE: JSON}
    if location is not None:
        headers[hdrs.LOCATION] = location
    if etag is not None:
        headers[hdrs.ETAG] = etag
    return web.Response(status=status, body=msgspec.json.encode(message), headers=headers)


def no_content() -> web.Response:
    """204."""
    return web.Response(status=HTTPStatus.NO_CONTENT)
