"""Between protobuf messages and domain values: the only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, LinkForecast, NodeCapacity, Snapshot
from mec_platform.domain.cost_profile import CostProfile, RowCost
from mec_platform.domain.failures import FailureKind
from mec_platform.domain.hardware import Gpu, HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2


class Held(Protocol):
    """A plan that is held; see `control_plane.standing.HeldPlan`."""

    @property
    def epoch(self) -> int: ...

    @property
    def reason(self) -> str: ...


def held_to_messages(held: Iterable[Held]) -> list[types_pb2.HeldPlan]:
    """Plans that nothing may be sent into."""
    return [types_pb2.HeldPlan(epoch=each.epoch, reason=each.reason) for each in held]


def held_from_messages(messages: Iterable[types_pb2.HeldPlan]) -> dict[int, str]:
    """Epochs of plans that nothing may be sent into, and why."""
    return {each.epoch: each.reason for each in messages}


def layers_from_message(message: types_pb2.LayerRange) -> LayerRange:
    """Raises ValueError for an empty range."""
    return LayerRange(message.start, message.stop)


def layers_to_message(layers: LayerRange) -> types_pb2.LayerRange:
    """A layer range as a message."""
    return types_pb2.LayerRange(start=layers.start, stop=layers.stop)


def plan_from_message(message: types_pb2.SplitPlan) -> SplitPlan:
    """Raises ValueError where a stage's range is empty. Addresses are read by `addresses_from_message`."""
    stages = tuple(Stage(stage.node, layers_from_message(stage.layers)) for stage in message.stages)
    standbys = tuple(Stage(standby.node, layers_from_message(standby.layers)) for standby in message.standbys)
    return SplitPlan(message.epoch, message.parent_epoch, message.model, stages, message.chain, standbys)


def addresses_from_message(message: types_pb2.SplitPlan) -> dict[str, str]:
    """Node name -> `host:port`, for the stages and standbys that carry an address."""
    return {stage.node: stage.address for stage in (*message.stages, *message.standbys) if stage.address}


def plan_to_message(plan: SplitPlan, addresses: Mapping[str, str]) -> types_pb2.SplitPlan:
    """A plan as a message; nodes without a known address get an empty one."""

    def to_message(stage: Stage) -> types_pb2.Stage:
        address = addresses.get(stage.node, "")
        return types_pb2.Stage(node=stage.node, address=address, layers=layers_to_message(stage.layers))

    return types_pb2.SplitPlan(
        epoch=plan.epoch,
        parent_epoch=plan.parent_epoch,
        model=plan.model,
        stages=map(to_message, plan.stages),
        chain=plan.chain,
        standbys=map(to_message, plan.standbys),
    )


def hardware_from_message(message: types_pb2.HardwareTarget) -> HardwareTarget:
    """Hardware of a member's report."""
    return HardwareTarget(
        arch=message.arch,
        cpu_model=message.cpu_model,
        compile_target=message.compile_target,
        cores=message.cores,
        threads=message.threads,
        board=message.board,
        features=frozenset(message.features),
        cache_bytes=tuple(message.cache_bytes),
        memory_bytes=message.memory_bytes,
        gpus=tuple(Gpu(gpu.name, gpu.capability, gpu.memory_bytes) for gpu in message.gpus),
    )


def hardware_to_message(hardware: HardwareTarget) -> types_pb2.HardwareTarget:
    """Hardware as a message."""
    return types_pb2.HardwareTarget(
        arch=hardware.arch,
        cpu_model=hardware.cpu_model,
        compile_target=hardware.compile_target,
        cores=hardware.cores,
        threads=hardware.threads,
        board=hardware.board,
        features=sorted(hardware.features),
        cache_bytes=hardware.cache_bytes,
        memory_bytes=hardware.memory_bytes,
        gpus=[
            types_pb2.Gpu(name=gpu.name, capability=gpu.capability, memory_bytes=gpu.memory_bytes)
            for gpu in hardware.gpus
        ],
    )


def shape_from_message(message: types_pb2.ModelShape) -> ModelShape:
    """Model shape of a member's report."""
    return ModelShape(
        name=message.name,
        blocks=message.blocks,
        hidden_bytes_per_row=message.hidden_bytes_per_row,
        block_bytes=message.block_bytes,
        embed_bytes=message.embed_bytes,
        head_bytes=message.head_bytes,
        kv_bytes_per_token_per_block=message.kv_bytes_per_token_per_block,
    )


def shape_to_message(shape: ModelShape) -> types_pb2.ModelShape:
    """Model shape as a message."""
    return types_pb2.ModelShape(
        name=shape.name,
        blocks=shape.blocks,
        hidden_bytes_per_row=shape.hidden_bytes_per_row,
        block_bytes=shape.block_bytes,
        embed_bytes=shape.embed_bytes,
        head_bytes=shape.head_bytes,
        kv_bytes_per_token_per_block=shape.kv_bytes_per_token_per_block,
    )


def profile_from_message(message: types_pb2.CostProfile) -> CostProfile:
    """Raises ValueError where the numbers are no cost profile."""
    if message.source not in ("measured", "analytical"):
        raise ValueError(f"a cost profile is measured or analytical, not '{message.source}'")
    return CostProfile(
        source="measured" if message.source == "measured" else "analytical",
        tile_rows=tuple(message.tile_rows),
        block=_row_cost_from_message(message.block),
        own_position_s=message.own_position_us / 1e6,
        shared_position_s=message.shared_position_us / 1e6,
        head=_row_cost_from_message(message.head),
        rms_error=message.rms_error,
        age_s=message.age_s,
    )


def profile_to_message(profile: CostProfile) -> types_pb2.CostProfile:
    """A cost profile as a message."""
    return types_pb2.CostProfile(
        source=profile.source,
        tile_rows=profile.tile_rows,
        block=_row_cost_to_message(profile.block),
        own_position_us=profile.own_position_s * 1e6,
        shared_position_us=profile.shared_position_s * 1e6,
        head=_row_cost_to_message(profile.head),
        rms_error=profile.rms_error,
        age_s=profile.age_s,
    )


def _row_cost_from_message(message: types_pb2.RowCost) -> RowCost:
    return RowCost(message.call_us / 1e6, tuple(us / 1e6 for us in message.tile_us))


def _row_cost_to_message(cost: RowCost) -> types_pb2.RowCost:
    return types_pb2.RowCost(call_us=cost.call_s * 1e6, tile_us=[s * 1e6 for s in cost.tile_s])


def forecast_to_message(forecast: LinkForecast) -> types_pb2.LinkForecast:
    """A forecast as a message."""
    return types_pb2.LinkForecast(
        after_s=forecast.after_s,
        bytes_per_s=forecast.bytes_per_s,
        round_trip_ms=forecast.round_trip_s * 1e3,
        confidence=forecast.confidence,
        reason=forecast.reason,
        breaks_in_s=forecast.breaks_in_s,
    )


def link_to_message(link: LinkCapacity) -> types_pb2.LinkEstimate:
    """A link's estimate as a message of its sender."""
    return types_pb2.LinkEstimate(
        peer=link.target,
        bytes_per_s=link.bytes_per_s,
        round_trip_ms=link.round_trip_s * 1e3,
        age_s=link.age_s,
        confidence=link.confidence,
        forecast=None if link.forecast is None else forecast_to_message(link.forecast),
    )


def node_to_message(node: NodeCapacity) -> control_plane_pb2.MemberReport:
    """A node as the report that it stands for, without links."""
    blocks = None if node.local_blocks is None else control_plane_pb2.BlockSet(blocks=sorted(node.local_blocks))
    return control_plane_pb2.MemberReport(
        name=node.name,
        role=control_plane_pb2.MEMBER_ROLE_NODE,
        address=node.address,
        trusted=node.trusted,
        hardware=hardware_to_message(node.hardware),
        memory_bytes=node.memory_bytes,
        block_time_us=node.block_time_s * 1e6,
        head_time_us=node.head_time_s * 1e6,
        prefill_block_time_us_per_row=node.prefill_block_time_s_per_row * 1e6,
        profile=None if node.profile is None else profile_to_message(node.profile),
        profile_ratio=0.0 if node.profile is None else node.profile_ratio,
        sessions=node.sessions,
        site=node.site,
        machine=node.machine,
        group=node.group,
        local_blocks=blocks,
        weights_bytes_per_s=node.weights_bytes_per_s,
        confidence=node.confidence,
        age_s=node.age_s,
    )


def gateway_to_message(gateway: GatewayCapacity) -> control_plane_pb2.MemberReport:
    """A gateway as the report that it stands for, without links."""
    return control_plane_pb2.MemberReport(
        name=gateway.name,
        role=control_plane_pb2.MEMBER_ROLE_GATEWAY,
        address=gateway.address,
        sessions=gateway.sessions,
        tokens_per_s=gateway.tokens_per_s,
        context_positions=gateway.context_positions,
        site=gateway.site,
        queued=gateway.queued,
        token_ms=gateway.token_s * 1e3,
        first_token_ms=gateway.first_token_s * 1e3,
        confidence=1.0,
    )


def snapshot_to_message(snapshot: Snapshot) -> control_plane_pb2.Snapshot:
    """A snapshot as the reports that it stands for."""
    members = [*map(node_to_message, snapshot.nodes), *map(gateway_to_message, snapshot.gateways)]
    by_name = {member.name: member for member in members}
    for link in snapshot.links:
        if link.source in by_name:
            by_name[link.source].links.append(link_to_message(link))
    message = control_plane_pb2.Snapshot(now_s=snapshot.now_s, members=members, suspicion=snapshot.suspicion)
    if snapshot.model is not None:
        for member in message.members:
            member.model.CopyFrom(shape_to_message(snapshot.model))
    addresses = {node.name: node.address for node in snapshot.nodes}
    if snapshot.plan is not None:
        message.plan.CopyFrom(plan_to_message(snapshot.plan, addresses))
    message.replicas.extend(plan_to_message(plan, addresses) for plan in snapshot.replicas)
    return message


_FAILURE_KINDS = {
    FailureKind.LINK_BROKEN: control_plane_pb2.FAILURE_KIND_LINK_BROKEN,
    FailureKind.NOT_ANSWERING: control_plane_pb2.FAILURE_KIND_NOT_ANSWERING,
    FailureKind.GONE: control_plane_pb2.FAILURE_KIND_GONE,
}


def failure_kind_to_message(kind: FailureKind) -> control_plane_pb2.FailureKind.ValueType:
    """What was seen of a failure, as a message has it."""
    return _FAILURE_KINDS[kind]


def failure_kind_from_message(message: control_plane_pb2.FailureKind.ValueType) -> FailureKind:
    """The kind; a broken link where the sender names none, as senders did that knew of nothing else."""
    return next((kind for kind, number in _FAILURE_KINDS.items() if number == message), FailureKind.LINK_BROKEN)
