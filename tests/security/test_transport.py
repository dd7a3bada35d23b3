"""TLS and mutual TLS on a whole platform, and the SDK's side of both."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from mec_apps.sdk import (
    ClientCertificate,
    ClientCredentials,
    MecApplication,
    MecError,
    NotAuthorised,
    PlatformUnreachable,
    PlatformUntrusted,
)
from mec_platform.application import Platform, PlatformSettings
from mec_platform.domain.credentials import Scope
from mec_platform.identity.authority import Pair, Purpose, issue, make_authority
from mec_platform.identity.folder import save
from mec_platform.rpc.endpoints import AddressError
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, registry_pb2, registry_pb2_grpc
from mec_platform.tls import TlsFiles


class Certificates:
    """An authority and what it has issued, in a folder."""

    def __init__(self, folder: Path, now_s: float) -> None:
        self.folder = folder
        self._now_s = now_s
        self._authority = make_authority("test authority", now_s)
        save(folder, "ca", self._authority, replace=False)
        self.issue("platform", Purpose.SERVER)

    def issue(self, name: str, purpose: Purpose = Purpose.CLIENT) -> ClientCertificate:
        pair: Pair = issue(self._authority, purpose, name, ["127.0.0.1"], self._now_s, 30)
        save(self.folder, name, pair, replace=True)
        return ClientCertificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def files(self, *, mutual: bool) -> TlsFiles:
        return TlsFiles(
            certificate=self.folder / "platform.crt",
            key=self.folder / "platform.key",
            client_ca=self.ca if mutual else None,
        )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    # Real handshakes look at the machine's clock.
    return Certificates(tmp_path / "certs", tmp_path.stat().st_mtime)


async def run_platform(tmp_path: Path, tls: TlsFiles) -> Platform:
    settings = PlatformSettings(
        rest_port=0,
        grpc_port=0,
        registry_port=0,
        authenticate=True,
        tls=tls,
        operator_file=tmp_path / "operator.json",
        store_dir=tmp_path / "store",
    )
    platform = Platform(settings)
    await platform.start()
    return platform


@pytest.fixture
async def platform(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Platform]:
    platform = await run_platform(tmp_path, certificates.files(mutual=False))
    yield platform
    await platform.stop()


@pytest.fixture
async def mutual_platform(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Platform]:
    platform = await run_platform(tmp_path, certificates.files(mutual=True))
    yield platform
    await platform.stop()


async def credentials_of(platform: Platform, client_id: str) -> ClientCredentials:
    _, secret = await platform._host.credentials.create([Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT], client_id)
    return ClientCredentials(client_id, secret)


def application(platform: Platform, **access: Any) -> MecApplication:
    return MecApplication(platform.rest_uri, name="greeter", **access)


async def test_an_application_with_credentials_lives_on_a_platform_with_tls(platform, certificates):
    credentials = await credentials_of(platform, "app-1")
    async with application(platform, credentials=credentials, ca=certificates.ca) as app:
        assert platform._host.applications.get(app.app_instance_id).owner == "app-1"
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        assert [found.service_id for found in await app.discover()] == [service.service_id]
    assert len(platform._host.registry.state.apps) == 0


async def test_a_platform_whose_authority_is_unknown_is_not_trusted(platform):
    with pytest.raises(PlatformUntrusted, match=r"ca\.crt"):
        async with application(platform):
            pass


async def test_a_platform_under_another_name_is_not_trusted(platform, certificates):
    url = platform.rest_uri.replace("127.0.0.1", "localhost")
    with pytest.raises(PlatformUntrusted):
        async with MecApplication(url, name="greeter", ca=certificates.ca):
            pass


async def test_without_credentials_the_application_learns_how_to_get_some(platform, certificates):
    with pytest.raises(NotAuthorised, match="mec client create"):
        async with application(platform, ca=certificates.ca):
            pass


async def test_a_wrong_secret_is_named_but_not_repeated(platform, certificates):
    with pytest.raises(NotAuthorised, match="client app-9") as error:
        async with application(platform, credentials=ClientCredentials("app-9", "guess-work"), ca=certificates.ca):
            pass
    assert "guess-work" not in str(error.value)
    assert "guess-work" not in repr(ClientCredentials("app-9", "guess-work"))


async def test_an_application_gets_a_new_token_where_the_old_one_is_accepted_no_longer(platform, certificates):
    credentials = await credentials_of(platform, "app-1")
    async with application(platform, credentials=credentials, ca=certificates.ca) as app:
        # What happens to it after its key has been rotated out.
        await platform._protection._keys.rotate()
        await platform._host.credentials.remove_outlived_keys(-1)
        assert await app.discover() == []


async def test_plain_http_and_old_tls_are_not_spoken(platform, certificates):
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(platform.rest_uri.replace("https", "http"))
        old = ssl.create_default_context(cafile=certificates.ca)
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientError):
            await session.get(platform.rest_uri, ssl=old)


async def test_a_renewed_certificate_is_taken_up_at_sighup(platform, certificates, caplog):
    host, port = platform.rest_address.split(":")

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=certificates.ca)
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)

    before = await shown()
    certificates.issue("platform", Purpose.SERVER)
    taken_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, taken_up.set)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    await taken_up.wait()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    after = await shown()
    assert after != before
    (certificates.folder / "platform.key").write_text("nonsense")
    platform._reload.reload()
    assert "stays as it is" in caplog.text
    assert await shown() == after


async def test_without_a_certificate_nobody_gets_a_word_out_of_a_platform_with_mutual_tls(
    mutual_platform, certificates
):
    credentials = await credentials_of(mutual_platform, "app-1")
    with pytest.raises(PlatformUnreachable):
        async with application(mutual_platform, credentials=credentials, ca=certificates.ca):
            pass


async def test_a_certificate_of_another_authority_is_refused(mutual_platform, certificates, tmp_path):
    foreign = Certificates(tmp_path / "foreign", tmp_path.stat().st_mtime).issue("app-1")
    credentials = await credentials_of(mutual_platform, "app-1")
    with pytest.raises(MecError):
        async with application(mutual_platform, credentials=credentials, ca=certificates.ca, certificate=foreign):
            pass


async def test_a_client_with_its_own_certificate_gets_a_token_that_is_bound_to_it(mutual_platform, certificates):
    credentials = await credentials_of(mutual_platform, "app-1")
    access = {"credentials": credentials, "ca": certificates.ca}
    async with application(mutual_platform, certificate=certificates.issue("app-1"), **access) as app:
        assert await app.discover() == []
        stolen = await app._session.token()
        renewed, other = certificates.issue("app-1"), certificates.issue("app-2")
        assert await use_token(mutual_platform, certificates, renewed, stolen) == (401, "another TLS certificate")
        assert await use_token(mutual_platform, certificates, other, stolen) == (401, "another client")


async def use_token(
    platform: Platform, certificates: Certificates, certificate: ClientCertificate, token: str
) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=certificates.ca)
    context.load_cert_chain(certificate.certificate, certificate.key)
    url = f"{platform.rest_uri}/mec_service_mgmt/v1/services"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=context, headers={"Authorization": f"Bearer {token}"}) as response,
    ):
        detail = (await response.json())["detail"]
        known = ("another TLS certificate", "another client")
        return response.status, next((words for words in known if words in detail), detail)


async def test_a_client_gets_no_token_with_anothers_certificate(mutual_platform, certificates):
    credentials = await credentials_of(mutual_platform, "app-1")
    foreign = certificates.issue("app-2")
    with pytest.raises(NotAuthorised, match="stands for another client"):
        async with application(mutual_platform, credentials=credentials, ca=certificates.ca, certificate=foreign):
            pass


def registry_channel(platform: Platform, certificates: Certificates, certificate: ClientCertificate | None = None):
    shown = () if certificate is None else (certificate.key.read_bytes(), certificate.certificate.read_bytes())
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes(), *shown)
    return grpc.aio.secure_channel(platform.registry_address, credentials)


async def token_of(platform: Platform, certificates: Certificates, certificate: ClientCertificate | None) -> str:
    credentials = await credentials_of(platform, "app-1")
    access = {"credentials": credentials, "ca": certificates.ca, "certificate": certificate}
    async with application(platform, **access) as app:
        return await app._session.token()


async def discover(channel: grpc.aio.Channel, token: str) -> registry_pb2.Ranking:
    stub = registry_pb2_grpc.ServiceRegistryStub(channel)
    return await stub.Discover(registry_pb2.DiscoveryQuery(), metadata=(("authorization", f"Bearer {token}"),))


async def test_the_registry_is_served_over_tls_and_the_control_plane_is_not(platform, certificates):
    token = await token_of(platform, certificates, None)
    async with registry_channel(platform, certificates) as channel:
        assert (await discover(channel, token)).revision > 0
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await discover(channel, "nonsense")
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        profiler = control_plane_pb2_grpc.CapacityProfilerStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await profiler.GetSnapshot(control_plane_pb2.GetSnapshotRequest())
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_over_mutual_tls_a_token_counts_with_its_own_certificate_only(mutual_platform, certificates):
    own = certificates.issue("app-1")
    token = await token_of(mutual_platform, certificates, own)
    async with registry_channel(mutual_platform, certificates, own) as channel:
        assert (await discover(channel, token)).revision > 0
    for certificate, words in (
        (certificates.issue("app-2"), "another client"),
        (certificates.issue("app-1"), "another TLS certificate"),
    ):
        async with registry_channel(mutual_platform, certificates, certificate) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await discover(channel, token)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert words in (error.value.details() or "")


async def test_without_a_certificate_nobody_gets_through_to_the_registry(mutual_platform, certificates):
    async with registry_channel(mutual_platform, certificates) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await discover(channel, "nonsense")
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_registrys_port_takes_up_a_renewed_certificate_too(platform, certificates):
    host, port = platform.registry_address.split(":")

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=certificates.ca)
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)

    before = await shown()
    assert await shown() == before
    certificates.issue("platform", Purpose.SERVER)
    platform._reload.reload()
    after = await shown()
    assert after != before
    assert await shown() == after


async def test_a_port_for_the_registry_needs_tls(tmp_path):
    platform = Platform(PlatformSettings(rest_port=0, grpc_port=0, registry_port=0, store_dir=tmp_path / "store"))
    with pytest.raises(AddressError, match="--tls-cert"):
        await platform.start()
