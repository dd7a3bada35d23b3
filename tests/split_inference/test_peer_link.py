"""Links to nodes over real streams: frames in order, answers to the right side, breaks told once, probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from mec_apps.split_inference import link_meter, peer_link
from mec_apps.split_inference.frames import Frame, FrameKind, Refusal, pack_frame
from mec_apps.split_inference.link_shaper import EmulatedLink, LinkShapers
from mec_apps.split_inference.node import data_plane
from mec_apps.split_inference.node.compute import Outcome
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.peer_link import FRAMES_METHOD, LinkLost, LinkPool
from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.rpc.endpoints import make_server, open_channel, start_server

GATEWAY = 5
SESSION = GATEWAY << 32 | 1
TIMEOUT_S = 10.0


class DataPlaneNode:
    """A node without a model: it keeps what arrives in `submitted`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.submitted: asyncio.Queue[Frame] = asyncio.Queue()
        self.gone: asyncio.Queue[int] = asyncio.Queue()
        self.shapers = LinkShapers()
        self.data_plane = DataPlane(name, self.shapers, self.submitted.put_nowait, self.gone.put)
        self.address = ""

    async def start(self, port: int = 0) -> None:
        self._server = make_server()
        self._server.add_generic_rpc_handlers((self.data_plane.handler(),))
        self.address = await start_server(self._server, "127.0.0.1", port, [])

    async def stop(self) -> None:
        await self._server.stop(grace=None)
        await self.data_plane.stop()

    async def next_frame(self) -> Frame:
        return await asyncio.wait_for(self.submitted.get(), TIMEOUT_S)


class Gateway:
    """The sending side: a pool of links and what came back over them."""

    def __init__(self, number: int = GATEWAY) -> None:
        self.frames: asyncio.Queue[tuple[str, Frame]] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[str, Failure]] = asyncio.Queue()
        self.shapers = LinkShapers()
        hello = Frame(FrameKind.HELLO, session=number << 32, payload=b"gateway")
        self.links = LinkPool(
            hello,
            self.shapers,
            lambda node, frame: self.frames.put_nowait((node, frame)),
            lambda node, reason: self.lost.put_nowait((node, reason)),
        )

    async def next_frame(self) -> tuple[str, Frame]:
        return await asyncio.wait_for(self.frames.get(), TIMEOUT_S)

    async def next_loss(self) -> tuple[str, Failure]:
        return await asyncio.wait_for(self.lost.get(), TIMEOUT_S)


@pytest.fixture
async def node() -> AsyncIterator[DataPlaneNode]:
    node = DataPlaneNode("edge-1")
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    yield gateway
    await gateway.links.close()


def tokens(position: int, **changes: int) -> Frame:
    return replace(Frame(FrameKind.TOKENS, 1, SESSION, position, 1, payload=bytes(4)), **changes)  # type: ignore[arg-type]


async def test_frames_arrive_in_the_order_they_were_sent(node: DataPlaneNode, gateway: Gateway) -> None:
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    sent = [tokens(position) for position in range(200)]
    for frame in sent:
        link.send(frame)
    assert [await node.next_frame() for _ in sent] == sent


async def test_results_return_to_the_gateway_that_owns_the_session(node: DataPlaneNode, gateway: Gateway) -> None:
    other = Gateway(number=6)
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    await other.links.connect(node.name, node.address, TIMEOUT_S)
    for owner, session in ((gateway, SESSION), (other, 6 << 32 | 1)):
        result = Frame(FrameKind.RESULT, 1, session, 4, 1, payload=bytes(4))
        node.data_plane.deliver([Outcome(None, result)])
        assert await owner.next_frame() == (node.name, result)
    assert gateway.frames.empty()
    assert other.frames.empty()
    await other.links.close()


async def test_a_result_for_a_gateway_that_is_not_there_is_dropped(node: DataPlaneNode, gateway: Gateway) -> None:
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    strangers, own = (
        Frame(FrameKind.RESULT, session=77 << 32, payload=bytes(4)),
        Frame(FrameKind.RESULT, session=SESSION, payload=bytes(4)),
    )
    node.data_plane.deliver([Outcome(None, strangers), Outcome(None, own)])
    assert await gateway.next_frame() == (node.name, own)


async def test_outcomes_travel_on_to_the_next_node(node: DataPlaneNode) -> None:
    following = DataPlaneNode("edge-2")
    await following.start()
    await node.data_plane.links.connect("edge-2", following.address, TIMEOUT_S)
    hidden = Frame(FrameKind.HIDDEN, 1, SESSION, 0, 1, payload=bytes(8))
    end = Frame(FrameKind.END, 1, SESSION)
    node.data_plane.deliver([Outcome("edge-2", hidden), Outcome("edge-2", end)])
    assert [await following.next_frame(), await following.next_frame()] == [hidden, end]
    await following.stop()


async def test_a_frame_whose_next_node_is_gone_is_refused_to_its_gateway(node: DataPlaneNode, gateway: Gateway) -> None:
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    node.data_plane.deliver([Outcome("edge-9", Frame(FrameKind.HIDDEN, 3, SESSION, 8, 1, payload=bytes(8)))])
    _, refused = await gateway.next_frame()
    assert (refused.kind, refused.flags) == (FrameKind.REFUSED, Refusal.NEXT_HOP_LOST)
    assert (refused.epoch, refused.session, refused.position) == (3, SESSION, 8)
    assert b"edge-9" in refused.payload


async def test_an_end_whose_next_node_is_gone_is_nobodys_worry(node: DataPlaneNode, gateway: Gateway) -> None:
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    result = Frame(FrameKind.RESULT, 1, SESSION, payload=bytes(4))
    node.data_plane.deliver([Outcome("edge-9", Frame(FrameKind.END, 3, SESSION)), Outcome(None, result)])
    assert await gateway.next_frame() == (node.name, result)


async def test_a_node_that_does_not_answer_is_a_lost_link_with_its_name(gateway: Gateway) -> None:
    with pytest.raises(LinkLost, match=r"edge-7 at 127\.0\.0\.1:1 did not answer"):
        await gateway.links.connect("edge-7", "127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(LinkLost, match="no connection to edge-7"):
        gateway.links.get("edge-7").send(tokens(0))
    with pytest.raises(LinkLost, match="no link to edge-8"):
        gateway.links.get("edge-8")
    assert gateway.lost.empty()  # it never was there


async def test_a_break_is_told_once_and_the_link_heals_by_itself(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "RECONNECT_PAUSE_S", 0.01)
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    await node.stop()
    peer, failure = await gateway.next_loss()
    assert peer == node.name
    assert failure.kind is FailureKind.LINK_BROKEN
    assert failure.detail
    with pytest.raises(LinkLost):
        link.send(tokens(0))
    again = DataPlaneNode(node.name)
    await again.start(int(node.address.rpartition(":")[2]))
    await link.wait_connected(TIMEOUT_S)
    link.send(tokens(1))
    assert await again.next_frame() == tokens(1)
    assert gateway.lost.empty()
    await gateway.links.close()
    await again.stop()


async def test_a_link_that_is_broken_off_says_why_and_opens_again(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "RECONNECT_PAUSE_S", 0.01)
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    hangs = Failure(FailureKind.NOT_ANSWERING, "it hangs")
    link.break_off(hangs)
    link.break_off(Failure(FailureKind.NOT_ANSWERING, "again"))
    assert await gateway.next_loss() == (node.name, hangs)
    await link.wait_connected(TIMEOUT_S)
    link.send(tokens(1))
    assert await node.next_frame() == tokens(1)
    assert gateway.lost.empty()
    await gateway.links.close()


async def test_closing_a_link_is_no_loss(node: DataPlaneNode, gateway: Gateway) -> None:
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    await gateway.links.keep_only(frozenset({"edge-2"}))
    assert not link.connected
    assert gateway.lost.empty()
    with pytest.raises(LinkLost):
        gateway.links.get(node.name)


async def test_a_peer_at_a_new_address_gets_a_new_link(node: DataPlaneNode, gateway: Gateway) -> None:
    first = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    assert await gateway.links.connect(node.name, node.address, TIMEOUT_S) is first
    moved = DataPlaneNode(node.name)
    await moved.start()
    second = await gateway.links.connect(node.name, moved.address, TIMEOUT_S)
    assert second is not first
    assert not first.connected
    second.send(tokens(3))
    assert await moved.next_frame() == tokens(3)
    await gateway.links.close()
    await moved.stop()


async def test_a_probe_tells_an_emulated_rate_and_says_that_it_is_emulated(
    node: DataPlaneNode, gateway: Gateway
) -> None:
    gateway.shapers.emulate({node.name: EmulatedLink(bytes_per_s=100_000)})
    measured = await gateway.links.measure(node.name, node.address)
    assert measured is not None
    assert measured.peer == node.name
    assert measured.emulated
    assert 0 < measured.bytes_per_s < 110_000  # no faster than the token bucket lets it be
    assert node.submitted.empty()  # probes never reach the compute thread


async def test_a_delay_counts_as_round_trip(node: DataPlaneNode, gateway: Gateway) -> None:
    gateway.shapers.emulate({"*": EmulatedLink(delay_s=0.03)})
    measured = await gateway.links.measure(node.name, node.address)
    assert measured is not None
    assert measured.round_trip_s >= 0.03


async def test_a_link_of_its_own_is_not_called_emulated(node: DataPlaneNode, gateway: Gateway) -> None:
    measured = await gateway.links.measure(node.name, node.address)
    assert measured is not None
    assert not measured.emulated
    assert 0 < measured.bytes_per_s <= peer_link.FASTEST_MEASURABLE_BYTES_PER_S


async def test_frames_that_flow_anyway_tell_the_rate_and_no_probe_is_sent(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.shapers.emulate({node.name: EmulatedLink(bytes_per_s=200_000)})
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    first = await link.measure()
    assert not first.passive
    probes: list[int] = []
    ping = link.ping

    async def counted(payload: bytes) -> float | None:
        probes.append(len(payload))
        return await ping(payload)

    monkeypatch.setattr(link, "ping", counted)
    sent = Frame(FrameKind.HIDDEN, 1, SESSION, 0, 4, payload=bytes(12_000))
    link.send(sent)
    assert await node.next_frame() == sent  # without the flag that asked for its arrival
    measured = first
    async with asyncio.timeout(TIMEOUT_S):
        while not measured.passive:
            link.send(sent)
            await node.next_frame()
            measured = await link.measure()
    assert measured.emulated
    assert 0 < measured.bytes_per_s < 220_000
    assert not any(probes)  # round trips only


async def test_a_fast_link_is_watched_with_small_probes_and_seen_when_it_turns_slow(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr(peer_link, "FAST_BYTES_PER_S", 1.0)  # whatever this machine makes of loopback
    monkeypatch.setattr(link_meter, "PROBE_SHARE", 1e9)
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    for _ in range(2):  # the first rate agrees with none
        assert (await link.measure()).bytes_per_s > 0
    probes: list[int] = []
    ping = link.ping

    async def counted(payload: bytes) -> float | None:
        probes.append(len(payload))
        return await ping(payload)

    monkeypatch.setattr(link, "ping", counted)
    await link.measure()
    assert 0 < max(probes) <= peer_link.WATCH_PROBE_BYTES
    gateway.shapers.emulate({node.name: EmulatedLink(bytes_per_s=200_000)})
    assert 0 < (await link.measure()).bytes_per_s < 220_000


async def test_a_node_that_cannot_be_probed_has_no_measurement(gateway: Gateway) -> None:
    assert await gateway.links.measure("edge-7", "127.0.0.1:1") is None


@pytest.mark.parametrize(
    "message",
    [b"", b"no frame", pack_frame(Frame(FrameKind.RESULT, session=SESSION, payload=bytes(4))), bytes([9]) + bytes(60)],
    ids=["empty", "short", "a result", "another version"],
)
async def test_what_is_no_frame_for_a_node_ends_the_stream_with_a_reason(node: DataPlaneNode, message: bytes) -> None:
    async with open_channel(node.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(FRAMES_METHOD)()
        await call.write(message)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "frame" in (await call.details() or "")
    assert node.submitted.empty()


async def test_one_bad_stream_does_not_disturb_another(node: DataPlaneNode, gateway: Gateway) -> None:
    link = await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    async with open_channel(node.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(FRAMES_METHOD)()
        await call.write(b"junk")
        await call.code()
    link.send(tokens(0))
    assert await node.next_frame() == tokens(0)
    assert gateway.lost.empty()


async def test_a_gateway_that_stays_away_is_reported_as_gone(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_plane, "GATEWAY_GRACE_S", 0.05)
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    await gateway.links.close()
    assert await asyncio.wait_for(node.gone.get(), TIMEOUT_S) == GATEWAY


async def test_a_gateway_that_comes_back_keeps_its_sessions(
    node: DataPlaneNode, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_plane, "GATEWAY_GRACE_S", 0.3)
    await gateway.links.connect(node.name, node.address, TIMEOUT_S)
    await gateway.links.close()
    back, other = Gateway(), Gateway(number=6)
    await back.links.connect(node.name, node.address, TIMEOUT_S)
    await other.links.connect(node.name, node.address, TIMEOUT_S)
    await other.links.close()  # its grace ends after that of the one that is back
    assert await asyncio.wait_for(node.gone.get(), TIMEOUT_S) == 6
    assert node.gone.empty()
    await back.links.close()
