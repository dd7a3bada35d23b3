"""What is remembered of members, and the one place that takes a report's measurements in.

Everything is immutable and shared: a report that says nothing new leaves `Member.capacity`, `gateway`, `links` and `fresh`
the same objects, so that snapshots of an unchanged world consist of the same objects too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import NamedTuple

from mec_platform.control_plane.monitoring.events import MemberReported
from mec_platform.control_plane.monitoring.radio_forecast import RadioState
from mec_platform.control_plane.monitoring.series import Series, add_sample, confidence
from mec_platform.control_plane.monitoring.settings import MonitoringSettings, SeriesSettings
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity
from mec_platform.domain.model_shape import ModelShape

_BUSY_STEPS = 20
"""A busy share is told in twentieths: what differs by less is the same to every decision."""

_IDLE = 1e-3
"""Of a busy share 0 is a measurement too."""

PEER_FORGOTTEN_S = 600.0

_WEIGHTS_BYTES_PER_S = 12.5e6
"""Until a node has fetched weights: a network of 100 Mbit/s."""


class Link(NamedTuple):
    """One direction: what is known of its rate and of its round trip, and both as a capacity where both are known."""

    rate: Series | None
    trip: Series | None
    capacity: LinkCapacity | None

    @property
    def latest_s(self) -> float:
        """When anything was measured of it last."""
        return max((series.at_s for series in (self.rate, self.trip) if series is not None), default=-float("inf"))


class Times(NamedTuple):
    """Series of what a node measures of itself."""

    block: Series | None = None
    head: Series | None = None
    prefill: Series | None = None
    ratio: Series | None = None
    busy: Series | None = None


_UNKNOWN = Link(None, None, None)


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its latest report and what its recent ones tell.

    `capacity` is of a node, with times of 0 where it has not measured itself; `gateway` is of a gateway. `fresh` are
    `links`, which are in order of peers, as capacities at the age of 0; `oldest_sample_s` is the oldest of their latest
    samples.
    """

    latest: MemberReported
    times: Times = Times()  # noqa: RUF009 - a tuple
    links: Mapping[str, Link] = field(default_factory=dict)
    fresh: tuple[LinkCapacity, ...] = ()
    oldest_sample_s: float = 0.0
    capacity: NodeCapacity | None = None
    gateway: GatewayCapacity | None = None
    gone_since_s: float | None = None
    gone_reason: str = ""


@dataclass(slots=True)
class SnapshotMemo:
    """What the last snapshots were made of and made to, by name; `snapshots` fills it and looks things up by identity.

    It is no state: without it every snapshot has the same values, made anew.
    """

    nodes: dict[str, tuple[NodeCapacity, tuple[float, ...], NodeCapacity]] = field(default_factory=dict)
    links: dict[tuple[str, str], tuple[LinkCapacity, float, float, LinkCapacity]] = field(default_factory=dict)
    fresh: dict[str, tuple[tuple[LinkCapacity, ...], frozenset[str], tuple[LinkCapacity, ...]]] = field(
        default_factory=dict
    )
    present: tuple[str, ...] = ()
    there: frozenset[str] = frozenset()
    known_nodes: tuple[NodeCapacity, ...] = ()
    known_gateways: tuple[GatewayCapacity, ...] = ()
    known_links: tuple[LinkCapacity, ...] = ()
    site_basis: tuple[tuple[LinkCapacity, ...], Mapping[str, str]] = ((), {})
    site_links: tuple[LinkCapacity, ...] = ()

    def see(self, present: tuple[str, ...]) -> None:
        """Others are present than before. What is remembered of those that left is let go when it is more than the rest."""
        self.present, self.there = present, frozenset(present)
        if len(self.nodes) + len(self.fresh) > 4 * len(present):
            for of_name in (self.nodes, self.fresh):
                for name in of_name.keys() - self.there:
                    del of_name[name]
            for ends in [ends for ends in self.links if not self.there.issuperset(ends)]:
                del self.links[ends]


@dataclass(frozen=True, slots=True)
class MonitoringState:
    """All members seen lately, by name. `started_s` is when the platform began to listen.

    Members that were last heard from `silence_from_s` on are forgiven until `forgiven_until_s`: they fell silent together,
    and the first of them have come back. `radio` is what is known of UEs.
    """

    started_s: float
    members: Mapping[str, Member] = field(default_factory=dict)
    model: ModelShape | None = None
    silence_from_s: float = 0.0
    forgiven_until_s: float = -float("inf")
    forget_at_s: float = -float("inf")
    radio: RadioState = field(default_factory=RadioState)
    memo: SnapshotMemo = field(default_factory=SnapshotMemo, compare=False, repr=False)


def is_alive(member: Member, now_s: float, settings: MonitoringSettings) -> bool:
    """Whether the member counts at `now_s`."""
    return member.gone_since_s is None and now_s - member.latest.at_s <= settings.report_timeout_s


def observe(before: Member | None, event: MemberReported, settings: SeriesSettings) -> Member:
    """The member with this report taken in and any earlier failure healed; `before` is None for a new process."""
    links: Mapping[str, Link] = {} if before is None else before.links
    fresh: tuple[LinkCapacity, ...] = () if before is None else before.fresh
    oldest_s = event.at_s if before is None else before.oldest_sample_s
    if event.links:
        links = _with_readings(links, event, settings)
        known = [link for link in links.values() if link.capacity is not None]
        oldest_s = min((min(link.rate.at_s, link.trip.at_s) for link in known if link.rate and link.trip), default=0.0)
        capacities = [link.capacity for link in known if link.capacity is not None]
        if not same_objects(capacities, fresh):
            fresh = tuple(capacities)
    if event.role == "gateway":
        known_gateway = None if before is None else before.gateway
        return Member(event, Times(), links, fresh, oldest_s, gateway=_gateway(event, known_gateway))
    times = _with_times(Times() if before is None else before.times, event, settings)
    capacity = _capacity(event, times, None if before is None else before.capacity)
    return Member(event, times, links, fresh, oldest_s, capacity)


def _with_times(times: Times, event: MemberReported, settings: SeriesSettings) -> Times:
    at_s = event.at_s
    return Times(
        add_sample(times.block, event.block_time_s, at_s, settings),
        add_sample(times.head, event.head_time_s, at_s, settings),
        add_sample(times.prefill, event.prefill_block_time_s_per_row, at_s, settings),
        add_sample(times.ratio, event.profile_ratio, at_s, settings),
        add_sample(times.busy, max(event.busy_share, _IDLE), at_s, settings),
    )


def _with_readings(links: Mapping[str, Link], event: MemberReported, settings: SeriesSettings) -> Mapping[str, Link]:
    """The links with a report's readings taken in, in order of peers."""
    after = dict(links)
    for reading in event.links:
        peer, bytes_per_s, round_trip_s = reading[:3]
        if peer == event.name:
            continue
        at_s = event.at_s - (reading[3] if len(reading) > 3 else 0.0)
        before = after.get(peer, _UNKNOWN)
        rate = add_sample(before.rate, bytes_per_s, at_s, settings)
        trip = add_sample(before.trip, round_trip_s, at_s, settings)
        after[peer] = Link(rate, trip, _link_capacity(event.name, peer, rate, trip, before, settings))
    if len(after) == len(links):
        return after
    # Names come and go: with a new peer, those that nothing was measured of for long are let go.
    oldest_s = event.at_s - PEER_FORGOTTEN_S
    return {peer: link for peer, link in sorted(after.items()) if link.latest_s >= oldest_s}


def _link_capacity(
    source: str, target: str, rate: Series | None, trip: Series | None, before: Link, settings: SeriesSettings
) -> LinkCapacity | None:
    """The link at the age of 0; the same object where both series tell what they told before."""
    if rate is None or trip is None:
        return None
    if before.rate is not None and before.trip is not None and rate.tells(before.rate) and trip.tells(before.trip):
        return before.capacity
    trust = min(confidence(rate, 0.0, settings), confidence(trip, 0.0, settings))
    return LinkCapacity(source, target, rate.level, trip.level, trust)


def same_objects(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether both consist of the same objects."""
    return len(one) == len(other) and all(map(is_, one, other))


def _capacity(event: MemberReported, times: Times, before: NodeCapacity | None) -> NodeCapacity:
    """The node as it is now; the same object where nothing that a decision looks at has changed."""
    weights_rate = _WEIGHTS_BYTES_PER_S if before is None else before.weights_bytes_per_s
    capacity = NodeCapacity(
        name=event.name,
        address=event.address,
        trusted=event.trusted,
        hardware=event.hardware,
        memory_bytes=event.memory_bytes,
        block_time_s=_level(times.block),
        head_time_s=_level(times.head),
        prefill_block_time_s_per_row=_level(times.prefill),
        sessions=event.sessions,
        profile=event.profile,
        profile_ratio=_level(times.ratio) or 1.0,
        site=event.site,
        machine=event.machine,
        group=event.group,
        runs_model=event.runs_model,
        local_blocks=event.local_blocks,
        weights_bytes_per_s=event.weights_bytes_per_s if event.weights_bytes_per_s > 0 else weights_rate,
        busy_share=round(_level(times.busy) * _BUSY_STEPS) / _BUSY_STEPS,
    )
    return before if before is not None and capacity == before else capacity


def _level(series: Series | None) -> float:
    """0 where nothing was measured."""
    return 0.0 if series is None else series.level


def _gateway(event: MemberReported, before: GatewayCapacity | None) -> GatewayCapacity:
    gateway = GatewayCapacity(
        name=event.name,
        address=event.address,
        sessions=event.sessions,
        context_positions=event.context_positions,
        tokens_per_s=event.tokens_per_s,
        site=event.site,
        queued=event.queued,
        token_s=event.token_s,
        first_token_s=event.first_token_s,
    )
    return before if before is not None and gateway == before else gateway
