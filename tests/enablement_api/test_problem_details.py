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
        {"Accept": "not a media range"},
        {"Host": "no host at all:x"},
    ],
)
async def test_odd_headers_do_not_disturb_a_query(client, service, headers):
    response = await client.get(f"{SERVICES}/services", headers=headers)
    assert response.status == 200
    (found,) = await response.json()
    assert found["_links"]["self"]["href"].endswith(f"/services/{service['serInstanceId']}")


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/*",
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/html, */*;q=0.1",
        "",
        ";;;,",
        "text/html;q=0.9,application/json;q=0.1",
    ],
)
async def test_answers_whoever_takes_json(client, accept):
    assert (await client.get(f"{SERVICES}/services", headers={"Accept": accept})).status == 200


@pytest.mark.parametrize("accept", ["text/html", "application/xml, text/*", "application/json;q=0, */*", "*/*;q=0.0"])
async def test_an_answer_that_the_client_does_not_take_is_not_given(client, accept):
    await problem(await client.get(f"{SERVICES}/services", headers={"Accept": accept}), 406)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "*/*", "application/merge-patch+json", "", "nonsense"],
)
async def test_a_body_that_does_not_say_otherwise_is_json(client, content_type):
    response = await client.post(
        f"{APPS}/registrations", data=b'{"appName": "a"}', headers={"Content-Type": content_type}
    )
    assert response.status == 201


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/xml", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"]
)
async def test_a_body_that_says_it_is_something_else_is_not_read(client, content_type):
    response = await client.post(
        f"{APPS}/registrations", data=b'{"appName": "a"}', headers={"Content-Type": content_type}
    )
    await problem(response, 415)


async def test_an_unknown_query_parameter_is_refused_everywhere(client, app_id):
    await problem(await client.get(f"{APPS}/registrations/{app_id}?verbose=1"), 400)
    await problem(await client.get(f"{SERVICES}/transports?verbose=1"), 400)
    await problem(await client.get(f"{APPS}/timing/current_time?verbose=1"), 400)


async def test_a_failing_log_is_reported_as_unavailable(client, host, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise LogUnavailable("the disk is full")

    monkeypatch.setattr(host.applications, "register", fail)
    details = await problem(await client.post(f"{APPS}/registrations", json={"appName": "a"}), 503)
    assert "the disk is full" in details["detail"]


async def test_an_unforeseen_error_goes_to_the_log_and_not_to_the_client(client, host, monkeypatch, caplog):
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(host.applications, "register", fail)
    with caplog.at_level(logging.ERROR):
        details = await problem(await client.post(f"{APPS}/registrations", json={"appName": "a"}), 500)
    assert "secret detail" not in str(details)
    assert "secret detail" in caplog.text
