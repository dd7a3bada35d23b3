"""Several deployments on the same nodes: what each of them sees of a node, and who gives way where not all fit.

Pure. Deployments are decided about in order of priority (then by name), each seeing what the plans of all others take:
memory and time of a node, and of the nodes that share its machine. One for which nothing fits waits; where it would fit
without deployments of lower priority, those give way, as few and as low ones as will do: to other nodes, or altogether.
They go first and the higher one plans when they have gone, so nothing is ever promised twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.options import at_share, distrusting, only_nodes, plan_options
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    PlanOptions,
    Reconfigure,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.demand import is_first_chain
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.orchestrator.switch_cost import switch_cost
from mec_platform.control_plane.split_revision.cost_model import kv_positions, plan_cost, stage_memory_bytes
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.tick import plan_errors, tick
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan, plan_change

BUSIEST = 0.9
"""No node is taken to be busier than this with others' work: what is left is slow, and not nothing."""

Snapshots = Mapping[str, Snapshot]
Settings = Mapping[str, ControlSettings]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one stage or standby takes of a node, or of its machine where it shares one. `is_new`: it does not run yet, so
    that times measured until now do not show it.
    """

    node: str
    machine: str
    memory_bytes: int
    busy_share: float
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who somebody gives way to, and the plan that shall have the room."""

    claimant: str
    priority: int
    plan: SplitPlan


def view_for(deployment: str, snapshots: Snapshots, settings: Settings) -> Snapshot:
    """The deployment's snapshot with nodes as they are without what the plans of all other deployments take."""
    return _Round(snapshots, settings).view(deployment, snapshots[deployment])


def tick_shared(
    deployment: str, seen: Snapshot, snapshots: Snapshots, state: PolicyState, settings: Settings
) -> tuple[Decision, PolicyState, Snapshot]:
    """One deployment's decision among all others, and the view that it was made from.

    `seen` is its snapshot, or that of another chain of it. Deployments of higher priority that have no plan yet are
    thought ahead for: room that they need is not taken from them.
    """
    this_round = _Round(snapshots, settings)
    rank = this_round.rank(deployment)
    for other in this_round.order:
        if this_round.rank(other) < rank:
            this_round.think_ahead(other)
    return this_round.tick(deployment, seen, state)


def tick_all(
    snapshots: Snapshots, states: Mapping[str, PolicyState], settings: Settings
) -> dict[str, tuple[Decision, PolicyState]]:
    """A round of decisions, in order of priority; each sees the new plans of those before it."""
    this_round = _Round(snapshots, settings)
    made: dict[str, tuple[Decision, PolicyState]] = {}
    for name in this_round.order:
        decision, state, _ = this_round.tick(name, snapshots[name], states.get(name, PolicyState()))
        this_round.note(name, decision)
        made[name] = decision, state
    return made


class _Round:
    """What is known while all deployments are decided about, one after the other."""

    def __init__(self, snapshots: Snapshots, settings: Settings) -> None:
        self._snapshots = snapshots
        self._settings = settings
        self.order = sorted(snapshots, key=self.rank)
        self._usages = {name: usages_of(snapshots[name], settings[name]) for name in self.order}
        self._gives_way: dict[str, _Claim] = {}

    def rank(self, name: str) -> tuple[int, str]:
        """Who is served first."""
        return -self._settings[name].priority, name

    def note(self, name: str, decision: Decision) -> None:
        """Counts the plan of a decision: nobody else may have its room."""
        if isinstance(decision, Reconfigure | AddChain):
            self._add_plan(name, decision.plan)

    def think_ahead(self, name: str) -> None:
        """Counts the plan that a deployment without one will have, or has others give way to it."""
        seen = self._snapshots[name]
        if not self._is_in_need(name):
            return
        world = distrusting(self.view(name, seen), self._settings[name])
        found = best_plan(world, self._settings[name].planning)
        if isinstance(found, FoundPlan):
            self._add_plan(name, found.plan)
        else:
            self._make_room(name)

    def tick(self, name: str, seen: Snapshot, state: PolicyState) -> tuple[Decision, PolicyState, Snapshot]:
        """A deployment's decision, its memory, and the view that both came from."""
        settings = self._settings[name]
        view = self.view(name, seen)
        claim = self._gives_way.get(name)
        if claim is not None and seen.plan is not None and not seen.suspicion and is_first_chain(seen, seen.plan):
            given_way = _give_way(view, settings, claim)
            if given_way is not None:
                return given_way, state, view
        decision, after = tick(view, state, settings)
        if isinstance(decision, Wait) and self._is_in_need(name):
            asked = self._make_room(name)
            if asked:
                decision = Wait(f"{decision.reason}; {', '.join(asked)} {'give' if len(asked) > 1 else 'gives'} way")
        return decision, after, view

    def view(self, name: str, seen: Snapshot, without: frozenset[str] = frozenset()) -> Snapshot:
        """`seen` less what all other deployments take, those `without` not counted."""
        rank = self.rank(name)
        before: dict[str, list[Usage]] = {}
        on_nodes: dict[str, list[Usage]] = {}
        on_machines: dict[str, list[Usage]] = {}
        for other, usages in self._usages.items():
            if other == name or other in without:
                continue
            for usage in usages:
                place, of = (on_machines, usage.machine) if usage.machine else (on_nodes, usage.node)
                place.setdefault(of, []).append(usage)
                if self.rank(other) < rank:
                    before.setdefault(of, []).append(usage)
        if not on_nodes and not on_machines:
            return seen
        own: Counter[str] = Counter()
        for usage in self._usages[name]:
            own[usage.node] += 0 if usage.is_new else usage.memory_bytes
        own = +own
        nodes = []
        for node in seen.nodes:
            taken = on_machines.get(node.machine) if node.machine else on_nodes.get(node.name)
            earlier = before.get(node.machine or node.name, ())
            nodes.append(node if taken is None else _lessened(node, taken, earlier, own))
        return replace(seen, nodes=tuple(nodes))

    def _is_in_need(self, name: str) -> bool:
        """Whether a deployment could work if only there were room: it has no plan, or lost a node of it."""
        seen, policy = self._snapshots[name], self._settings[name].policy
        if seen.model is None or seen.suspicion or len(seen.nodes) < max(policy.expected_nodes, 1):
            return False
        return seen.plan is None or not seen.lost_nodes.isdisjoint(seen.plan.nodes)

    def _make_room(self, name: str) -> tuple[str, ...]:
        """Has deployments of lower priority give way where that makes a plan possible; who they are."""
        seen, settings = self._snapshots[name], self._settings[name]
        lower = [other for other in reversed(self.order) if self._settings[other].priority < settings.priority]
        victims: list[str] = []
        found = None
        for other in lower:
            if self._usages[other]:
                victims.append(other)
                found = self._plan_without(name, seen, victims)
                if found is not None:
                    break
        if found is None:
            return ()
        for other in tuple(reversed(victims)):  # the highest of them first: it may be spared
            rest = [each for each in victims if each != other]
            spared = self._plan_without(name, seen, rest) if rest else None
            if spared is not None:
                victims, found = rest, spared
        for other in victims:
            self._gives_way.setdefault(other, _Claim(name, settings.priority, found))
        self._add_plan(name, found)
        return tuple(sorted(victims))

    def _plan_without(self, name: str, seen: Snapshot, others: Iterable[str]) -> SplitPlan | None:
        settings = self._settings[name]
        world = distrusting(self.view(name, seen, frozenset(others)), settings)
        found = best_plan(world, settings.planning)
        return found.plan if isinstance(found, FoundPlan) else None

    def _add_plan(self, name: str, plan: SplitPlan) -> None:
        new = _usages(plan, self._snapshots[name], self._settings[name], is_new=True)
        self._usages[name] = (*self._usages[name], *new)


def usages_of(snapshot: Snapshot, settings: ControlSettings) -> tuple[Usage, ...]:
    """What all committed plans of a deployment take."""
    plans = (*((snapshot.plan,) if snapshot.plan is not None else ()), *snapshot.replicas)
    return tuple(usage for plan in plans for usage in _usages(plan, snapshot, settings, is_new=False))


def _usages(plan: SplitPlan, snapshot: Snapshot, settings: ControlSettings, *, is_new: bool) -> list[Usage]:
    """Memory as Split Revision counts it; time as its cost model expects it for the tokens that flow now."""
    model = snapshot.model
    if model is None:
        return []
    apart = replace(at_share(snapshot, 1 + len(snapshot.replicas)), links=(), site_links=())  # hops take no compute
    small = only_nodes(apart, set(plan.members))
    positions = kv_positions(small, settings.planning)
    machines = {node.name: node.machine for node in small.nodes}
    live = tuple(stage for stage in plan.stages if stage.node in machines)
    cost = plan_cost(live, small, settings.planning)
    rows = max(1, sum(gateway.sessions for gateway in snapshot.gateways))
    steps_per_s = sum(gateway.tokens_per_s for gateway in snapshot.gateways) / rows
    times = {} if cost is None else dict(zip((stage.node for stage in live), cost.stage_ms, strict=True))
    return [
        Usage(
            stage.node,
            machines.get(stage.node, ""),
            stage_memory_bytes(stage.layers, model, settings.planning, positions),
            0.0 if stands_by else min(times.get(stage.node, 0.0) / 1e3 * steps_per_s, 1.0),
            is_new,
        )
        for stage, stands_by in (*((each, False) for each in plan.stages), *((each, True) for each in plan.standbys))
    ]


def _lessened(
    node: NodeCapacity, taken: Iterable[Usage], before: Iterable[Usage], own: Mapping[str, int]
) -> NodeCapacity:
    """The node as it is beside others' stages.

    Where the deployment has a stage of its own, those of lower rank cannot push it out: they have come later or have to go.
    And its own times there show already what else is running, so only what is new slows them.
    """
    mine = own.get(node.name)
    memory = node.memory_bytes - sum(usage.memory_bytes for usage in taken)
    if mine is not None:
        memory = max(memory, min(node.memory_bytes - sum(usage.memory_bytes for usage in before), mine))
    busy = min(sum(usage.busy_share for usage in taken if usage.is_new or mine is None), BUSIEST)
    return _with_less(node, max(memory, 0), busy)


@lru_cache(maxsize=1 << 14)
def _with_less(node: NodeCapacity, memory_bytes: int, busy: float) -> NodeCapacity:
    """Of a world that stays, the same nodes are asked for with every decision: about a hundred by each of many deployments."""
    slower = 1 / (1 - busy)
    return replace(
        node,
        memory_bytes=memory_bytes,
        block_time_s=node.block_time_s * slower,
        head_time_s=node.head_time_s * slower,
        prefill_block_time_s_per_row=node.prefill_block_time_s_per_row * slower,
        profile_ratio=node.profile_ratio * slower,
        busy_share=min(node.busy_share + busy, 1.0),
    )


def _give_way(view: Snapshot, settings: ControlSettings, claim: _Claim) -> Decision | None:
    """Elsewhere where the plan fits beside the claimant's, else altogether, a further chain first; None: it is not in the way."""
    world = distrusting(view, settings)
    options = plan_options(world, settings)
    plan = world.plan
    assert plan is not None
    reason = f"gives way to {claim.claimant} (priority {claim.priority})"
    if not options.current_errors and not any(facts.errors for facts in options.replicas):
        return None
    if world.replicas:
        return DropChain(world.replicas[-1], reason, Trigger.GIVES_WAY)
    moved = _moved(world, plan, settings, options, reason)
    return moved or DropChain(plan, f"{reason}; {options.no_plan_reason or 'no other plan'}", Trigger.GIVES_WAY)


def _moved(
    world: Snapshot, plan: SplitPlan, settings: ControlSettings, options: PlanOptions, reason: str
) -> Reconfigure | None:
    best = options.best
    if best is None:
        return None
    new = replace(plan, epoch=plan.epoch + 1, parent_epoch=plan.epoch, stages=best.stages)
    decision = Reconfigure(
        kind=plan_change(plan, new),
        plan=new,
        reason=f"{reason}; elsewhere it takes {best.latency_ms:.1f} ms per token",
        trigger=Trigger.GIVES_WAY,
        cost_ms=best.cost_ms,
        current_cost_ms=None if options.current is None else options.current.cost_ms,
        switch_cost_ms=switch_cost(new, world, settings.policy).total_ms,
    )
    return None if plan_errors(decision, world, settings) else decision
