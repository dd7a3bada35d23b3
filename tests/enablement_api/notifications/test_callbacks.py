"""One attempt at a time against real servers: what counts as taken, what is worth another attempt, what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from mec_platform.enablement_api.notifications.callbacks import (
    ID_HEADER,
    LARGEST_ANSWER_BYTES,
    CallbackSender,
    Message,
)
from mec_platform.enablement_api.notifications.outcome import Delivered, Failed, Rejected
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy, read_allowances

MESSAGE = Message(id="subscription-1-7", body=b'{"notificationType":"TestNotification"}')
SETTINGS = DeliverySettings(attempt_timeout_s=0.1)


class Receiver:
    """A callback target that answers as it is told and remembers what came."""

    def __init__(self) -> None:
        self.answer = web.Response(status=204)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[object] = set()
        self.hang = asyncio.Event()
        self.hang.set()

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        self.connections.add(request.transport)
        await self.hang.wait()
        answer = self.answer
        self.answer = web.Response(status=204)
        return answer


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def target(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", receiver.take)
    async with TestServer(app) as server:
        yield str(server.make_url("/callback"))
        receiver.hang.set()


@pytest.fixture
async def sender() -> AsyncIterator[CallbackSender]:
    sender = CallbackSender(CallbackPolicy(DEVELOPMENT_NETWORKS), SETTINGS, lambda: 1_700_000_000)
    yield sender
    await sender.close()


async def test_posts_json_with_the_id_of_the_notification(sender, receiver, target):
    assert await sender.send(target, MESSAGE) == Delivered()
    ((path, headers, body),) = receiver.requests
    assert (path, body) == ("/callback", MESSAGE.body)
    assert (headers["Content-Type"], headers[ID_HEADER]) == ("application/json", "subscription-1-7")


async def test_connections_are_used_again(sender, receiver, target):
    receiver.answer = web.Response(text="thank you")
    for _ in range(3):
        assert await sender.send(target, MESSAGE) == Delivered()
    assert len(receiver.connections) == 1


async def test_an_endless_answer_is_not_read(sender, receiver, target):
    receiver.answer = web.Response(body=b"x" * (100 * LARGEST_ANSWER_BYTES))
    assert await sender.send(target, MESSAGE) == Delivered()
    assert await sender.send(target, MESSAGE) == Delivered()
    assert len(receiver.connections) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "refuses notifications (status 400)"),
        (404, "refuses notifications (status 404)"),
        (410, "gone for good"),
        (301, "redirects are not followed"),
        (307, "redirects are not followed"),
    ],
)
async def test_some_answers_are_final(sender, receiver, target, status, reason):
    receiver.answer = web.Response(status=status, headers={"Location": "/elsewhere"})
    outcome = await sender.send(target, MESSAGE)
    assert isinstance(outcome, Rejected)
    assert reason in outcome.reason
    assert [path for path, _, _ in receiver.requests] == ["/callback"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
async def test_some_answers_are_worth_another_attempt(sender, receiver, target, status):
    receiver.answer = web.Response(status=status)
    assert await sender.send(target, MESSAGE) == Failed(f"the target answers with status {status}")


async def test_the_target_may_say_when_to_come_back(sender, receiver, target):
    receiver.answer = web.Response(status=503, headers={"Retry-After": "Tue, 14 Nov 2023 22:13:50 GMT"})
    assert await sender.send(target, MESSAGE) == Failed("the target answers with status 503", asked_s=30)


async def test_a_hanging_target_is_left_after_a_while(sender, receiver, target):
    receiver.hang.clear()
    assert await sender.send(target, MESSAGE) == Failed("the target did not answer in time", unreachable=True)


async def test_nobody_at_the_port_is_worth_another_attempt(sender):
    outcome = await sender.send(f"http://127.0.0.1:{unused_port()}/secret-path", MESSAGE)
    assert isinstance(outcome, Failed)
    assert outcome.unreachable
    assert "secret-path" not in outcome.reason


async def test_what_answers_no_http_is_worth_another_attempt(sender):
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(mumble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert isinstance(await sender.send(f"http://127.0.0.1:{port}/", MESSAGE), Failed)


async def test_the_policy_of_today_counts_not_that_of_the_subscription(receiver, target):
    sender = CallbackSender(CallbackPolicy(), SETTINGS, lambda: 0)
    outcome = await sender.send(target, MESSAGE)
    await sender.close()
    assert isinstance(outcome, Rejected)
    assert "--callback-allow" in outcome.reason
    assert receiver.requests == []


async def test_a_name_that_is_bound_anew_reaches_nothing_internal(receiver, target):
    """DNS rebinding: a public address when somebody looks, an internal one when it counts."""
    answers = [["127.0.0.1"], ["10.0.0.1", "127.0.0.1"]]

    async def look_up(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    port = target.rpartition(":")[2]
    sender = CallbackSender(CallbackPolicy(), SETTINGS, lambda: 0, look_up=look_up)
    for _ in range(2):
        outcome = await sender.send(f"http://rebinding.example:{port}", MESSAGE)
        assert isinstance(outcome, Rejected)
        assert "internal address" in outcome.reason
    await sender.close()
    assert receiver.requests == []


async def test_a_name_leads_to_the_address_that_was_checked(receiver, target):
    async def look_up(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    policy = read_allowances(["callbacks.internal"])
    sender = CallbackSender(policy, SETTINGS, lambda: 0, look_up=look_up)
    port = target.rpartition(":")[2]
    assert await sender.send(f"http://callbacks.internal:{port}", MESSAGE) == Delivered()
    await sender.close()
    assert receiver.requests[0][1]["Host"].startswith("callbacks.internal:")


async def test_a_name_that_leads_nowhere_is_worth_another_attempt():
    async def look_up(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    sender = CallbackSender(CallbackPolicy(), SETTINGS, lambda: 0, look_up=look_up)
    outcome = await sender.send("http://gone.example/", MESSAGE)
    await sender.close()
    assert outcome == Failed("no connection to the target: its name cannot be resolved", unreachable=True)


async def test_a_proxy_of_the_environment_is_not_used(sender, receiver, target, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await sender.send(target, MESSAGE) == Delivered()


async def test_cookies_of_one_target_do_not_reach_another_subscription(sender, receiver, target):
    receiver.answer = web.Response(headers={"Set-Cookie": "session=1"})
    await sender.send(target, MESSAGE)
    await sender.send(target, MESSAGE)
    assert "Cookie" not in receiver.requests[1][1]
