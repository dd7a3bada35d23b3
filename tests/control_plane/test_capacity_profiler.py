"""gRPC `CapacityProfiler` over a real server: streams of reports in, snapshots and their changes out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.monitoring.metrics import CapacityMetrics
from mec_platform.control_plane.monitoring.service import CapacityProfilerService
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.tick import ControlSettings
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.rpc.convert import hardware_to_message, shape_to_message
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

SETTINGS = ControlSettings(policy=PolicySettings(expected_nodes=100))  # no plan is made: nodes have no addresses
TIMEOUT_S = 10.0


class Profiler:
    """A platform's control plane and a client of it."""

    def __init__(self, deployments: Deployments, channel: grpc.aio.Channel, world: SimpleNamespace) -> None:
        self.deployments = deployments
        self.stub = control_plane_pb2_grpc.CapacityProfilerStub(channel)
        self._world = world

    def report(self, name: str, **changes: Any) -> control_plane_pb2.MemberReport:
        values: dict[str, Any] = {
            "role": control_plane_pb2.MEMBER_ROLE_NODE,
            "address": f"{name}:1",
            "incarnation": "1",
            "hardware": hardware_to_message(self._world.hardware),
            "model": shape_to_message(self._world.model()),
            "block_time_us": 900.0,
        }
        return control_plane_pb2.MemberReport(name=name, **(values | changes))

    async def open(self, report: control_plane_pb2.MemberReport) -> tuple[Any, control_plane_pb2.ReportReply]:
        call = self.stub.Report()
        await call.write(report)
        return call, await asyncio.wait_for(call.read(), TIMEOUT_S)

    async def snapshot(self) -> control_plane_pb2.Snapshot:
        return await self.stub.GetSnapshot(control_plane_pb2.GetSnapshotRequest())


@pytest.fixture
async def profiler(tmp_path: Path, world: SimpleNamespace) -> AsyncIterator[Profiler]:
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    deployments = Deployments(Journal(log), Policies(SETTINGS), MonitoringSettings(), manual=True)
    await deployments.start()
    server = make_server()
    control_plane_pb2_grpc.add_CapacityProfilerServicer_to_server(CapacityProfilerService(deployments), server)
    address = await start_server(server, "127.0.0.1", 0, [])
    async with open_channel(address) as channel:
        yield Profiler(deployments, channel, world)
    await server.stop(grace=None)
    await deployments.stop()
    await log.close()


async def test_what_a_report_says_of_load_place_and_links_is_in_the_snapshot(profiler: Profiler) -> None:
    load = control_plane_pb2.MachineLoad(temperature_c=61.5, busy_share=0.4, kv_used_bytes=5, kv_total_bytes=50)
    links = [types_pb2.LinkEstimate(peer="b", bytes_per_s=2e6, round_trip_ms=3, passive=True, emulated=True)]
    place = {"site": "roof", "machine": "m1", "group": "rack-1", "ue": "ue-7"}
    blocks = control_plane_pb2.BlockSet(blocks=[0, 2])
    await profiler.open(profiler.report("a", load=load, links=links, local_blocks=blocks, **place))
    await profiler.open(profiler.report("b"))
    member, other = (await profiler.snapshot()).members
    assert {key: getattr(member, key) for key in place} == place
    assert member.load == load
    assert not member.load.HasField("power_w")
    assert list(member.local_blocks.blocks) == [0, 2]
    assert not other.HasField("local_blocks")
    assert (member.confidence, member.age_s) == (1.0, 0.0)
    (link,) = member.links
    assert (link.peer, link.bytes_per_s, link.passive, link.emulated) == ("b", 2e6, True, True)
    assert 0 < link.confidence < 1  # one sample
    node = profiler.deployments.select("").observe().node("a")
    assert node is not None
    assert (node.site, node.machine, node.group, node.local_blocks) == ("roof", "m1", "rack-1", frozenset({0, 2}))
    assert node.busy_share == 0.4


async def test_every_report_of_a_stream_is_answered_and_peers_are_named_when_they_change(profiler: Profiler) -> None:
    call, first = await profiler.open(profiler.report("a"))
    assert [member.name for member in first.members] == ["a"]
    replies = []
    for _ in range(2):
        await call.write(profiler.report("a"))
        replies.append(await asyncio.wait_for(call.read(), TIMEOUT_S))
    assert [(reply.same_members, len(reply.members)) for reply in replies] == [(True, 0), (True, 0)]
    other, _ = await profiler.open(profiler.report("b"))
    named: list[str] = []
    async with asyncio.timeout(TIMEOUT_S):
        while named != ["a", "b"]:
            await call.write(profiler.report("a"))
            named = [member.name for member in (await call.read()).members] or named
    other.cancel()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"incarnation": "2"}, grpc.StatusCode.ALREADY_EXISTS, "a is taken"),
        ({"name": ""}, grpc.StatusCode.INVALID_ARGUMENT, "name"),
        ({"profile": types_pb2.CostProfile(source="guessed")}, grpc.StatusCode.INVALID_ARGUMENT, "guessed"),
    ],
)
async def test_a_report_that_is_not_taken_ends_its_stream_with_the_reason(
    profiler: Profiler, changes: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    await profiler.open(profiler.report("a"))
    with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
        await profiler.open(profiler.report(**({"name": "a"} | changes)))
    assert refused.value.code() is code
    assert [member.name for member in (await profiler.snapshot()).members] == ["a"]


async def test_a_member_whose_stream_breaks_and_whose_host_refuses_connections_is_gone_at_once(
    profiler: Profiler,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        call, _ = await profiler.open(profiler.report("a", address=address))
        call.cancel()
        other, _ = await profiler.open(profiler.report("b", address=address))
        assert {member.name for member in (await profiler.snapshot()).members} == {"a", "b"}
    other.cancel()
    watching = profiler.stub.Watch(control_plane_pb2.WatchSnapshotsRequest(interval_s=0.1))
    async with asyncio.timeout(TIMEOUT_S):
        async for seen in watching:
            if "b" not in {member.name for member in seen.members}:
                break
    watching.cancel()


async def test_a_watch_tells_changes_only(profiler: Profiler) -> None:
    call, _ = await profiler.open(profiler.report("a"))
    watch = profiler.stub.Watch(control_plane_pb2.WatchSnapshotsRequest(interval_s=0.1))
    first = await asyncio.wait_for(watch.read(), TIMEOUT_S)
    assert [member.name for member in first.members] == ["a"]
    pending = asyncio.ensure_future(watch.read())
    for _ in range(2):  # reports that say nothing new
        await call.write(profiler.report("a"))
        await call.read()
    await call.write(profiler.report("a", sessions=3))
    second = await asyncio.wait_for(pending, TIMEOUT_S)
    assert [member.sessions for member in second.members] == [3]
    watch.cancel()


async def test_radio_measurements_reach_links_and_the_record_of_forecasts_is_shown(profiler: Profiler) -> None:
    links = [types_pb2.LinkEstimate(peer="b", bytes_per_s=2e6, round_trip_ms=20)]
    await profiler.open(profiler.report("a", ue="ue-7", links=links))
    await profiler.open(profiler.report("b"))
    now_s = profiler.deployments.loops[0].now_s
    for number in range(100):
        at_s = now_s - 10.0 + number / 10
        profiler.deployments.take_radio(
            RadioMeasurement(at_s, "ue-7", "cell-1", -80.0 - number / 5, 12.0, 0.02 + number / 1e4)
        )
    seen = await profiler.snapshot()
    (radio,) = seen.radio
    assert (radio.ue, radio.cell, radio.rsrp_dbm) == ("ue-7", "cell-1", pytest.approx(-99.8))
    assert radio.forecasts > 0
    assert 0 < radio.forecast_error_ms < radio.persistence_error_ms
    forecast = next(member for member in seen.members if member.name == "a").links[0].forecast
    assert forecast.after_s == 2.0
    assert forecast.round_trip_ms > 20
    assert "ue-7" in forecast.reason


async def test_members_and_links_are_scraped_with_their_names(profiler: Profiler) -> None:
    links = [types_pb2.LinkEstimate(peer="b", bytes_per_s=2e6, round_trip_ms=20)]
    await profiler.open(profiler.report("a", links=links))
    await profiler.open(profiler.report("b"))
    profiler.deployments.take_radio(RadioMeasurement(profiler.deployments.loops[0].now_s, "ue-7", "c", -80.0, 12.0))
    collectors = CollectorRegistry()
    collectors.register(CapacityMetrics(profiler.deployments))
    text = generate_latest(collectors).decode()
    assert 'mec_node_block_time_seconds{member="a",model="model"} 0.0009' in text
    assert 'mec_link_bytes_per_second{model="model",source="a",target="b"} 2e+06' in text
    assert 'mec_mass_silence{model="model"} 0.0' in text
    assert 'mec_radio_forecast_error_seconds{forecast="persistence",ue="ue-7"} 0.0' in text
