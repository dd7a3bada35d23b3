"""Cost profiles from the store to the plan: a node finds its own, reports it, and the planner says that it used it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.saved_profile import profile_key, save_profile
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import CostProfile, RowCost
from mec_platform.rpc.convert import profile_from_message, profile_to_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc
from tests.integration.edge import Edge

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

PROFILE = CostProfile(
    source="measured",
    tile_rows=(8, 4, 2, 1),
    block=RowCost(2e-5, (2.4e-4, 1.2e-4, 7e-5, 4e-5)),
    own_position_s=5e-8,
    shared_position_s=1.5e-8,
    head=RowCost(3e-4, (1.6e-3, 8e-4, 4e-4, 2e-4)),
    rms_error=0.03,
)


async def explanation(cluster: LocalCluster) -> list[str]:
    stub = control_plane_pb2_grpc.SplitRevisionStub(cluster.platform)
    return list((await stub.ProposePlan(control_plane_pb2.ProposePlanRequest())).explanation)


async def test_a_saved_profile_reaches_the_explanation_of_a_plan(
    compiled: CompiledFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEC_CACHE", str(tmp_path))
    key = profile_key(compiled.artefact, read_machine(), threads=1)
    save_profile(ContentStore(), key, PROFILE, 0.0, [])
    # Neither holds the whole model; only the first computes with the threads that the profile is for.
    nodes = [NodeOptions("profiled", memory_mib=112), NodeOptions("other", threads=2, memory_mib=112)]
    async with LocalCluster(compiled, nodes, manual=True, context=256) as cluster:
        await cluster.wait_for_plan()
        members = {member.name: member for member in (await cluster.snapshot()).members}
        lines = await explanation(cluster)
    reported = profile_from_message(members["profiled"].profile)
    assert reported.age_s > 0
    assert replace(reported, age_s=0.0).block.tile_s == pytest.approx(PROFILE.block.tile_s)
    assert members["profiled"].profile_ratio > 0
    assert not members["other"].HasField("profile")
    times = {line.split()[2]: line for line in lines if line.startswith("times of ")}
    assert "profile (measured, 3% rms) x " in times["profiled"]
    assert "live times of one row" in times["other"]


async def test_a_report_with_a_profile_that_is_none_is_refused_with_the_reason(edge: Edge) -> None:
    report = control_plane_pb2.MemberReport(
        name="odd",
        role=control_plane_pb2.MEMBER_ROLE_NODE,
        address="127.0.0.1:1",
        incarnation="1",
        profile=profile_to_message(PROFILE),
    )
    report.profile.own_position_us = -1.0
    stub = control_plane_pb2_grpc.CapacityProfilerStub(edge.cluster.platform)
    with pytest.raises(grpc.aio.AioRpcError, match="coefficients") as refused:
        await stub.Report(iter([report])).read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
