"""As many chains as demand needs, and a limit of sessions where even those are too few. Pure; called while the plan stays.

Demand is sessions and requests that wait. Where the policy has targets, every chain carries so many sessions within them;
where it has none, a queue that is longer than allowed says that the chains carry no more than they do. What is added comes
after `demand_s`, what is taken away after `relief_s` and with room to spare, so that demand that swings changes little.
"""

from __future__ import annotations

from dataclasses import replace

from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    ChainFacts,
    DropChain,
    PlanOption,
    PlanOptions,
    Shed,
    Trigger,
)
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan

ChainDecision = AddChain | DropChain | Shed


def demand_of(snapshot: Snapshot) -> int:
    """Sessions at all gateways, and requests that wait to become one."""
    return sum(gateway.sessions + gateway.queued for gateway in snapshot.gateways)


def is_first_chain(snapshot: Snapshot, plan: SplitPlan) -> bool:
    """Whether the chain of this plan is the first: each chain sees the same demand, and the first one decides for all."""
    return all(plan.chain <= replica.chain for replica in snapshot.replicas)


def carried_sessions(options: PlanOptions) -> int | None:
    """What all chains carry within the targets, one session each at least; None where there are no targets."""
    if options.current is None:
        return None
    return _sum_carried([options.current.carries, *(each.carries for each in options.replicas)])


def needs_chain(snapshot: Snapshot, settings: PolicySettings, capacity: int | None) -> bool:
    """Whether a further chain would be allowed and of use now."""
    chains = 1 + len(snapshot.replicas)
    if chains >= settings.replicas.max:
        return False
    return chains < settings.replicas.min or is_overloaded(snapshot, settings, capacity)


def is_overloaded(snapshot: Snapshot, settings: PolicySettings, capacity: int | None) -> bool:
    """Whether there is more demand than the chains carry."""
    if capacity is not None:
        return demand_of(snapshot) > capacity
    return sum(gateway.queued for gateway in snapshot.gateways) > settings.admission.queue and settings.replicas.max > 1


def decide_demand(
    snapshot: Snapshot, plan: SplitPlan, state: PolicyState, settings: PolicySettings, options: PlanOptions
) -> tuple[ChainDecision | None, PolicyState]:
    """A chain to add or to drop, or a new limit of sessions; None where all stays as it is."""
    capacity = carried_sessions(options)
    state = _note_demand(snapshot, state, settings, options, capacity)
    decision = (
        _drop_broken(snapshot, state, settings, options)
        or _drop_superfluous(snapshot, state, settings)
        or _add(snapshot, plan, state, settings, options, capacity)
    )
    if decision is not None:
        return decision, state
    return _limit(snapshot, plan, state, settings, capacity)


def note_sheds(state: PolicyState, decision: object) -> PolicyState:
    """Remembers a limit that was handed out."""
    return replace(state, session_limit=decision.session_limit) if isinstance(decision, Shed) else state


def _note_demand(
    snapshot: Snapshot, state: PolicyState, settings: PolicySettings, options: PlanOptions, capacity: int | None
) -> PolicyState:
    """Since when there is too much demand, or so little that something can be taken away."""
    over = is_overloaded(snapshot, settings, capacity)
    enough = _enough_without(snapshot, state, settings, options, capacity)
    under = not over and enough is not None and demand_of(snapshot) <= (1 - settings.relief_share) * enough
    broken = _broken(snapshot, state, options) is not None
    return replace(
        state,
        broken_since_s=(snapshot.now_s if state.broken_since_s is None else state.broken_since_s) if broken else None,
        over_since_s=(snapshot.now_s if state.over_since_s is None else state.over_since_s) if over else None,
        under_since_s=(snapshot.now_s if state.under_since_s is None else state.under_since_s) if under else None,
    )


def _enough_without(
    snapshot: Snapshot, state: PolicyState, settings: PolicySettings, options: PlanOptions, capacity: int | None
) -> int | None:
    """What would still be carried without what can be taken away next: the limit first, then the last chain."""
    if state.shed_at is not None:
        return capacity
    if len(snapshot.replicas) < max(settings.replicas.min, 1):
        return None
    main = None if options.current is None else options.current.carries
    carried = _sum_carried([main, *(each.carries for each in options.replicas[:-1])])
    if carried is not None:
        return carried
    # Without targets: as many as there were when the last chain became needed, or one for each chain.
    return state.chain_demands[-1] if state.chain_demands else len(snapshot.replicas)


def _broken(snapshot: Snapshot, state: PolicyState, options: PlanOptions) -> tuple[SplitPlan, ChainFacts] | None:
    """The first replica that cannot stay; nodes that were not heard of since the platform started are waited for."""
    if not snapshot.replicas:
        return None
    alive = {node.name for node in snapshot.nodes}
    for replica, facts in zip(snapshot.replicas, options.replicas, strict=False):
        unseen = {name for name in replica.nodes if name not in alive and name not in state.known_nodes}
        if facts.errors and snapshot.lost_nodes.issuperset(unseen):
            return replica, facts
    return None


def _drop_broken(
    snapshot: Snapshot, state: PolicyState, settings: PolicySettings, options: PlanOptions
) -> DropChain | None:
    """A chain repairs itself where it can: it is decided about as this one is. One that stays broken has to go."""
    found = _broken(snapshot, state, options)
    if found is None or state.broken_since_s is None or snapshot.now_s - state.broken_since_s < settings.demand_s:
        return None
    replica, facts = found
    reason = f"the chain {replica.describe()} cannot stay: {'; '.join(facts.errors)}"
    return DropChain(replica, reason, facts.broken_by)


def _drop_superfluous(snapshot: Snapshot, state: PolicyState, settings: PolicySettings) -> DropChain | None:
    if not snapshot.replicas:
        return None
    chains, replica = 1 + len(snapshot.replicas), snapshot.replicas[-1]
    if chains > settings.replicas.max:
        reason = f"the policy allows {_count(settings.replicas.max)}, there are {chains}"
        return DropChain(replica, reason, Trigger.POLICY_CHANGED)
    quiet = state.under_since_s is not None and snapshot.now_s - state.under_since_s >= settings.relief_s
    if not quiet or state.shed_at is not None or chains <= settings.replicas.min:
        return None
    reason = (
        f"{_sessions(demand_of(snapshot))} for {settings.relief_s:g} s; {_count(chains - 1)} carry them with "
        f"{settings.relief_share:.0%} to spare"
    )
    return DropChain(replica, reason, Trigger.DEMAND)


def _add(
    snapshot: Snapshot,
    plan: SplitPlan,
    state: PolicyState,
    settings: PolicySettings,
    options: PlanOptions,
    capacity: int | None,
) -> AddChain | None:
    chain, chains = options.chain, 1 + len(snapshot.replicas)
    if chain is None or chains >= settings.replicas.max:
        return None
    gives = f"another one gives {chain.latency_ms:.1f} ms per token"
    if chains < settings.replicas.min:
        reason = f"the policy asks for {_count(settings.replicas.min)}, there is {chains}; {gives}"
        return _added(plan, chain, reason, Trigger.DEMAND)
    if not _is_lasting(snapshot, state, settings):
        return None
    return _added(plan, chain, f"{_pressure(snapshot, settings, capacity, chains)}; {gives}", Trigger.SLO_AT_RISK)


def _added(plan: SplitPlan, chain: PlanOption, reason: str, trigger: Trigger) -> AddChain:
    return AddChain(SplitPlan(0, -1, plan.model, chain.stages), reason, trigger, chain.cost_ms)


def _limit(
    snapshot: Snapshot, plan: SplitPlan, state: PolicyState, settings: PolicySettings, capacity: int | None
) -> tuple[Shed | None, PolicyState]:
    """The limit that should be in force: what the policy admits, and what the chains carry while there is too much."""
    live = sum(gateway.sessions for gateway in snapshot.gateways)
    state = replace(state, shed_at=_shed_at(snapshot, state, settings, capacity))
    limits = [limit for limit in (settings.admission.max_sessions or None, state.shed_at) if limit is not None]
    limit = max(min(limits), live) if limits else None
    if limit == state.session_limit:
        return None, state
    chains = 1 + len(snapshot.replicas)
    if limit is None:
        reason = f"{_sessions(demand_of(snapshot))}; the limit of {state.session_limit} is not needed any more"
        return Shed(plan, None, reason, Trigger.DEMAND), state
    if limit == live > min(limits):
        why = f"{min(limits)} are allowed, the {live} that are live may end in their time"
    elif state.shed_at is None or limit < state.shed_at:
        why = "the policy admits no more"
    else:
        why = _pressure(snapshot, settings, capacity, chains)
    trigger = Trigger.SLO_AT_RISK if state.shed_at is not None else Trigger.POLICY_CHANGED
    return Shed(plan, limit, f"at most {_sessions(limit)}: {why}", trigger), state


def _shed_at(snapshot: Snapshot, state: PolicyState, settings: PolicySettings, capacity: int | None) -> int | None:
    """What the chains carry, while that must be kept to; it stays where it is while the estimate only wanders."""
    before = state.shed_at
    if capacity is None:
        return None
    if before is None:
        return capacity if _is_lasting(snapshot, state, settings) else None
    if state.under_since_s is not None and snapshot.now_s - state.under_since_s >= settings.relief_s:
        return None
    return before if abs(capacity - before) <= settings.relief_share * before else capacity


def _is_lasting(snapshot: Snapshot, state: PolicyState, settings: PolicySettings) -> bool:
    return state.over_since_s is not None and snapshot.now_s - state.over_since_s >= settings.demand_s


def _pressure(snapshot: Snapshot, settings: PolicySettings, capacity: int | None, chains: int) -> str:
    if capacity is None:
        queued = sum(gateway.queued for gateway in snapshot.gateways)
        return f"{queued} requests have waited for {settings.demand_s:g} s, {settings.admission.queue} may"
    return f"{_sessions(demand_of(snapshot))}, {_count(chains)} carry {capacity} within {settings.qos.tpot_ms:g} ms per token"


def _sum_carried(carried: list[int | None]) -> int | None:
    known = [max(each, 1) for each in carried if each is not None]
    return sum(known) if known and len(known) == len(carried) else None


def _sessions(count: int) -> str:
    return f"{count} session{'' if count == 1 else 's'}"


def _count(chains: int) -> str:
    return f"{chains} chain{'' if chains == 1 else 's'}"
