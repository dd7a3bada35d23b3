"""Between protobuf messages and domain values: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping

from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.cost_profile import CostProfile, RowCost
from mec_platform.domain.hardware import Gpu, HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2


def layers_from_message(message: types_pb2.LayerRange) -> LayerRange:
    """Raises ValueError for an empty range."""
    return LayerRange(message.start, message.stop)


def layers_to_message(layers: LayerRange) -> types_pb2.LayerRange:
    """A layer range as a message."""
    return types_pb2.LayerRange(start=layers.start, stop=layers.stop)


def plan_from_message(message: types_pb2.SplitPlan) -> SplitPlan:
    """Raises ValueError where a stage's range is empty. Addresses are read by `addresses_from_message`."""
    stages = tuple(Stage(stage.node, layers_from_message(stage.layers)) for stage in message.stages)
    return SplitPlan(message.epoch, message.parent_epoch, message.model, stages, message.chain)


def addresses_from_message(message: types_pb2.SplitPlan) -> dict[str, str]:
    """Node name -> `host:port`, for the stages that carry an address."""
    return {stage.node: stage.address for stage in message.stages if stage.address}


def plan_to_message(plan: SplitPlan, addresses: Mapping[str, str]) -> types_pb2.SplitPlan:
    """A plan as a message; nodes without a known address get an empty one."""
    stages = [
        types_pb2.Stage(node=stage.node, address=addresses.get(stage.node, ""), layers=layers_to_message(stage.layers))
        for stage in plan.stages
    ]
    return types_pb2.SplitPlan(
        epoch=plan.epoch, parent_epoch=plan.parent_epoch, model=plan.model, stages=stages, chain=plan.chain
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


def snapshot_to_message(snapshot: Snapshot) -> control_plane_pb2.Snapshot:
    """A snapshot as the reports that it stands for."""

    def links(source: str) -> list[types_pb2.LinkEstimate]:
        return [
            types_pb2.LinkEstimate(
                peer=link.target, bytes_per_s=link.bytes_per_s, round_trip_ms=link.round_trip_s * 1e3
            )
            for link in snapshot.links
            if link.source == source
        ]

    nodes = [
        control_plane_pb2.MemberReport(
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
            links=links(node.name),
        )
        for node in snapshot.nodes
    ]
    gateways = [
        control_plane_pb2.MemberReport(
            name=gateway.name,
            role=control_plane_pb2.MEMBER_ROLE_GATEWAY,
            address=gateway.address,
            sessions=gateway.sessions,
            tokens_per_s=gateway.tokens_per_s,
            context_positions=gateway.context_positions,
            links=links(gateway.name),
        )
        for gateway in snapshot.gateways
    ]
    message = control_plane_pb2.Snapshot(now_s=snapshot.now_s, members=[*nodes, *gateways])
    if snapshot.model is not None:
        for member in message.members:
            member.model.CopyFrom(shape_to_message(snapshot.model))
    addresses = {node.name: node.address for node in snapshot.nodes}
    if snapshot.plan is not None:
        message.plan.CopyFrom(plan_to_message(snapshot.plan, addresses))
    message.replicas.extend(plan_to_message(plan, addresses) for plan in snapshot.replicas)
    return message
