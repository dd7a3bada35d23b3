"""How a reconfiguration ended, as the control loop tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mec_platform.control_plane.broadcast.protocol import SessionSwitched
from mec_platform.domain.split_plan import PlanChange, SplitPlan


class PlanRejected(Exception):
    """An operator's plan breaks rules; the message lists them."""


class ReconfigurationAborted(Exception):
    """A plan could not be carried out; the old one stays."""


@dataclass(frozen=True, slots=True)
class ReconfigurationEnded:
    """What a reconfiguration did. Times in milliseconds; `pause_ms_max` is the longest pause of a session.

    `transfer` says how sessions were to come over and why, and how they did. Of the longest pause, `held_ms_max` passed
    before a frame could go; `tail_positions_max` are last positions of a session that its first frame computed again.
    """

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
    transfer: str = ""
    held_ms_max: float = 0.0
    tail_positions_max: int = 0


_MODES = {
    "pre_copy": "pre-copy",
    "stop_and_copy": "stop-and-copy",
    "standby": "standby",
    "replay": "replay",
    "none": "without KV to move",
}


def describe_transfer(chosen: str, reason: str, switched: Sequence[SessionSwitched]) -> str:
    """How sessions were to come over, why, and how they did, in words."""
    text = f"{_MODES[chosen]} chosen: {reason}"
    if not switched:
        return f"{text}. No session had to come over"
    counts = Counter(each.mode for each in switched)
    ways = ", ".join(f"{count} {'' if mode == 'none' else 'by '}{_MODES[mode]}" for mode, count in counts.items())
    longest = max(switched, key=lambda each: each.pause_ms)
    text = f"{text}. Sessions: {ways}; longest pause {longest.pause_ms:.1f} ms, of it {longest.held_ms:.1f} ms held"
    if longest.rounds:
        text += f", after {longest.rounds} copies ahead"
    if longest.tail_positions:
        text += f"; its last {longest.tail_positions} positions were computed again with the first frame"
    return text
