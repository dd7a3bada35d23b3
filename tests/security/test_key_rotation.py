"""Signing keys over time: the youngest signs, the others verify until the last token of theirs has expired."""

from __future__ import annotations

import pytest

from mec_platform.domain.credentials import Scope, SigningKey
from mec_platform.enablement_api.security.key_rotation import KeyRotation
from mec_platform.registry.credentials import outlived_keys
from tests.security.conftest import ADMIN, SERVICES

LIFE_S = 3600


def key(number: int, created_s: int) -> SigningKey:
    return SigningKey(key_id=f"key-{number}", private_jwk="{}", created_unix_ns=created_s * 10**9)


def test_a_key_is_kept_until_its_successor_has_signed_for_longer_than_a_token_lives():
    keys = [key(1, 0), key(2, 1000), key(3, 2000)]
    assert outlived_keys(keys, LIFE_S, (1000 + LIFE_S) * 10**9) == []
    assert outlived_keys(keys, LIFE_S, (1000 + LIFE_S) * 10**9 + 1) == ["key-1"]
    assert outlived_keys(keys, LIFE_S, 10**20) == ["key-1", "key-2"]
    assert outlived_keys([], LIFE_S, 10**20) == []


@pytest.fixture
def rotation(platform, clock):
    host = platform.host
    return KeyRotation(host.credentials, clock, host.registry.new_id, period_s=86_400, token_life_s=LIFE_S)


async def test_a_key_signs_for_its_period_and_verifies_a_little_longer(platform, rotation, clock):
    token = await platform.token()
    clock.now_s += 86_400 - 60
    late = await platform.token()
    await rotation.look_after_keys()
    assert len(platform.host.credentials.signing_keys()) == 1
    clock.now_s += 60
    await rotation.look_after_keys()
    assert len(platform.host.credentials.signing_keys()) == 2
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 401
    assert (await platform.send("GET", f"{SERVICES}/services", late)).status == 200
    clock.now_s += LIFE_S + 1
    await rotation.look_after_keys()
    assert len(platform.host.credentials.signing_keys()) == 1
    assert len((await (await platform.http.get("/oauth2/jwks")).json())["keys"]) == 1


async def test_a_token_of_a_key_that_was_rotated_out_is_refused(platform, rotation):
    token = await platform.token()
    await rotation.rotate()
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 200
    await platform.host.credentials.remove_outlived_keys(-1)
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 401
    assert (await platform.send("GET", f"{SERVICES}/services", await platform.token())).status == 200


async def test_an_operator_can_rotate_at_any_time(platform):
    operator = await platform.token(Scope.ADMIN)
    for _ in range(2):
        answer = await platform.send("POST", f"{ADMIN}/keys/rotate", operator)
        assert answer.status == 200
        assert (await answer.json())["keyId"] == platform.host.credentials.signing_keys()[-1].key_id
    assert (await platform.send("GET", f"{ADMIN}/clients", operator)).status == 200


async def test_the_newest_key_signs_even_where_the_clock_was_set_back(platform, rotation, clock):
    await platform.token()
    clock.now_s -= 1000
    newest = await rotation.rotate()
    assert platform.host.credentials.signing_keys()[-1] == newest
