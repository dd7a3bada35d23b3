"""What a token says of who asks: where it consumes from, and which pages its owner's browser may read."""

from __future__ import annotations

import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.operations import OPERATIONS
from mec_platform.enablement_api.security.session import SESSION_COOKIE
from tests.security.conftest import ADMIN, SERVICES, Secured

ELSEWHERE = Locality(mec_host="host-2")
OFFER = {
    "serName": "greeting",
    "version": "1.0",
    "state": "ACTIVE",
    "serializer": "JSON",
    "consumedLocalOnly": False,
    "transportInfo": {
        "id": "transport-1",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "1.1",
        "endpoint": {"uris": ["http://127.0.0.1:9000/"]},
        "security": {},
    },
}
OPEN = {
    "/oauth2/token",
    "/oauth2/jwks",
    "/.well-known/oauth-authorization-server",
    "/openapi.json",
    "/docs",
}


async def test_only_documents_and_the_way_to_a_token_are_open_to_everyone(platform):
    rows = platform.http.app[OPERATIONS].by_id.values()
    assert {row.path for row in rows if row.scope is None} == OPEN


async def is_local(platform: Secured, token: str) -> bool:
    (service,) = await (await platform.send("GET", f"{SERVICES}/services", token)).json()
    return bool(service["isLocal"])


async def test_a_token_of_one_application_consumes_from_where_the_application_is(platform):
    applications = platform.host.applications
    offering = await platform.token()
    app_id = await platform.register(offering)
    await platform.send("POST", f"{SERVICES}/applications/{app_id}/services", offering, json=OFFER)
    token = await platform.token(client_id="app-2")
    assert await is_local(platform, token)
    await applications.register(AppDescription(name="far"), owner="app-2", locality=ELSEWHERE)
    assert not await is_local(platform, token)
    # With several, nobody knows which of them asks.
    await applications.register(AppDescription(name="near"), owner="app-2")
    assert await is_local(platform, token)


@pytest.fixture
async def operator(platform) -> tuple[str, str]:
    return await platform.client(*Scope, client_id="operator")


async def sign_in(platform: Secured, client_id: str, secret: str) -> int:
    form = {"client_id": client_id, "client_secret": secret}
    answer = await platform.http.post("/session", data=form, allow_redirects=False)
    return int(answer.status)


async def test_a_browser_is_sent_to_the_sign_in_page_and_after_it_sees_the_dashboard(platform, operator):
    browser = {"Accept": "text/html,*/*"}
    sent = await platform.http.get("/dashboard/", headers=browser, allow_redirects=False)
    assert (sent.status, sent.headers["Location"]) == (303, "/session")
    assert (await platform.http.get("/session")).status == 200
    # The cookie is for TLS alone, so that the test hands it on by itself.
    form = {"client_id": operator[0], "client_secret": operator[1]}
    signed_in = await platform.http.post("/session", data=form, allow_redirects=False)
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/dashboard/")
    cookie = signed_in.cookies[SESSION_COOKIE]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Strict")
    cookies = {"Cookie": f"{SESSION_COOKIE}={cookie.value}"}
    assert (await platform.http.get("/dashboard/", headers=cookies)).status == 200
    ended = await platform.http.post("/session/end", headers=cookies, allow_redirects=False)
    assert ended.cookies[SESSION_COOKIE].value == ""


async def test_the_cookie_opens_no_api(platform, operator):
    token = (await (await platform.ask_for_token(*operator)).json())["access_token"]
    cookies = {"Cookie": f"{SESSION_COOKIE}={token}"}
    assert (await platform.http.get(f"{ADMIN}/clients", headers=cookies)).status == 401
    assert (await platform.http.get("/dashboard/", headers=cookies)).status == 200
    assert (await platform.http.get("/dashboard/", headers={"Cookie": f"{SESSION_COOKIE}=x"})).status == 401


async def test_the_dashboard_is_for_administrators(platform, operator):
    assert (await platform.send("GET", "/dashboard/", await platform.token())).status == 403
    assert (await platform.send("GET", "/dashboard/", await platform.token(Scope.ADMIN))).status == 200
    assert await sign_in(platform, *await platform.client()) == 403


async def test_guessing_at_the_sign_in_page_is_slowed_down_too(platform, operator):
    statuses = [await sign_in(platform, operator[0], "wrong") for _ in range(10)]
    assert statuses == [401] * 10
    assert await sign_in(platform, *operator) == 429
    assert (await platform.ask_for_token(*operator)).status == 429


async def test_what_the_sign_in_page_is_sent_is_never_shown_as_markup(platform):
    answer = await platform.http.post("/session", data="<script>", headers={"Content-Type": "text/<b>plain"})
    assert answer.status == 401
    assert "<b>" not in await answer.text()


async def test_without_authentication_there_is_nothing_to_sign_in_to(secure):
    platform = await secure(authenticate=False)
    assert (await platform.http.get("/session")).status == 404
    assert (await platform.http.get("/dashboard/")).status == 200
