"""One threat to a platform with authentication on, one test."""

from __future__ import annotations

import json
import logging

import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.credentials import Scope
from mec_platform.domain.quotas import Quotas
from mec_platform.enablement_api.security.rate_limit import Rate
from tests.security.conftest import ADMIN, APPS, MP1, SERVICES

OFFER = {
    "serName": "greeting",
    "version": "1.0",
    "state": "ACTIVE",
    "serializer": "JSON",
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
UNKNOWN = "5e1bd1a1-32d4-4d5e-9f4b-6a3c7b2f8d10"


async def challenge_of(answer) -> str:
    assert answer.status == 401
    assert answer.content_type == "application/problem+json"
    return str(answer.headers["WWW-Authenticate"])


async def test_without_a_token_nothing_is_served(platform):
    for method, path in [
        ("GET", f"{SERVICES}/services"),
        ("POST", f"{APPS}/registrations"),
        ("GET", f"{ADMIN}/clients"),
        ("GET", "/metrics"),
        ("GET", "/dashboard/"),
    ]:
        assert await challenge_of(await platform.send(method, path)) == 'Bearer realm="mec"'


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/docs.js", "/oauth2/jwks"])
async def test_documents_and_keys_are_open(platform, path):
    assert (await platform.send("GET", path)).status == 200


async def test_what_is_not_there_is_not_found_with_or_without_a_token(platform):
    assert (await platform.send("GET", "/nothing")).status == 404
    assert (await platform.send("PATCH", f"{SERVICES}/services")).status == 405


@pytest.mark.parametrize(
    "authorization", ["Basic Zm9vOmJhcg==", "Digest x", "Bearer", "Bearer  ", "garbage", "", "Bearer \xe4"]
)
async def test_a_foreign_scheme_gets_a_clean_401(platform, authorization):
    answer = await platform.http.get(f"{SERVICES}/services", headers={"Authorization": authorization})
    assert (await challenge_of(answer)).startswith('Bearer realm="mec"')


async def test_two_tokens_are_no_token(platform):
    token = await platform.token()
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")]
    await challenge_of(await platform.http.get(f"{SERVICES}/services", headers=headers))


async def test_a_foreign_scheme_is_served_where_authentication_is_off(secure):
    platform = await secure(authenticate=False)
    for authorization in ("Basic Zm9vOmJhcg==", "Bearer nonsense", "garbage"):
        answer = await platform.http.get(f"{SERVICES}/services", headers={"Authorization": authorization})
        assert answer.status == 200


async def test_an_application_does_what_it_likes_with_what_is_its_own(platform):
    token = await platform.token(*MP1)
    app_id = await platform.register(token)
    ready = await platform.send(
        "POST", f"{APPS}/applications/{app_id}/confirm_ready", token, json={"indication": "READY"}
    )
    assert ready.status == 204
    assert (await platform.send("DELETE", f"{APPS}/registrations/{app_id}", token)).status == 204


async def test_another_applications_token_is_forbidden(platform):
    app_id = await platform.register(await platform.token())
    stranger = await platform.token()
    for method, path in [
        ("GET", f"{APPS}/registrations/{app_id}"),
        ("DELETE", f"{APPS}/registrations/{app_id}"),
        ("GET", f"{SERVICES}/applications/{app_id}/services"),
    ]:
        assert (await platform.send(method, path, stranger)).status == 403
    assert app_id in platform.host.registry.state.apps


async def test_an_administrator_may_use_what_is_anybodys(platform):
    app_id = await platform.register(await platform.token())
    operator = await platform.token(*Scope)
    assert (await platform.send("GET", f"{APPS}/registrations/{app_id}", operator)).status == 200


async def test_what_was_registered_without_authentication_is_nobodys(platform):
    app = await platform.host.applications.register(AppDescription(name="greeter"))
    answer = await platform.send("GET", f"{APPS}/registrations/{app.app_instance_id}", await platform.token())
    assert answer.status == 403


async def test_an_id_that_nobody_has_is_not_found_whoever_asks(platform):
    for token in (await platform.token(), await platform.token(*Scope)):
        for app_id in (UNKNOWN, "no-uuid", "%00"):
            assert (await platform.send("GET", f"{APPS}/registrations/{app_id}", token)).status == 404


async def test_without_a_token_ids_cannot_be_told_apart(platform):
    app_id = await platform.register(await platform.token())
    answers = [await platform.send("GET", f"{APPS}/registrations/{each}") for each in (app_id, UNKNOWN)]
    assert [answer.status for answer in answers] == [401, 401]


async def test_a_missing_scope_is_forbidden_and_named(platform):
    token = await platform.token(Scope.APP_SUPPORT)
    answer = await platform.send("GET", f"{SERVICES}/services", token)
    assert answer.status == 403
    assert 'error="insufficient_scope", scope="mec_service_mgmt"' in answer.headers["WWW-Authenticate"]
    assert (await platform.send("GET", f"{ADMIN}/clients", token)).status == 403


async def test_an_expired_token_is_refused(platform, clock):
    token = await platform.token()
    clock.now_s += 3600
    assert 'error="invalid_token"' in await challenge_of(await platform.send("GET", f"{SERVICES}/services", token))


async def test_a_tampered_token_is_refused_also_after_the_real_one_was_accepted(platform):
    token = await platform.token()
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 200
    header, claims, signature = token.split(".")
    tampered = f"{header}.{claims[:-2]}AA.{signature}"
    await challenge_of(await platform.send("GET", f"{SERVICES}/services", tampered))


async def test_a_removed_client_is_out_at_once(platform):
    client_id, secret = await platform.client()
    token = (await (await platform.ask_for_token(client_id, secret)).json())["access_token"]
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 200
    await platform.host.credentials.remove(client_id)
    await challenge_of(await platform.send("GET", f"{SERVICES}/services", token))
    assert (await platform.ask_for_token(client_id, secret)).status == 401


async def test_a_new_secret_ends_the_old_one_and_its_tokens(platform, clock):
    client_id, secret = await platform.client()
    token = (await (await platform.ask_for_token(client_id, secret)).json())["access_token"]
    clock.now_s += 1
    renewed = await platform.host.credentials.renew_secret(client_id)
    await challenge_of(await platform.send("GET", f"{SERVICES}/services", token))
    assert (await platform.ask_for_token(client_id, secret)).status == 401
    assert (await platform.ask_for_token(client_id, renewed)).status == 200


async def test_the_creator_owns_what_it_registers_and_stands_in_the_audit_trail(platform):
    token = await platform.token(client_id="app-1")
    app_id = await platform.register(token)
    assert platform.host.applications.get(app_id).owner == "app-1"
    operator = await platform.token(Scope.ADMIN, client_id="operator")
    page = await (await platform.send("GET", f"{ADMIN}/audit?limit=2", operator)).json()
    newest, before = page["records"]
    assert (newest["kind"], newest["subject"], newest["actor"]) == ("client.added", "operator", "platform")
    assert (before["kind"], before["subject"], before["actor"]) == ("app.registered", app_id, "app-1")
    older = await (await platform.send("GET", f"{ADMIN}/audit?before={page['next']}", operator)).json()
    assert older["records"][0]["revision"] == page["next"] - 1
    assert "next" not in older


async def test_a_revision_that_no_log_can_have_is_a_bad_request_and_stops_nobody(platform):
    operator = await platform.token(Scope.ADMIN)
    refused = await platform.send("GET", f"{ADMIN}/audit?before={2**63}", operator)
    assert refused.status == 400
    assert "before" in (await refused.json())["detail"]
    assert (await platform.send("GET", f"{ADMIN}/audit?before={2**63 - 1}", operator)).status == 200


async def test_who_changes_something_without_authentication_is_called_anonymous(secure):
    platform = await secure(authenticate=False)
    app_id = await platform.register("")
    assert platform.host.applications.get(app_id).owner == ""
    (newest,) = (await (await platform.send("GET", f"{ADMIN}/audit?limit=1")).json())["records"]
    assert (newest["subject"], newest["actor"]) == (app_id, "anonymous")


async def test_requests_are_limited_for_each_client_by_itself(secure, clock):
    platform = await secure(rate=Rate(per_s=2, burst=3))
    busy, idle = await platform.token(), await platform.token()
    statuses = [(await platform.send("GET", f"{SERVICES}/services", busy)).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    answer = await platform.send("GET", f"{SERVICES}/services", busy)
    assert (answer.content_type, answer.headers["Retry-After"]) == ("application/problem+json", "1")
    assert (await platform.send("GET", f"{SERVICES}/services", idle)).status == 200
    clock.now_s += 1
    assert (await platform.send("GET", f"{SERVICES}/services", busy)).status == 200


async def test_requests_without_a_token_are_limited_by_address(secure):
    platform = await secure(rate=Rate(per_s=1, burst=2))
    statuses = [(await platform.send("GET", f"{SERVICES}/services", "garbage")).status for _ in range(3)]
    assert statuses == [401, 401, 429]


async def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(secure):
    platform = await secure(authenticate=False, rate=Rate(per_s=1, burst=1), behind_proxy=True)

    async def ask(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        return int((await platform.http.get(f"{SERVICES}/services", headers=headers)).status)

    assert [await ask("1.1.1.1, 192.0.2.1"), await ask("2.2.2.2, 192.0.2.1"), await ask("192.0.2.2")] == [200, 429, 200]


async def test_without_a_proxy_nobody_can_make_up_an_address(secure):
    platform = await secure(authenticate=False, rate=Rate(per_s=1, burst=1))
    for number, status in ((1, 200), (2, 429)):
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        assert (await platform.http.get(f"{SERVICES}/services", headers=headers)).status == status


async def test_nobody_takes_up_more_than_the_quotas(secure):
    platform = await secure(quotas=Quotas(services_per_app=1, subscriptions_per_app=1, apps_per_client=2))
    token = await platform.token()
    app_id = await platform.register(token)
    await platform.register(token)
    refused = await platform.send("POST", f"{APPS}/registrations", token, json={"appName": "third"})
    assert (refused.status, "application instances" in (await refused.json())["detail"]) == (403, True)
    path = f"{SERVICES}/applications/{app_id}/services"
    assert (await platform.send("POST", path, token, json=OFFER)).status == 201
    assert (await platform.send("POST", path, token, json=OFFER)).status == 403
    await platform.register(await platform.token())


async def test_secrets_are_in_the_answer_that_makes_them_and_nowhere_else(platform, caplog, clock):
    caplog.set_level(logging.DEBUG)
    operator = await platform.token(*Scope, client_id="operator")
    made = await platform.send("POST", f"{ADMIN}/clients", operator, json={"scopes": ["rni"], "clientId": "app-1"})
    assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
    first = (await made.json())["clientSecret"]
    second = (await (await platform.send("POST", f"{ADMIN}/clients/app-1/secret", operator)).json())["clientSecret"]
    answer = await platform.ask_for_token("app-1", second)
    token = (await answer.json())["access_token"]
    await platform.ask_for_token("app-1", first)
    await platform.send("POST", f"{ADMIN}/keys/rotate", operator)
    seen = [caplog.text, repr(platform.host.registry.state)]
    for path in ("/clients", "/clients/app-1", "/audit"):
        seen.append(await (await platform.send("GET", f"{ADMIN}{path}", operator)).text())
    for path in ("/openapi.json", "/oauth2/jwks"):
        seen.append(await (await platform.send("GET", path)).text())
    private = [json.loads(key.private_jwk)["d"] for key in platform.host.credentials.signing_keys()]
    hashes = [client.secret_hash for client in platform.host.credentials.all()]
    for secret in (first, second, token, operator, *private, *hashes):
        assert not [text for text in seen if secret in text]


async def test_the_last_administrator_cannot_be_removed(platform):
    operator = await platform.token(Scope.ADMIN, client_id="operator")
    assert (await platform.send("DELETE", f"{ADMIN}/clients/operator", operator)).status == 409
    await platform.client(Scope.ADMIN)
    assert (await platform.send("DELETE", f"{ADMIN}/clients/operator", operator)).status == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scopes": []}, 400),
        ({"scopes": ["root"]}, 400),
        ({"scopes": ["rni"], "clientId": "../x"}, 400),
        ({"scopes": ["rni"], "clientId": "operator"}, 409),
    ],
)
async def test_a_client_that_cannot_be_made_is_refused(platform, body, status):
    operator = await platform.token(Scope.ADMIN, client_id="operator")
    assert (await platform.send("POST", f"{ADMIN}/clients", operator, json=body)).status == status


async def test_an_unknown_client_is_not_found(platform):
    operator = await platform.token(Scope.ADMIN)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/secret")):
        assert (await platform.send(method, f"{ADMIN}/clients/nobody{path}", operator)).status == 404


async def test_metrics_can_be_opened(secure):
    assert (await (await secure(open_metrics=True)).send("GET", "/metrics")).status == 200
    platform = await secure()
    assert (await platform.send("GET", "/metrics", await platform.token(Scope.ADMIN))).status == 200
