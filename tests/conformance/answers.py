"""Checks every answer of an application, as it leaves: against the platform's own OpenAPI document always, and against
the files of the standard where the machine has them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jsonschema
from aiohttp import web

from mec_platform.enablement_api.openapi import make_document
from mec_platform.enablement_api.operations import OPERATIONS, Operation, operation_of
from tests.conformance.deviations import ANSWERS
from tests.conformance.specifications import wire_specifications


class AnswerChecker:
    """Listens to an application; `complaints` has a line for each answer that no document allows."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self.complaints: list[str] = []
        app.on_response_prepare.append(self._check)

    async def _check(self, request: web.Request, response: web.StreamResponse) -> None:
        operation = operation_of(request)
        # 500 is no answer that a document could promise; the test that provokes one looks at it itself.
        if operation is None or response.status == 500 or not isinstance(response, web.Response):
            return
        if request.method == operation.method:
            self.complaints += [
                f"{operation.method} {operation.path} {response.status}: {complaint}"
                for complaint in self._complaints(operation, response)
            ]

    def _complaints(self, operation: Operation, response: web.Response) -> list[str]:
        status, body = response.status, response.body
        assert body is None or isinstance(body, bytes)
        own = _own_schemas(tuple(self._app[OPERATIONS].by_id.values()))
        key = (operation.operation_id, status)
        if key not in own:
            return ["the platform's document knows no such status"]
        validators = own[key]
        if not validators:
            return ["a body where there should be none"] if body else []
        if response.content_type not in validators:
            return [f"{response.content_type} where the document says {', '.join(validators)}"]
        validator = validators[response.content_type]
        if not response.content_type.endswith("json"):
            return []
        message = json.loads(body or b"")
        complaints = errors_of("the platform's document", validator, message)
        for specification in wire_specifications():
            standard = _standard_validator(specification.file, operation.method, operation.path, status)
            if standard is not None:
                complaints += errors_of(specification.file, standard, message)
        return complaints


def errors_of(source: str, validator: jsonschema.Draft202012Validator, message: Any) -> list[str]:
    """What a schema refuses of a message, but for the deviations that are meant."""
    found = []
    for error in validator.iter_errors(message):
        steps = [step for step in error.absolute_path if isinstance(step, str)] or ["the message"]
        if not any(each.what == steps[-1] and each.value in str(error.instance) for each in ANSWERS):
            found.append(f"{source}: {'.'.join(steps)}: {error.message}")
    return found


@lru_cache
def _standard_validator(file: str, method: str, path: str, status: int) -> jsonschema.Draft202012Validator | None:
    (specification,) = (each for each in wire_specifications() if each.file == file)
    return specification.validator(method, path, status)


_Schemas = dict[tuple[str, int], dict[str, jsonschema.Draft202012Validator]]
_KNOWN: dict[frozenset[tuple[str, str | None]], _Schemas] = {}


def _own_schemas(operations: tuple[Operation, ...]) -> _Schemas:
    """By operation and status: what validates the answer, by its media type. The same code makes the same document."""
    ids = frozenset((each.operation_id, each.scope) for each in operations)
    if ids not in _KNOWN:
        document = make_document(operations, "0")
        _KNOWN[ids] = {
            (described["operationId"], int(status)): _validators(document, answer)
            for item in document["paths"].values()
            for method, described in item.items()
            if method != "parameters"
            for status, answer in described["responses"].items()
        }
    return _KNOWN[ids]


def _validators(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, jsonschema.Draft202012Validator]:
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    return {
        media_type: jsonschema.Draft202012Validator({**content["schema"], "components": document["components"]})
        for media_type, content in answer.get("content", {}).items()
    }
