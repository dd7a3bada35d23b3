"""The check of every answer finds what it should; the fixture `client` applies it to all tests of the APIs."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.enablement_api.routes import make_enablement_app
from tests.conformance.answers import AnswerChecker
from tests.conformance.specifications import WHERE, wire_specifications

SERVICES = "/mec_service_mgmt/v1"


async def answers(host, answer: web.Response) -> list[str]:
    """Complaints about a platform that gives this answer to whoever lists services."""

    @web.middleware
    async def misbehave(request, handler):
        return answer

    app = make_enablement_app(host)
    app.middlewares.insert(0, misbehave)
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        await client.get(f"{SERVICES}/services")
    return checker.complaints


async def test_complains_of_a_status_that_the_document_does_not_name(host):
    (complaint,) = await answers(host, web.json_response([], status=202))
    assert "no such status" in complaint


async def test_complains_of_an_answer_that_does_not_fit_its_schema(host):
    complaints = await answers(host, web.json_response([{"serName": "greeting"}]))
    assert any("'transportInfo' is a required property" in each for each in complaints)


async def test_complains_of_another_content_type(host):
    (complaint,) = await answers(host, web.Response(text="[]"))
    assert "text/plain" in complaint


async def test_knows_the_schemas_of_the_standard():
    if not wire_specifications():
        pytest.skip(WHERE)
    for specification in wire_specifications():
        validators = [specification.validator(method, path, 200) for method, path in specification.routes()]
        assert any(validators)
