"""Monitoring & Capacity Profiling, the pure half: member reports in, snapshots out.

Counterpart: the `CapacityProfiler` service turns messages into the events below and stamps them with the platform's
clock. This module keeps no clock and decides nothing; it says who is alive and what they can do.

State changes through `apply_report` and `apply_failure` only. A member is alive while its reports arrive; it is gone
when it fell silent, left in order, or another member reported its failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal

from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan

Role = Literal["node", "gateway"]


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """How long silence is forgiven and how measurements are smoothed."""

    # Members report every second; three in a row must get lost before one counts as gone.
    report_timeout_s: float = 3.0
    # A report that was on its way when the failure was reported arrives within this; a later one proves life.
    failure_grace_s: float = 1.0
    # After a start of the platform the members of the recorded plan have this long to find it again: a report period
    # plus the longest reconnect back-off that is usual for gRPC within a site.
    unseen_grace_s: float = 10.0
    # Median of three: one outlier never shows, a real change shows with its second report.
    window: int = 3
    # A member that is gone this long is forgotten, so that names that come and go do not pile up.
    forget_after_s: float = 3600.0
    # Until a node has measured itself and no other node has either: one block of a small model on two cores.
    default_block_time_s: float = 0.001


@dataclass(frozen=True, slots=True)
class MemberReported:
    """A member's report arrived. `links` are (peer, bytes per second, round trip in seconds), measured by the member.

    Measurements that are zero, negative or not finite mean "not measured".
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
    links: tuple[tuple[str, float, float], ...] = ()
    leaving: bool = False
    profile: CostProfile | None = None
    profile_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """Another member saw this one fail."""

    at_s: float
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The report was not taken; `reason` is for the sender."""

    reason: str


Samples = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of one member: its latest report and the recent samples of what it measured, oldest first."""

    latest: MemberReported
    block_times: Samples = ()
    head_times: Samples = ()
    prefill_times: Samples = ()
    profile_ratios: Samples = ()
    links: Mapping[str, tuple[Samples, Samples]] = field(default_factory=dict)  # by peer: bytes per s, round trips
    gone_since_s: float | None = None
    gone_reason: str = ""


@dataclass(frozen=True, slots=True)
class MonitoringState:
    """All members seen lately, by name. `started_s` is when the platform began to listen."""

    started_s: float
    members: Mapping[str, Member] = field(default_factory=dict)
    model: ModelShape | None = None


def apply_report(
    state: MonitoringState, event: MemberReported, settings: MonitoringSettings
) -> MonitoringState | Refusal:
    """Takes one report in, or says why not.

    Refused: a second process under the name of a live member, and a model other than the one that live nodes serve.
    Ignored (state unchanged): a report that was still on its way when its sender failed or left.
    """
    known = state.members.get(event.name)
    same_process = known is not None and known.latest.incarnation == event.incarnation
    if known is not None and not same_process and is_alive(known, event.at_s, settings):
        return Refusal(
            f"{event.name} is taken: another process of that name at {known.latest.address} reported "
            f"{event.at_s - known.latest.at_s:.1f} s ago; give this one another name or stop the other"
        )
    refusal = _model_conflict(state, event, settings)
    if refusal is not None:
        return refusal
    if known is not None and same_process:
        gone = known.gone_since_s
        if event.at_s < known.latest.at_s or (gone is not None and event.at_s <= gone + settings.failure_grace_s):
            return state
    member = _observe(known if same_process else None, event, settings.window)
    if event.leaving:
        member = replace(member, gone_since_s=event.at_s, gone_reason="left in order")
    model = event.model if event.role == "node" and event.model is not None else state.model
    oldest = event.at_s - settings.forget_after_s
    others = {name: m for name, m in state.members.items() if m.latest.at_s >= oldest}
    return replace(state, members={**others, event.name: member}, model=model)


def apply_failure(state: MonitoringState, event: MemberFailed) -> MonitoringState:
    """Marks a member as gone; members that nobody knows are ignored. Reports that keep coming heal a mistake."""
    member = state.members.get(event.name)
    if member is None or event.at_s < member.latest.at_s:
        return state
    member = replace(member, gone_since_s=event.at_s, gone_reason=event.reason)
    return replace(state, members={**state.members, event.name: member})


def is_alive(member: Member, now_s: float, settings: MonitoringSettings) -> bool:
    """Whether the member counts at `now_s`."""
    return member.gone_since_s is None and now_s - member.latest.at_s <= settings.report_timeout_s


def why_gone(state: MonitoringState, name: str, now_s: float) -> str:
    """For people: why a member that is not alive is gone."""
    member = state.members.get(name)
    if member is None:
        return f"{name} has not reported since the platform started"
    if member.gone_since_s is not None:
        return f"{name} is gone since {now_s - member.gone_since_s:.1f} s: {member.gone_reason}"
    return f"{name} has been silent for {now_s - member.latest.at_s:.1f} s"


def snapshot(state: MonitoringState, now_s: float, plan: SplitPlan | None, settings: MonitoringSettings) -> Snapshot:
    """Everything that a decision may look at: live members in alphabetical order, links between them, lost nodes.

    A node of the plan that has not been seen since the platform started is lost after `unseen_grace_s` only.
    """
    alive = {name: m for name, m in sorted(state.members.items()) if is_alive(m, now_s, settings)}
    nodes = [member for member in alive.values() if member.latest.role == "node"]
    gateways = [member.latest for member in alive.values() if member.latest.role == "gateway"]
    unseen_are_lost = now_s - state.started_s > settings.unseen_grace_s
    in_plan = () if plan is None else plan.nodes
    lost = frozenset(n for n in in_plan if n not in alive and (n in state.members or unseen_are_lost))
    return Snapshot(
        now_s=now_s,
        model=state.model,
        nodes=_node_capacities(nodes, settings),
        gateways=tuple(
            GatewayCapacity(g.name, g.address, g.sessions, g.context_positions, g.tokens_per_s) for g in gateways
        ),
        links=tuple(
            LinkCapacity(name, peer, _median(speeds), _median(trips))
            for name, member in alive.items()
            for peer, (speeds, trips) in sorted(member.links.items())
            if peer in alive and peer != name and speeds and trips
        ),
        plan=plan,
        lost_nodes=lost,
    )


def _model_conflict(state: MonitoringState, event: MemberReported, settings: MonitoringSettings) -> Refusal | None:
    """Stages of two models do not fit together: the first model stays as long as another live node serves it."""
    if event.role != "node" or event.model is None or event.model == state.model:
        return None
    for name, member in state.members.items():
        serves = member.latest.role == "node" and member.latest.model is not None
        if serves and name != event.name and is_alive(member, event.at_s, settings) and state.model is not None:
            return Refusal(
                f"{event.name} serves model {event.model.name} with another shape than {state.model.name}, which "
                f"{name} serves; start it with the same model file"
            )
    return None


def _observe(before: Member | None, event: MemberReported, window: int) -> Member:
    """The member with this report taken in and any earlier failure healed."""
    block, head, prefill = (before.block_times, before.head_times, before.prefill_times) if before else ((), (), ())
    links = dict(before.links) if before else {}
    for peer, bytes_per_s, round_trip_s in event.links:
        speeds, trips = links.get(peer, ((), ()))
        links[peer] = (_with_sample(speeds, bytes_per_s, window), _with_sample(trips, round_trip_s, window))
    return Member(
        latest=event,
        block_times=_with_sample(block, event.block_time_s, window),
        head_times=_with_sample(head, event.head_time_s, window),
        prefill_times=_with_sample(prefill, event.prefill_block_time_s_per_row, window),
        profile_ratios=_with_sample(before.profile_ratios if before else (), event.profile_ratio, window),
        links=links,
    )


def _with_sample(samples: Samples, value: float, window: int) -> Samples:
    return (*samples, value)[-window:] if isfinite(value) and value > 0 else samples


def _median(samples: Samples) -> float:
    """The median; of two samples the older one, so that the second can still turn out to be an outlier."""
    if len(samples) == 2:
        return samples[0]
    return sorted(samples)[len(samples) // 2]


def _node_capacities(nodes: list[Member], settings: MonitoringSettings) -> tuple[NodeCapacity, ...]:
    """Nodes with filtered times. A node that has not measured itself is taken for the slowest that has."""

    def times(of: Callable[[Member], Samples], fallback: float) -> list[float]:
        slowest = max((_median(of(node)) for node in nodes if of(node)), default=fallback)
        return [_median(of(node)) if of(node) else slowest for node in nodes]

    block = times(lambda node: node.block_times, settings.default_block_time_s)
    head = times(lambda node: node.head_times, settings.default_block_time_s)
    prefill = times(lambda node: node.prefill_times, settings.default_block_time_s)
    return tuple(
        NodeCapacity(
            name=node.latest.name,
            address=node.latest.address,
            trusted=node.latest.trusted,
            hardware=node.latest.hardware,
            memory_bytes=node.latest.memory_bytes,
            block_time_s=block[index],
            head_time_s=head[index],
            prefill_block_time_s_per_row=prefill[index],
            sessions=node.latest.sessions,
            profile=node.latest.profile,
            profile_ratio=_median(node.profile_ratios) if node.profile_ratios else 1.0,
        )
        for index, node in enumerate(nodes)
    )
