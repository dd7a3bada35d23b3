"""The world of a scenario as a decision sees it, exactly measured: for `mec plan`, and what a simulation starts from."""

from __future__ import annotations

from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.cost_profile import CostProfile, RowCost
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.scenario.scenario import DeploymentSpec, LinkSpec, ModelSpec, NodeSpec, Scenario, node_names

MIB = 1 << 20
SIMULATED_HARDWARE = HardwareTarget(arch="simulated", cpu_model="simulated", compile_target="", cores=1, threads=1)


def initial_snapshot(scenario: Scenario, deployment: DeploymentSpec) -> Snapshot:
    """What a deployment's first decision sees: nodes that are there from the start, and no plan."""
    wanted = deployment.gateways or tuple(gateway.name for gateway in scenario.gateways)
    gateways = tuple(
        GatewayCapacity(
            spec.name,
            "",
            sessions=deployment.sessions,
            context_positions=deployment.context_positions,
            tokens_per_s=0.0,
            site=spec.site,
        )
        for spec in scenario.gateways
        if spec.name in wanted
    )
    nodes = tuple(
        node_capacity(spec, name, deployment)
        for spec in scenario.nodes
        if spec.joins_s <= 0
        for name in node_names(spec)
    )
    sites = scenario.sites
    members = {*(node.name for node in nodes), *(gateway.name for gateway in gateways)}
    links = static_links(scenario.links, sites, members)
    return Snapshot(
        now_s=0.0,
        model=model_shape(deployment.name, deployment.model),
        nodes=tuple(sorted(nodes, key=lambda node: node.name)),
        gateways=gateways,
        links=tuple(link for link in links if link.source in members and link.target in members),
        plan=None,
        lost_nodes=frozenset(),
        site_links=tuple(link for link in links if link.source in sites and link.target in sites),
    )


def model_shape(name: str, spec: ModelSpec) -> ModelShape:
    """The shape of a scenario's model, which is called as its deployment is."""
    return ModelShape(
        name=name,
        blocks=spec.blocks,
        hidden_bytes_per_row=spec.hidden_bytes,
        block_bytes=int(spec.block_mib * MIB),
        embed_bytes=int(spec.embed_mib * MIB),
        head_bytes=int(spec.head_mib * MIB),
        kv_bytes_per_token_per_block=spec.kv_bytes_per_token_per_block,
    )


def node_capacity(spec: NodeSpec, name: str, deployment: DeploymentSpec) -> NodeCapacity:
    """One node with nothing else to do."""
    local = spec.local_blocks
    return NodeCapacity(
        name=name,
        address="",
        trusted=spec.trusted,
        hardware=SIMULATED_HARDWARE,
        memory_bytes=int(spec.memory_mib * MIB),
        block_time_s=spec.block_us / 1e6,
        head_time_s=spec.head_us / 1e6,
        prefill_block_time_s_per_row=spec.prefill_row_us / 1e6,
        sessions=0,
        profile=cost_profile(spec),
        site=spec.site,
        machine=spec.machine,
        group=spec.group,
        runs_model=not spec.models or deployment.name in spec.models,
        local_blocks=None if local is None else frozenset(b for start, stop in local for b in range(start, stop)),
        weights_bytes_per_s=spec.weights_mbit_per_s * 1e6 / 8,
    )


def cost_profile(spec: NodeSpec) -> CostProfile:
    """What loads cost: the first row of a batch costs the call, every row its own time."""
    return CostProfile(
        source="analytical",
        tile_rows=(1,),
        block=RowCost(max(spec.block_us - spec.row_us, 0.0) / 1e6, (min(spec.row_us, spec.block_us) / 1e6,)),
        own_position_s=spec.position_ns / 1e9,
        shared_position_s=spec.position_ns / 4e9,
        head=RowCost(max(spec.head_us - spec.head_row_us, 0.0) / 1e6, (min(spec.head_row_us, spec.head_us) / 1e6,)),
        rms_error=0.0,
    )


def static_links(specs: tuple[LinkSpec, ...], sites: frozenset[str], members: set[str]) -> tuple[LinkCapacity, ...]:
    """Every direction that the entries name, of members and of sites; later entries win. "*" stands for all members."""
    found: dict[tuple[str, str], LinkCapacity] = {}
    for spec in specs:
        for source in sorted(members) if spec.source == "*" else (spec.source,):
            for target in sorted(members) if spec.target == "*" else (spec.target,):
                if source == target and source not in sites:
                    continue
                for one, other in ((source, target),) if spec.one_way else ((source, target), (target, source)):
                    link = LinkCapacity(one, other, spec.mbit_per_s * 1e6 / 8, spec.round_trip_ms / 1e3)
                    found[one, other] = link
    return tuple(found.values())
