"""One decision from one snapshot: joins Split Revision and the Adaptive Orchestrator, which do not know each other.

Pure: the same snapshot, policy state and settings give the same decision in production, in a simulation and in a
replayed journal. Counterpart: `control_loop` observes, calls `tick` and carries the decision out.
"""

from __future__ import annotations

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import Decision, PlanOption, PlanOptions, Reconfigure, Wait
from mec_platform.control_plane.orchestrator.policy import PolicyState, decide
from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.control_plane.split_revision.cost_model import plan_cost
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot

__all__ = ["ControlSettings", "plan_options", "tick"]


def tick(snapshot: Snapshot, state: PolicyState, settings: ControlSettings) -> tuple[Decision, PolicyState]:
    """Decides; a plan that the independent checker objects to is never handed out."""
    decision, after = decide(snapshot, state, settings.policy, plan_options(snapshot, settings.planning))
    if isinstance(decision, Reconfigure):
        errors = check_plan(decision.plan, snapshot, settings.planning)
        if errors:
            return Wait(f"the planned {decision.plan.describe()} fails its check: {'; '.join(errors)}"), after
    return decision, after


def plan_options(snapshot: Snapshot, settings: PlanSettings) -> PlanOptions:
    """Split Revision's answer in the orchestrator's terms."""
    found = best_plan(snapshot, settings, frozenset(node for plan in snapshot.replicas for node in plan.nodes))
    best, no_plan_reason = None, ""
    if isinstance(found, FoundPlan):
        best = PlanOption(found.plan.stages, found.cost.total_ms, found.cost.latency_ms)
    else:
        no_plan_reason = found.reason
    plan = snapshot.plan
    if plan is None:
        return PlanOptions(best, no_plan_reason, current=None)
    cost = plan_cost(plan.stages, snapshot, settings)
    current = None if cost is None else PlanOption(plan.stages, cost.total_ms, cost.latency_ms)
    return PlanOptions(best, no_plan_reason, current, tuple(check_stages(plan, snapshot, settings)))
