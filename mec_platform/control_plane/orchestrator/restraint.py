"""What holds a change back that could wait: cooldown, budget, steadiness, doubtful links, and a gain below its price.

Each question is answered with words for the reason, or None where nothing speaks against the change.
"""

from __future__ import annotations

from math import exp

from mec_platform.control_plane.orchestrator.decisions import PlanOption, Trigger
from mec_platform.control_plane.orchestrator.links import hops_of, measured_links
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.state import PolicyState, Trouble
from mec_platform.control_plane.orchestrator.switch_cost import SwitchCost, chain_load
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan

WORSENED = frozenset(
    {Trigger.LINK_FORECAST, Trigger.LINK_DEGRADED, Trigger.SLO_AT_RISK, Trigger.NODE_SLOW, Trigger.NODE_BUSY}
)
"""Something is known to have got worse: smaller margins are enough."""

WAY_BACK_ODDS = 0.25
"""How likely trouble that has just been seen is taken to be over within the next cooldown: one burst in a few is."""

PASSING = frozenset({Trigger.LINK_DEGRADED, Trigger.SLO_AT_RISK, Trigger.NODE_SLOW, Trigger.NODE_BUSY})
"""What has got worse and may get better again by itself."""

SUDDEN = frozenset(
    {Trigger.LINK_FORECAST, Trigger.LINK_DEGRADED, Trigger.NODE_SLOW, Trigger.NODE_JOINED, Trigger.POLICY_CHANGED}
)
"""The plan in use is hit, or something is new that is no measurement: no need to see whether it lasts."""


def cooling_s(now_s: float, state: PolicyState, settings: PolicySettings) -> float:
    """Seconds until the cooldown is over; not positive where it is."""
    if not state.changes_s:
        return 0.0
    cooldown = settings.cooldown_s * settings.cooldown_growth ** (len(state.changes_s) - 1)
    longest = max(settings.longest_cooldown_s, settings.cooldown_s)
    return state.changes_s[-1] + min(cooldown, longest) - now_s


def too_small(trigger: Trigger, current: PlanOption, best: PlanOption, settings: PolicySettings) -> str | None:
    """A gain that is within what measurements wander by."""
    is_worse = trigger in WORSENED or trigger is Trigger.POLICY_CHANGED
    share = settings.triggered_min_gain_share if is_worse else settings.min_gain_share
    gain = current.cost_ms - best.cost_ms
    return None if gain >= share * current.cost_ms else f"less than the {share:.0%} that count as a gain"


def too_dear(
    snapshot: Snapshot, trigger: Trigger, gain_ms: float, cost: SwitchCost, settings: PolicySettings
) -> str | None:
    """A change that does not win what it costs within the horizon."""
    margin = settings.triggered_margin if trigger in WORSENED else settings.margin
    rate = max(sum(gateway.tokens_per_s for gateway in snapshot.gateways), settings.assumed_tokens_per_s)
    won = gain_ms * rate * settings.horizon_s
    if won > (1 + margin) * cost.total_ms:
        return None
    return (
        f"but the change costs {cost.total_ms:.0f} ms and wins {won:.0f} ms in {settings.horizon_s:g} s at {rate:.0f} "
        f"tokens/s; it must win {1 + margin:g} times its cost"
    )


def not_steady(now_s: float, trigger: Trigger, state: PolicyState, settings: PolicySettings) -> str | None:
    """A better plan that may be gone with the next measurement."""
    since = now_s if state.better_since_s is None else state.better_since_s
    left_s = since + settings.steady_s - now_s
    if trigger in SUDDEN or left_s <= 0:
        return None
    return f"but only since {now_s - since:.1f} s; {left_s:.1f} s more will show whether that lasts"


def note_trouble(
    snapshot: Snapshot, state: PolicyState, current: PlanOption, best: PlanOption, memory_s: float
) -> Trouble:
    """What the plan in use has cost more than the best one, this moment included; while it is the best, that is forgotten.

    The share of the time since the last look by which tokens came later, as long as there is anybody who waits for them.
    """
    epoch = 0 if snapshot.plan is None else snapshot.plan.epoch
    before = state.trouble
    if before is None or before.epoch != epoch:
        return Trouble(epoch, snapshot.now_s, 0.0, current.cost_ms)
    passed_s = snapshot.now_s - before.at_s
    share = 1 - best.cost_ms / current.cost_ms if current.cost_ms > best.cost_ms else 0.0
    lost_s = before.lost_s * exp(-passed_s / memory_s) if share == 0 else before.lost_s + share * passed_s
    return Trouble(epoch, snapshot.now_s, lost_s, min(before.normal_ms, current.cost_ms))


def may_pass(
    snapshot: Snapshot,
    trigger: Trigger,
    state: PolicyState,
    best: PlanOption,
    cost: SwitchCost,
    settings: PolicySettings,
) -> str | None:
    """Trouble that is no older than `steady_s`, and has cost less so far than a change and, should it be over then, the way
    back.

    On the way back wait the next cooldown and the time in which a better plan must prove itself, on a plan that is then
    the worse one.
    """
    since_s = snapshot.now_s if state.better_since_s is None else state.better_since_s
    if trigger not in PASSING or state.trouble is None or snapshot.now_s - since_s >= settings.steady_s:
        return None
    worse = max(0.0, 1 - state.trouble.normal_ms / best.cost_ms) if best.cost_ms > 0 else 0.0
    switch_s = cost.total_ms / max(1.0, chain_load(snapshot)[0]) / 1e3
    way_back_s = switch_s + worse * (settings.cooldown_s + settings.steady_s) if worse else 0.0
    needed_s = switch_s + WAY_BACK_ODDS * way_back_s
    if state.trouble.lost_s >= needed_s:
        return None
    return f"but that has cost {state.trouble.lost_s:.1f} s so far, and a change and the way back {needed_s:.1f} s: it may pass"


def doubtful_link(snapshot: Snapshot, plan: SplitPlan, best: PlanOption, settings: PolicySettings) -> str | None:
    """A link that the better plan newly uses and that is hardly known, as one that has just recovered."""
    used = set(hops_of(snapshot, plan.nodes))
    new = [hop for hop in hops_of(snapshot, tuple(stage.node for stage in best.stages)) if hop not in used]
    for (source, target), link in measured_links(snapshot, new).items():
        if link.confidence < settings.min_link_confidence:
            return (
                f"but link {source} -> {target} is known with {link.confidence:.0%} confidence only, "
                f"{settings.min_link_confidence:.0%} are needed"
            )
    return None


def over_budget(now_s: float, state: PolicyState, cost: SwitchCost, settings: PolicySettings) -> str | None:
    """A change that would exceed what may be changed within the budget's period."""
    recent = [spent for spent in state.spent if now_s - spent.at_s < settings.budget_period_s]
    period = f"in {settings.budget_period_s:g} s"
    if settings.budget_changes and len(recent) >= settings.budget_changes:
        left_s = recent[-settings.budget_changes].at_s + settings.budget_period_s - now_s
        return (
            f"but {len(recent)} of {settings.budget_changes} changes {period} are used, the next is in {left_s:.0f} s"
        )
    pause = sum(spent.pause_ms for spent in recent)
    if settings.budget_pause_ms and pause + cost.pause_ms > settings.budget_pause_ms:
        return f"but sessions would pause {pause + cost.pause_ms:.0f} ms {period}, {settings.budget_pause_ms:g} ms are allowed"
    moved = sum(spent.moved_bytes for spent in recent)
    if settings.budget_bytes and moved + cost.moved_bytes > settings.budget_bytes:
        return (
            f"but {(moved + cost.moved_bytes) / 1e6:.1f} MB of KV would move {period}, "
            f"{settings.budget_bytes / 1e6:.1f} MB are allowed"
        )
    return None


def retry_pause(now_s: float, state: PolicyState, settings: PolicySettings, live: frozenset[str]) -> str | None:
    """Why the next attempt must wait after one that was not carried out."""
    attempt = state.attempt
    if attempt is None or attempt.nodes != live:
        return None
    pause_s = min(settings.retry_s * 2.0 ** min(attempt.failures_before, 30), settings.longest_retry_s)
    left_s = attempt.at_s + pause_s - now_s
    return f"the last attempt was not carried out, the next one is due in {left_s:.1f} s" if left_s > 0 else None
