"""Split Revision's answers in the orchestrator's terms: plans to choose from, what they carry, and what chains break.

Pure. `tick` asks for them, and keeps them as long as the world is the same.
"""

from __future__ import annotations

from dataclasses import replace

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import ChainFacts, PlanOption, PlanOptions, Trigger
from mec_platform.control_plane.orchestrator.demand import carried_sessions, needs_chain
from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCost, kv_positions, plan_cost, stage_memory_bytes
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.split_revision.standbys import choose_standbys
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan, Stage

MOST_SESSIONS = 1024
"""Nobody plans for more sessions on one chain; looking for how many it carries ends here."""

USUAL_POSITIONS = 256
"""KV positions of a session where there is none to look at: half a chat."""

SLOWEST_MEASURED = 4.0
"""Tokens that take longer than this many times what is expected are not a matter of load."""

SAME_CONFIDENCE = 0.05
"""Confidence in a link falls with the age of its latest sample; less than this changes no plan."""


def plan_options(snapshot: Snapshot, settings: ControlSettings) -> PlanOptions:
    """The best plan, the current one, and further chains where one would be of use."""
    planning, policy = with_switching(snapshot, settings), settings.policy
    world = at_share(snapshot, 1 + len(snapshot.replicas))
    plan = snapshot.plan
    cost = None if plan is None else plan_cost(plan.stages, world, planning)
    slowness = _slowness(snapshot, cost)
    current = None if plan is None or cost is None else _option(plan.stages, cost, world, settings, slowness)
    found = best_plan(world, planning)
    best, no_plan_reason = None, ""
    if not isinstance(found, FoundPlan):
        no_plan_reason = found.reason
    elif current is not None and plan is not None and found.plan.stages == plan.stages:
        best = current
    else:
        best = _option(found.plan.stages, found.cost, world, settings, slowness)
    errors: tuple[str, ...] = ()
    broken_by = Trigger.PLAN_BROKEN
    if plan is not None:
        errors, broken_by = _errors(plan, world, planning)
    options = PlanOptions(best, no_plan_reason, current, errors, broken_by)
    if plan is not None:
        choice = choose_standbys(plan, world, planning, policy.replicas.standbys)
        options = replace(options, kept_standbys=choice.kept, standbys=choice.wanted)
    if snapshot.replicas:
        options = replace(options, replicas=_replicas(snapshot, world, settings, slowness))
    if plan is not None and needs_chain(snapshot, policy, carried_sessions(options)):
        options = _with_chain(snapshot, plan, options, settings, slowness)
    return options


def chain_world(snapshot: Snapshot, chain: SplitPlan) -> Snapshot:
    """The snapshot as one of its replicas sees it: its own plan is the plan, all others are replicas."""
    every = ((snapshot.plan,) if snapshot.plan is not None else ()) + snapshot.replicas
    return replace(snapshot, plan=chain, replicas=tuple(plan for plan in every if plan is not chain))


def distrusting(snapshot: Snapshot, settings: ControlSettings) -> Snapshot:
    """The snapshot without the trust that the policy does not share."""
    names, sites = settings.policy.distrust.nodes, settings.policy.distrust.sites
    if not names and not sites:
        return snapshot
    nodes = tuple(
        replace(node, trusted=False) if node.trusted and (node.name in names or node.site in sites) else node
        for node in snapshot.nodes
    )
    return replace(snapshot, nodes=nodes)


def is_same_world(one: Snapshot, other: Snapshot) -> bool:
    """Whether plans for one are plans for the other: all but the time is equal, and links are no less well known."""
    if one is other:
        return True
    parts = (one.model, one.plan, one.replicas, one.lost_nodes, one.suspicion, one.gateways, one.nodes)
    others = (other.model, other.plan, other.replicas, other.lost_nodes, other.suspicion, other.gateways, other.nodes)
    return (
        parts == others
        and _are_same_links(one.links, other.links)
        and _are_same_links(one.site_links, other.site_links)
    )


def at_share(snapshot: Snapshot, chains: int) -> Snapshot:
    """The snapshot with one chain's share of the sessions."""
    if chains == 1:
        return snapshot
    gateways = tuple(
        replace(each, sessions=-(-each.sessions // chains), context_positions=-(-each.context_positions // chains))
        for each in snapshot.gateways
    )
    return replace(snapshot, gateways=gateways)


def with_switching(snapshot: Snapshot, settings: ControlSettings) -> PlanSettings:
    """Settings by which the search counts what a change costs, over the tokens of the policy's horizon.

    So that of plans which are about as good it finds the one that is near. Whether a change pays is judged without
    this term: `PlanOption.cost_ms` does not have it, and the orchestrator sets the gain against a price of its own.
    """
    if settings.planning.switch_horizon_tokens:
        return settings.planning
    rate = max(sum(gateway.tokens_per_s for gateway in snapshot.gateways), settings.policy.assumed_tokens_per_s)
    return replace(settings.planning, switch_horizon_tokens=max(1, round(rate * settings.policy.horizon_s)))


def _are_same_links(one: tuple[LinkCapacity, ...], other: tuple[LinkCapacity, ...]) -> bool:
    if one is other or one == other:
        return True
    return len(one) == len(other) and all(
        a is b
        or (
            a.source == b.source
            and a.target == b.target
            and a.bytes_per_s == b.bytes_per_s
            and a.round_trip_s == b.round_trip_s
            and a.forecast == b.forecast
            and abs(a.confidence - b.confidence) < SAME_CONFIDENCE
        )
        for a, b in zip(one, other, strict=True)
    )


def _option(
    stages: tuple[Stage, ...], cost: PlanCost, world: Snapshot, settings: ControlSettings, slowness: float
) -> PlanOption:
    """`cost_ms` is what the plan costs once it is in force: what going there costs is judged by the orchestrator."""
    rows = max(1, sum(gateway.sessions for gateway in world.gateways))
    return PlanOption(
        stages=stages,
        cost_ms=cost.settled_ms,
        latency_ms=cost.latency_ms,
        tokens_per_s=rows * 1e3 / cost.bottleneck_ms if cost.bottleneck_ms > 0 else 0.0,
        carries=_carries(stages, world, settings, slowness),
    )


def _carries(stages: tuple[Stage, ...], world: Snapshot, settings: ControlSettings, slowness: float) -> int | None:
    """The most sessions for which every token comes within the target and that have room for their KV; 0 if not one."""
    target_ms = settings.policy.qos.tpot_ms
    if not target_ms:
        return None
    small = only_nodes(world, {stage.node for stage in stages})

    def fits(sessions: int) -> bool:
        loaded = _at_load(small, sessions)
        cost = plan_cost(stages, loaded, settings.planning)
        in_time = cost is not None and cost.latency_ms * slowness <= target_ms
        return in_time and has_room(stages, loaded, settings.planning)

    low, high = 0, 1
    while high <= MOST_SESSIONS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def has_room(stages: tuple[Stage, ...], world: Snapshot, planning: PlanSettings) -> bool:
    """Whether every stage fits in its node, with the KV of the sessions that there are."""
    if world.model is None:
        return False
    offered = {node.name: node.memory_bytes for node in world.nodes}
    positions = kv_positions(world, planning)
    return all(
        stage_memory_bytes(stage.layers, world.model, planning, positions) <= offered.get(stage.node, 0)
        for stage in stages
    )


def only_nodes(world: Snapshot, names: set[str]) -> Snapshot:
    """The snapshot with the named nodes alone: all that the latency of stages on them depends on."""
    nodes = tuple(node for node in world.nodes if node.name in names)
    members = names | {gateway.name for gateway in world.gateways}
    links = tuple(link for link in world.links if link.source in members and link.target in members)
    return replace(world, nodes=nodes, links=links, plan=None, replicas=())


def _at_load(world: Snapshot, sessions: int) -> Snapshot:
    """The snapshot with so many sessions, spread over the gateways as those that there are."""
    total = sum(gateway.sessions for gateway in world.gateways)
    held = sum(gateway.context_positions for gateway in world.gateways)
    positions = held / total if total and held else USUAL_POSITIONS
    gateways: list[GatewayCapacity] = []
    left = sessions
    for index, gateway in enumerate(world.gateways):
        share = sessions * gateway.sessions // total if total else sessions // len(world.gateways)
        if index == len(world.gateways) - 1:
            share = left
        left -= share
        gateways.append(replace(gateway, sessions=share, context_positions=int(share * positions)))
    return replace(world, gateways=tuple(gateways))


def _slowness(snapshot: Snapshot, cost: PlanCost | None) -> float:
    """By how much the slowest tokens that gateways see exceed what the current plan should take; 1 where they do not."""
    measured_ms = max((gateway.token_s for gateway in snapshot.gateways), default=0.0) * 1e3
    if cost is None or cost.latency_ms <= 0:
        return 1.0
    return min(max(measured_ms / cost.latency_ms, 1.0), SLOWEST_MEASURED)


def _errors(plan: SplitPlan, world: Snapshot, planning: PlanSettings) -> tuple[tuple[str, ...], Trigger]:
    """What a committed plan breaks, and whether that is a matter of trust alone."""
    errors = tuple(check_stages(plan, world, planning, committed=True))
    if not errors:
        return (), Trigger.PLAN_BROKEN
    trusting = replace(world, nodes=tuple(replace(node, trusted=True) for node in world.nodes))
    return errors, Trigger.PLAN_BROKEN if check_stages(
        plan, trusting, planning, committed=True
    ) else Trigger.TRUST_CHANGED


def _replicas(
    snapshot: Snapshot, world: Snapshot, settings: ControlSettings, slowness: float
) -> tuple[ChainFacts, ...]:
    facts = []
    alive = {node.name for node in snapshot.nodes}
    for replica in snapshot.replicas:
        errors, broken_by = _errors(replica, chain_world(snapshot, replica), settings.planning)
        if not alive.issuperset(replica.nodes):
            broken_by = Trigger.NODE_LOST
        facts.append(ChainFacts(_carries(replica.stages, world, settings, slowness), errors, broken_by))
    return tuple(facts)


def _with_chain(
    snapshot: Snapshot, plan: SplitPlan, options: PlanOptions, settings: ControlSettings, slowness: float
) -> PlanOptions:
    """The best further chain, beside all that are there."""
    chains = (plan, *snapshot.replicas)
    world = at_share(replace(snapshot, plan=None, replicas=chains), len(chains) + 1)
    found = best_plan(world, settings.planning)
    if not isinstance(found, FoundPlan):
        return replace(options, no_chain_reason=found.reason)
    return replace(options, chain=_option(found.plan.stages, found.cost, world, settings, slowness))
