"""Where the platform may listen, and the operator that it makes when it asks for tokens."""

from __future__ import annotations

import json
import stat

import pytest

from mec_platform.credential_files import CredentialFileError, adopt_operator, default_path, ensure_operator
from mec_platform.domain.credentials import Scope
from mec_platform.exposure import Exposure, decide_exposure
from mec_platform.private_files import PrivateFileError
from mec_platform.rpc.endpoints import AddressError


def decide(host: str, **said: object) -> Exposure:
    wanted = {"authenticate": None, "tls": False, "behind_proxy": False, "allow_remote": False} | said
    return decide_exposure(host, **wanted)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_authentication_is_off_unless_it_is_asked_for(host):
    assert not decide(host).authenticate
    assert decide(host, authenticate=True).authenticate


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mec.example"])
def test_elsewhere_it_is_on_and_needs_tls(host):
    assert decide(host, tls=True) == Exposure(host=host, reachable=True, authenticate=True, mutual_tls=True)
    with pytest.raises(AddressError, match=r"mec certs.*--behind-proxy"):
        decide(host)
    with pytest.raises(AddressError, match="--auth off is for loopback only"):
        decide(host, authenticate=False, tls=True)


def test_a_proxy_lets_other_machines_in():
    assert decide("127.0.0.1", behind_proxy=True).authenticate
    assert decide("192.0.2.1", behind_proxy=True).mutual_tls
    with pytest.raises(AddressError, match="--behind-proxy lets other machines in"):
        decide("127.0.0.1", behind_proxy=True, authenticate=False)


def test_grpc_speaks_in_the_clear_on_loopback_and_where_its_network_is_trusted():
    assert not decide("127.0.0.2").mutual_tls
    assert not decide("192.0.2.1", tls=True, allow_remote=True).mutual_tls
    assert decide("127.0.0.1", member_authority=True).mutual_tls


async def test_the_first_operator_may_do_everything_and_its_secret_is_in_a_private_file(platform, tmp_path):
    path = tmp_path / "operator.json"
    assert await ensure_operator(platform.host.credentials, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    answer = await platform.ask_for_token(content["client_id"], content["client_secret"])
    assert (await answer.json())["scope"].split() == sorted(Scope)


async def test_a_platform_that_has_an_operator_makes_no_other(platform, tmp_path):
    await platform.client(Scope.ADMIN)
    assert not await ensure_operator(platform.host.credentials, tmp_path / "operator.json")
    assert list(tmp_path.iterdir()) == []


async def test_credentials_that_are_there_are_taken_over_and_not_overwritten(platform, tmp_path):
    path = tmp_path / "operator.json"
    path.write_text(json.dumps({"client_id": "me", "client_secret": "s" * 40}))
    path.chmod(0o600)
    before = path.read_bytes()
    assert await ensure_operator(platform.host.credentials, path)
    assert path.read_bytes() == before
    assert (await platform.ask_for_token("me", "s" * 40)).status == 200


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [
        (b"{}", 0o600, CredentialFileError),
        (b'{"client_id": "me", "client_secret": "short"}', 0o600, CredentialFileError),
        (b"\xff", 0o600, CredentialFileError),
        (b'{"client_id": "me", "client_secret": "0123456789012345678901234567890123456789"}', 0o644, PrivateFileError),
    ],
)
async def test_a_file_of_credentials_that_is_not_to_be_used_is_named(platform, tmp_path, content, mode, error):
    path = tmp_path / "operator.json"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(error, match=r"operator\.json"):
        await adopt_operator(platform.host.credentials, path, "operator")
    assert platform.host.credentials.all() == []


def test_credentials_lie_beside_the_state(tmp_path):
    assert default_path(tmp_path / "mec.sqlite") == tmp_path / "mec.sqlite.operator.json"
    assert default_path(":memory:").name == "mec-operator.json"
