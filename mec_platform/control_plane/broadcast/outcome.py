"""How a reconfiguration ended, as the control loop tells it."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.domain.split_plan import PlanChange, SplitPlan


class PlanRejected(Exception):
    """An operator's plan breaks rules; the message lists them."""


class ReconfigurationAborted(Exception):
    """A plan could not be carried out; the old one stays."""


@dataclass(frozen=True, slots=True)
class ReconfigurationEnded:
    """What a reconfiguration did. Times in milliseconds; `pause_ms_max` is the longest pause of a session."""

    at_s: float
    plan: SplitPlan
    kind: PlanChange
    reason: str
    outcome: str
    error: str
    prepare_ms: float
    total_ms: float
    pause_ms_max: float
    moved_bytes: int
    sessions: int
    replayed_tokens: int
