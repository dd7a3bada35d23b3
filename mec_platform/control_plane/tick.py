"""One decision from one snapshot: joins Split Revision and the Adaptive Orchestrator, which do not know each other.

Pure: the same snapshot, policy state and settings give the same decision in production, in a simulation and in a
replayed journal. Counterpart: `control_loop` observes, calls `tick` and carries the decision out.
"""

from __future__ import annotations

from dataclasses import replace

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.options import at_share, chain_world, distrusting, is_same_world, plan_options
from mec_platform.control_plane.orchestrator.decisions import AddChain, Decision, Reconfigure, Wait
from mec_platform.control_plane.orchestrator.policy import decide
from mec_platform.control_plane.orchestrator.state import PolicyState, Seen
from mec_platform.control_plane.policy_table import changed_marks, policy_marks
from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.domain.capacity import Snapshot

__all__ = ["ControlSettings", "tick"]


def tick(snapshot: Snapshot, state: PolicyState, settings: ControlSettings) -> tuple[Decision, PolicyState]:
    """Decides; a plan that the independent checker objects to is never handed out."""
    world = distrusting(snapshot, settings)
    seen = _look(snapshot, world, state.seen, settings)
    state = replace(_note_policy(state, settings), seen=seen)
    decision, after = decide(world, state, settings.policy, seen.options)
    errors = plan_errors(decision, world, settings)
    if errors:
        plan = decision.plan.describe() if isinstance(decision, Reconfigure | AddChain) else ""
        return Wait(f"the planned {plan} fails its check: {'; '.join(errors)}"), after
    return decision, after


def plan_errors(decision: Decision, snapshot: Snapshot, settings: ControlSettings) -> list[str]:
    """What the independent checker says of a plan that is to be set up, with its share of the sessions."""
    chains = 1 + len(snapshot.replicas)
    match decision:
        case Reconfigure():
            return check_plan(decision.plan, at_share(snapshot, chains), settings.planning)
        case AddChain():
            beside = chain_world(at_share(snapshot, chains + 1), decision.plan)
            return check_stages(decision.plan, beside, settings.planning)
        case _:
            return []


def _look(snapshot: Snapshot, world: Snapshot, seen: Seen | None, settings: ControlSettings) -> Seen:
    """The plan options of this world: those of the last one where it is the same."""
    if seen is not None and seen.settings == settings and is_same_world(seen.snapshot, snapshot):
        return seen
    return Seen(snapshot, settings, plan_options(world, settings))


def _note_policy(state: PolicyState, settings: ControlSettings) -> PolicyState:
    """Remembers the policy, and what of it is new since it was weighed last."""
    marks = policy_marks(settings)
    if marks == state.marks:
        return state
    if state.marks is None:
        return replace(state, marks=marks)
    change = changed_marks(state.marks, marks)
    return replace(state, marks=marks, policy_change=f"{state.policy_change}; {change}".removeprefix("; "))
