"""What happens to monitoring, as values: the gRPC service makes them of messages, a simulation of its world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan

Role = Literal["node", "gateway"]


class LinkReading(NamedTuple):
    """What the sender of a report measured of its link to `peer` since its last report, `age_s` before this one.

    A rate or round trip of 0 was not measured.
    """

    peer: str
    bytes_per_s: float
    round_trip_s: float
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberReported:
    """A member's report arrived. A plain (peer, bytes per second, round trip in seconds) in `links` is a fresh reading.

    Measurements that are zero, negative or not finite mean "not measured". `ue` names the radio device that the member is
    behind, "" where there is none. Fields from `site` on mean what they mean in `NodeCapacity` and `GatewayCapacity`;
    a `weights_bytes_per_s` of 0 was not measured. `stage_epochs` are of the stages that a node holds.
    """

    at_s: float
    role: Role
    name: str
    address: str
    incarnation: str
    trusted: bool
    hardware: HardwareTarget
    model: ModelShape | None
    memory_bytes: int
    block_time_s: float
    head_time_s: float
    prefill_block_time_s_per_row: float
    sessions: int
    tokens_per_s: float
    context_positions: int
    links: tuple[LinkReading | tuple[str, float, float], ...] = ()
    leaving: bool = False
    profile: CostProfile | None = None
    profile_ratio: float = 0.0
    site: str = ""
    machine: str = ""
    group: str = ""
    ue: str = ""
    runs_model: bool = True
    local_blocks: frozenset[int] | None = None
    weights_bytes_per_s: float = 0.0
    busy_share: float = 0.0
    queued: int = 0
    token_s: float = 0.0
    first_token_s: float = 0.0
    committed_epoch: int = 0
    stage_epochs: tuple[int, ...] = ()

    def lacks_stage(self, plan: SplitPlan) -> bool:
        """Whether it is a node that knows the plan's epoch and holds no stage of it: a process that was started again."""
        return self.committed_epoch >= plan.epoch and plan.epoch not in self.stage_epochs


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """Another member, or the platform itself, saw this one fail; `reason` says how."""

    at_s: float
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The report was not taken; `reason` is for the sender."""

    reason: str
