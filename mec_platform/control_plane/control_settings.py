"""Settings of all decisions about one deployment."""

from __future__ import annotations

from dataclasses import dataclass, field

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.split_revision.settings import PlanSettings


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What makes a plan good, when to change it, and whose wishes count first: a higher `priority` is served first."""

    planning: PlanSettings = field(default_factory=PlanSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    priority: int = 0
