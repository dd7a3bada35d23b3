"""Who decides in a run. `Adaptive` is production's `tick`; the others are what it is compared with.

A controller is given estimates, like production, and says what to do with each deployment. Only plans that stand before
the run begins (`Fixed`) or that were computed from the future (`Scheduled`) come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Literal, Protocol

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.options import distrusting, plan_options
from mec_platform.control_plane.orchestrator.decisions import (
    Decision,
    Keep,
    PlanOption,
    PlanOptions,
    Reconfigure,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.policy import decide
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.sharing import tick_shared
from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCosts
from mec_platform.control_plane.tick import plan_errors, tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage, plan_change

Stages = tuple[Stage, ...]
Restriction = Literal["migrate-only", "re-split-only"]

MOST_CANDIDATES = 4000
"""Plans that a restricted policy looks at in one decision, the first in alphabetical order of nodes and of cuts."""


class Controller(Protocol):
    """Decides about the deployments that are not being changed just now, by name.

    `due` are snapshots of those to decide about, `everyone` of all deployments, those that are being changed included.
    One that does not listen needs no estimates: it is asked only when a plan of its own is due, and is shown the truth.
    """

    @property
    def listens(self) -> bool: ...

    def is_due(self, now_s: float, name: str, plan: SplitPlan | None) -> bool: ...

    def decide(
        self, now_s: float, due: Mapping[str, Snapshot], everyone: Mapping[str, Snapshot]
    ) -> Mapping[str, Decision]: ...


@dataclass(slots=True)
class Adaptive:
    """What the platform runs: `tick`, or `tick_shared` for deployments that share nodes, each with its own policy."""

    settings: Mapping[str, ControlSettings]
    states: dict[str, PolicyState]
    listens: bool = True

    @classmethod
    def of(cls, settings: Mapping[str, ControlSettings]) -> Adaptive:
        """With nothing remembered yet."""
        return cls(settings, {})

    def is_due(self, now_s: float, name: str, plan: SplitPlan | None) -> bool:
        """Always."""
        return True

    def decide(
        self, now_s: float, due: Mapping[str, Snapshot], everyone: Mapping[str, Snapshot]
    ) -> Mapping[str, Decision]:
        """One tick for each, in order of priority: what is decided for one is seen by the next."""
        decisions = {}
        for group in _sharing(everyone):
            seen = {name: everyone[name] for name in group}
            for name in sorted(group & due.keys(), key=lambda each: (-self.settings[each].priority, each)):
                state = self.states.get(name, PolicyState())
                if len(group) == 1:
                    decision, after = tick(due[name], state, self.settings[name])
                else:
                    decision, after, _ = tick_shared(name, due[name], seen, state, self.settings)
                decisions[name], self.states[name] = decision, after
                if isinstance(decision, Reconfigure):
                    seen[name] = replace(due[name], plan=decision.plan)
        return decisions


def _sharing(everyone: Mapping[str, Snapshot]) -> list[set[str]]:
    """Deployments that may compute on the same nodes or machines, together."""
    seats = {name: {node.machine or node.name for node in seen.nodes} for name, seen in everyone.items()}
    groups: list[tuple[set[str], set[str]]] = []
    for name, own in seats.items():
        joined, rest = ({name}, set(own)), []
        for names, taken in groups:
            if taken & own:
                joined = (joined[0] | names, joined[1] | taken)
            else:
                rest.append((names, taken))
        groups = [*rest, joined]
    return [names for names, _ in groups]


@dataclass(slots=True)
class Restricted:
    """Production's policy, shown only part of the choice: the same cuts on other nodes, or other cuts on the same nodes."""

    restriction: Restriction
    settings: Mapping[str, ControlSettings]
    states: dict[str, PolicyState]
    listens: bool = True

    @classmethod
    def of(cls, restriction: Restriction, settings: Mapping[str, ControlSettings]) -> Restricted:
        """With nothing remembered yet."""
        return cls(restriction, settings, {})

    def is_due(self, now_s: float, name: str, plan: SplitPlan | None) -> bool:
        """Always."""
        return True

    def decide(
        self, now_s: float, due: Mapping[str, Snapshot], everyone: Mapping[str, Snapshot]
    ) -> Mapping[str, Decision]:
        """As `tick` does it; the first plan is free."""
        decisions: dict[str, Decision] = {}
        for name, seen in due.items():
            settings, state = self.settings[name], self.states.get(name, PolicyState())
            world = distrusting(seen, settings)
            decision, self.states[name] = decide(world, state, settings.policy, self._options(world, settings))
            if plan_errors(decision, world, settings):
                decision = Wait("no plan keeps the limits")
            decisions[name] = decision
        return decisions

    def _options(self, seen: Snapshot, settings: ControlSettings) -> PlanOptions:
        options = plan_options(seen, settings)
        plan = seen.plan
        if plan is None:
            return options
        candidates = other_nodes(plan, seen) if self.restriction == "migrate-only" else other_cuts(plan, seen)
        return replace(options, best=_cheapest(candidates, seen, settings), no_plan_reason="nothing else is allowed")


def other_nodes(plan: SplitPlan, seen: Snapshot) -> Iterator[Stages]:
    """The cuts of `plan` on any nodes that are alive."""
    names = [node.name for node in seen.nodes]
    for chosen in permutations(names, len(plan.stages)):
        yield tuple(Stage(name, stage.layers) for name, stage in zip(chosen, plan.stages, strict=True))


def other_cuts(plan: SplitPlan, seen: Snapshot) -> Iterator[Stages]:
    """Any cuts over the nodes of `plan` that are alive, in its order; some of them may be left without blocks."""
    alive = [name for name in plan.nodes if seen.node(name) is not None]
    blocks = plan.stages[-1].layers.stop
    for count in range(1, len(alive) + 1):
        for chosen in combinations(alive, count):
            for cuts in combinations(range(1, blocks), count - 1):
                ranges = ranges_from_cuts(blocks, cuts)
                yield tuple(Stage(name, layers) for name, layers in zip(chosen, ranges, strict=True))


def _cheapest(candidates: Iterator[Stages], seen: Snapshot, settings: ControlSettings) -> PlanOption | None:
    """The best of the candidates that keep all limits; the plan in force wins a tie."""
    assert seen.plan is not None
    best: PlanOption | None = None
    costs = PlanCosts(seen, settings.planning)
    for _, stages in zip(range(MOST_CANDIDATES), candidates, strict=False):
        cost = costs.cost(stages)
        if cost is None or (best is not None and cost.total_ms >= best.cost_ms - 1e-9):
            continue
        if not check_stages(replace(seen.plan, stages=stages), seen, settings.planning):
            best = PlanOption(stages, cost.total_ms, cost.latency_ms)
    current = costs.cost(seen.plan.stages)
    fits = current is not None and not check_stages(seen.plan, seen, settings.planning, committed=True)
    if fits and current is not None and (best is None or current.total_ms <= best.cost_ms + 1e-9):
        return PlanOption(seen.plan.stages, current.total_ms, current.latency_ms)
    return best


@dataclass(slots=True)
class BeginsWith:
    """Another controller from a given plan on: for runs that are to begin alike. It listens, as whom it leads in does."""

    plans: Mapping[str, Stages]
    then: Controller
    listens: bool = True

    def is_due(self, now_s: float, name: str, plan: SplitPlan | None) -> bool:
        """Always."""
        return True

    def decide(
        self, now_s: float, due: Mapping[str, Snapshot], everyone: Mapping[str, Snapshot]
    ) -> Mapping[str, Decision]:
        """The given plans first; who has one is decided about by the other controller."""
        first = Scheduled.fixed(self.plans, "both runs begin alike")
        begun = {name: seen for name, seen in due.items() if seen.plan is not None}
        decisions = dict(first.decide(now_s, {name: due[name] for name in due.keys() - begun.keys()}, everyone))
        return decisions | dict(self.then.decide(now_s, begun, everyone))


@dataclass(slots=True)
class Scheduled:
    """Plans that are known beforehand: at each time, by deployment, the stages to change to. A lone entry is a fixed plan."""

    schedule: Mapping[str, Sequence[tuple[float, Stages]]]
    why: Callable[[float], str] = lambda at_s: "the best beginning" if at_s < 0 else f"planned for {at_s:.0f} s"
    listens: bool = False

    @classmethod
    def fixed(cls, plans: Mapping[str, Stages], why: str) -> Scheduled:
        """One plan for each deployment, for the whole run."""
        return cls({name: ((float("-inf"), stages),) for name, stages in plans.items()}, lambda at_s: why)

    def is_due(self, now_s: float, name: str, plan: SplitPlan | None) -> bool:
        """Whether the plan in force is not the one that should be."""
        due = [stages for at_s, stages in self.schedule.get(name, ()) if at_s <= now_s]
        return bool(due) and (plan is None or plan.stages != due[-1])

    def decide(
        self, now_s: float, due: Mapping[str, Snapshot], everyone: Mapping[str, Snapshot]
    ) -> Mapping[str, Decision]:
        """Changes to what is due; whether its nodes are alive is not asked, a change that cannot be carried out is not."""
        return {name: self._decide_one(now_s, name, seen) for name, seen in due.items()}

    def _decide_one(self, now_s: float, name: str, seen: Snapshot) -> Decision:
        due = [(at_s, stages) for at_s, stages in self.schedule.get(name, ()) if at_s <= now_s]
        if not due or seen.model is None:
            return Wait("nothing is planned yet")
        at_s, stages = due[-1]
        if seen.plan is not None and seen.plan.stages == stages:
            return Keep(seen.plan, "as planned", 0.0)
        if any(seen.node(stage.node) is None for stage in stages):
            return Wait("a node of the planned plan is not there")
        committed = 0 if seen.plan is None else seen.plan.epoch
        plan = SplitPlan(committed + 1, committed, seen.model.name, stages)
        kind = plan_change(seen.plan, plan)
        trigger = Trigger.INITIAL if kind is PlanChange.INITIAL else Trigger.BETTER_PLAN
        return Reconfigure(kind, plan, self.why(at_s), trigger, 0.0, None, 0.0)
