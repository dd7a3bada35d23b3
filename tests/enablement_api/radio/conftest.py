"""MEC 012 on a real server, with a radio network that tests report to, and receivers on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.host import HostRegistry
from tests.conformance.answers import AnswerChecker
from tests.enablement_api.notifications.receiver import Receiver, serve_receiver

SUBSCRIPTIONS = "/rni/v2/subscriptions"

Subscribe = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def network(host: HostRegistry) -> RadioNetwork:
    return RadioNetwork(host.registry.clock)


@pytest.fixture
async def client(host: HostRegistry, network: RadioNetwork) -> AsyncIterator[TestClient]:
    app = make_enablement_app(
        host,
        callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS),
        delivery=DeliverySettings(attempt_timeout_s=30),
        radio=network,
    )
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        yield client
    assert checker.complaints == []


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with serve_receiver() as receiver:
        yield receiver


@pytest.fixture
def subscribe(client: TestClient, receiver: Receiver) -> Subscribe:
    """Posts a subscription whose notifications go to the receiver; the answer."""

    async def post(wished: dict[str, Any], **more: Any) -> dict[str, Any]:
        response = await client.post(SUBSCRIPTIONS, json=wished | {"callbackReference": receiver.url} | more)
        assert response.status == 201, await response.text()
        answer = await response.json()
        assert response.headers["Location"] == answer["_links"]["self"]["href"]
        return answer

    return post
