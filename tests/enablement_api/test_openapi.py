"""The OpenAPI document that the platform makes of its own code, and the page that shows it."""

from __future__ import annotations

import re

import msgspec
import pytest
from openapi_spec_validator import validate

from mec_platform.enablement_api.examples import EXAMPLES
from mec_platform.enablement_api.operations import JSON, OPERATIONS

SERVICES = "/mec_service_mgmt/v1"


@pytest.fixture
async def document(client) -> dict:
    response = await client.get("/openapi.json")
    assert response.status == 200
    return await response.json()


async def test_the_document_is_valid_openapi_3_1(document):
    validate(document)
    assert document["openapi"].startswith("3.1.")


async def test_the_document_has_every_row_and_nothing_else(client, document):
    described = {
        (method.upper(), path): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    rows = client.app[OPERATIONS].by_id.values()
    assert described == {(row.method, row.path): row.operation_id for row in rows}


async def test_every_schema_has_a_name_of_its_own(document):
    names = list(document["components"]["schemas"])
    assert [name for name in names if not re.fullmatch(r"[A-Z]\w+", name) or name.endswith("Message")] == []


async def test_every_json_body_has_an_example_that_its_type_takes(client):
    rows = client.app[OPERATIONS].by_id.values()
    bodies = {row.operation_id: row.body for row in rows if row.body is not None and row.body_media_type == JSON}
    assert set(EXAMPLES) == set(bodies)
    for operation_id, body in bodies.items():
        msgspec.json.decode(msgspec.json.encode(EXAMPLES[operation_id]), type=body)


async def test_says_what_a_token_must_carry_and_where_it_is_not_needed(document):
    paths = document["paths"]
    assert paths[f"{SERVICES}/services"]["get"]["security"] == [{"oauth2": ["mec_service_mgmt"]}]
    assert paths["/openapi.json"]["get"]["security"] == []
    flow = document["components"]["securitySchemes"]["oauth2"]["flows"]["clientCredentials"]
    assert set(flow["scopes"]) >= {"mec_app_support", "mec_service_mgmt"}


async def test_says_which_values_a_filter_takes(document):
    parameters = {each["name"]: each for each in document["paths"][f"{SERVICES}/services"]["get"]["parameters"]}
    assert parameters["ser_name"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert parameters["is_local"]["schema"] == {"type": "boolean"}
    assert parameters["scope_of_locality"]["schema"] == {"$ref": "#/components/schemas/LocalityType"}
    assert "ZONE" in document["components"]["schemas"]["LocalityType"]["enum"]


async def test_says_which_attributes_exclude_each_other(document):
    schemas = document["components"]["schemas"]
    assert {"required": ["transportId"]} in schemas["ServiceInfoPost"]["oneOf"]
    assert len(schemas["EndPoint"]["oneOf"]) == 4


async def test_the_page_loads_nothing_from_elsewhere(client):
    page = await client.get("/docs")
    assert (page.status, page.content_type) == (200, "text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', await page.text())
    assert not [address for address in loaded if "//" in address]
    for address in loaded:
        if address.startswith("/"):
            assert (await client.get(address)).status == 200
