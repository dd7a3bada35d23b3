"""The token endpoint as RFC 6749 has it, and what it does about guessing."""

from __future__ import annotations

import base64

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from mec_platform.domain.credentials import Scope
from tests.security.conftest import ISSUER

FORM = "application/x-www-form-urlencoded"


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


async def test_a_client_gets_a_token_that_anybody_can_verify_with_the_published_keys(platform, clock):
    client_id, secret = await platform.client()
    answer = await platform.ask_for_token(client_id, secret)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = await answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    assert body["scope"] == "mec_app_support mec_service_mgmt"
    keys = KeySet.import_key_set(await (await platform.http.get("/oauth2/jwks")).json())
    token = jwt.decode(body["access_token"], keys, algorithms=["ES256"])
    now = clock.unix_ns() // 10**9
    assert token.claims == {
        "iss": ISSUER,
        "sub": client_id,
        "scope": body["scope"],
        "iat": now,
        "exp": now + 3600,
        "jti": token.claims["jti"],
    }


async def test_basic_credentials_do_as_well(platform):
    client_id, secret = await platform.client()
    answer = await platform.http.post(
        "/oauth2/token", data={"grant_type": "client_credentials"}, headers=basic(client_id, secret)
    )
    assert answer.status == 200


async def test_a_client_may_ask_for_less_than_it_could_have(platform):
    client_id, secret = await platform.client()
    answer = await platform.ask_for_token(client_id, secret, scope="mec_service_mgmt")
    assert (await answer.json())["scope"] == "mec_service_mgmt"


@pytest.mark.parametrize("scope", ["admin", "mec_service_mgmt admin", "nonsense"])
async def test_a_client_gets_no_scope_that_it_has_not_got(platform, scope):
    answer = await platform.ask_for_token(*await platform.client(), scope=scope)
    assert (answer.status, (await answer.json())["error"]) == (400, "invalid_scope")


async def test_a_wrong_secret_and_an_unknown_client_are_told_the_same(platform):
    client_id, _ = await platform.client()
    answers = [await platform.ask_for_token(name, "wrong") for name in (client_id, "nobody")]
    assert [answer.status for answer in answers] == [401, 401]
    assert await answers[0].json() == await answers[1].json()
    assert (await answers[0].json())["error"] == "invalid_client"


async def test_wrong_basic_credentials_are_challenged(platform):
    form = {"grant_type": "client_credentials"}
    answer = await platform.http.post("/oauth2/token", data=form, headers=basic("nobody", "wrong"))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="mec"')


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        ("grant_type=client_credentials", {}, 401, "invalid_client"),
        ("client_id=a&client_secret=b", {}, 400, "invalid_request"),
        ("grant_type=client_credentials&grant_type=x&client_id=a&client_secret=b", {}, 400, "invalid_request"),
        ("grant_type=client_credentials&client_id=%ff&client_secret=b", {}, 400, "invalid_request"),
        ("grant_type=client_credentials&" + "&".join(f"p{n}=1" for n in range(30)), {}, 400, "invalid_request"),
        ("{}", {"Content-Type": "application/json"}, 400, "invalid_request"),
        ("grant_type=client_credentials", {"Authorization": "Bearer x"}, 401, "invalid_client"),
        ("grant_type=client_credentials", {"Authorization": "Basic ???"}, 401, "invalid_client"),
        ("grant_type=client_credentials", {"Authorization": "Basic bm9jb2xvbg=="}, 401, "invalid_client"),
        ("grant_type=client_credentials&client_secret=x", basic("a", "b"), 400, "invalid_request"),
    ],
)
async def test_a_request_that_cannot_be_understood_gets_the_words_of_the_standard(
    platform, body, headers, status, error
):
    answer = await platform.http.post("/oauth2/token", data=body, headers={"Content-Type": FORM} | headers)
    assert (answer.status, (await answer.json())["error"]) == (status, error)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_another_grant_is_not_supported(platform):
    client_id, secret = await platform.client()
    form = {"grant_type": "password", "client_id": client_id, "client_secret": secret}
    answer = await platform.http.post("/oauth2/token", data=form)
    assert (answer.status, (await answer.json())["error"]) == (400, "unsupported_grant_type")


async def test_guessing_is_slowed_down_even_for_who_guesses_right_in_the_end(platform, clock):
    client_id, secret = await platform.client()
    for _ in range(10):
        assert (await platform.ask_for_token(client_id, "wrong")).status == 401
    answer = await platform.ask_for_token(client_id, secret)
    assert (answer.status, (await answer.json())["error"]) == (429, "temporarily_unavailable")
    clock.now_s += int(answer.headers["Retry-After"])
    assert (await platform.ask_for_token(client_id, secret)).status == 200


async def test_tokens_that_are_asked_for_rightly_are_not_counted_as_guesses(platform):
    client_id, secret = await platform.client()
    assert {(await platform.ask_for_token(client_id, secret)).status for _ in range(20)} == {200}


async def test_says_where_tokens_are_issued(platform):
    metadata = await (await platform.http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == ISSUER
    assert metadata["token_endpoint"].endswith("/oauth2/token")
    assert metadata["scopes_supported"] == sorted(Scope)
    assert metadata["grant_types_supported"] == ["client_credentials"]
