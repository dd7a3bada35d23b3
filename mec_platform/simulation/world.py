"""The true state of nodes and links at any time, from a scenario, its traces and its events. Nothing here is an estimate.

Counterpart: `observations` says what members would measure of it, and only that is what decisions see.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.scenario.scenario import (
    DeploymentSpec,
    EventSpec,
    GatewaySpec,
    LinkSpec,
    NodeSpec,
    Scenario,
    node_names,
)
from mec_platform.scenario.snapshots import model_shape, node_capacity
from mec_platform.simulation.machines import Seat
from mec_platform.simulation.series import Series

LEAST_CPU_SHARE = 0.02
"""What is left to a deployment on a node that others keep busy: an operating system starves nobody altogether."""


@dataclass(frozen=True, slots=True)
class LinkSeries:
    """What traces say of one link of the scenario; None where it has no trace of that kind.

    `radio` is what the radio network knows of the device whose link it is, in order of time.
    """

    round_trip_s: Series | None = None
    bytes_per_s: Series | None = None
    radio: tuple[RadioMeasurement, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberState:
    """A node or a gateway at one time; of gateways only `silent` and `alive` mean something."""

    alive: bool = True
    silent: bool = False
    trusted: bool = True
    cpu_share: float = 1.0


@dataclass(frozen=True, slots=True)
class LinkState:
    """One direction of a link at one time."""

    bytes_per_s: float
    round_trip_s: float


class World:
    """Ask it; it never changes. `series` belongs to `scenario.links`, by index."""

    def __init__(self, scenario: Scenario, series: Mapping[int, LinkSeries]) -> None:
        self.scenario = scenario
        self.node_specs = {name: spec for spec in scenario.nodes for name in node_names(spec)}
        self.gateway_specs = {spec.name: spec for spec in scenario.gateways}
        self.machines = {machine.name: machine for machine in scenario.machines}
        self.seats = {
            name: Seat(spec.machine, spec.threads, spec.frame_us / 1e6) for name, spec in self.node_specs.items()
        } | {name: Seat(spec.machine, 1, spec.frame_us / 1e6) for name, spec in self.gateway_specs.items()}
        self._series = series
        self._links: dict[tuple[str, str], tuple[LinkSpec, LinkSeries, tuple[EventSpec, ...]] | None] = {}
        self._index_links()
        self._timelines = {
            name: self._timeline(name) for name in (*sorted(self.node_specs), *sorted(self.gateway_specs))
        }
        self.radio = self._radio()
        self._capacities: dict[tuple[str, str], NodeCapacity] = {}
        self._change_times: dict[str, tuple[float, ...]] = {}
        self._nodes: dict[str, tuple[str, ...]] = {}
        self._shapes: dict[str, ModelShape] = {}
        nodes_join = (spec.joins_s for spec in scenario.nodes)
        ends = (event.until_s for event in scenario.events if event.until_s is not None)
        self.change_times = tuple(
            sorted({t for t in (*nodes_join, *(event.at_s for event in scenario.events), *ends) if t > 0})
        )

    def with_scenario(self, scenario: Scenario) -> World:
        """Another scenario over the same traces: its first links must be those of this one."""
        return World(scenario, self._series)

    def spec(self, member: str) -> NodeSpec | GatewaySpec:
        """What the scenario says of a member."""
        return self.node_specs.get(member) or self.gateway_specs[member]

    def nodes_of(self, deployment: DeploymentSpec) -> tuple[str, ...]:
        """Nodes that can serve a deployment, sooner or later."""
        if deployment.name not in self._nodes:
            self._nodes[deployment.name] = tuple(
                name for name, spec in self.node_specs.items() if not spec.models or deployment.name in spec.models
            )
        return self._nodes[deployment.name]

    def gateways_of(self, deployment: DeploymentSpec) -> tuple[str, ...]:
        """Where its requests come in."""
        return deployment.gateways or tuple(self.gateway_specs)

    def change_times_of(self, deployment: DeploymentSpec) -> tuple[float, ...]:
        """Times at which an event changes something of a deployment's members or links."""
        if deployment.name not in self._change_times:
            members = {*self.nodes_of(deployment), *self.gateways_of(deployment), "*"}
            members |= {self.spec(name).site for name in members - {"*"}} - {""}
            events = [e for e in self.scenario.events if e.node in members or {e.source, e.target} & members]
            times = {t for event in events for t in (event.at_s, event.until_s) if t is not None}
            times |= {self.node_specs[name].joins_s for name in self.nodes_of(deployment)}
            self._change_times[deployment.name] = tuple(sorted(times))
        return self._change_times[deployment.name]

    def lives(self, name: str, at_s: float) -> int:
        """How many times a node has died and come back by then."""
        starts, states = self._timelines[name]
        seen = states[: bisect_right(starts, max(at_s, 0.0))]
        return sum(not before.alive and after.alive for before, after in pairwise(seen))

    def member(self, name: str, at_s: float) -> MemberState:
        """A node or a gateway at that time."""
        starts, states = self._timelines[name]
        return states[bisect_right(starts, max(at_s, 0.0)) - 1]

    def shape(self, deployment: DeploymentSpec) -> ModelShape:
        """The deployment's model."""
        if deployment.name not in self._shapes:
            self._shapes[deployment.name] = model_shape(deployment.name, deployment.model)
        return self._shapes[deployment.name]

    def node(self, name: str, deployment: DeploymentSpec, at_s: float, taken: float = 0.0) -> NodeCapacity:
        """A node as it really is; `taken` is the share of its compute that other deployments use."""
        key = (name, deployment.name)
        if key not in self._capacities:
            self._capacities[key] = node_capacity(self.node_specs[name], name, deployment)
        state, known = self.member(name, at_s), self._capacities[key]
        share = max(state.cpu_share * (1 - taken), LEAST_CPU_SHARE)
        if share == 1.0 and state.trusted == known.trusted:
            return known
        return replace(
            known,
            trusted=state.trusted,
            block_time_s=known.block_time_s / share,
            head_time_s=known.head_time_s / share,
            prefill_block_time_s_per_row=known.prefill_block_time_s_per_row / share,
            profile_ratio=1 / share,
            busy_share=min(taken, 1.0),
        )

    def link(self, source: str, target: str, at_s: float) -> LinkState | None:
        """One direction between two members, or None where the scenario says nothing of it."""
        found = self._link(source, target)
        if found is None:
            return None
        spec, series, events = found
        rate = spec.mbit_per_s * 1e6 / 8 if series.bytes_per_s is None else series.bytes_per_s.at(at_s)
        trip = spec.round_trip_ms / 1e3 if series.round_trip_s is None else series.round_trip_s.at(at_s)
        for event in events:
            if event.at_s <= at_s < (inf if event.until_s is None else event.until_s):
                rate = rate if event.mbit_per_s is None else event.mbit_per_s * 1e6 / 8
                trip = trip if event.round_trip_ms is None else event.round_trip_ms / 1e3
        return LinkState(rate, trip)

    def link_series(self, source: str, target: str) -> LinkSeries | None:
        """The traces of a link between two members."""
        found = self._link(source, target)
        return None if found is None else found[1]

    def next_link_change_s(self, source: str, target: str, at_s: float) -> float:
        """When that direction changes next, after `at_s`."""
        found = self._link(source, target)
        if found is None:
            return inf
        _, series, events = found
        times = [each.next_change_s(at_s) for each in (series.round_trip_s, series.bytes_per_s) if each is not None]
        times += [t for event in events for t in (event.at_s, event.until_s) if t is not None and t > at_s]
        return min(times, default=inf)

    def snapshot(
        self,
        deployment: DeploymentSpec,
        at_s: float,
        names: Iterable[str],
        gateways: tuple[GatewayCapacity, ...],
        plan: SplitPlan | None = None,
        taken: Mapping[str, float] | None = None,
    ) -> Snapshot:
        """The truth in the form of what decisions see, for nodes `names` and the links among them and `gateways`."""
        shares = taken or {}
        alive = [name for name in names if self.member(name, at_s).alive]
        members = [*alive, *(gateway.name for gateway in gateways)]
        links = []
        for source in members:
            for target in members:
                state = self.link(source, target, at_s) if source != target else None
                if state is not None:
                    links.append(LinkCapacity(source, target, state.bytes_per_s, state.round_trip_s))
        return Snapshot(
            now_s=at_s,
            model=self.shape(deployment),
            nodes=tuple(self.node(name, deployment, at_s, shares.get(name, 0.0)) for name in sorted(alive)),
            gateways=gateways,
            links=tuple(links),
            plan=plan,
            lost_nodes=frozenset(() if plan is None else (n for n in plan.members if n not in alive)),
        )

    def transfer_end_s(self, source: str, target: str, size_bytes: float, start_s: float) -> float:
        """When so many bytes that leave at `start_s` have arrived, over a link whose rate changes on the way."""
        at_s, left = start_s, size_bytes
        while True:
            state = self.link(source, target, at_s) or DEFAULT_LINK
            rate, until_s = max(state.bytes_per_s, 1.0), self.next_link_change_s(source, target, at_s)
            if left <= rate * (until_s - at_s):
                sent_s = at_s + left / rate
                return sent_s + (self.link(source, target, sent_s) or DEFAULT_LINK).round_trip_s / 2
            left -= rate * (until_s - at_s)
            at_s = until_s

    def _radio(self) -> dict[str, tuple[RadioMeasurement, ...]]:
        """What the radio network knows, by device: that of the first link with a radio trace that the device is at."""
        found: dict[str, tuple[RadioMeasurement, ...]] = {}
        for index, link in enumerate(self.scenario.links):
            rows = self._series.get(index, LinkSeries()).radio
            for end in (link.source, link.target):
                spec = self.node_specs.get(end) or self.gateway_specs.get(end)
                if rows and spec is not None and spec.ue:
                    found.setdefault(spec.ue, rows)
        return found

    def _timeline(self, name: str) -> tuple[tuple[float, ...], tuple[MemberState, ...]]:
        spec = self.spec(name)
        joins_s = spec.joins_s if isinstance(spec, NodeSpec) else 0.0
        base = MemberState(trusted=spec.trusted if isinstance(spec, NodeSpec) else True)
        events = [event for event in self.scenario.events if event.node in (name, "*")]
        ends = (event.until_s for event in events if event.until_s is not None)
        starts = sorted({0.0, joins_s, *(event.at_s for event in events), *ends})
        states = []
        for at_s in starts:
            state = replace(base, alive=at_s >= joins_s)
            for event in events:
                if event.at_s <= at_s < (inf if event.until_s is None else event.until_s):
                    state = MemberState(
                        alive=state.alive and not event.lost,
                        silent=state.silent or event.silent,
                        trusted=state.trusted if event.trusted is None else event.trusted,
                        cpu_share=state.cpu_share if event.cpu_share is None else event.cpu_share,
                    )
            states.append(state)
        return tuple(starts), tuple(states)

    def _link(self, source: str, target: str) -> tuple[LinkSpec, LinkSeries, tuple[EventSpec, ...]] | None:
        key = (source, target)
        if key not in self._links:
            self._links[key] = self._find_link({source, "*"}, {target, "*"}) or self._find_link(
                {self.spec(source).site} - {""}, {self.spec(target).site} - {""}
            )
        return self._links[key]

    def _find_link(
        self, sources: set[str], targets: set[str]
    ) -> tuple[LinkSpec, LinkSeries, tuple[EventSpec, ...]] | None:
        """The last entry of the scenario for that direction, as later entries win."""
        ends = [(one, other) for one in sources for other in targets]
        index = max((self._entries[pair] for pair in ends if pair in self._entries), default=None)
        if index is None:
            return None
        events = sorted({number for pair in ends for number in self._link_events.get(pair, ())})
        entry, series = self.scenario.links[index], self._series.get(index, LinkSeries())
        return entry, series, tuple(self.scenario.events[number] for number in events)

    def _index_links(self) -> None:
        """By direction: the last entry that names it, and the events that do."""
        self._entries: dict[tuple[str, str], int] = {}
        for index, spec in enumerate(self.scenario.links):
            self._entries[spec.source, spec.target] = index
            if not spec.one_way:
                self._entries[spec.target, spec.source] = index
        self._link_events: dict[tuple[str, str], list[int]] = {}
        for number, event in enumerate(self.scenario.events):
            for pair in ((event.source, event.target), (event.target, event.source)) if event.source else ():
                self._link_events.setdefault(pair, []).append(number)


_UNMEASURED = PlanSettings().default_link
DEFAULT_LINK = LinkState(_UNMEASURED.bytes_per_s, _UNMEASURED.round_trip_s)
"""What a pair of members without an entry has: as decisions assume of what nobody has measured."""
