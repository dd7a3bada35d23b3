"""What a run leaves behind: everything that reports, figures and golden files are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from mec_platform.domain.split_plan import Stage
from mec_platform.simulation.requests import Served
from mec_platform.simulation.service import TokenFlow


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision that differs in kind from the one before it, or that changes something."""

    at_s: float
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReconfigurationRecord:
    """A change that was carried out or came to nothing (`outcome`)."""

    decided_s: float
    ended_s: float
    kind: str
    trigger: str
    reason: str
    outcome: str
    stages: tuple[Stage, ...]
    pause_s: float
    moved_bytes: int
    weights_bytes: int
    replayed_tokens: int


@dataclass(frozen=True, slots=True)
class ForecastRecord:
    """A forecast of a link in use: for when, what it said, what it would have been to expect no change, and what came."""

    source: str
    target: str
    due_s: float
    forecast_s: float
    unchanged_s: float
    came_s: float


@dataclass(slots=True)
class DeploymentRecord:
    """One deployment in one run. `plans` are the plans in force with their times."""

    name: str
    served: list[Served] = field(default_factory=list)
    flows: list[TokenFlow] = field(default_factory=list)
    decisions: list[DecisionRecord] = field(default_factory=list)
    reconfigurations: list[ReconfigurationRecord] = field(default_factory=list)
    plans: list[tuple[float, tuple[Stage, ...]]] = field(default_factory=list)
    forecasts: list[ForecastRecord] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    exposed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One policy over the whole scenario. `busy_s` is how long each node computed; `ended_s` when the last token came."""

    policy: str
    duration_s: float
    ended_s: float
    deployments: tuple[DeploymentRecord, ...]
    busy_s: dict[str, float]
