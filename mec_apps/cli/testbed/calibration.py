"""A scenario with the numbers of the testbed that played it: what a simulation needs to be held against what was measured.

Pure: `measuring` asks the testbed. What nodes report of themselves (times under their quotas, memory), what links show
without any delay of the kernel's, and what processes take of the machine's cores beside computing goes in; rates, traces
and events stay.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from msgspec.structs import replace

from mec_apps.cli.testbed.premises import GATEWAY
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2
from mec_platform.scenario.scenario import DemandSpec, LinkSpec, MachineSpec, ModelSpec, NodeSpec, Scenario
from mec_platform.simulation.machines import Work, others_on
from mec_platform.simulation.world import World

MACHINE = "this-machine"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Measures:
    """A testbed that answers one lone session by `plan`.

    `core_s` is what each process takes of a core for a token, computing included; `rest` of it is under "" and stands for
    the platform and whoever asks. `cores` are those of the machine; `token_s` is the mean time of a token.
    """

    snapshot: control_plane_pb2.Snapshot
    plan: SplitPlan
    core_s: Mapping[str, float]
    cores: int
    token_s: float


def calibrated(world: World, measures: Measures, demand: DemandSpec, threads: int) -> Scenario:
    """The world's scenario with the measured numbers, and the demand as it was.

    Raises:
        ValueError: a node of the scenario has not reported.
    """
    scenario = world.scenario
    reports = {member.name: member for member in measures.snapshot.members}
    missing = world.node_specs.keys() - reports.keys()
    if missing:
        raise ValueError(f"no report of {', '.join(sorted(missing))}")
    frames_us = _frames_us(reports, measures)
    usual_us = statistics.mean(frames_us.values())
    nodes = tuple(
        _node(world, name, reports[name], frames_us.get(name, usual_us), threads) for name in world.node_specs
    )
    gateway_us = (measures.core_s.get(GATEWAY, 0.0) + measures.core_s.get("", 0.0)) * 1e6
    (deployment,) = scenario.deployments
    (gateway,) = scenario.gateways
    shape = next(report.model for report in reports.values() if report.role == control_plane_pb2.MEMBER_ROLE_NODE)
    return replace(
        scenario,
        nodes=nodes,
        gateways=(replace(gateway, machine=MACHINE, frame_us=round(gateway_us, 1)),),
        machines=(MachineSpec(MACHINE, float(measures.cores), round(_others(reports, measures, threads), 2)),),
        links=_links(world, _round_trip_ms(reports)),
        deployments=(
            replace(
                deployment,
                model=_model(shape),
                demand=demand,
                max_sessions=max(deployment.max_sessions, demand.streams),
            ),
        ),
    )


def _node(world: World, name: str, report: control_plane_pb2.MemberReport, frame_us: float, threads: int) -> NodeSpec:
    """What a further row of a batch costs is not reported: it is taken for a row of a prompt, as both share the weights."""
    spec = world.node_specs[name]
    block_us = report.block_time_us
    row_us = min(report.prefill_block_time_us_per_row, block_us)
    return NodeSpec(
        name=name,
        site=spec.site,
        machine=MACHINE,
        group=spec.group,
        trusted=report.trusted,
        memory_mib=round(report.memory_bytes / MIB, 1),
        block_us=round(block_us, 1),
        row_us=round(row_us, 1),
        head_us=round(report.head_time_us, 1),
        head_row_us=round(report.head_time_us * row_us / block_us, 1),
        prefill_row_us=round(report.prefill_block_time_us_per_row, 1),
        position_ns=0.0,  # the times are of the contexts that were there
        threads=threads,
        frame_us=round(frame_us, 1),
    )


def _frames_us(reports: Mapping[str, control_plane_pb2.MemberReport], measures: Measures) -> dict[str, float]:
    """What nodes of the plan take of a core for a token beside computing it."""
    found = {}
    for stage in measures.plan.stages:
        report = reports[stage.node]
        computing_us = len(stage.layers) * report.block_time_us
        if stage is measures.plan.stages[-1]:
            computing_us += report.head_time_us
        found[stage.node] = max(measures.core_s.get(stage.node, 0.0) * 1e6 - computing_us, 0.0)
    return found


def _others(reports: Mapping[str, control_plane_pb2.MemberReport], measures: Measures, threads: int) -> float:
    """Who else computes on this machine, by how much longer the lone session's tokens took than they would alone."""
    stages = measures.plan.stages
    computing_s = sum(len(stage.layers) * reports[stage.node].block_time_us for stage in stages) / 1e6
    computing_s += reports[stages[-1].node].head_time_us / 1e6
    hops_s = (len(stages) + 1) * _round_trip_ms(reports) / 2e3
    work = Work(measures.cores, sum(measures.core_s.values()) + (threads - 1) * computing_s)
    return others_on(computing_s + hops_s, work, measures.token_s)


def _links(world: World, round_trip_ms: float) -> tuple[LinkSpec, ...]:
    """The scenario's links with the round trip that is there, and those that it leaves out, which nothing limits."""
    members = (*world.gateway_specs, *world.node_specs)
    others = tuple(
        LinkSpec(source, target, mbit_per_s=10_000.0, round_trip_ms=round_trip_ms, one_way=True)
        for source, target in permutations(members, 2)
        if world.link(source, target, 0.0) is None
    )
    return (*(replace(link, round_trip_ms=round_trip_ms) for link in world.scenario.links), *others)


def _round_trip_ms(reports: Mapping[str, control_plane_pb2.MemberReport]) -> float:
    """The median over all directions: no link of the testbed is longer than another."""
    trips = [link.round_trip_ms for report in reports.values() for link in report.links if link.round_trip_ms > 0]
    return round(statistics.median(trips), 3) if trips else 0.0


def _model(shape: types_pb2.ModelShape) -> ModelSpec:
    return ModelSpec(
        blocks=shape.blocks,
        hidden_bytes=shape.hidden_bytes_per_row,
        block_mib=round(shape.block_bytes / MIB, 4),
        embed_mib=round(shape.embed_bytes / MIB, 4),
        head_mib=round(shape.head_bytes / MIB, 4),
        kv_bytes_per_token_per_block=shape.kv_bytes_per_token_per_block,
    )
