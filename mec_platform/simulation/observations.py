"""What members would measure of the world and report; the real monitoring code makes estimates of it.

Counterpart: `world` is the truth. Reports take their way to the platform by a management path of constant delay; times in
reports are of the platform's clock, which is `CLOCK_S` ahead of the simulation's so that it never is negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import exp, floor

from mec_platform.control_plane.monitoring.estimates import (
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    apply_radio,
    apply_reports,
    snapshot,
)
from mec_platform.domain.capacity import GatewayCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.scenario.scenario import DeploymentSpec, GatewaySpec
from mec_platform.scenario.snapshots import SIMULATED_HARDWARE
from mec_platform.simulation.noise import normal, uniform
from mec_platform.simulation.service import Service
from mec_platform.simulation.world import World

CLOCK_S = 1000.0
"""What the platform's clock shows at the start of the simulation."""

MOST_REPORTS = 7
"""Of one member between two decisions; of earlier ones no sample would be left in any estimate."""

PROBE_TIMEOUT_S = 2.0
"""As in `peer_link`: a probe that takes longer tells nothing of the round trip, but that it takes so long at least."""


@dataclass(slots=True)
class Observer:
    """The platform's ears for one deployment. `listen` takes in all reports that have arrived by then."""

    world: World
    deployment: DeploymentSpec
    settings: MonitoringSettings
    heard_s: float
    state: MonitoringState = field(default_factory=lambda: MonitoringState(started_s=CLOCK_S))
    _phases: dict[str, float] = field(default_factory=dict)
    _radio_told: dict[str, int] = field(default_factory=dict)
    _probed: dict[str, int] = field(default_factory=dict)

    def listen(
        self, now_s: float, service: Service, taken: Mapping[str, float], held: Mapping[str, frozenset[int]]
    ) -> None:
        """Takes in the reports of all members since the last time, in the order in which they arrive, and what the radio
        network tells of devices.

        `taken` is the share of each node's compute that other deployments use, `held` are blocks that nodes have fetched.
        """
        self._listen_to_radio(now_s)
        due = sorted(self._due(now_s))
        loads = {load.name: load for load in service.gateway_loads()}
        reports = []
        for arrived_s, name, sent_s, number in due:
            state = self.world.member(name, sent_s)
            lost = uniform(self.world.scenario.seed, "lost report", name, number)
            if not state.alive or state.silent or lost < self.world.scenario.measurement.lost_share:
                continue
            if isinstance(self.world.spec(name), GatewaySpec):
                reports.append(self._gateway_report(name, sent_s, arrived_s, loads[name]))
            else:
                share, fetched = taken.get(name, 0.0), held.get(name, frozenset())
                reports.append(self._node_report(name, sent_s, arrived_s, service, share, fetched))
        self.state, _ = apply_reports(self.state, reports, self.settings)
        self.heard_s = now_s

    def estimate(self, now_s: float, plan: SplitPlan | None) -> Snapshot:
        """The world as decisions see it."""
        return snapshot(self.state, CLOCK_S + now_s, plan, self.settings)

    def _due(self, now_s: float) -> Iterator[tuple[float, str, float, int]]:
        """(arrival, member, sending, number) of every report that arrived since the last time.

        Where very many did, the last few of each member: estimates are made of no more samples than that. Where members
        measure less often than they report, the last one: the others tell nothing else.
        """
        measured = self.world.scenario.measurement
        for name in (*self.world.nodes_of(self.deployment), *self.world.gateways_of(self.deployment)):
            if name not in self._phases:
                self._phases[name] = uniform(self.world.scenario.seed, "phase", name) * measured.report_s
            offset = self._phases[name] + measured.delay_ms / 1e3
            last = floor((now_s - offset) / measured.report_s)
            first = floor((self.heard_s - offset) / measured.report_s) + 1
            most = MOST_REPORTS if measured.measured_every_s <= measured.report_s else 1
            for number in range(max(first, last - most + 1), last + 1):
                sent_s = number * measured.report_s + self._phases[name]
                yield sent_s + measured.delay_ms / 1e3, name, sent_s, number

    def _listen_to_radio(self, now_s: float) -> None:
        """A measurement is known once its round trip is over; a trace that has ended begins again."""
        for ue, rows in self.world.radio.items():
            period_s = rows[-1].at_s + 0.05
            number = self._radio_told.get(ue, 0)
            while True:
                turn, index = divmod(number, len(rows))
                row = rows[index]
                known_s = turn * period_s + row.at_s + (row.round_trip_s or 0.0)
                if known_s > now_s:
                    break
                self.state = apply_radio(self.state, replace(row, at_s=CLOCK_S + known_s, ue=ue), self.settings)
                number += 1
            self._radio_told[ue] = number

    def _gateway_report(self, name: str, sent_s: float, arrived_s: float, load: GatewayCapacity) -> MemberReported:
        spec = self.world.gateway_specs[name]
        return MemberReported(
            at_s=CLOCK_S + arrived_s,
            role="gateway",
            name=name,
            address="",
            incarnation=name,
            trusted=True,
            hardware=SIMULATED_HARDWARE,
            model=None,
            memory_bytes=0,
            block_time_s=0.0,
            head_time_s=0.0,
            prefill_block_time_s_per_row=0.0,
            sessions=load.sessions,
            tokens_per_s=load.tokens_per_s,
            context_positions=load.context_positions,
            links=tuple(self._links(name, sent_s)),
            site=spec.site,
            ue=spec.ue,
            queued=load.queued,
            token_s=load.token_s,
        )

    def _node_report(
        self, name: str, sent_s: float, arrived_s: float, service: Service, taken: float, held: frozenset[int]
    ) -> MemberReported:
        spec, node = self.world.node_specs[name], self.world.node(name, self.deployment, sent_s, taken)
        wander = self._wander(sent_s, "compute", name)
        serves = service.plan is not None and name in service.plan.nodes
        return MemberReported(
            at_s=CLOCK_S + arrived_s,
            role="node",
            name=name,
            address="",
            incarnation=f"{name}/{self.world.lives(name, sent_s)}",
            trusted=node.trusted,
            hardware=node.hardware,
            model=self.world.shape(self.deployment),
            memory_bytes=node.memory_bytes,
            block_time_s=node.block_time_s * wander,
            head_time_s=node.head_time_s * wander,
            prefill_block_time_s_per_row=node.prefill_block_time_s_per_row * wander,
            sessions=len(service.sessions) if serves else 0,
            tokens_per_s=0.0,
            context_positions=0,
            links=tuple(self._links(name, sent_s)),
            profile=node.profile,
            profile_ratio=node.profile_ratio * wander,
            site=spec.site,
            machine=spec.machine,
            group=spec.group,
            ue=spec.ue,
            runs_model=node.runs_model,
            local_blocks=None if node.local_blocks is None else node.local_blocks | held,
            weights_bytes_per_s=node.weights_bytes_per_s,
            busy_share=min(service.busy.get(name, 0.0) + taken, 1.0),
        )

    def _links(self, name: str, at_s: float) -> Iterator[tuple[str, float, float]]:
        """What probes to every other member of the deployment showed: rate and round trip; nothing where it is not time."""
        measured = self.world.scenario.measurement
        number = floor(at_s / measured.measured_every_s)
        if self._probed.get(name) == number:
            return
        self._probed[name] = number
        others = (*self.world.nodes_of(self.deployment), *self.world.gateways_of(self.deployment))
        for peer in others:
            state = self.world.link(name, peer, at_s) if peer != name else None
            if state is None or not self.world.member(peer, at_s).alive:
                continue
            rate = state.bytes_per_s * self._wander(at_s, "rate", name, peer)
            trip = state.round_trip_s * self._wander(at_s, "trip", name, peer)
            yield peer, rate, min(trip, PROBE_TIMEOUT_S)

    def _wander(self, at_s: float, *key: str) -> float:
        """By what a measurement is off; the same until it is made again."""
        measured = self.world.scenario.measurement
        if measured.noise == 0:
            return 1.0
        return exp(measured.noise * normal(self.world.scenario.seed, *key, floor(at_s / measured.measured_every_s)))
