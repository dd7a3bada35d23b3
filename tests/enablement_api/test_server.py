"""What is no HTTP, or only the beginning of it, is answered with problem details where it can be, and harms nobody."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from aiohttp import web

from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.server import EnablementRunner

SERVICES = "/mec_service_mgmt/v1"
POST = b"POST /mec_app_support/v2/registrations HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
async def address(host):
    runner = EnablementRunner(make_enablement_app(host), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0]
    await runner.cleanup()


async def exchange(address: tuple[str, int], raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to these bytes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    has_body = not raw.startswith(b"HEAD")
    body = await reader.readexactly(int(headers.get("Content-Length", 0))) if has_body else b""
    writer.close()
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03garbage\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%zz%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: abc\r\n\r\n{", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{", 400),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Encoding: unheard-of\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b'Content-Length: 16\r\n\r\n{"appName":"\\u00"', 400),
    ],
)
async def test_garbage_is_answered_with_problem_details(address, caplog, raw, status):
    with caplog.at_level(logging.WARNING):
        found, headers, body = await exchange(address, raw)
    assert found == status
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    assert not caplog.records


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure(address, caplog):
    with caplog.at_level(logging.WARNING):
        _, writer = await asyncio.open_connection(*address)
        writer.write(POST + b"Content-Length: 10\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        status, _, _ = await exchange(address, f"GET {SERVICES}/services HTTP/1.0\r\n\r\n".encode())
    assert status == 200
    assert not caplog.records


async def test_options_tells_what_a_resource_offers(address):
    request = f"OPTIONS {SERVICES}/services HTTP/1.1\r\nHost: a\r\n\r\n"
    status, headers, body = await exchange(address, request.encode())
    assert (status, headers["Allow"], body) == (204, "GET, HEAD, OPTIONS", b"")


async def test_head_is_a_get_without_its_body(address):
    answers = [
        await exchange(address, f"{method} {SERVICES}/services HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for method in ("GET", "HEAD")
    ]
    (status, headers, body), (head_status, head_headers, head_body) = answers
    del headers["Date"], head_headers["Date"]
    assert (head_status, head_headers, head_body) == (status, headers, b"")
    assert body == b"[]"
