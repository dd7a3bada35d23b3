"""The gRPC ports of platform and members over mutual TLS: real servers, real channels, certificates made here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import hashes

from mec_apps.dashboard.platform_state import PlatformState
from mec_apps.split_inference.frames import HEADER, Frame, FrameKind, pack_frame, unpack_frame
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.peer_link import FRAMES_METHOD, LinkLost, LinkPool
from mec_platform.application import Platform, PlatformSettings
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.identity.authority import Purpose
from mec_platform.identity.call_gate import CallGate
from mec_platform.identity.folder import certificate_path, key_path, load_authority, save
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.identity.member_authority import AuthorityFiles
from mec_platform.identity.names import Grant
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.rpc.endpoints import (
    AddressError,
    Channels,
    make_server,
    open_member_channel,
    require_identity,
    start_server,
)
from mec_platform.rpc.v1 import (
    control_plane_pb2,
    control_plane_pb2_grpc,
    edge_node_pb2,
    edge_node_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tests.security.planes import Town, own_address, refused

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
UNREACHED, UNIMPLEMENTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED
HELLO_S = 5.0


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
async def platform(town: Town, tmp_path: Path) -> AsyncIterator[Platform]:
    """With an authority it speaks mutual TLS on loopback too."""
    save(tmp_path, "ca", town.authority, replace=False)
    platform = Platform(
        PlatformSettings(
            rest_port=0,
            grpc_port=0,
            member_ca=AuthorityFiles(certificate_path(tmp_path, "ca"), key_path(tmp_path, "ca")),
            store_dir=tmp_path / "store",
        )
    )
    await platform.start()
    yield platform
    await platform.stop()


def report(name: str) -> control_plane_pb2.MemberReport:
    return control_plane_pb2.MemberReport(
        name=name, role=control_plane_pb2.MEMBER_ROLE_GATEWAY, address="192.0.2.9:1", incarnation="1"
    )


async def test_the_platform_takes_a_members_reports_of_itself_alone(town, platform):
    async with open_member_channel(platform.grpc_address, town.member("edge-1")) as channel:
        mine = control_plane_pb2_grpc.CapacityProfilerStub(channel).Report()
        for _ in range(2):
            await mine.write(report("edge-1"))
            assert isinstance(await mine.read(), control_plane_pb2.ReportReply)
        await mine.write(report("edge-2"))
        assert "of 'edge-2' comes from client member.edge-1 and member edge-1" in await refused(mine.read(), DENIED)
        failures = control_plane_pb2_grpc.AdaptiveOrchestratorStub(channel)
        failure = control_plane_pb2.FailureReport(reporter="edge-2", member="edge-3", reason="made up")
        assert "member edge-1" in await refused(failures.ReportFailure(failure), DENIED)
        plans = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
        assert "operator" in await refused(plans.ApplyPlan(control_plane_pb2.ApplyPlanRequest()), DENIED)


async def test_an_operator_sees_what_members_reported(town, platform):
    async with open_member_channel(platform.grpc_address, town.member("gateway")) as channel:
        reports = control_plane_pb2_grpc.CapacityProfilerStub(channel).Report(iter([report("gateway")]))
        assert isinstance(await reports.read(), control_plane_pb2.ReportReply)
    async with open_member_channel(platform.grpc_address, town.identity(Purpose.OPERATOR, "alice")) as channel:
        profiler = control_plane_pb2_grpc.CapacityProfilerStub(channel)
        snapshot = await profiler.GetSnapshot(control_plane_pb2.GetSnapshotRequest())
        assert [member.name for member in snapshot.members] == ["gateway"]
        assert "member" in await refused(profiler.Report(iter([report("alice")])).read(), DENIED)
        # Behind the gate the registry asks for what it always did; here authentication is off.
        registry = registry_pb2_grpc.ServiceRegistryStub(channel)
        await refused(registry.Get(registry_pb2.GetRequest(service_id="x")), grpc.StatusCode.NOT_FOUND)


async def test_the_platform_believes_of_role_and_trust_what_the_certificate_says(town, platform, caplog):
    node = replace_report(report("edge-1"), role=control_plane_pb2.MEMBER_ROLE_NODE, trusted=True)
    reports = []
    for name, grants in (("edge-1", {Grant.NODE}), ("edge-2", {Grant.NODE, Grant.TRUSTED})):
        channel = open_member_channel(platform.grpc_address, town.member(name, frozenset(grants)))
        stream = control_plane_pb2_grpc.CapacityProfilerStub(channel).Report()
        reports.append((channel, stream))
        for _ in range(2):
            await stream.write(replace_report(node, name=name, address=f"{name}:1"))
            assert isinstance(await stream.read(), control_plane_pb2.ReportReply)
    assert caplog.text.count("edge-1 says that it is trusted, and its certificate does not") == 1
    async with open_member_channel(platform.grpc_address, town.identity(Purpose.OPERATOR, "alice")) as channel:
        seen = await control_plane_pb2_grpc.CapacityProfilerStub(channel).GetSnapshot(
            control_plane_pb2.GetSnapshotRequest()
        )
        assert {member.name: member.trusted for member in seen.members} == {"edge-1": False, "edge-2": True}
    channel, stream = reports[0]
    await stream.write(report("edge-1"))
    assert "does not grant it" in await refused(stream.read(), DENIED)
    for channel, _ in reports:
        await channel.close()


def replace_report(message: control_plane_pb2.MemberReport, **values) -> control_plane_pb2.MemberReport:
    changed = control_plane_pb2.MemberReport()
    changed.CopyFrom(message)
    changed.MergeFrom(control_plane_pb2.MemberReport(**values))
    return changed


async def test_the_dashboard_reads_the_state_of_its_platform_over_mutual_tls(platform):
    state = PlatformState(platform.grpc_address, platform.identity)
    assert (await state.read())["nodes"] == []
    await state.close()


async def test_beyond_loopback_a_platform_makes_an_authority_of_its_own_once(tmp_path):
    settings = PlatformSettings(
        host=own_address(),
        rest_port=0,
        grpc_port=0,
        state=tmp_path / "mec.sqlite",
        store_dir=tmp_path / "store",
        security=SecuritySettings(behind_proxy=True),
    )
    prints = set()
    for _ in range(2):
        platform = Platform(settings)
        await platform.start()
        prints.add(load_authority(tmp_path / "mec.sqlite.certs").certificate.fingerprint(hashes.SHA256()))
        async with open_member_channel(platform.grpc_address, None) as channel:
            stub = control_plane_pb2_grpc.CapacityProfilerStub(channel)
            await refused(stub.ListDeployments(control_plane_pb2.ListDeploymentsRequest()), UNREACHED)
        await platform.stop()
    assert len(prints) == 1
    replica = Platform(replace(settings, state=EtcdSettings(("127.0.0.1:1",), "/mec")))
    with pytest.raises(AddressError, match="--member-ca-cert"):
        await replica.start()


@pytest.mark.parametrize("who", ["nobody", "a stranger", "expired"])
async def test_without_a_good_certificate_there_is_no_connection(town, platform, who):
    identity = {"nobody": None, "a stranger": Town().member("edge-1"), "expired": town.expired("edge-1")}[who]
    async with open_member_channel(platform.grpc_address, identity) as channel:
        stub = control_plane_pb2_grpc.CapacityProfilerStub(channel)
        await refused(stub.ListDeployments(control_plane_pb2.ListDeploymentsRequest()), UNREACHED)


async def serve_members(identity: GrpcIdentity, gate: CallGate | None = None) -> tuple[grpc.aio.Server, str]:
    """A server whose methods all answer UNIMPLEMENTED, behind the gate."""
    server = make_server(identity=identity) if gate is None else grpc.aio.server(interceptors=[gate])
    edge_node_pb2_grpc.add_EdgeNodeServicer_to_server(_Node(), server)
    inference_pb2_grpc.add_InferenceServicer_to_server(_Gateway(), server)
    return server, await start_server(server, "127.0.0.1", 0, [], identity.server_credentials())


class _Node(edge_node_pb2_grpc.EdgeNodeServicer):
    async def LoadStage(self, request, context):
        return edge_node_pb2.LoadStageReply()

    async def Emulate(self, request, context):
        return edge_node_pb2.EmulateReply()

    async def ImportKv(self, request_iterator, context):
        return edge_node_pb2.ImportKvReply()

    async def ExportKv(self, request, context):
        yield edge_node_pb2.KvChunk(session=7)


class _Gateway(inference_pb2_grpc.InferenceServicer):
    async def SwitchPlan(self, request, context):
        return inference_pb2.SwitchPlanReply()


async def test_members_take_orders_from_the_platform_alone(town):
    server, address = await serve_members(town.member("edge-1"))
    callers = [(Purpose.PLATFORM, "p", True), (Purpose.MEMBER, "edge-2", False), (Purpose.OPERATOR, "alice", False)]
    for purpose, name, may in callers:
        async with open_member_channel(address, town.identity(purpose, name), "edge-1") as channel:
            node, gateway = edge_node_pb2_grpc.EdgeNodeStub(channel), inference_pb2_grpc.InferenceStub(channel)
            orders = [node.LoadStage(edge_node_pb2.LoadStageRequest())]
            orders.append(gateway.SwitchPlan(inference_pb2.SwitchPlanRequest()))
            for order in orders:
                if may:
                    await order
                else:
                    assert f"{purpose} {name}" in await refused(order, DENIED)
    await server.stop(None)


async def test_streams_pass_the_gate_in_every_direction(town):
    server, address = await serve_members(town.member("edge-1"))
    async with open_member_channel(address, town.member("edge-2"), "edge-1") as channel:
        node = edge_node_pb2_grpc.EdgeNodeStub(channel)
        assert [chunk.session async for chunk in node.ExportKv(edge_node_pb2.KvSelection())] == [7]
        await node.ImportKv(iter([edge_node_pb2.KvChunk()]))
    async with open_member_channel(address, town.identity(Purpose.OPERATOR, "alice"), "edge-1") as channel:
        node = edge_node_pb2_grpc.EdgeNodeStub(channel)
        assert "operator alice" in await refused(node.ExportKv(edge_node_pb2.KvSelection()).read(), DENIED)
        assert "operator alice" in await refused(node.ImportKv(iter([edge_node_pb2.KvChunk()])), DENIED)
    await server.stop(None)


async def test_whoever_answers_at_a_members_address_has_to_be_that_member(town):
    server, address = await serve_members(town.member("edge-1"))
    for expected in ("edge-2", ""):  # another member, and the platform
        async with open_member_channel(address, town.identity(Purpose.PLATFORM, "p"), expected) as channel:
            stub = edge_node_pb2_grpc.EdgeNodeStub(channel)
            await refused(stub.LoadStage(edge_node_pb2.LoadStageRequest()), UNREACHED)
    await server.stop(None)


async def test_a_certificate_that_has_expired_on_an_open_connection_opens_no_further_call(town):
    now = [time.time()]
    server, address = await serve_members(town.member("edge-1"), CallGate(lambda: now[0]))
    async with open_member_channel(address, town.identity(Purpose.PLATFORM, "p"), "edge-1") as channel:
        stub = edge_node_pb2_grpc.EdgeNodeStub(channel)
        await stub.LoadStage(edge_node_pb2.LoadStageRequest())
        now[0] += 31 * 86_400
        assert "expired" in await refused(stub.LoadStage(edge_node_pb2.LoadStageRequest()), UNAUTHENTICATED)
    await server.stop(None)


class _Profiler(control_plane_pb2_grpc.CapacityProfilerServicer):
    async def Report(self, request_iterator, context):
        async for _ in request_iterator:
            yield control_plane_pb2.ReportReply()


async def test_reports_end_with_the_certificate_that_their_stream_was_opened_with(town):
    """A member that was shut out would otherwise stay for as long as its connection lasts."""
    now = [time.time()]
    server = grpc.aio.server(interceptors=[CallGate(lambda: now[0])])
    control_plane_pb2_grpc.add_CapacityProfilerServicer_to_server(_Profiler(), server)
    credentials = town.identity(Purpose.PLATFORM, "p").server_credentials()
    address = await start_server(server, "127.0.0.1", 0, [], credentials)
    async with open_member_channel(address, town.member("edge-1")) as channel:
        reports = control_plane_pb2_grpc.CapacityProfilerStub(channel).Report()
        await reports.write(report("edge-1"))
        assert isinstance(await reports.read(), control_plane_pb2.ReportReply)
        now[0] += 31 * 86_400
        await reports.write(report("edge-1"))
        assert "expired" in await refused(reports.read(), UNAUTHENTICATED)
    await server.stop(None)


async def test_renewed_certificates_are_taken_up_while_calls_go_on(town):
    served, calling = town.member("edge-1"), town.identity(Purpose.PLATFORM, "p")
    server, address = await serve_members(served)
    channels = Channels(calling)
    before = channels.to(address, "edge-1")
    await edge_node_pb2_grpc.EdgeNodeStub(before).LoadStage(edge_node_pb2.LoadStageRequest())
    shown = served.certificate.serial_number
    served.reload()
    calling.reload()
    assert served.certificate.serial_number != shown
    after = channels.to(address, "edge-1")
    assert after is not before
    for channel in (after, before):
        await edge_node_pb2_grpc.EdgeNodeStub(channel).LoadStage(edge_node_pb2.LoadStageRequest())
    for _ in range(2):
        calling.reload()
        channels.to(address, "edge-1")
    await channels.close()
    await server.stop(None)


async def test_a_new_connection_sees_the_renewed_certificate_of_a_server(town):
    """Its key belongs to another authority now, so who trusts the first one alone gets through no more."""
    other, current = Town(), [town]
    served = GrpcIdentity(lambda: current[0].member("edge-1")._material)
    server, address = await serve_members(served)
    current[0] = other
    served.reload()
    async with open_member_channel(address, town.identity(Purpose.PLATFORM, "p"), "edge-1") as channel:
        stub = edge_node_pb2_grpc.EdgeNodeStub(channel)
        await refused(stub.LoadStage(edge_node_pb2.LoadStageRequest()), UNREACHED)
    async with open_member_channel(address, other.identity(Purpose.PLATFORM, "p"), "edge-1") as channel:
        await edge_node_pb2_grpc.EdgeNodeStub(channel).LoadStage(edge_node_pb2.LoadStageRequest())
    await server.stop(None)


class Streams:
    """The data plane of a node over mutual TLS."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.submitted: asyncio.Queue[Frame] = asyncio.Queue()
        identity = town.member("edge-1")
        self.plane = DataPlane("edge-1", LinkShapers(), self.submitted.put_nowait, asyncio.sleep, identity)
        self._server = make_server(identity=identity)
        self._server.add_generic_rpc_handlers((self.plane.handler(),))
        self._identity = identity

    async def start(self) -> str:
        credentials = self._identity.server_credentials()
        self.address = await start_server(self._server, "127.0.0.1", 0, [], credentials)
        return self.address

    async def stop(self) -> None:
        await self._server.stop(None)
        await self.plane.stop()

    def pool(self, name: str, number: int = 0, says: str | None = None) -> LinkPool:
        hello = Frame(FrameKind.HELLO, session=number << 32, payload=(says or name).encode())
        return LinkPool(hello, LinkShapers(), lambda *_: None, lambda *_: None, self.town.member(name))


@pytest.fixture
async def streams(town: Town) -> AsyncIterator[Streams]:
    made = Streams(town)
    await made.start()
    yield made
    await made.stop()


async def test_frames_of_a_member_arrive_over_mutual_tls(streams):
    pool = streams.pool("gateway", 5)
    link = await pool.connect("edge-1", streams.address, HELLO_S)
    link.send(Frame(FrameKind.TOKENS, rows=1, payload=b"abcd"))
    assert (await streams.submitted.get()).payload == b"abcd"
    await pool.close()


async def test_a_member_that_says_hello_under_another_name_is_not_heard(streams):
    async with open_member_channel(streams.address, streams.town.member("edge-2"), "edge-1") as channel:
        call = channel.stream_stream(FRAMES_METHOD)()
        await call.write(pack_frame(Frame(FrameKind.HELLO, payload=b"edge-3")))
        assert "edge-2 says that it is 'edge-3'" in await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT)


async def test_the_number_of_a_gateway_is_its_own(streams):
    first = streams.pool("gateway", 5)
    await first.connect("edge-1", streams.address, HELLO_S)
    async with open_member_channel(streams.address, streams.town.member("edge-2"), "edge-1") as channel:
        call = channel.stream_stream(FRAMES_METHOD)()
        await call.write(pack_frame(Frame(FrameKind.HELLO, session=5 << 32, payload=b"edge-2")))
        assert "not edge-2" in await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT)
    assert first.get("edge-1").connected
    await first.close()


@pytest.mark.parametrize(
    "frame",
    [Frame(FrameKind.TOKENS, rows=1, payload=b"abcd"), Frame(FrameKind.HELLO, session=6 << 32, payload=b"edge-2")],
)
async def test_a_node_does_not_pass_for_a_gateway(streams, frame):
    identity = streams.town.member("edge-2", frozenset({Grant.NODE, Grant.TRUSTED}))
    async with open_member_channel(streams.address, identity, "edge-1") as channel:
        call = channel.stream_stream(FRAMES_METHOD)()
        await call.write(pack_frame(Frame(FrameKind.HELLO, payload=b"edge-2")))
        assert unpack_frame(await call.read()).kind is FrameKind.HELLO
        await call.write(pack_frame(frame))
        assert "was not granted to be a gateway" in await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT)
    assert streams.submitted.empty()


async def test_an_operator_sends_no_frames(streams):
    identity = streams.town.identity(Purpose.OPERATOR, "alice")
    async with open_member_channel(streams.address, identity, "edge-1") as channel:
        assert "operator alice" in await refused(channel.stream_stream(FRAMES_METHOD)().read(), DENIED)


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\xff" * HEADER.size, b"GET / HTTP/1.1\r\n" * 9])
async def test_garbage_ends_the_stream_that_it_came_by_and_no_other(streams, garbage):
    pool = streams.pool("gateway", 5)
    link = await pool.connect("edge-1", streams.address, HELLO_S)
    async with open_member_channel(streams.address, streams.town.member("edge-2"), "edge-1") as channel:
        call = channel.stream_stream(FRAMES_METHOD)()
        await call.write(pack_frame(Frame(FrameKind.HELLO, payload=b"edge-2")))
        assert unpack_frame(await call.read()).kind is FrameKind.HELLO
        await call.write(garbage)
        await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT)
    assert await link.ping(b"still there") is not None
    await pool.close()


async def test_a_stream_that_ends_while_the_node_says_hello_says_why(streams):
    """gRPC sends the metadata of a stream with its first frame; an end that meets them on their way was lost."""
    async with open_member_channel(streams.address, streams.town.member("edge-2"), "edge-1") as channel:
        for _ in range(10):
            call = channel.stream_stream(FRAMES_METHOD)()
            await call.write(pack_frame(Frame(FrameKind.HELLO, payload=b"edge-2")))
            await call.write(b"garbage")
            async with asyncio.timeout(HELLO_S):
                await refused(read_to_the_end(call), grpc.StatusCode.INVALID_ARGUMENT)


async def read_to_the_end(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    """Whatever comes before the end, such as a hello."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_link_to_who_is_not_the_peer_does_not_come_up(streams):
    pool = streams.pool("gateway", 5)
    with pytest.raises(LinkLost):
        await pool.connect("edge-9", streams.address, 0.5)
    await pool.close()


def test_beyond_this_machine_nothing_listens_without_an_identity():
    require_identity("127.0.0.1", allow_remote=False, has_identity=False, how="")
    require_identity("192.0.2.1", allow_remote=False, has_identity=True, how="")
    require_identity("192.0.2.1", allow_remote=True, has_identity=False, how="")
    with pytest.raises(AddressError, match=r"run this.*--allow-remote"):
        require_identity("192.0.2.1", allow_remote=False, has_identity=False, how="run this")
