"""What the orchestrator is given and what it answers: plan options in, one decision out, with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage


class Trigger(StrEnum):
    """Why a change is considered, the most urgent first."""

    INITIAL = "initial"
    NODE_LOST = "node_lost"
    TRUST_CHANGED = "trust_changed"
    PLAN_BROKEN = "plan_broken"
    GIVES_WAY = "gives_way"
    LINK_FORECAST = "link_forecast"
    LINK_DEGRADED = "link_degraded"
    SLO_AT_RISK = "slo_at_risk"
    NODE_SLOW = "node_slow"
    NODE_BUSY = "node_busy"
    POLICY_CHANGED = "policy_changed"
    NODE_JOINED = "node_joined"
    DEMAND = "demand"
    STANDBY = "standby"
    BETTER_PLAN = "better_plan"


@dataclass(frozen=True, slots=True)
class PlanOption:
    """Stages with their cost and latency per token, as Split Revision computed them.

    `tokens_per_s` is what its slowest stage lets through at the load it was costed for, 0 where nobody asked. `carries`
    is how many sessions at once it serves within the deployment's targets, None where there is no target.
    """

    stages: tuple[Stage, ...]
    cost_ms: float
    latency_ms: float
    tokens_per_s: float = 0.0
    carries: int | None = None


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """One of the snapshot's replicas: how many sessions it carries within the targets (None: none known), and what it breaks.

    `broken_by` says which trigger `errors` amount to.
    """

    carries: int | None
    errors: tuple[str, ...] = ()
    broken_by: Trigger = Trigger.PLAN_BROKEN


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The choice at one instant: the best plan, or why there is none; the current plan's cost and what it breaks.

    `current` is None where there is no plan or where it cannot be costed (a node of it is gone). `broken_by` says which
    trigger `current_errors` amount to. `chain` is the best further chain on nodes that no chain uses, where one was
    asked for; `no_chain_reason` says why there is none. `replicas` are in the snapshot's order.

    `kept_standbys` of the current plan can stay, `standbys` are what it should have.
    """

    best: PlanOption | None
    no_plan_reason: str
    current: PlanOption | None
    current_errors: tuple[str, ...] = ()
    broken_by: Trigger = Trigger.PLAN_BROKEN
    chain: PlanOption | None = None
    no_chain_reason: str = ""
    replicas: tuple[ChainFacts, ...] = ()
    kept_standbys: tuple[Stage, ...] = ()
    standbys: tuple[Stage, ...] = ()


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


@dataclass(frozen=True, slots=True)
class AddChain:
    """Set up `plan` beside the deployment's own and its replicas; it shares no node with them.

    Its epochs are 0 and its parent -1: whoever carries it out gives the chain its number and its first epoch.
    """

    plan: SplitPlan
    reason: str
    trigger: Trigger
    cost_ms: float


@dataclass(frozen=True, slots=True)
class DropChain:
    """Take `plan` down: one of the snapshot's replicas, or with `GIVES_WAY` the deployment's own plan.

    Sessions of a replica go over to the other chains; where the own plan goes, they end, and gateways queue.
    """

    plan: SplitPlan
    reason: str
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Shed:
    """Gateways together let in `session_limit` sessions from now on; None lifts the limit. Live sessions stay."""

    plan: SplitPlan
    session_limit: int | None
    reason: str
    trigger: Trigger


Change = Reconfigure | AddChain | DropChain | Shed
"""Decisions that are carried out."""

Decision = Wait | Keep | Change


def decision_kind(decision: Decision) -> str:
    """One word for records and screens: keep, wait, initial, migrate, re_split, add_chain, drop_chain, shed or admit."""
    match decision:
        case Wait():
            return "wait"
        case Keep():
            return "keep"
        case Reconfigure():
            return decision.kind.value
        case AddChain():
            return "add_chain"
        case DropChain():
            return "drop_chain"
        case Shed():
            return "admit" if decision.session_limit is None else "shed"
        case _:
            assert_never(decision)
