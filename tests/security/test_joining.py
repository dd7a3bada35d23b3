"""Join tokens: from an operator's request to a member's certificate, and everything that is not let in."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from mec_apps.cli.join_tokens import join_token
from mec_apps.cli.joining import Joining, join
from mec_apps.cli.requests import CliError
from mec_apps.cli.rest_client import PlatformAddress
from mec_apps.sdk.session import Access
from mec_apps.split_inference.member_identity import MemberFiles, MemberIdentity, joined_files
from mec_platform.application import Platform, PlatformSettings
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.operations import OPERATIONS
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.identity.authority import LARGEST_REQUEST_BYTES, Purpose, grants_of, identities_of, make_request
from mec_platform.identity.folder import certificate_path, key_path, save
from mec_platform.identity.grpc_identity import IdentityError, IdentityFiles
from mec_platform.identity.join_token import JoinToken, JoinTokenError, decode_join_token
from mec_platform.identity.member_authority import AuthorityFiles, MemberAuthority, load_or_make
from mec_platform.identity.names import EVERY_GRANT, Grant, Identity, Role
from mec_platform.identity.renewal import renewal_due
from mec_platform.private_files import PrivateFileError, write_private
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.tls import TlsFiles
from tests.security.conftest import StandingClock
from tests.security.planes import Town, refused

TOKENS, JOIN = "/admin/v1/join-tokens", "/join/v1/certificates"


@dataclass(frozen=True)
class Site:
    """A platform that lets members join, with authentication on."""

    host: HostRegistry
    http: TestClient[web.Request, web.Application]
    town: Town
    operator: str

    async def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        text = await answer.text()
        return answer.status, json.loads(text) if text else None

    async def token(self, name: str, life_s: int = 600) -> str:
        status, made = await self.ask("POST", TOKENS, {"name": name, "lifeSeconds": life_s}, self.operator)
        assert status == 201, made
        return str(made["token"])

    async def join(self, token: str, request_pem: bytes | None = None) -> tuple[int, Any]:
        pem = request_pem or make_request("whatever it says")[1]
        return await self.ask("POST", JOIN, {"token": token, "requestPem": pem.decode()})


async def open_site(state: Path, town: Town, clock: StandingClock) -> tuple[Site, SqliteEventLog]:
    log = await SqliteEventLog.open(state)
    host = HostRegistry(Registry(log, clock=clock), locality=Locality(mec_host="host-1"))
    await host.start()
    protection = Protection(host.registry, host.credentials, SecuritySettings(authenticate=True, issuer="https://a"))
    authority = MemberAuthority(town.authority, lambda: town.now_s)
    http: Any = TestClient(TestServer(make_enablement_app(host, protection=protection, authority=authority)))
    await http.start_server()
    made, secret = await host.credentials.create([Scope.ADMIN])
    form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": secret}
    token = (await (await http.post("/oauth2/token", data=form)).json())["access_token"]
    return Site(host, http, town, token), log


async def close_site(site: Site, log: SqliteEventLog) -> None:
    await site.http.close()
    await site.host.stop()
    await log.close()


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
async def site(tmp_path: Path, town: Town, clock: StandingClock) -> AsyncIterator[Site]:
    site, log = await open_site(tmp_path / "mec.sqlite", town, clock)
    yield site
    await close_site(site, log)


async def test_a_newcomer_gets_a_certificate_for_the_tokens_name_and_its_own_key(site):
    key, request_pem = make_request("somebody else")
    status, joined = await site.join(await site.token("edge-1"), request_pem)
    assert (status, joined["name"], joined["clientId"]) == (201, "edge-1", "member.edge-1")
    certificate = x509.load_pem_x509_certificate(joined["certificatePem"].encode())
    assert certificate.public_key() == key.public_key()
    assert identities_of(certificate) == {Identity(Role.MEMBER, "edge-1"), Identity(Role.CLIENT, "member.edge-1")}
    certificate.verify_directly_issued_by(site.town.authority.certificate)
    assert set(site.host.credentials.get("member.edge-1").scopes) == {Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT}
    assert site.host.credentials.find("member.edge-1", joined["clientSecret"]) is not None


async def test_of_a_request_only_the_key_counts(site):
    """Whoever could name hosts in it could pass for the platform, or another member, before third parties."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.SubjectAlternativeName([x509.DNSName("platform.mec.internal"), x509.DNSName("mec.example")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(wanted, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _, joined = await site.join(await site.token("edge-1"), pem)
    certificate = x509.load_pem_x509_certificate(joined["certificatePem"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge-1.member.mec.internal"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


async def test_a_token_is_good_once_even_where_two_try_at_the_same_time(site):
    token = await site.token("edge-1")
    answers = await asyncio.gather(*(site.join(token) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [201, 403, 403, 403]


async def test_a_token_expires_and_can_be_withdrawn(site, clock):
    late = await site.token("edge-1", life_s=60)
    clock.now_s += 1
    withdrawn = await site.token("edge-2")
    listed = (await site.ask("GET", TOKENS, token=site.operator))[1]
    assert [each["name"] for each in listed] == ["edge-1", "edge-2"]
    path = f"{TOKENS}/{listed[1]['tokenId']}"
    assert [(await site.ask("DELETE", path, token=site.operator))[0] for _ in range(2)] == [204, 404]
    clock.now_s += 60
    assert [(await site.join(token))[0] for token in (late, withdrawn)] == [403, 403]
    assert (await site.ask("GET", TOKENS, token=site.operator))[1] == []
    await site.token("edge-3")
    assert [each.name for each in site.host.registry.state.join_permits.values()] == ["edge-3"]


async def test_a_token_lets_nobody_join_under_another_name(site):
    token = decode_join_token(await site.token("edge-1"))
    for name in ("edge-2", "edge-11"):
        assert (await site.join(JoinToken(name, token.secret, token.authority).encode()))[0] == 403
    assert (await site.join(token.encode()))[0] == 201


async def test_a_request_that_cannot_be_signed_leaves_the_token_good(site):
    token = await site.token("edge-1")
    other_kind = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    rsa_pem = other_kind.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    good = make_request("edge-1")[1]
    body = good.splitlines(keepends=True)
    forged = body[0] + b"".join(body[1:-2]).swapcase() + body[-2] + body[-1]
    for pem in (rsa_pem, forged, b"none", b"x" * (LARGEST_REQUEST_BYTES + 1)):
        assert (await site.join(token, pem))[0] == 400
    assert (await site.join(token, good))[0] == 201


async def test_tokens_are_for_administrators_to_make_and_for_names_that_members_can_have(site):
    made, secret = await site.host.credentials.create([Scope.APP_SUPPORT])
    form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": secret}
    token = (await (await site.http.post("/oauth2/token", data=form)).json())["access_token"]
    assert (await site.ask("POST", TOKENS, {"name": "edge-1"}, token))[0] == 403
    assert (await site.ask("POST", TOKENS, {"name": "edge-1"}))[0] == 401
    for name in ("Edge-1", "../x", "", "a.b"):
        assert (await site.ask("POST", TOKENS, {"name": name}, site.operator))[0] == 400


async def test_a_token_outlives_a_restart_and_so_does_its_use(tmp_path, town, clock):
    site, log = await open_site(tmp_path / "restart.sqlite", town, clock)
    tokens = [await site.token("edge-1"), await site.token("edge-2")]
    assert (await site.join(tokens[0]))[0] == 201
    await close_site(site, log)
    site, log = await open_site(tmp_path / "restart.sqlite", town, clock)
    assert [(await site.join(token))[0] for token in tokens] == [403, 201]
    await close_site(site, log)


async def test_a_token_is_in_the_answer_that_makes_it_and_nowhere_else(site, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = await site.token("edge-1")
    for wrong in (token, token, token[:-1]):
        await site.join(wrong)
    seen = [caplog.text, repr(site.host.registry.state), repr(decode_join_token(token))]
    for path in (TOKENS, "/admin/v1/audit", "/admin/v1/clients"):
        seen.append(json.dumps((await site.ask("GET", path, token=site.operator))[1]))
    secret = decode_join_token(token).secret
    for text in (token, secret.hex(), repr(secret), decode_join_token(token).secret_hash):
        assert not [each for each in seen if text in each]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret not in kept
    assert token.encode() not in kept


TOKEN = JoinToken("edge-1", bytes(range(32)), bytes(range(32, 64)))


@given(st.integers(0, len(TOKEN.encode()) - 1), st.characters(codec="utf-8"))
@example(len(TOKEN.encode()) - 1, "")
def test_a_token_that_was_copied_wrong_is_noticed_and_not_repeated(index, character):
    text = TOKEN.encode()
    damaged = text[:index] + character + text[index + 1 :]
    if damaged.strip() == text:
        return
    with pytest.raises(JoinTokenError) as raised:
        decode_join_token(damaged)
    assert damaged not in str(raised.value)


def test_a_whole_token_comes_back():
    assert decode_join_token(f" {TOKEN.encode()}\n") == TOKEN


# From here on over TLS, with a whole platform.


@pytest.fixture
async def platform(town: Town, tmp_path: Path) -> AsyncIterator[Platform]:
    folder = tmp_path / "certs"
    save(folder, "ca", town.authority, replace=False)
    save(folder, "rest", town.pair(Purpose.SERVER, "rest"), replace=False)
    platform = Platform(
        PlatformSettings(
            rest_port=0,
            grpc_port=0,
            tls=TlsFiles(certificate=certificate_path(folder, "rest"), key=key_path(folder, "rest")),
            member_ca=AuthorityFiles(certificate_path(folder, "ca"), key_path(folder, "ca")),
            store_dir=tmp_path / "store",
        )
    )
    await platform.start()
    yield platform
    await platform.stop()


async def permit(platform: Platform, name: str, town: Town, grants: frozenset[Grant] = EVERY_GRANT) -> JoinToken:
    _, secret = await platform._host.joining.permit(name, 600, grants)
    return JoinToken(name, secret, town.fingerprint)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "edge-1"
    folder.mkdir()
    return folder


async def test_a_node_joins_with_nothing_but_its_token_and_renews_its_certificate_by_itself(platform, town, home):
    place = PlatformAddress(platform.rest_uri, Access())
    await join(await permit(platform, "edge-1", town), place, home)
    assert {
        path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in home.iterdir() if path.suffix != ".crt"
    } == {
        "member.pem": 0,
        "credentials.json": 0,
    }
    member = MemberIdentity("edge-1", joined_files(home), platform.grpc_address)
    first = member.grpc.certificate
    assert not renewal_due(first, first.not_valid_before_utc)
    assert renewal_due(first, first.not_valid_after_utc)
    await member.renew()
    second = x509.load_pem_x509_certificate((home / "member.pem").read_bytes())
    assert second.serial_number == member.grpc.certificate.serial_number != first.serial_number
    assert identities_of(second) == identities_of(first)
    assert second.public_key() != first.public_key()
    # The next one is asked for as the second: what is in the file works.
    again = MemberIdentity("edge-1", joined_files(home), platform.grpc_address)
    await again.renew()
    await platform._host.credentials.remove("member.edge-1")
    assert "was shut out" in await refused(_renewal(again), grpc.StatusCode.PERMISSION_DENIED)
    for each in (member, again):
        await each.stop()


@pytest.mark.parametrize(
    "grants", [{Grant.NODE}, {Grant.NODE, Grant.TRUSTED}, {Grant.GATEWAY}], ids=lambda grants: "+".join(sorted(grants))
)
async def test_what_a_token_grants_stands_in_the_certificate_and_in_those_that_follow(platform, town, home, grants):
    place = PlatformAddress(platform.rest_uri, Access())
    await join(await permit(platform, "edge-1", town, frozenset(grants)), place, home)
    member = MemberIdentity("edge-1", joined_files(home), platform.grpc_address)
    for _ in range(2):
        assert grants_of(x509.load_pem_x509_certificate((home / "member.pem").read_bytes())) == grants
        await member.renew()
    await member.stop()


async def _renewal(member: MemberIdentity) -> None:
    await member.renew()


async def test_a_certificate_that_was_issued_by_hand_is_not_renewed_over_the_network(platform, town, tmp_path):
    save(tmp_path, "edge-7", town.pair(Purpose.MEMBER, "edge-7"), replace=False)
    save(tmp_path, "ca", town.authority, replace=False)
    files = IdentityFiles(
        certificate=certificate_path(tmp_path, "edge-7"),
        key=key_path(tmp_path, "edge-7"),
        authority=certificate_path(tmp_path, "ca"),
    )
    member = MemberIdentity("edge-7", MemberFiles(files, joined=False), platform.grpc_address)
    assert "mec certs renew" in await refused(_renewal(member), grpc.StatusCode.PERMISSION_DENIED)
    await member.stop()
    with pytest.raises(IdentityError, match=r"member edge-7|edge-7, not of edge-8"):
        MemberIdentity("edge-8", MemberFiles(files, joined=False), platform.grpc_address)


async def test_a_newcomer_gives_its_token_to_nobody_but_the_platform_that_it_is_for(platform, town, home):
    token = await permit(platform, "edge-1", town)
    elsewhere = JoinToken(token.name, token.secret, Town().fingerprint)
    with pytest.raises(CliError, match="not the platform that the join token is for"):
        await join(elsewhere, PlatformAddress(platform.rest_uri, Access()), home)
    by_another_name = platform.rest_uri.replace("127.0.0.1", "localhost")  # its certificate is for the address alone
    with pytest.raises(CliError, match="no certificate of the authority"):
        await join(token, PlatformAddress(by_another_name, Access()), home)
    with pytest.raises(CliError, match="must not travel in the clear"):
        await join(token, PlatformAddress("http://192.0.2.1:8081", Access()), home)
    assert list(home.iterdir()) == []
    await join(token, PlatformAddress(platform.rest_uri, Access()), home)
    with pytest.raises(CliError, match="not good"):
        await join(token, PlatformAddress(platform.rest_uri, Access()), home)


async def test_renewed_files_are_taken_up_at_a_signal_and_broken_ones_are_not(town, tmp_path, caplog):
    pair = town.pair(Purpose.MEMBER, "edge-1")
    (tmp_path / "ca.crt").write_bytes(town.authority.certificate_pem())
    write_private(tmp_path / "member.pem", pair.key_pem() + pair.certificate_pem())
    member = MemberIdentity("edge-1", joined_files(tmp_path), "127.0.0.1:1")
    renewed: list[int] = []
    member.start(lambda: renewed.append(member.grpc.certificate.serial_number))
    for other in (town.pair(Purpose.MEMBER, "edge-1"), None):
        content = b"none" if other is None else other.key_pem() + other.certificate_pem()
        write_private(tmp_path / "member.pem", content, replace=True)
        member.reload()
    assert len(renewed) == 1
    assert renewed != [pair.certificate.serial_number]
    assert member.grpc.certificate.serial_number == renewed[0]
    assert "stays as it is" in caplog.text
    await member.stop()


async def test_operators_make_list_and_withdraw_tokens_by_the_command_line(platform, town, tmp_path):
    where = ["--platform", platform.rest_uri, "--ca", str(tmp_path / "certs" / "ca.crt"), "--json"]

    async def mec(*arguments: str) -> Any:
        result = await asyncio.to_thread(CliRunner().invoke, join_token, [*arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    shown = await mec("create", "edge-1", "--ttl", "90m")
    token = decode_join_token(shown["token"])
    assert (token.name, token.authority) == ("edge-1", town.fingerprint)
    await mec("create", "edge-2", "--output", str(tmp_path / "token"))
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert decode_join_token((tmp_path / "token").read_text()).name == "edge-2"
    listed = await mec("list")
    assert [each["name"] for each in listed] == ["edge-1", "edge-2"]
    assert 5000 < listed[0]["expiresUnixS"] - listed[1]["expiresUnixS"] + 3600 < 5500
    await mec("delete", listed[0]["tokenId"])
    assert [each["name"] for each in await mec("list")] == ["edge-2"]


async def test_the_openapi_document_names_what_newcomers_ask_for(platform):
    document = platform._runner.app[OPERATIONS].by_id
    assert {"join", "getAuthority", "createJoinToken", "listJoinTokens", "deleteJoinToken"} <= set(document)
    async with aiohttp.ClientSession() as http, http.get(f"{platform.rest_uri}/openapi.json", ssl=False) as answer:
        assert JOIN in (await answer.json())["paths"]


def test_a_member_that_was_away_too_long_is_told_to_join_again(town, tmp_path):
    material = town.expired("edge-1")._material
    (tmp_path / "member.pem").write_bytes(material.key + material.certificate)
    with pytest.raises(CliError, match=r"expired.*mec join-token create edge-1"):
        Joining(None, tmp_path).find("edge-1", PlatformAddress("https://192.0.2.1:8081", Access()), False)


def test_on_a_trusted_network_and_where_nobody_has_joined_there_is_no_identity(tmp_path):
    place = PlatformAddress("http://127.0.0.1:8081", Access())
    assert Joining(TOKEN, tmp_path).find("edge-1", place, True) == (None, place)
    assert Joining(None, tmp_path).find("edge-1", place, False) == (None, place)


def test_a_token_decides_the_name(tmp_path):
    joining = Joining(TOKEN, tmp_path)
    assert joining.name_or(None, "host") == joining.name_or("edge-1", "host") == "edge-1"
    with pytest.raises(CliError, match="for edge-1, not for edge-2"):
        joining.name_or("edge-2", "host")
    assert Joining(None, None).name_or(None, "host") == "host"


def test_an_authority_is_made_once_and_its_key_is_the_platforms_alone(tmp_path):
    folder = tmp_path / "mec.sqlite.certs"
    made = load_or_make(None, folder, Town().now_s)
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    assert load_or_make(None, folder, 0.0).certificate == made.certificate
    (folder / "ca.key").chmod(0o644)
    with pytest.raises(PrivateFileError, match="chmod 600"):
        load_or_make(None, folder, 0.0)
    assert load_or_make(None, None, 1.7e9).certificate != made.certificate


def test_what_a_member_keeps_serves_https_too(tmp_path, town):
    """Certificate and key in one file, as gRPC, REST and metrics read it."""
    pair = town.pair(Purpose.MEMBER, "edge-1")
    (tmp_path / "member.pem").write_bytes(pair.key_pem() + pair.certificate_pem())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "member.pem", tmp_path / "member.pem")
