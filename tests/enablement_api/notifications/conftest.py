"""Receivers of notifications, and a platform that may call this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.registry.host import HostRegistry
from tests.conformance.answers import AnswerChecker
from tests.enablement_api.notifications.receiver import Receiver, serve_receiver

SERVICES = "/mec_service_mgmt/v1"


@pytest.fixture
async def client(host: HostRegistry) -> AsyncIterator[TestClient]:
    app = make_enablement_app(
        host, callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS), delivery=DeliverySettings(attempt_timeout_s=1)
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
def subscription(receiver: Receiver) -> dict[str, Any]:
    """SerAvailabilityNotificationSubscription without criteria, as an application posts it."""
    return {"subscriptionType": "SerAvailabilityNotificationSubscription", "callbackReference": receiver.url}


@pytest.fixture
def termination_subscription(receiver: Receiver, app_id: str) -> dict[str, Any]:
    """AppTerminationNotificationSubscription, as an application posts it."""
    return {
        "subscriptionType": "AppTerminationNotificationSubscription",
        "callbackReference": receiver.url,
        "appInstanceId": app_id,
    }


@pytest.fixture
def post_service(client: TestClient, app_id: str, offer: dict[str, Any]) -> Callable[..., Any]:
    """Registers a service of that name; more attributes replace those of the offer."""

    async def post(name: str, **attributes: Any) -> dict[str, Any]:
        response = await client.post(
            f"{SERVICES}/applications/{app_id}/services", json=offer | {"serName": name} | attributes
        )
        assert response.status == 201
        return await response.json()

    return post
