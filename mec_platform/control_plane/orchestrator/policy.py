"""Adaptive Orchestrator: when to keep, migrate or re-split, add or drop a chain, or turn sessions away. Pure policy; its
memory is `PolicyState`.

Counterpart: Split Revision says what the best plan is, Reconfiguration Broadcast carries a decision out. This module
only judges whether a change is worth it: it must win more than it costs, within a horizon, outside the cooldown. What
cannot stay (a lost node, a broken limit) is replaced whatever it costs; where silence itself is doubtful, only failures
that were reported count.
"""

from __future__ import annotations

from dataclasses import replace

from mec_platform.control_plane.orchestrator import restraint
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    PlanOption,
    PlanOptions,
    Reconfigure,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.demand import decide_demand, demand_of, is_first_chain, note_sheds
from mec_platform.control_plane.orchestrator.links import links_in_use
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.state import Attempt, PolicyState, Spent
from mec_platform.control_plane.orchestrator.switch_cost import NO_COST, SwitchCost, switch_cost
from mec_platform.control_plane.orchestrator.triggers import Finding, Links, find_all, take_baseline
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import PlanChange, SplitPlan, kept_standbys, plan_change

__all__ = ["PolicyState", "decide"]


def decide(
    snapshot: Snapshot, state: PolicyState, settings: PolicySettings, options: PlanOptions
) -> tuple[Decision, PolicyState]:
    """The decision for one snapshot, and what to remember for the next."""
    live = frozenset(node.name for node in snapshot.nodes)
    plan = snapshot.plan
    links = {} if plan is None else links_in_use(snapshot, plan)
    state = _observe(snapshot, links, state, settings, live)
    if plan is None:
        decision = _decide_first(snapshot, settings, options)
    elif (forced := _forced_change(snapshot, plan, options, live)) is not None:
        decision = _decide_forced(snapshot, plan, settings, options, forced)
        if isinstance(decision, Wait) and forced.trigger is Trigger.PLAN_BROKEN:
            decision, state = _as_demand_asks(snapshot, plan, decision, state, settings, options)
    elif snapshot.suspicion:
        decision = _hold(plan, options, f"{snapshot.suspicion}; only failures that are reported count for now")
    elif waiting := _unseen(plan, live):
        decision = Wait(f"{', '.join(waiting)} of plan {plan.epoch} did not report yet since the platform started")
    else:
        decision, state = _decide_by_gain(snapshot, plan, links, state, settings, options)
        if isinstance(decision, Keep):
            decision, state = _as_demand_asks(snapshot, plan, decision, state, settings, options)
        if isinstance(decision, Keep) and not options.kept_standbys == options.standbys == plan.standbys:
            decision = _revise_standbys(plan, decision, options)
    if isinstance(decision, Reconfigure | AddChain | DropChain):
        pause = restraint.retry_pause(snapshot.now_s, state, settings, live)
        if pause is not None:
            return _hold(plan, options, f"{decision.reason}; {pause}"), state
        state = replace(state, attempt=_attempt(snapshot, decision, state, settings, live))
    return decision, note_sheds(state, decision)


def _as_demand_asks(
    snapshot: Snapshot,
    plan: SplitPlan,
    decision: Decision,
    state: PolicyState,
    settings: PolicySettings,
    options: PlanOptions,
) -> tuple[Decision, PolicyState]:
    """The plan stays, whether on purpose or for want of another: chains and limits may still follow demand."""
    if not is_first_chain(snapshot, plan):
        return decision, state
    of_chains, state = decide_demand(snapshot, plan, state, settings, options)
    return of_chains or decision, state


def _observe(
    snapshot: Snapshot, links: Links, state: PolicyState, settings: PolicySettings, live: frozenset[str]
) -> PolicyState:
    """Notes what was carried out since the last decision, and forgets what is over."""
    plan, known, now_s = snapshot.plan, state.baseline, snapshot.now_s
    state = _observe_chains(snapshot, state)
    changes = tuple(at_s for at_s in state.changes_s if now_s - at_s < settings.calm_s)
    spent = tuple(each for each in state.spent if now_s - each.at_s < settings.budget_period_s)
    if plan is None:
        return replace(state, changes_s=changes, spent=spent)
    if known is None or known.epoch != plan.epoch:
        if known is not None and state.attempt is not None and state.attempt.of_standbys:
            known = replace(known, epoch=plan.epoch)  # nothing else has changed
        elif known is not None:
            made = state.attempt or Attempt(known.epoch, now_s, 0, live)
            changes = (*changes, now_s)
            spent = (*spent, Spent(now_s, made.pause_ms, made.moved_bytes))
        state = replace(state, attempt=None, known_nodes=live, better_since_s=None, policy_change="")
    return replace(state, baseline=take_baseline(snapshot, plan, links, known), changes_s=changes, spent=spent)


def _observe_chains(snapshot: Snapshot, state: PolicyState) -> PolicyState:
    """An attempt is over once the number of chains is another one; of each that was added the demand is remembered."""
    chains, attempt = len(snapshot.replicas), state.attempt
    demands = state.chain_demands[:chains]
    if attempt is None or attempt.chains == chains:
        return state if demands == state.chain_demands else replace(state, chain_demands=demands)
    if chains > attempt.chains:
        demands = (*demands, attempt.demand)
    return replace(state, attempt=None, chain_demands=demands, over_since_s=None, under_since_s=None)


def _decide_first(snapshot: Snapshot, settings: PolicySettings, options: PlanOptions) -> Decision:
    if snapshot.model is None:
        return Wait("no edge node has reported a model yet")
    if snapshot.suspicion:
        return Wait(f"{snapshot.suspicion}; the first plan is made when members are heard of again")
    if len(snapshot.nodes) < settings.expected_nodes:
        names = ", ".join(node.name for node in snapshot.nodes) or "none"
        return Wait(f"{len(snapshot.nodes)} of {settings.expected_nodes} expected edge nodes are here ({names})")
    if options.best is None:
        return Wait(options.no_plan_reason)
    reason = f"first plan, on {len(snapshot.nodes)} nodes: {options.best.latency_ms:.1f} ms per token"
    return _reconfigure(snapshot, options, options.best, Trigger.INITIAL, reason, settings)


def _forced_change(snapshot: Snapshot, plan: SplitPlan, options: PlanOptions, live: frozenset[str]) -> Finding | None:
    """Why the current plan cannot stay, whatever a change costs."""
    lost = [name for name in plan.nodes if name in snapshot.lost_nodes]
    if lost:
        gone, back = [name for name in lost if name not in live], [name for name in lost if name in live]
        words = [f"node {gone[0]} is lost" if len(gone) == 1 else f"nodes {', '.join(gone)} are lost"] if gone else []
        words += [f"node {name} was started again and holds no stage" for name in back]
        return Finding(Trigger.NODE_LOST, f"{', '.join(words)} (plan {plan.epoch}: {plan.describe()})")
    if options.current_errors and not snapshot.suspicion and not _unseen(plan, live):
        return Finding(options.broken_by, f"plan {plan.epoch} breaks a limit: {'; '.join(options.current_errors)}")
    return None


def _revise_standbys(plan: SplitPlan, keep: Keep, options: PlanOptions) -> Reconfigure:
    """The same stages with the standbys that the plan should have: sessions go on as they are."""
    new = [each for each in options.standbys if each not in options.kept_standbys]
    gone = [each for each in plan.standbys if each not in options.standbys]
    words = [f"{each.node} stands by for {each.layers} from now on" for each in new]
    words += [f"{each.node} no longer stands by for {each.layers}" for each in gone]
    return Reconfigure(
        kind=PlanChange.STANDBY,
        plan=replace(plan, epoch=plan.epoch + 1, parent_epoch=plan.epoch, standbys=options.standbys),
        reason="; ".join(words) or "standbys stand by in another order",
        trigger=Trigger.STANDBY,
        cost_ms=keep.cost_ms,
        current_cost_ms=keep.cost_ms,
        switch_cost_ms=0.0,
    )


def _unseen(plan: SplitPlan, live: frozenset[str]) -> list[str]:
    return [name for name in plan.nodes if name not in live]


def _decide_forced(
    snapshot: Snapshot, plan: SplitPlan, settings: PolicySettings, options: PlanOptions, forced: Finding
) -> Decision:
    best = options.best
    if best is None:
        return Wait(f"{forced.text}; {options.no_plan_reason}")
    change = plan_change(plan, _successor(snapshot, best, options))
    reason = f"{forced.text}; {_words(change)} gives {best.latency_ms:.1f} ms per token"
    return _reconfigure(snapshot, options, best, forced.trigger, reason, settings)


def _decide_by_gain(
    snapshot: Snapshot,
    plan: SplitPlan,
    links: Links,
    state: PolicyState,
    settings: PolicySettings,
    options: PlanOptions,
) -> tuple[Decision, PolicyState]:
    """Keeps the plan unless another one pays for the change; cooldown holds here, whatever has degraded."""
    best, current = options.best, options.current
    if best is None or current is None:
        return Wait(options.no_plan_reason), state
    successor = _successor(snapshot, best, options)
    change = plan_change(plan, successor)
    cost = NO_COST if change is PlanChange.KEEP else switch_cost(successor, snapshot, settings)
    lead_s = settings.switch_lead_s + cost.lead_s
    findings = find_all(snapshot, plan, links, state, settings, current, lead_s)
    trigger = findings[0].trigger if findings else Trigger.BETTER_PLAN
    noted = "".join(f"{finding.text}; " for finding in findings)
    cooling_s = restraint.cooling_s(snapshot.now_s, state, settings)
    if change is PlanChange.KEEP:
        same = f"no other plan beats this one ({current.latency_ms:.1f} ms per token)"
        trouble = restraint.note_trouble(snapshot, state, current, current, settings.trouble_memory_s)
        state = replace(_weighed(snapshot, state, cooling_s), better_since_s=None, trouble=trouble)
        return Keep(plan, f"{noted}{same}", current.cost_ms), state
    saves = _saves(change, current, best)
    state = replace(state, trouble=restraint.note_trouble(snapshot, state, current, best, settings.trouble_memory_s))
    small = restraint.too_small(trigger, current, best, settings)
    since = snapshot.now_s if state.better_since_s is None else state.better_since_s
    state = replace(state, better_since_s=None if small else since)
    if cooling_s > 0:
        return Keep(plan, f"{noted}{saves}, but the cooldown lasts {cooling_s:.1f} s more", current.cost_ms), state
    objection = small or _objection(snapshot, plan, trigger, current, best, cost, state, settings)
    state = _weighed(snapshot, state, cooling_s)
    if objection is not None:
        return Keep(plan, f"{noted}{saves}, {objection}", current.cost_ms), state
    return _reconfigure(snapshot, options, best, trigger, f"{noted}{saves}", settings), state


def _objection(
    snapshot: Snapshot,
    plan: SplitPlan,
    trigger: Trigger,
    current: PlanOption,
    best: PlanOption,
    cost: SwitchCost,
    state: PolicyState,
    settings: PolicySettings,
) -> str | None:
    """Why a better plan is not worth the change now, or None."""
    return (
        restraint.too_dear(snapshot, trigger, current.cost_ms - best.cost_ms, cost, settings)
        or restraint.doubtful_link(snapshot, plan, best, settings)
        or restraint.may_pass(snapshot, trigger, state, best, cost, settings)
        or restraint.not_steady(snapshot.now_s, trigger, state, settings)
        or restraint.over_budget(snapshot.now_s, state, cost, settings)
    )


def _weighed(snapshot: Snapshot, state: PolicyState, cooling_s: float) -> PolicyState:
    """Outside the cooldown a newcomer or a new policy has had its chance: from now on it is known."""
    if cooling_s > 0:
        return state
    return replace(state, known_nodes=frozenset(node.name for node in snapshot.nodes), policy_change="")


def _attempt(
    snapshot: Snapshot,
    decision: Reconfigure | AddChain | DropChain,
    state: PolicyState,
    settings: PolicySettings,
    live: frozenset[str],
) -> Attempt:
    """What is about to be tried; attempts in a row that came to nothing are counted."""
    before = state.attempt
    failures = before.failures_before + 1 if before is not None and before.nodes == live else 0
    epoch = 0 if snapshot.plan is None else snapshot.plan.epoch
    made = Attempt(epoch, snapshot.now_s, failures, live, chains=len(snapshot.replicas), demand=demand_of(snapshot))
    if not isinstance(decision, Reconfigure):
        return made
    if decision.kind is PlanChange.STANDBY:
        return replace(made, of_standbys=True)
    cost = switch_cost(decision.plan, snapshot, settings)
    return replace(made, pause_ms=cost.pause_ms, moved_bytes=cost.moved_bytes)


def _hold(plan: SplitPlan | None, options: PlanOptions, reason: str) -> Decision:
    return (
        Keep(plan, reason, options.current.cost_ms)
        if plan is not None and options.current is not None
        else Wait(reason)
    )


def _reconfigure(
    snapshot: Snapshot,
    options: PlanOptions,
    option: PlanOption,
    trigger: Trigger,
    reason: str,
    settings: PolicySettings,
) -> Reconfigure:
    plan = _successor(snapshot, option, options)
    same_model = snapshot.plan is not None and snapshot.plan.model == plan.model
    change = plan_change(snapshot.plan, plan) if same_model else PlanChange.INITIAL
    return Reconfigure(
        kind=PlanChange.RELOAD if change is PlanChange.KEEP else change,
        plan=plan,
        reason=reason,
        trigger=trigger,
        cost_ms=option.cost_ms,
        current_cost_ms=None if options.current is None else options.current.cost_ms,
        switch_cost_ms=switch_cost(plan, snapshot, settings).total_ms,
    )


def _successor(snapshot: Snapshot, option: PlanOption, options: PlanOptions) -> SplitPlan:
    """A plan of these stages with the standbys that are still of use to it; new ones come once it is in force, so that nothing
    waits for them."""
    old, name = snapshot.plan, "" if snapshot.model is None else snapshot.model.name
    if old is None:
        return SplitPlan(epoch=1, parent_epoch=0, model=name, stages=option.stages)
    same = old.stages == option.stages
    standbys = old.standbys if same else kept_standbys(options.kept_standbys, option.stages)
    return SplitPlan(old.epoch + 1, old.epoch, name, option.stages, old.chain, standbys)


def _words(change: PlanChange) -> str:
    return {PlanChange.MIGRATE: "migration", PlanChange.RE_SPLIT: "re-split"}.get(change, "a new plan")


def _saves(change: PlanChange, current: PlanOption, best: PlanOption) -> str:
    """The gain in words: latency where it falls, else the cost that the plans are compared by."""
    saved = current.latency_ms - best.latency_ms
    if saved > 0:
        return (
            f"{_words(change)} saves {saved:.1f} ms per token "
            f"({current.latency_ms:.1f} -> {best.latency_ms:.1f} ms; "
            f"cost {current.cost_ms:.1f} -> {best.cost_ms:.1f} ms)"
        )
    gain = current.cost_ms - best.cost_ms
    return (
        f"{_words(change)} cuts the cost by {gain:.1f} ms ({current.cost_ms:.1f} -> {best.cost_ms:.1f} ms; "
        f"latency {current.latency_ms:.1f} -> {best.latency_ms:.1f} ms per token)"
    )
