"""What the policy remembers from decision to decision. Plain values: a journal keeps them, a replay begins with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mec_platform.control_plane.orchestrator.decisions import PlanOptions
from mec_platform.domain.capacity import Snapshot


@dataclass(frozen=True, slots=True)
class Baseline:
    """Measurements of what a plan uses, from when it was first seen as the committed plan.

    `links` are (source, target, bytes per second), `block_times` seconds by node, `trips` (source, target, round trip in
    seconds).
    """

    epoch: int
    links: tuple[tuple[str, str, float], ...]
    block_times: Mapping[str, float]
    trips: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What it has cost so far that another plan is better: seconds of waiting, up to `at_s`; `normal_ms` is the least that the
    plan of `epoch` has cost since it was committed."""

    epoch: int
    at_s: float
    lost_s: float
    normal_ms: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """A change that was decided on while `parent_epoch` was committed and `chains` replicas were there.

    `pause_ms` and `moved_bytes` are what it was thought to take; `demand` is how many sessions there were or waited. One
    that is `of_standbys` leaves the stages as they are.
    """

    parent_epoch: int
    at_s: float
    failures_before: int
    nodes: frozenset[str]
    pause_ms: float = 0.0
    moved_bytes: float = 0.0
    chains: int = 0
    demand: int = 0
    of_standbys: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a committed change took of the budget."""

    at_s: float
    pause_ms: float
    moved_bytes: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The world that plan options were last computed for, so that they need not be computed again while it stays.

    `settings` are compared only.
    """

    snapshot: Snapshot
    settings: object
    options: PlanOptions


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Starts empty, also after a restart of the platform.

    `changes_s` are the times of recent committed changes (the first plan is none), `spent` what they took.
    `known_nodes` are the live nodes that were weighed already, `met_nodes` those of other chains that were ever live.

    Another plan has been better since `better_since_s`, and `trouble` is what that has cost; another chain has been broken
    since `broken_since_s`; demand has been above what the chains carry since `over_since_s`, or so far below that a chain
    or a limit is not needed since `under_since_s`. `session_limit` is in force at the gateways; `shed_at` is how many
    sessions the chains carried when it was set. `chain_demands` is for every replica that was added how many sessions
    there were then.

    `marks` is the policy as it was seen last, `policy_change` what of it has changed and was not weighed yet. `seen` is
    a memory that saves work and changes no decision.
    """

    baseline: Baseline | None = None
    changes_s: tuple[float, ...] = ()
    spent: tuple[Spent, ...] = ()
    known_nodes: frozenset[str] = frozenset()
    met_nodes: frozenset[str] = frozenset()
    attempt: Attempt | None = None
    better_since_s: float | None = None
    trouble: Trouble | None = None
    broken_since_s: float | None = None
    over_since_s: float | None = None
    under_since_s: float | None = None
    session_limit: int | None = None
    shed_at: int | None = None
    chain_demands: tuple[int, ...] = ()
    marks: tuple[tuple[str, str], ...] | None = None
    policy_change: str = ""
    seen: Seen | None = None
