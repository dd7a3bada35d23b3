"""What a token takes where members of a chain share the cores of a machine.

The cost model, which plans are chosen by, takes every node for a machine of its own: it adds up over stages, and that is
what makes its search exact. Here the same stages are customers of the same cores. Sessions that wait for a token form a
closed queueing network: each has one token under way, which needs so many core-seconds of each machine and the rest of
its time of none. It is solved by exact mean value analysis (Reiser and Lavenberg, J. ACM 27, 1980); a machine of c
cores is one core that is c times as fast, and a delay of the other c - 1 (Seidmann, Schweitzer and Shalev-Oren, 1987).
With one session a token takes what it takes alone; with many, the core-seconds of all of them over the cores. Threads of
others that compete for the cores all the time are customers that never leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mec_platform.control_plane.split_revision.cost_model import PlanCost
from mec_platform.domain.split_plan import Stage
from mec_platform.scenario.scenario import MachineSpec


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a member computes: a machine, how many of its cores at a time, and core-seconds that each frame takes besides."""

    machine: str
    threads: int = 1
    frame_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one token needs of a machine; `others` are threads of others that compete for it all the time."""

    cores: float
    core_s: float
    others: float = 0.0


@dataclass(frozen=True, slots=True)
class CrowdedToken:
    """A token among those of all sessions: its time, and what each stage computed for it."""

    token_s: float
    stage_s: tuple[float, ...]


def crowded_token(
    stages: Sequence[Stage],
    gateway: str,
    sessions: int,
    cost_of: Callable[[int], PlanCost],
    seats: Mapping[str, Seat],
    machines: Mapping[str, MachineSpec],
) -> CrowdedToken:
    """A token's time when so many sessions are served by this chain and gateway.

    `cost_of` prices a step of so many rows; `machines` are those whose cores are counted. Members without a seat,
    or on another machine, have cores of their own.
    """
    alone = cost_of(1)
    rows = rows_together(sessions, alone)
    cost = alone if rows == 1 else cost_of(rows)
    stage_s = tuple(ms / 1e3 / rows for ms in cost.stage_ms)
    needed: dict[str, float] = {}
    for name, own_s in [(gateway, 0.0), *((s.node, own_s) for s, own_s in zip(stages, stage_s, strict=True))]:
        seat = seats.get(name)
        if seat is not None and seat.machine in machines:
            needed[seat.machine] = needed.get(seat.machine, 0.0) + own_s * seat.threads + seat.frame_s
    work = [Work(machines[name].cores, core_s, machines[name].others) for name, core_s in needed.items()]
    return CrowdedToken(shared_token_s(cost.latency_ms / 1e3, work, sessions), stage_s)


def rows_together(sessions: int, alone: PlanCost) -> int:
    """How many sessions' rows are at one stage on average, and so go as one batch: by the share of its time that a token is
    at each stage, if all of them wandered independently.
    """
    share = alone.compute_ms / max(alone.latency_ms, 1e-9) / max(len(alone.stage_ms), 1)
    return max(1, round(sessions * share))


def shared_token_s(alone_s: float, work: Sequence[Work], sessions: int) -> float:
    """Seconds of a token that takes `alone_s` by itself, with so many sessions on the same machines."""
    delay_s = max(alone_s - sum(each.core_s for each in work), 0.0)
    delay_s += sum(each.core_s * (1 - 1 / max(each.cores, 1.0)) for each in work)
    served_s = [each.core_s / each.cores for each in work]
    waiting = [0.0] * len(work)
    token_s = alone_s
    for number in range(1, max(sessions, 1) + 1):
        stays_s = [
            own_s * (1 + each.others + before) for each, own_s, before in zip(work, served_s, waiting, strict=True)
        ]
        token_s = delay_s + sum(stays_s)
        waiting = [number * stay_s / token_s for stay_s in stays_s] if token_s > 0 else waiting
    return token_s


def others_on(alone_s: float, work: Work, token_s: float) -> float:
    """How many threads of others compete for a machine, judged by a lone token that took `token_s` there."""
    undisturbed_s = shared_token_s(alone_s, [work], 1)
    return max(token_s - undisturbed_s, 0.0) / (work.core_s / work.cores) if work.core_s > 0 else 0.0
