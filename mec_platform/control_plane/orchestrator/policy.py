"""Adaptive Orchestrator: when to keep, migrate or re-split. Pure policy; its memory is `PolicyState`.

Counterpart: Split Revision says what the best plan is, Reconfiguration Broadcast carries a decision out. This module
only judges whether a change is worth it: it must win more than it costs, within a horizon, outside the cooldown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mec_platform.control_plane.orchestrator.decisions import (
    Decision,
    Keep,
    PlanOption,
    PlanOptions,
    Reconfigure,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.switch_cost import switch_cost_ms
from mec_platform.control_plane.orchestrator.triggers import Baseline, Finding, find_degradations, take_baseline
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import PlanChange, SplitPlan, plan_change


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reconfiguration that was decided on while `parent_epoch` was committed."""

    parent_epoch: int
    at_s: float
    failures_before: int
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What the policy remembers from decision to decision. Starts empty, also after a restart of the platform.

    `changes_s` are the times of recent committed changes (the first plan is none); `known_nodes` those live nodes that
    were weighed already.
    """

    baseline: Baseline | None = None
    changes_s: tuple[float, ...] = ()
    known_nodes: frozenset[str] = frozenset()
    attempt: Attempt | None = None


def decide(
    snapshot: Snapshot, state: PolicyState, settings: PolicySettings, options: PlanOptions
) -> tuple[Decision, PolicyState]:
    """The decision for one snapshot, and what to remember for the next."""
    state = _observe(snapshot, state, settings)
    live = frozenset(node.name for node in snapshot.nodes)
    pause = _retry_pause(snapshot, state, settings, live)
    plan = snapshot.plan
    if plan is None:
        decision = _decide_first(snapshot, settings, options)
    elif (forced := _forced_change(snapshot, plan, options)) is not None:
        decision = _decide_forced(snapshot, plan, settings, options, forced)
    elif waiting := _unseen(plan, live):
        decision = Wait(f"{', '.join(waiting)} of plan {plan.epoch} did not report yet since the platform started")
    else:
        decision, state = _decide_by_gain(snapshot, plan, state, settings, options)
    if isinstance(decision, Reconfigure):
        if pause is not None:
            return _hold(plan, options, f"{decision.reason}; {pause}"), state
        failures = _failures(snapshot, state)
        state = replace(state, attempt=Attempt(decision.plan.parent_epoch, snapshot.now_s, failures, live))
    return decision, state


def _observe(snapshot: Snapshot, state: PolicyState, settings: PolicySettings) -> PolicyState:
    """Notes a plan that was committed since the last decision, and forgets what is over."""
    plan, known = snapshot.plan, state.baseline
    changes = tuple(at_s for at_s in state.changes_s if snapshot.now_s - at_s < settings.calm_s)
    if plan is None:
        return replace(state, changes_s=changes)
    if known is None or known.epoch != plan.epoch:
        changes = changes if known is None else (*changes, snapshot.now_s)
        live = frozenset(node.name for node in snapshot.nodes)
        state = replace(state, attempt=None, known_nodes=live)
    return replace(state, baseline=take_baseline(snapshot, plan, known), changes_s=changes)


def _decide_first(snapshot: Snapshot, settings: PolicySettings, options: PlanOptions) -> Decision:
    if snapshot.model is None:
        return Wait("no edge node has reported a model yet")
    if len(snapshot.nodes) < settings.expected_nodes:
        names = ", ".join(node.name for node in snapshot.nodes) or "none"
        return Wait(f"{len(snapshot.nodes)} of {settings.expected_nodes} expected edge nodes are here ({names})")
    if options.best is None:
        return Wait(options.no_plan_reason)
    reason = f"first plan, on {len(snapshot.nodes)} nodes: {options.best.latency_ms:.1f} ms per token"
    return _reconfigure(snapshot, options, options.best, Trigger.INITIAL, reason, settings)


def _forced_change(snapshot: Snapshot, plan: SplitPlan, options: PlanOptions) -> Finding | None:
    """Why the current plan cannot stay, whatever a change costs."""
    lost = [name for name in plan.nodes if name in snapshot.lost_nodes]
    if lost:
        nodes = f"node {lost[0]} is lost" if len(lost) == 1 else f"nodes {', '.join(lost)} are lost"
        return Finding(Trigger.NODE_LOST, f"{nodes} (plan {plan.epoch}: {plan.describe()})")
    if options.current_errors and not _unseen(plan, frozenset(node.name for node in snapshot.nodes)):
        return Finding(Trigger.PLAN_BROKEN, f"plan {plan.epoch} breaks a limit: {'; '.join(options.current_errors)}")
    return None


def _unseen(plan: SplitPlan, live: frozenset[str]) -> list[str]:
    return [name for name in plan.nodes if name not in live]


def _decide_forced(
    snapshot: Snapshot, plan: SplitPlan, settings: PolicySettings, options: PlanOptions, forced: Finding
) -> Decision:
    best = options.best
    if best is None:
        return Wait(f"{forced.text}; {options.no_plan_reason}")
    change = plan_change(plan, _successor(snapshot, best))
    reason = f"{forced.text}; {_words(change)} gives {best.latency_ms:.1f} ms per token"
    return _reconfigure(snapshot, options, best, forced.trigger, reason, settings)


def _decide_by_gain(
    snapshot: Snapshot, plan: SplitPlan, state: PolicyState, settings: PolicySettings, options: PlanOptions
) -> tuple[Decision, PolicyState]:
    """Keeps the plan unless another one pays for the change; cooldown holds here, whatever has degraded."""
    best, current, baseline = options.best, options.current, state.baseline
    if best is None or current is None or baseline is None:
        return Wait(options.no_plan_reason), state
    findings = _findings(snapshot, plan, baseline, state, settings)
    noted = "".join(f"{finding.text}; " for finding in findings)
    cooling_s = _cooling_s(snapshot, state, settings)
    if best.stages == plan.stages:
        keep = Keep(
            plan, f"{noted}no other plan beats this one ({current.latency_ms:.1f} ms per token)", current.cost_ms
        )
        return keep, _weighed(snapshot, state, cooling_s)
    gain = current.cost_ms - best.cost_ms
    change = plan_change(plan, _successor(snapshot, best))
    saves = _saves(change, current, best)
    if cooling_s > 0:
        return Keep(plan, f"{noted}{saves}, but the cooldown lasts {cooling_s:.1f} s more", current.cost_ms), state
    state = _weighed(snapshot, state, cooling_s)
    trigger = findings[0].trigger if findings else Trigger.BETTER_PLAN
    objection = _objection(snapshot, trigger, gain, current, best, settings)
    if objection is not None:
        return Keep(plan, f"{noted}{saves}, {objection}", current.cost_ms), state
    return _reconfigure(snapshot, options, best, trigger, f"{noted}{saves}", settings), state


def _findings(
    snapshot: Snapshot, plan: SplitPlan, baseline: Baseline, state: PolicyState, settings: PolicySettings
) -> list[Finding]:
    findings = find_degradations(snapshot, plan, baseline, settings)
    joined = [node.name for node in snapshot.nodes if node.name not in state.known_nodes]
    if joined:
        findings.append(Finding(Trigger.NODE_JOINED, f"{', '.join(joined)} joined"))
    return findings


def _objection(
    snapshot: Snapshot, trigger: Trigger, gain: float, current: PlanOption, best: PlanOption, settings: PolicySettings
) -> str | None:
    """Why a better plan is not worth the change, or None."""
    degraded = trigger in (Trigger.LINK_DEGRADED, Trigger.NODE_SLOW)
    share = settings.triggered_min_gain_share if degraded else settings.min_gain_share
    margin = settings.triggered_margin if degraded else settings.margin
    if gain < share * current.cost_ms:
        return f"less than the {share:.0%} that count as a gain"
    cost = switch_cost_ms(_successor(snapshot, best), snapshot, settings)
    rate = max(sum(gateway.tokens_per_s for gateway in snapshot.gateways), settings.assumed_tokens_per_s)
    won = gain * rate * settings.horizon_s
    if won <= (1 + margin) * cost:
        return (
            f"but the change costs {cost:.0f} ms and wins {won:.0f} ms in {settings.horizon_s:g} s at {rate:.0f} "
            f"tokens/s; it must win {1 + margin:g} times its cost"
        )
    return None


def _cooling_s(snapshot: Snapshot, state: PolicyState, settings: PolicySettings) -> float:
    """Seconds until the cooldown is over; not positive where it is."""
    if not state.changes_s:
        return 0.0
    cooldown = settings.cooldown_s * settings.cooldown_growth ** (len(state.changes_s) - 1)
    longest = max(settings.longest_cooldown_s, settings.cooldown_s)
    return state.changes_s[-1] + min(cooldown, longest) - snapshot.now_s


def _weighed(snapshot: Snapshot, state: PolicyState, cooling_s: float) -> PolicyState:
    """Outside the cooldown a newcomer has had its chance: from now on it is one of the known nodes."""
    if cooling_s > 0:
        return state
    return replace(state, known_nodes=frozenset(node.name for node in snapshot.nodes))


def _retry_pause(snapshot: Snapshot, state: PolicyState, settings: PolicySettings, live: frozenset[str]) -> str | None:
    """Why the next attempt must wait after one that was not carried out, or None."""
    attempt = state.attempt
    if attempt is None or attempt.nodes != live:
        return None
    pause_s = min(settings.retry_s * 2.0 ** min(attempt.failures_before, 30), settings.longest_retry_s)
    left_s = attempt.at_s + pause_s - snapshot.now_s
    return f"the last attempt was not carried out, the next one is due in {left_s:.1f} s" if left_s > 0 else None


def _failures(snapshot: Snapshot, state: PolicyState) -> int:
    """How many attempts in a row came to nothing: an attempt is forgotten once a plan is committed."""
    attempt = state.attempt
    if attempt is None or attempt.nodes != frozenset(node.name for node in snapshot.nodes):
        return 0
    return attempt.failures_before + 1


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
    plan = _successor(snapshot, option)
    same_model = snapshot.plan is not None and snapshot.plan.model == plan.model
    return Reconfigure(
        kind=plan_change(snapshot.plan, plan) if same_model else PlanChange.INITIAL,
        plan=plan,
        reason=reason,
        trigger=trigger,
        cost_ms=option.cost_ms,
        current_cost_ms=None if options.current is None else options.current.cost_ms,
        switch_cost_ms=switch_cost_ms(plan, snapshot, settings),
    )


def _successor(snapshot: Snapshot, option: PlanOption) -> SplitPlan:
    parent = 0 if snapshot.plan is None else snapshot.plan.epoch
    name = "" if snapshot.model is None else snapshot.model.name
    return SplitPlan(epoch=parent + 1, parent_epoch=parent, model=name, stages=option.stages)


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
