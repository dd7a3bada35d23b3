"""Mp1 on a real server over a real log, and the JSON that applications send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.routes import make_enablement_app, platform_transports
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.conformance.answers import AnswerChecker

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"


class StandingClock:
    """Implements `Clock`; time passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.25

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return int(self.now_s * 1000) * 10**6

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
async def host(clock: StandingClock) -> AsyncIterator[HostRegistry]:
    log = await SqliteEventLog.open(":memory:")
    host = HostRegistry(
        Registry(log, clock=clock),
        locality=Locality(mec_host="host-1"),
        transports=platform_transports("http://platform.example/"),
    )
    await host.start()
    yield host
    await host.stop()
    await log.close()


@pytest.fixture
async def client(host: HostRegistry) -> AsyncIterator[TestClient]:
    app = make_enablement_app(host)
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        yield client
    assert checker.complaints == []


@pytest.fixture
async def app_id(client: TestClient) -> str:
    """An application instance that has registered."""
    response = await client.post(f"{APPS}/registrations", json={"appName": "greeter"})
    return (await response.json())["appInstanceId"]


@pytest.fixture
def offer() -> dict[str, Any]:
    """A complete ServiceInfo, as an application posts it."""
    return {
        "serName": "greeting",
        "serCategory": {"href": "urn:cat", "id": "cat-1", "name": "Greetings", "version": "1"},
        "version": "1.0",
        "state": "ACTIVE",
        "transportInfo": {
            "id": "transport-1",
            "name": "REST",
            "description": "REST API",
            "type": "REST_HTTP",
            "protocol": "HTTP",
            "version": "1.1",
            "endpoint": {"uris": ["http://127.0.0.1:9000/"]},
            "security": {
                "oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "http://auth.example/"}
            },
            "implSpecificInfo": {"shard": 3},
        },
        "serializer": "JSON",
        "scopeOfLocality": "MEC_SYSTEM",
        "consumedLocalOnly": False,
    }


@pytest.fixture
async def service(client: TestClient, app_id: str, offer: dict[str, Any]) -> dict[str, Any]:
    """A service that the application has registered, as the platform answered; it sends heartbeats every 10 s."""
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer | {"livenessInterval": 10})
    assert response.status == 201
    return await response.json()
