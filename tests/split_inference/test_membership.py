"""A member and its platform over a real stream: refusals, restarts, what is told after them, and leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from mec_apps.split_inference import membership
from mec_apps.split_inference.membership import JoinError, Membership
from mec_apps.split_inference.peer_link import LinkMeasurement
from mec_platform.rpc.endpoints import Context, make_server, start_server
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc

TIMEOUT_S = 10.0
REPORT_EVERY_S = 0.1


class Platform(control_plane_pb2_grpc.CapacityProfilerServicer):
    """Takes reports and answers each of them; `refusal` ends the next one's stream."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[control_plane_pb2.MemberReport] = asyncio.Queue()
        self.streams = 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.mute = False
        self.peers = {"edge-2": "there:1"}
        self.address = ""

    async def start(self, port: int = 0) -> None:
        self._server = make_server()
        control_plane_pb2_grpc.add_CapacityProfilerServicer_to_server(self, self._server)
        self.address = await start_server(self._server, "127.0.0.1", port, [])

    async def stop(self) -> None:
        await self._server.stop(grace=None)

    async def Report(
        self, request_iterator: AsyncIterator[control_plane_pb2.MemberReport], context: Context
    ) -> AsyncIterator[control_plane_pb2.ReportReply]:
        self.streams += 1
        first = True
        async for report in request_iterator:
            if self.refusal is not None:
                await context.abort(*self.refusal)
            self.reports.put_nowait(report)
            if self.mute:
                continue
            node = control_plane_pb2.MEMBER_ROLE_NODE
            named = [control_plane_pb2.Member(name=n, address=a, role=node) for n, a in self.peers.items()]
            yield control_plane_pb2.ReportReply(
                plan_epoch=7, next_report_s=REPORT_EVERY_S, members=named if first else [], same_members=not first
            )
            first = False

    async def until(self, wanted: Callable[[control_plane_pb2.MemberReport], bool]) -> control_plane_pb2.MemberReport:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                report = await self.reports.get()
                if wanted(report):
                    return report


class Member:
    """A membership that measures its one link once, and notes what it is answered."""

    def __init__(self, platform_grpc: str) -> None:
        self.measured: list[LinkMeasurement] = []
        self.replies: asyncio.Queue[tuple[int, frozenset[str]]] = asyncio.Queue()
        self.membership = Membership("edge-1", platform_grpc, self._report, self._measure, self._on_reply)

    def _report(self) -> control_plane_pb2.MemberReport:
        return control_plane_pb2.MemberReport(name="edge-1", incarnation="1")

    async def _measure(self, peer: str, address: str) -> LinkMeasurement:
        assert (peer, address) == ("edge-2", "there:1")
        return self.measured.pop(0) if self.measured else LinkMeasurement(peer, 0.0, 0.0, False)

    async def _on_reply(self, reply: control_plane_pb2.ReportReply, nodes: frozenset[str]) -> None:
        self.replies.put_nowait((reply.plan_epoch, nodes))


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform()
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
async def member(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Member]:
    monkeypatch.setattr(membership, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(membership, "MEASURE_EVERY_S", 0.05)
    member = Member(platform.address)
    yield member
    await member.membership.leave()


async def test_reports_flow_on_one_stream_and_peers_that_stay_are_remembered(
    platform: Platform, member: Member
) -> None:
    await member.membership.join(TIMEOUT_S)
    for _ in range(3):
        assert await asyncio.wait_for(member.replies.get(), TIMEOUT_S) == (7, frozenset({"edge-2"}))
    assert platform.streams == 1


async def test_a_measurement_is_told_once_and_again_with_its_age_to_a_platform_that_restarts(
    platform: Platform, member: Member
) -> None:
    member.measured = [LinkMeasurement("edge-2", 5e6, 0.004, False, passive=True)]
    await member.membership.join(TIMEOUT_S)
    told = (await platform.until(lambda report: len(report.links) > 0)).links[0]
    assert (told.peer, told.bytes_per_s, told.passive) == ("edge-2", 5e6, True)
    member.measured = [LinkMeasurement("edge-2", 0.0, 0.005, False)]
    later = await platform.until(lambda report: any(link.round_trip_ms == 5.0 for link in report.links))
    assert all(link.bytes_per_s == 0 for link in later.links)
    assert not (await platform.until(lambda report: True)).links
    await platform.stop()
    again = Platform()
    await again.start(int(platform.address.rpartition(":")[2]))
    first = await again.until(lambda report: True)
    rate, trip = first.links
    assert (rate.bytes_per_s, rate.round_trip_ms, trip.bytes_per_s, trip.round_trip_ms) == (5e6, 0.0, 0.0, 5.0)
    assert rate.age_s > trip.age_s > 0
    await again.stop()


async def test_of_many_peers_some_are_measured_and_those_in_use_always(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: set[str] = set()
    everybody = {f"node-{number}": f"node-{number}:1" for number in range(200)}

    async def measure(peer: str, _address: str) -> None:
        measured.add(peer)

    async def ignore(_reply: control_plane_pb2.ReportReply, _nodes: frozenset[str]) -> None: ...

    in_use = frozenset({"node-7", "node-8", "gone"})
    member = Membership("edge-1", platform.address, control_plane_pb2.MemberReport, measure, ignore, lambda: in_use)
    platform.peers = everybody
    monkeypatch.setattr(membership, "MEASURE_EVERY_S", 0.01)
    await member.join(TIMEOUT_S)
    for _ in range(3):
        await platform.until(lambda report: True)
    await member.leave()
    assert {"node-7", "node-8"} <= measured <= everybody.keys()
    assert membership.MOST_PEERS <= len(measured) <= membership.MOST_PEERS + 2


async def test_a_refusal_at_the_door_is_an_error_with_its_reason(
    platform: Platform, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "TAKEN_WAIT_S", 0.01)
    platform.refusal = (grpc.StatusCode.ALREADY_EXISTS, "edge-1 is taken")
    with pytest.raises(JoinError, match="edge-1 is taken"):
        await member.membership.join(TIMEOUT_S)


async def test_a_member_that_comes_in_the_place_of_one_that_has_just_died_waits_until_that_is_missed(
    platform: Platform, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refusal = (grpc.StatusCode.ALREADY_EXISTS, "edge-1 is taken")
    joining = asyncio.create_task(member.membership.join(TIMEOUT_S))
    async with asyncio.timeout(TIMEOUT_S):
        while "edge-1 is taken; waiting" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        platform.refusal = None
        await joining


async def test_a_member_that_is_refused_later_is_told_why(platform: Platform, member: Member) -> None:
    await member.membership.join(TIMEOUT_S)
    platform.refusal = (grpc.StatusCode.ALREADY_EXISTS, "another edge-1 came back first")
    assert await asyncio.wait_for(member.membership.expelled, TIMEOUT_S) == "another edge-1 came back first"


async def test_no_platform_is_an_error_that_says_what_to_do() -> None:
    lonely = Member("127.0.0.1:1")
    with pytest.raises(JoinError, match="mec serve"):
        await lonely.membership.join(0.0)
    await lonely.membership.leave()


async def test_a_platform_that_takes_reports_without_a_word_gets_a_new_stream(
    platform: Platform, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "REPORT_TIMEOUT_S", 0.1)
    await member.membership.join(TIMEOUT_S)
    platform.mute = True
    await platform.until(lambda report: platform.streams > 2)
    platform.mute = False
    while not member.replies.empty():
        member.replies.get_nowait()
    assert await asyncio.wait_for(member.replies.get(), TIMEOUT_S)


async def test_the_last_report_says_that_the_member_leaves(platform: Platform) -> None:
    member = Member(platform.address)
    await member.membership.join(TIMEOUT_S)
    await member.membership.leave()
    assert (await platform.until(lambda report: report.leaving)).name == "edge-1"
    assert platform.streams == 1
