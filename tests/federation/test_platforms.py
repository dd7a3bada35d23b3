"""Whole platforms that share services: over TLS with tokens, as operators see them, and as consumers find them over Mp1."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import grpc
import pytest
from click.testing import CliRunner

from mec_apps.cli.peers import peers as peers_command
from mec_apps.cli.serve import peers as serve_peers
from mec_platform.application import Platform, PlatformSettings
from mec_platform.domain.applications import AppDescription
from mec_platform.domain.credentials import Scope
from mec_platform.peer_access import ClientSecret, GrpcPeerAccess, PeerAccessError, PeerTls, read_client_secret
from mec_platform.private_files import write_private
from mec_platform.registry.federation.federation import PeerError
from mec_platform.rpc.v1 import federation_pb2 as pb
from mec_platform.rpc.v1 import federation_pb2_grpc
from tests.conformance.answers import AnswerChecker
from tests.federation.hosts import SETTINGS, SHARED, eventually
from tests.federation.wires import Wire
from tests.registry.grpc_serving import refusal_of
from tests.security.test_transport import Certificates

NAMES = ("a", "b")
SECRET = "s" * 43


@asynccontextmanager
async def platforms(folder: Path, access: Any, **options: Any):
    """Two platforms that are peers; `access(other, grpc, rest)` says how to reach the other one."""
    async with AsyncExitStack() as stack:
        wires = {}
        for name in NAMES:
            wires[name] = Wire(), Wire()
            for wire in wires[name]:
                await wire.start()
                stack.push_async_callback(wire.stop)
        found, checkers = [], list[AnswerChecker]()
        for name, other in (NAMES, NAMES[::-1]):
            settings = PlatformSettings(
                rest_port=0,
                grpc_port=0,
                host_name=name,
                state=folder / f"{name}.sqlite",
                operator_file=folder / f"{name}.operator.json",
                store_dir=folder / "store",
                peers={other: access(other, *(each.address for each in wires[other]))},
                federation=SETTINGS,
                **options,
            )
            platform = Platform(settings, lambda app, _: checkers.append(AnswerChecker(app)))
            await platform.start()
            stack.push_async_callback(platform.stop)
            wires[name][0].target = platform.registry_address or platform.grpc_address
            wires[name][1].target = platform.rest_address
            found.append(platform)
        yield found
    assert [complaint for checker in checkers for complaint in checker.complaints] == []


async def offer(platform: Platform, **changes: Any) -> str:
    host = platform._host
    app = await host.applications.register(AppDescription(name="app"), app_instance_id="an app/1")
    service = await host.services.register_service(app.app_instance_id, SHARED)
    return service.service_id


def has(platform: Platform, service_id: str) -> bool:
    return service_id in platform._host.registry.state.services


async def test_platforms_with_mutual_tls_and_tokens_share_services_over_the_life_of_tokens(tmp_path):
    certificates = Certificates(tmp_path / "certs", tmp_path.stat().st_mtime)

    def access(other: str, grpc_address: str, rest_address: str) -> GrpcPeerAccess:
        me = "b" if other == "a" else "a"
        certificate = certificates.issue(me)
        tls = PeerTls(ca=certificates.ca, certificate=certificate.certificate, key=certificate.key)
        return GrpcPeerAccess(grpc_address, tls=tls, secret=ClientSecret(me, SECRET, f"https://{rest_address}"))

    options = {"authenticate": True, "registry_port": 0, "tls": certificates.files(mutual=True)}
    async with platforms(tmp_path, access, **options) as (a, b):
        service_id = await offer(a)
        await eventually(lambda: "gives client 'b' no token" in b._federation.statuses[0].error)
        await a._host.credentials.adopt("b", SECRET, [Scope.SERVICE_MANAGEMENT])
        await eventually(lambda: "the token lacks the scope mec_federation" in b._federation.statuses[0].error)
        await a._host.credentials.remove("b")
        await a._host.credentials.adopt("b", SECRET, [Scope.FEDERATION])
        # The token that it has is of the client that was.
        await eventually(lambda: has(b, service_id))
        # A token that counts no more ends the stream, and another one is fetched.
        connections = b._federation.statuses[0].counts.connections
        await a._protection._keys.rotate()
        await a._host.credentials.remove_outlived_keys(-1)
        await eventually(lambda: b._federation.statuses[0].counts.connections > connections)
        assert b._federation.statuses[0].counts.listings.total() == 1
        # Without a certificate and a token of its own nobody gets a word.
        request = pb.FollowRequest(place=pb.HostPlace(mec_host="b"), registry_id="r")
        naked = GrpcPeerAccess(a.registry_address, tls=PeerTls(ca=certificates.ca)).open_channel()
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await federation_pb2_grpc.FederationStub(naked).Follow(request).read()
        await naked.close()
        in_the_clear = GrpcPeerAccess(a.grpc_address).open_channel()
        code, _, _ = await refusal_of(federation_pb2_grpc.FederationStub(in_the_clear).Follow(request).read())
        assert code is grpc.StatusCode.UNAUTHENTICATED
        await in_the_clear.close()


def in_the_clear(other: str, grpc_address: str, rest_address: str) -> GrpcPeerAccess:
    return GrpcPeerAccess(grpc_address)


async def test_consumers_find_services_of_other_hosts_and_cannot_change_them(tmp_path):
    async with platforms(tmp_path, in_the_clear) as (a, b), aiohttp.ClientSession(b.rest_uri) as session:
        service_id = await offer(a)
        await eventually(lambda: has(b, service_id))
        root = "/mec_service_mgmt/v1"
        async with session.get(f"{root}/services") as answer:
            (service,) = await answer.json()
        assert (service["serInstanceId"], service["isLocal"], service["state"]) == (service_id, False, "ACTIVE")
        assert "livenessInterval" not in service
        assert "liveness" not in service["_links"]
        async with session.get(service["_links"]["self"]["href"].removeprefix(b.rest_uri)) as answer:
            assert await answer.json() == service
        async with session.get(f"{root}/services?is_local=true") as answer:
            assert await answer.json() == []
        path = f"{root}/applications/an%20app%2F1/services/{service_id}"
        async with session.delete(path) as answer:
            assert answer.status == 404
        assert has(b, service_id)


async def test_operators_see_their_peers(tmp_path):
    async with platforms(tmp_path, in_the_clear) as (a, b), aiohttp.ClientSession(b.rest_uri) as session:
        service_id = await offer(a)
        await eventually(lambda: has(b, service_id) and b._federation.statuses[0].follows)
        async with session.get("/admin/v1/peers") as answer:
            (peer,) = await answer.json()
        assert peer["registryId"] == a._host.registry.state.registry_id
        expected = {"name": "a", "connected": True, "suspended": False, "follows": True, "services": 1, "lag": 0}
        assert expected.items() <= peer.items()
        assert (peer["listings"], peer["mismatches"], peer["refusedServices"]) == ({"listed": 1}, 0, [])
        async with session.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        for line in ('mec_peer_connected{peer="a"} 1.0', 'mec_peer_services{peer="a"} 1.0'):
            assert line in lines
        assert 'mec_peer_listings_total{peer="a",reason="listed"} 1.0' in lines
        assert 'mec_services{state="ACTIVE"} 0.0' in lines
        arguments = ["--platform", b.rest_uri]
        runner = CliRunner(env={"COLUMNS": "200"})
        shown = await asyncio.to_thread(runner.invoke, peers_command, arguments)
        heading, row = shown.output.splitlines()
        assert heading.split() == [
            "PEER",
            "ADDRESS",
            "STATE",
            "SERVICES",
            "REFUSED",
            "LAG",
            "LISTINGS",
            "LAST",
            "CONTACT",
            "ERROR",
        ]
        assert row.split()[:1] + row.split()[2:7] == ["a", "connected", "1", "0", "0", "1"]
        shown = await asyncio.to_thread(runner.invoke, peers_command, [*arguments, "--json"])
        assert json.loads(shown.output)[0]["name"] == "a"


async def test_a_host_cannot_be_its_own_peer_and_nothing_is_left_running(tmp_path):
    settings = PlatformSettings(
        rest_port=0, grpc_port=0, host_name="a", store_dir=tmp_path, peers={"a": GrpcPeerAccess("127.0.0.1:1")}
    )
    platform = Platform(settings)
    with pytest.raises(PeerError, match="this host is 'a'"):
        await platform.start()


# The command line


def parsed(*arguments: str) -> serve_peers.Peers:
    found: list[serve_peers.Peers] = []

    @click.command()
    @serve_peers.peer_options
    def command(peers: serve_peers.Peers) -> None:
        found.append(peers)

    command.main(list(arguments), standalone_mode=False)
    return found[0]


def test_peers_are_named_with_their_addresses_and_credentials(tmp_path):
    file = tmp_path / "b.json"
    write_private(file, json.dumps({"client_id": "host-a", "client_secret": SECRET, "scopes": []}).encode())
    peers = parsed(
        "--peer=b=b.example:50052",
        "--peer=c=[2001:db8::1]:50052",
        f"--peer-credentials=b={file}",
        "--peer-platform=b=https://b.example:8081/",
        "--peer-suspend-after-s=5",
    )
    assert {name: access.address for name, access in peers.accesses.items()} == {
        "b": "b.example:50052",
        "c": "[2001:db8::1]:50052",
    }
    assert peers.settings.suspend_after_s == 5
    secret = read_client_secret(file, "https://b.example:8081/")
    assert (secret.client_id, secret.platform_url) == ("host-a", "https://b.example:8081")
    assert SECRET not in repr(secret)
    assert dict(parsed().accesses) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peer=b"], "NAME=VALUE"),
        (["--peer=b=here"], "NAME=HOST:PORT"),
        (["--peer=b=h:1", "--peer=b=h:2"], "twice"),
        (["--peer-platform=b=https://h"], "which is no --peer"),
        (["--peer=b=h:1", "--peer-platform=b=https://h"], "belong together"),
        (["--peer=b=h:1", "--peer-cert=c"], "belong together"),
        (["--peer=b=h:1", "--peer-cert=c", "--peer-key=k"], "--peer-ca"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(arguments, words):
    with pytest.raises(click.UsageError, match=words):
        parsed(*arguments)


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(PeerAccessError, match="nowhere"):
        GrpcPeerAccess("h:1", tls=PeerTls(ca=tmp_path / "nowhere"))
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(PeerAccessError, match="cannot use"):
        GrpcPeerAccess("h:1", tls=PeerTls(ca=tmp_path / "ca"))
    write_private(tmp_path / "secret", b"[]")
    with pytest.raises(PeerAccessError, match="no JSON"):
        read_client_secret(tmp_path / "secret", "https://h")
