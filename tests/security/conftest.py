"""A platform with authentication on, on a real server over a real log, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.conformance.answers import AnswerChecker

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"
ADMIN = "/admin/v1"
ISSUER = "https://mec.example"
MP1 = (Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT)


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


@dataclass(frozen=True)
class Secured:
    """A platform and what a test does with it."""

    host: HostRegistry
    http: TestClient[web.Request, web.Application]
    protection: Protection
    clock: StandingClock

    async def client(self, *scopes: Scope, client_id: str | None = None) -> tuple[str, str]:
        """A new client's id and secret."""
        made, secret = await self.host.credentials.create(scopes or MP1, client_id)
        return made.client_id, secret

    async def ask_for_token(self, client_id: str, secret: str, **more: str) -> ClientResponse:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        return await self.http.post("/oauth2/token", data=form | more)

    async def token(self, *scopes: Scope, client_id: str | None = None) -> str:
        """A token of a new client."""
        answer = await self.ask_for_token(*await self.client(*scopes, client_id=client_id))
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["access_token"])

    async def send(self, method: str, path: str, token: str = "", **content: Any) -> ClientResponse:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.request(method, path, headers=headers, allow_redirects=False, **content)

    async def register(self, token: str) -> str:
        """The id of a new application instance of the token's client."""
        answer = await self.send("POST", f"{APPS}/registrations", token, json={"appName": "greeter"})
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["appInstanceId"])


Secure = Callable[..., "asyncio.Future[Secured]"]


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
async def secure(clock: StandingClock) -> AsyncIterator[Any]:
    """Makes platforms with the security settings (and quotas) that a test names; they end with the test."""
    closing: list[Any] = []
    checkers: list[AnswerChecker] = []

    async def make(quotas: Quotas | None = None, **settings: Any) -> Secured:
        log = await SqliteEventLog.open(":memory:")
        host = HostRegistry(Registry(log, clock=clock), locality=Locality(mec_host="host-1"), quotas=quotas)
        await host.start()
        wanted: Mapping[str, Any] = {"authenticate": True, "issuer": ISSUER} | settings
        protection = Protection(host.registry, host.credentials, SecuritySettings(**wanted))
        app = make_enablement_app(host, protection=protection)
        app.router.add_get("/dashboard/", _show_page)
        checkers.append(AnswerChecker(app))
        http: TestClient[web.Request, web.Application] = TestClient(TestServer(app))
        await http.start_server()
        closing.extend([http.close, host.stop, log.close])
        return Secured(host, http, protection, clock)

    yield make
    for close in closing:
        await close()
    assert [complaint for checker in checkers for complaint in checker.complaints] == []


async def _show_page(_: web.Request) -> web.Response:
    return web.Response(text="<p>the dashboard</p>", content_type="text/html")


@pytest.fixture
async def platform(secure: Any) -> Secured:
    """Authentication on, everything else as by default."""
    made: Secured = await secure()
    return made
