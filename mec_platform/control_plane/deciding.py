"""Between a deployment's control loop, which asks for decisions and tells them, and whoever makes them for all deployments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import Decision
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.domain.capacity import Snapshot


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """A decision about a chain and when it was made (seconds of the platform's monotonic clock)."""

    at_s: float
    decision: Decision
    chain: int = 0


class Decider(Protocol):
    """What a loop needs of all deployments: they share nodes, and have policies of their own."""

    def settings(self, model: str) -> ControlSettings:
        """The policy in force of a deployment."""

    def decide(self, model: str, seen: Snapshot, state: PolicyState) -> tuple[Decision, PolicyState, Snapshot]:
        """A decision about a chain of a deployment, what to remember, and the view that it was made from."""
