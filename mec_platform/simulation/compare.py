"""Several policies over the same world, the same requests and the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.policy_table import PolicyError, read_policy
from mec_platform.scenario.scenario import DeploymentSpec, Scenario
from mec_platform.simulation.controllers import Adaptive, Controller, Restricted, Scheduled
from mec_platform.simulation.engine import Engine
from mec_platform.simulation.hindsight import (
    Candidate,
    Stages,
    best_schedule,
    candidates,
    even_split,
    keeps_trust,
    true_snapshot,
)
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.requests import Request, Slo, requests_of
from mec_platform.simulation.world import World
from mec_platform.traces.arrivals import Arrival

POLICIES = ("adaptive", "static-best", "even-split", "migrate-only", "re-split-only", "oracle")
"""What can be compared; in this order, because later ones learn from earlier ones which plans there are."""

TRIED = 9
"""Static plans (of several deployments: combinations of them) that are run in full, the most promising ones."""

Progress = Callable[[str, float], None]


@dataclass(slots=True)
class Comparison:
    """A world, and what is the same for all policies. `of` makes it, `run` runs one policy."""

    world: World
    settings: Mapping[str, ControlSettings]
    requests: Mapping[str, tuple[Request, ...]]
    monitoring: MonitoringSettings
    on_progress: Progress | None = None
    _candidates: Mapping[str, tuple[Candidate, ...]] | None = None
    _static: RunRecord | None = None
    _known: tuple[RunRecord, ...] = ()

    @classmethod
    def of(
        cls, world: World, arrivals: Mapping[str, Sequence[Arrival]], on_progress: Progress | None = None
    ) -> Comparison:
        """`arrivals` are the traces of the deployments that have one. Raises PolicyError for a policy that is none."""
        scenario = world.scenario
        requests = {
            spec.name: requests_of(
                spec, world.gateways_of(spec), arrivals.get(spec.name, ()), scenario.duration_s, scenario.seed
            )
            for spec in scenario.deployments
        }
        return cls(world, settings_of(scenario), requests, MonitoringSettings(), on_progress)

    def run(self, policy: str) -> RunRecord:
        """One policy over the whole scenario."""
        match policy:
            case "adaptive":
                record = self._run(policy, Adaptive.of(self.settings))
            case "migrate-only" | "re-split-only":
                record = self._run(policy, Restricted.of(policy, self.settings))
            case "even-split":
                record = self._run(policy, Scheduled.fixed(self._even(), "an equal share for each node"))
            case "static-best":
                record = self._static_best()
            case "oracle":
                record = self._oracle()
            case _:
                raise ValueError(f"there is no policy {policy}")
        self._known = (*self._known, record)
        return record

    def _run(self, policy: str, controller: Controller) -> RunRecord:
        report = self.on_progress
        engine = Engine(self.world, self.settings, self.requests, self.monitoring, controller)
        return engine.run(policy, None if report is None else lambda share: report(policy, share))

    def _even(self) -> dict[str, Stages]:
        """The even split of each deployment over the nodes that are there first."""
        plans = {}
        for spec in self.world.scenario.deployments:
            seen = true_snapshot(self.world, spec, 0.0, self.world.nodes_of(spec))
            stages = even_split(seen, self.settings[spec.name])
            if stages is not None:
                plans[spec.name] = stages
        return plans

    def _static_best(self) -> RunRecord:
        """Of the most promising fixed plans the one with the lowest mean time per token, each run in full."""
        if self._static is None:
            specs = self.world.scenario.deployments
            each = max(1, int(TRIED ** (1 / len(specs))))
            choices = [self._lasting(spec)[:each] for spec in specs]
            runs = [
                self._run("static-best", Scheduled.fixed(plans, "the best single plan in hindsight"))
                for chosen in product(*choices)
                if (plans := {s.name: c.stages for s, c in zip(specs, chosen, strict=True)}) is not None
            ]
            self._static = min(runs, key=_slowness)
        return self._static

    def _lasting(self, spec: DeploymentSpec) -> tuple[Candidate, ...]:
        """Candidates that break no limit at any time, or all where there are none."""
        known = self._found()[spec.name]
        kept = tuple(c for c in known if keeps_trust(self.world, spec, self.settings[spec.name], c.stages))
        return kept or known

    def _oracle(self) -> RunRecord:
        """The best sequence of plans, or the best single plan where its run turns out better."""
        schedules = {
            spec.name: best_schedule(
                self.world, spec, self.settings[spec.name], self.requests[spec.name], self._found()[spec.name]
            )
            for spec in self.world.scenario.deployments
            if self._found()[spec.name]
        }
        planned = self._run("oracle", Scheduled(schedules))
        static = self._static_best()
        if _slowness(static) < _slowness(planned):
            return RunRecord("oracle", static.duration_s, static.ended_s, static.deployments, static.busy_s)
        return planned

    def _found(self) -> Mapping[str, tuple[Candidate, ...]]:
        """Candidates by deployment; plans of runs that are known already are among them."""
        if self._candidates is None:
            tried = {
                spec.name: [
                    stages
                    for record in self._known
                    for deployment in record.deployments
                    if deployment.name == spec.name
                    for _, stages in deployment.plans
                ]
                for spec in self.world.scenario.deployments
            }
            self._candidates = {
                spec.name: candidates(
                    self.world, spec, self.settings[spec.name], self.requests[spec.name], tried[spec.name]
                )
                for spec in self.world.scenario.deployments
            }
        return self._candidates


def settings_of(scenario: Scenario) -> dict[str, ControlSettings]:
    """The policy of each deployment. Raises PolicyError, also for one that asks for several chains."""
    settings = {spec.name: read_policy(spec.policy, where=f"{spec.name}: policy") for spec in scenario.deployments}
    for name, each in settings.items():
        if each.policy.replicas.max > 1:
            raise PolicyError(
                f"{name}: policy: replicas.max is above 1; the simulation has one chain for each deployment"
            )
    return settings


def slo_of(settings: ControlSettings) -> Slo:
    """What requests of a deployment must keep."""
    return Slo.of(settings.policy.qos)


def _slowness(record: RunRecord) -> tuple[float, float]:
    """Mean time per token over all deployments, then what was not done at all: less is better."""
    flows = [flow for deployment in record.deployments for flow in deployment.flows]
    tokens = sum(flow.tokens for flow in flows)
    undone = sum(each.done_s is None for deployment in record.deployments for each in deployment.served)
    spent_s = sum(flow.tpot_s * flow.tokens for flow in flows)
    return (undone, spent_s / tokens if tokens else float("inf"))
