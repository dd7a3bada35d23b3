"""What the orchestrator is given and what it answers: plan options in, one decision out, with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage


class Trigger(StrEnum):
    """Why a change is considered, the most urgent first."""

    INITIAL = "initial"
    NODE_LOST = "node_lost"
    PLAN_BROKEN = "plan_broken"
    LINK_DEGRADED = "link_degraded"
    NODE_SLOW = "node_slow"
    NODE_JOINED = "node_joined"
    BETTER_PLAN = "better_plan"


@dataclass(frozen=True, slots=True)
class PlanOption:
    """Stages with their cost and latency per token, as Split Revision computed them."""

    stages: tuple[Stage, ...]
    cost_ms: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The choice at one instant: the best plan, or why there is none; the current plan's cost and what it breaks.

    `current` is None where there is no plan or where it cannot be costed (a node of it is gone).
    """

    best: PlanOption | None
    no_plan_reason: str
    current: PlanOption | None
    current_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now; any plan there is stays."""

    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """The current plan stays, on purpose. Costs are milliseconds per token."""

    plan: SplitPlan
    reason: str
    cost_ms: float


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Replace the current plan by `plan`. `current_cost_ms` is None where the current plan does not work any more.

    `switch_cost_ms` is what the change itself costs, summed over all sessions that it disturbs.
    """

    kind: PlanChange
    plan: SplitPlan
    reason: str
    trigger: Trigger
    cost_ms: float
    current_cost_ms: float | None
    switch_cost_ms: float


Decision = Wait | Keep | Reconfigure
