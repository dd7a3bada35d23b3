"""Access tokens as pure values: what is accepted, and everything that is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from mec_platform.domain.credentials import Client, Scope, SigningKey
from mec_platform.enablement_api.security.tokens import (
    LONGEST_TOKEN,
    Grant,
    InvalidToken,
    TokenCache,
    generate_key,
    issue_token,
    newest_key,
    public_jwk,
    verify_token,
)

NOW = 1_700_000_000
ISSUER = "https://mec.example"
KEY = generate_key("key-1", NOW * 10**9)
CLIENT = Client(
    client_id="app-1",
    scopes=frozenset({Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT}),
    secret_hash="00",
    created_unix_ns=NOW * 10**9,
)
GRANT = Grant(
    client_id="app-1",
    scopes=frozenset({Scope.SERVICE_MANAGEMENT}),
    issued_unix_s=NOW,
    expires_unix_s=NOW + 600,
    token_id="token-1",
)


@dataclass(frozen=True)
class State:
    clients: Mapping[str, Client] = field(default_factory=lambda: {"app-1": CLIENT})
    signing_keys: Mapping[str, SigningKey] = field(default_factory=lambda: {"key-1": KEY})


TOKEN = issue_token(KEY, ISSUER, GRANT)


def refusal(token: str, state: State | None = None, now: float = NOW, issuer: str = ISSUER) -> str:
    with pytest.raises(InvalidToken) as error:
        verify_token(token, issuer, state or State(), now)
    return str(error.value)


def forge(header: dict[str, object], claims: dict[str, object], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def claims(**changes: object) -> dict[str, object]:
    own = {"iss": ISSUER, "sub": "app-1", "scope": "admin", "iat": NOW, "exp": NOW + 600, "jti": "x"}
    return own | changes


def test_says_what_it_was_issued_for():
    grant, client, key = verify_token(TOKEN, ISSUER, State(), NOW)
    assert (grant, client, key) == (GRANT, CLIENT, KEY)


def test_carries_the_certificate_that_it_is_bound_to():
    bound = replace(GRANT, certificate="thumbprint")
    assert verify_token(issue_token(KEY, ISSUER, bound), ISSUER, State(), NOW)[0] == bound


def test_an_expired_token_is_refused_from_the_second_on_in_which_it_expires():
    verify_token(TOKEN, ISSUER, State(), NOW + 599.9)
    assert "expired" in refusal(TOKEN, now=NOW + 600)


def test_a_token_from_the_future_is_refused_but_for_a_small_leeway():
    verify_token(TOKEN, ISSUER, State(), NOW - 5)
    assert "not valid yet" in refusal(TOKEN, now=NOW - 6)


def test_a_token_of_another_issuer_is_refused():
    assert "somebody else" in refusal(TOKEN, issuer="https://other.example")


def test_a_token_without_signature_is_refused():
    header = {"alg": "none", "kid": "key-1", "typ": "at+jwt"}
    assert "ES256" in refusal(forge(header, claims()))
    assert refusal(forge(header | {"alg": "None"}, claims()))


def test_the_public_key_is_no_shared_secret():
    public = json.dumps(public_jwk(KEY)).encode()
    header = {"alg": "HS256", "kid": "key-1", "typ": "at+jwt"}
    token = jws.serialize_compact(
        header, json.dumps(claims()), OctKey.import_key(public), registry=jws.JWSRegistry(algorithms=["HS256"])
    )
    assert "ES256" in refusal(token)


def test_a_key_that_a_token_brings_along_is_not_used():
    foreign = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "kid": "key-1", "typ": "at+jwt", "jwk": foreign.as_dict(private=False)}
    token = jws.serialize_compact(header, json.dumps(claims()), foreign, registry=jws.JWSRegistry(algorithms=["ES256"]))
    assert "signature is wrong" in refusal(token)


def test_a_signed_document_of_another_kind_is_no_access_token():
    header = {"alg": "ES256", "kid": "key-1", "typ": "JWT"}
    key = ECKey.import_key(json.loads(KEY.private_jwk))
    assert "access token" in refusal(jws.serialize_compact(header, json.dumps(claims()), key))
    token = jws.serialize_compact(header | {"typ": "at+jwt"}, json.dumps({"sub": "app-1"}), key)
    assert "claims" in refusal(token)


def test_changed_claims_are_noticed():
    header, _, signature = TOKEN.split(".")
    changed = forge({}, claims()).split(".")[1]
    assert "signature is wrong" in refusal(f"{header}.{changed}.{signature}")


def test_a_token_of_a_key_that_was_rotated_out_is_refused():
    assert "signing key" in refusal(TOKEN, State(signing_keys={}))


def test_a_token_of_a_removed_client_is_refused():
    assert "exists no more" in refusal(TOKEN, State(clients={}))


def test_a_new_secret_ends_the_tokens_that_the_old_one_obtained():
    renewed = replace(CLIENT, created_unix_ns=(NOW + 10) * 10**9)
    assert "older secret" in refusal(TOKEN, State(clients={"app-1": renewed}), now=NOW + 10)


def test_a_scope_that_the_client_has_lost_is_granted_no_more():
    narrowed = replace(CLIENT, scopes=frozenset({Scope.APP_SUPPORT}))
    assert verify_token(TOKEN, ISSUER, State(clients={"app-1": narrowed}), NOW)[0].scopes == frozenset()


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "ä.ö.ü", "x" * (LONGEST_TOKEN + 1), TOKEN + ".", TOKEN[:-3]])
def test_garbage_is_refused_cleanly(token):
    assert refusal(token)


@given(position=st.integers(0, len(TOKEN) - 1), character=st.characters())
@settings(derandomize=True, max_examples=150)
def test_no_changed_token_says_more_than_the_original(position, character):
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    try:
        grant, _, _ = verify_token(changed, ISSUER, State(), NOW)
    except InvalidToken:
        return
    assert grant == GRANT


@given(token=st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda b: base64.b64encode(b).decode() + "..")))
@settings(derandomize=True, max_examples=150)
def test_whatever_is_sent_nothing_but_invalid_token_is_raised(token):
    refusal(token)


@pytest.mark.parametrize("header", [[], 7, None, {"alg": 7}, {"alg": ["ES256"]}, {"crit": ["b64"], "b64": False}])
def test_a_header_of_a_strange_shape_is_refused(header):
    if isinstance(header, dict) and "crit" in header:
        header = {"alg": "ES256", "kid": "key-1", "typ": "at+jwt"} | header
    assert refusal(forge(header, claims()))


def test_the_newest_key_signs():
    newer = generate_key("key-0", NOW * 10**9 + 1)
    assert newest_key({"key-1": KEY, "key-0": newer}) is newer
    assert newest_key({}) is None


def test_the_published_key_has_nothing_private():
    assert set(public_jwk(KEY)) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert KEY.private_jwk not in repr(KEY)


def test_a_verified_token_is_verified_once(monkeypatch):
    cache = TokenCache(ISSUER)
    state = State()
    first = cache.verify(TOKEN, state, NOW)
    monkeypatch.setattr("mec_platform.enablement_api.security.tokens.verify_token", None)
    assert cache.verify(TOKEN, state, NOW + 1) is first


@pytest.mark.parametrize("state", [State(clients={}), State(signing_keys={})], ids=["client", "key"])
def test_a_verified_token_ends_with_its_client_and_with_its_key(state):
    cache = TokenCache(ISSUER)
    cache.verify(TOKEN, State(), NOW)
    with pytest.raises(InvalidToken):
        cache.verify(TOKEN, state, NOW)
    assert len(cache) == 0


def test_a_verified_token_still_expires():
    cache = TokenCache(ISSUER)
    cache.verify(TOKEN, State(), NOW)
    with pytest.raises(InvalidToken, match="expired"):
        cache.verify(TOKEN, State(), NOW + 600)


def test_the_cache_is_bounded():
    cache = TokenCache(ISSUER, size=2)
    for number in range(3):
        cache.verify(issue_token(KEY, ISSUER, replace(GRANT, token_id=str(number))), State(), NOW)
    assert len(cache) == 2
