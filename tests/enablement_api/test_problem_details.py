"""Whatever goes wrong is answered with problem details, never with a traceback."""

from __future__ import annotations

import logging
from io import BytesIO

import pytest

from mec_platform.enablement_api.routes import LARGEST_BODY_BYTES
from mec_platform.registry.errors import LogUnavailable

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"


async def problem(response, status: int) -> dict:
    assert response.status == status
    assert response.content_type == "application/problem+json"
    details = await response.json()
    assert set(details) == {"type", "title", "status", "detail", "instance"}
    assert details["status"] == status
    assert details["instance"] == response.url.raw_path
    assert details["detail"]
    return details


@pytest.mark.parametrize("path", ["/", "/nowhere", f"{SERVICES}", f"{SERVICES}/services/", f"{APPS}/%2e%2e/x"])
async def test_an_unknown_path_is_not_found(client, path):
    await problem(await client.get(path), 404)


async def test_a_wrong_method_is_told_the_right_ones(client):
    response = await client.delete(f"{SERVICES}/services")
    details = await problem(response, 405)
    assert "GET" in details["detail"]
    assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"appName": "\xff"}',
        b'{"appName": NaN}',
        b'{"appName": "a"} trailing',
        b'{"appName": "a", "appProfile": ' + b'{"a":' * 100_000,
    ],
)
async def test_a_body_that_is_no_json_is_a_bad_request(client, body):
    await problem(await client.post(f"{APPS}/registrations", data=body), 400)


async def test_a_body_beyond_the_bound_is_too_large(client):
    await problem(await client.post(f"{APPS}/registrations", data=BytesIO(b" " * (LARGEST_BODY_BYTES + 1))), 413)


async def test_a_target_beyond_the_bound_is_too_long(client):
    await problem(await client.get(f"{SERVICES}/services?ser_name={'a' * 6000}"), 414)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "*/*"},
        {"Content-Type": "nonsense; charset=nothing"},
        {"Authorization": "Digest whatever"},
        {"Accept": "text/html"},
        {"Host": "no host at all:x"},
    ],
)
async def test_odd_headers_do_not_disturb_a_query(client, service, headers):
    response = await client.get(f"{SERVICES}/services", headers=headers)
    assert response.status == 200
    (found,) = await response.json()
    assert found["_links"]["self"]["href"].endswith(f"/services/{service['serInstanceId']}")


async def test_an_unknown_query_parameter_is_refused_everywhere(client, app_id):
    await problem(await client.get(f"{APPS}/registrations/{app_id}?verbose=1"), 400)
    await problem(await client.get(f"{SERVICES}/transports?verbose=1"), 400)
    await problem(await client.get(f"{APPS}/timing/current_time?verbose=1"), 400)


async def test_a_failing_log_is_reported_as_unavailable(client, registry, monkeypatch):
    async def fail(*_: object) -> None:
        raise LogUnavailable("the disk is full")

    monkeypatch.setattr(registry, "register_app", fail)
    details = await problem(await client.post(f"{APPS}/registrations", json={"appName": "a"}), 503)
    assert "the disk is full" in details["detail"]


async def test_an_unforeseen_error_goes_to_the_log_and_not_to_the_client(client, registry, monkeypatch, caplog):
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(registry, "register_app", fail)
    with caplog.at_level(logging.ERROR):
        details = await problem(await client.post(f"{APPS}/registrations", json={"appName": "a"}), 500)
    assert "secret detail" not in str(details)
    assert "secret detail" in caplog.text
