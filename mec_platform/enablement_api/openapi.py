"""The OpenAPI 3.1 document of the platform, made from the rows of `operations` and the types of their messages.

Nothing is written twice: a route, a parameter or an attribute that is not in the document is not in the code either.
Counterparts: `docs` serves the document, `examples` has the requests that it shows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.examples import EXAMPLES
from mec_platform.enablement_api.operations import JSON, Operation, QueryParameter
from mec_platform.enablement_api.problem_details import PROBLEM_JSON, ProblemDetails

JsonObject = dict[str, Any]

TOKEN_OPERATION = "issueToken"
"""The row whose path is the token endpoint of the OAuth2 scheme."""

SCOPES = {
    Scope.APP_SUPPORT: "Application support, of one's own application instances",
    Scope.SERVICE_MANAGEMENT: "Service management, of one's own application instances",
    Scope.RADIO_INFORMATION: "Radio network information",
    Scope.FEDERATION: "Federation: what this host shares with other MEC hosts",
    Scope.ADMIN: "Administration of the platform: every application instance",
}

_SCHEMAS = "#/components/schemas/"
_PATH_PARAMETER = re.compile(r"{(\w+)}")

_HEADERS: JsonObject = {
    "Location": {"description": "URI of what was created.", "schema": {"type": "string", "format": "uri-reference"}},
    "ETag": {"description": "Version of the resource, for If-Match.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "What credentials are expected.", "schema": {"type": "string"}},
}

_HEADERS_OF: dict[HTTPStatus, tuple[str, ...]] = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate",),
    HTTPStatus.TOO_MANY_REQUESTS: ("Retry-After",),
    HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After",),
}


def make_document(operations: Iterable[Operation], version: str) -> JsonObject:
    """The document for these rows; `version` is the product's."""
    rows = list(operations)
    schemas = _Schemas(rows)
    paths: JsonObject = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas)
    for path, item in paths.items():
        parameters = [_path_parameter(name) for name in _PATH_PARAMETER.findall(path)]
        if parameters:
            item["parameters"] = parameters
    problems = sorted({status for row in rows for status in problem_statuses(row)})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MEC platform",
            "version": version,
            "description": "Application enablement at the edge: ETSI GS MEC 011 and 012, and what the platform adds to them. "
            "An attribute of a request that is null counts as absent.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for row in rows)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {_response_name(status): _problem(status, schemas) for status in problems},
            "headers": _HEADERS,
            "securitySchemes": {"oauth2": _oauth2(rows)},
        },
    }


def problem_statuses(row: Operation) -> set[HTTPStatus]:
    """The errors that an operation may answer: what its row names and what follows from its row."""
    statuses = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.TOO_MANY_REQUESTS, *row.errors}
    if row.scope is not None:
        statuses |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if "{" in row.path:
        statuses.add(HTTPStatus.NOT_FOUND)
    if row.media_type == JSON:
        statuses.add(HTTPStatus.NOT_ACCEPTABLE)
    if row.body is not None:
        statuses |= {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
    if row.method != "GET":
        statuses.add(HTTPStatus.SERVICE_UNAVAILABLE)
    if row.etag and row.method == "PUT":
        statuses.add(HTTPStatus.PRECONDITION_FAILED)
    return statuses


def _operation(row: Operation, schemas: _Schemas) -> JsonObject:
    reported = problem_statuses(row)
    answers = {str(int(status)): _answer(row, status, schemas) for status in row.answers}
    for status in reported & set(row.answers):
        # An error that the operation reports in words of its own, and others before it as problem details.
        problem = _problem(status, schemas)
        answers[str(int(status))]["content"] |= problem.pop("content")
        answers[str(int(status))] |= problem
    problems = {
        str(int(status)): {"$ref": f"#/components/responses/{_response_name(status)}"}
        for status in sorted(reported - set(row.answers))
    }
    described: JsonObject = {
        "operationId": row.operation_id,
        "summary": row.summary,
        "tags": [row.tag],
        "security": [] if row.scope is None else [{"oauth2": [row.scope.value]}],
        "responses": answers | problems,
    }
    description = inspect.getdoc(row.handler)
    if description:
        described["description"] = description
    parameters = [_query_parameter(each, schemas) for each in row.query]
    if row.etag and row.method == "PUT":
        described_tag = "ETags, one of which the resource must have; `*` for any."
        parameters.append(
            {"name": "If-Match", "in": "header", "description": described_tag, "schema": {"type": "string"}}
        )
    if parameters:
        described["parameters"] = parameters
    if row.body is not None:
        content: JsonObject = {"schema": schemas.of(row.body)}
        if row.operation_id in EXAMPLES:
            content["example"] = EXAMPLES[row.operation_id]
        described["requestBody"] = {"required": True, "content": {row.body_media_type: content}}
    if row.notification is not None:
        described["callbacks"] = {"notification": _callback(row.notification, schemas)}
    return described


def _answer(row: Operation, status: HTTPStatus, schemas: _Schemas) -> JsonObject:
    answer: JsonObject = {"description": status.phrase}
    names = ["Location"] if status is HTTPStatus.CREATED else []
    if row.etag:
        names.append("ETag")
    if names:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    message_type = row.answers[status]
    if message_type is not None:
        answer["content"] = {row.media_type: {"schema": schemas.of(message_type)}}
    return answer


def _problem(status: HTTPStatus, schemas: _Schemas) -> JsonObject:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS_OF.get(status, ())}
    problem: JsonObject = {
        "description": status.phrase,
        "content": {PROBLEM_JSON: {"schema": schemas.of(ProblemDetails)}},
    }
    return problem | ({"headers": headers} if headers else {})


def _response_name(status: HTTPStatus) -> str:
    return status.phrase.replace(" ", "").replace("-", "")


def _path_parameter(name: str) -> JsonObject:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameter(parameter: QueryParameter, schemas: _Schemas) -> JsonObject:
    schema = schemas.of(parameter.type)
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": {"type": "array", "items": schema} if parameter.repeated else schema,
    }


def _callback(notification: Any, schemas: _Schemas) -> JsonObject:
    """What the platform posts to a subscriber; the subscriber answers that it has it."""
    post = {
        "requestBody": {"required": True, "content": {JSON: {"schema": schemas.of(notification)}}},
        "responses": {"204": {"description": "The subscriber has taken the notification."}},
    }
    return {"{$request.body#/callbackReference}": {"post": post}}


def _oauth2(rows: Sequence[Operation]) -> JsonObject:
    token_url = next((row.path for row in rows if row.operation_id == TOKEN_OPERATION), "/")
    used = {row.scope for row in rows}
    scopes = {scope.value: text for scope, text in SCOPES.items() if scope in used}
    return {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": token_url, "scopes": scopes}}}


class _Schemas:
    """JSON Schemas of all types that the rows mention; structures stand under `components`."""

    def __init__(self, rows: Sequence[Operation]) -> None:
        self._types: list[Any] = [ProblemDetails]
        for row in rows:
            mentioned = [row.body, row.notification, *row.answers.values(), *(each.type for each in row.query)]
            self._types += [each for each in mentioned if each is not None]
        schemas, components = msgspec.json.schema_components(self._types, ref_template=_SCHEMAS + "{name}")
        rules = _rules(self._types)
        self._schemas: list[JsonObject] = [_tidy(schema) for schema in schemas]
        self.components = {
            _public_name(name): _tidy(schema | rules.get(name, {})) for name, schema in sorted(components.items())
        }

    def of(self, message_type: Any) -> JsonObject:
        """The schema of a type that one of the rows mentions."""
        return self._schemas[self._types.index(message_type)]


def _rules(types: Sequence[Any]) -> dict[str, JsonObject]:
    """What `schema_rule` of the structures among these types and their attributes says, by the structures' names."""
    rules: dict[str, JsonObject] = {}
    seen: set[Any] = set()
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(types))
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            rules[info.cls.__name__] = getattr(info.cls, "schema_rule", {})
        if isinstance(info, tuple):
            waiting += info
        elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            waiting += [getattr(info, name) for name in info.__struct_fields__]
    return rules


def _public_name(name: str) -> str:
    return name.removesuffix("Message")


def _tidy(schema: JsonObject) -> JsonObject:
    """Says of attributes that may be left out that they may be left out, and no more.

    msgspec adds that they may be null: such a null is read as absence, and no answer has one.
    """
    tidy: JsonObject = {}
    for keyword, value in schema.items():
        if keyword == "properties":
            tidy[keyword] = {name: _tidy(each) for name, each in value.items()}
        elif keyword in ("$ref", "title"):
            tidy[keyword] = _public_name(value)
        elif keyword == "enum" and all(isinstance(word, str) for word in value):
            tidy |= {"type": "string", "enum": value}
        elif keyword == "anyOf" and len(value) == 2 and {"type": "null"} in value:
            tidy |= _tidy(next(choice for choice in value if choice != {"type": "null"}))
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            tidy[keyword] = [_tidy(each) for each in value]
        elif keyword in ("items", "additionalProperties", "not") and isinstance(value, dict):
            tidy[keyword] = _tidy(value)
        elif (keyword, value) not in (("default", None), ("required", [])):
            tidy[keyword] = value
    return tidy
