"""The discrete-event loop: a heap of events, a simulated clock, and one run of one controller over a world.

Observe, decide, act, as `control_loop` does it: reports become estimates, a controller decides once every `tick_s`, and a
change takes its time in the true world. While a deployment is being changed nothing is decided about it.

Where nothing has changed for so long that no cooldown is left, nothing is decided either: the same estimates give the
same decision. Where members measure less often than they report (large worlds), nothing is even looked at between two
measurements unless the world, the plan or the load is new; a quiet world costs next to nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import count
from math import floor, inf
from typing import assert_never

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Wait,
    decision_kind,
)
from mec_platform.control_plane.orchestrator.switch_cost import replay_ms
from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.domain.capacity import LinkCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.scenario.scenario import DeploymentSpec
from mec_platform.simulation.controllers import Controller
from mec_platform.simulation.observations import Observer
from mec_platform.simulation.reconfiguration import Change, missing_blocks, plan_the_change
from mec_platform.simulation.record import (
    DecisionRecord,
    DeploymentRecord,
    ForecastRecord,
    ReconfigurationRecord,
    RunRecord,
)
from mec_platform.simulation.requests import Request, Served
from mec_platform.simulation.service import Service
from mec_platform.simulation.world import World

WARM_UP_S = 5.0
"""Members report for so long before the run, so that it does not begin with a world that nobody has measured."""

DRAIN_S = 60.0
"""Requests that came within the run have so long to end after it; those that do not are not well served."""

LOOK_AGAIN_S = 30.0
"""A deployment of which nothing is new is looked at again after so long, for what was held back until some time."""

NEWS_LAST_S = 8.0
"""After an event, for so long: until silence is noticed, and a report period or two after it."""

Progress = Callable[[float], None]


class _Kind(IntEnum):
    """Events; at one time they happen in this order."""

    WORLD = 0
    PAUSE = 1
    COMMIT = 2
    ARRIVAL = 3
    WAKE = 4
    TICK = 5


@dataclass(slots=True)
class _Pending:
    """A change that is being carried out."""

    decision: Reconfigure
    plan: SplitPlan
    change: Change
    decided_s: float


@dataclass(slots=True)
class _Run:
    """One deployment in this run."""

    spec: DeploymentSpec
    settings: ControlSettings
    service: Service
    observer: Observer
    requests: tuple[Request, ...]
    record: DeploymentRecord
    shares: bool
    pending: _Pending | None = None
    last_attempt: int = 0
    wakes: int = 0
    held: dict[str, frozenset[int]] = field(default_factory=dict)
    seen: Snapshot | None = None
    quiet_since_s: float = -inf
    exposed_since_s: float | None = None
    forecasts: list[ForecastRecord] = field(default_factory=list)
    looked_s: float = -inf
    looked_at: tuple[object, ...] = ()


class Engine:
    """Runs a controller once: make a new one for each run."""

    def __init__(
        self,
        world: World,
        settings: Mapping[str, ControlSettings],
        requests: Mapping[str, tuple[Request, ...]],
        monitoring: MonitoringSettings,
        controller: Controller,
    ) -> None:
        self._world = world
        self._controller = controller
        self._heap: list[tuple[float, int, int, int, int]] = []
        self._numbers = count()
        self._runs: list[_Run] = []
        for spec in world.scenario.deployments:
            control = settings[spec.name]
            service = Service(world, spec, control.planning, now_s=-WARM_UP_S)
            observer = Observer(world, spec, monitoring, heard_s=-WARM_UP_S)
            record = DeploymentRecord(spec.name)
            shares = self._shares(spec)
            self._runs.append(_Run(spec, control, service, observer, requests[spec.name], record, shares))

    def run(self, policy: str, on_progress: Progress | None = None) -> RunRecord:
        """The whole scenario, and on until its requests have ended or `DRAIN_S` is over."""
        duration_s = self._world.scenario.duration_s
        for index, run in enumerate(self._runs):
            if run.requests:
                self._push(run.requests[0].at_s, _Kind.ARRIVAL, index, 0)
        for at_s in self._world.change_times:
            self._push(at_s, _Kind.WORLD)
        self._push(1.0 - WARM_UP_S, _Kind.TICK)
        now_s = -WARM_UP_S
        while self._heap:
            at_s, kind, _, index, detail = heapq.heappop(self._heap)
            if at_s > duration_s and (at_s > duration_s + DRAIN_S or not self._busy()):
                break
            now_s = at_s
            self._happen(now_s, _Kind(kind), index, detail)
            if on_progress is not None and kind == _Kind.TICK:
                on_progress(min(max(now_s, 0.0) / duration_s, 1.0))
        return self._finish(policy, max(now_s, duration_s))

    def _happen(self, now_s: float, kind: _Kind, index: int, detail: int) -> None:
        match kind:
            case _Kind.TICK:
                self._tick(now_s)
            case _Kind.WORLD:
                for each in range(len(self._runs)):
                    self._world_changed(now_s, each)
            case _Kind.ARRIVAL:
                run = self._runs[index]
                run.service.advance(now_s)
                run.service.arrive(run.requests[detail])
                if detail + 1 < len(run.requests):
                    self._push(run.requests[detail + 1].at_s, _Kind.ARRIVAL, index, detail + 1)
                self._refresh(index)
            case _Kind.WAKE:
                if detail == self._runs[index].wakes:
                    self._runs[index].service.advance(now_s)
                    self._refresh(index)
            case _Kind.PAUSE:
                self._pause(now_s, index)
            case _Kind.COMMIT:
                self._commit(now_s, index)

    def _push(self, at_s: float, kind: _Kind, index: int = 0, detail: int = 0) -> None:
        if at_s < inf:
            heapq.heappush(self._heap, (at_s, kind, next(self._numbers), index, detail))

    def _busy(self) -> bool:
        return any(run.service.sessions or run.service.waiting for run in self._runs)

    def _refresh(self, index: int) -> None:
        run = self._runs[index]
        run.wakes += 1
        self._push(run.service.refresh(self._taken(index)), _Kind.WAKE, index, run.wakes)

    def _shares(self, spec: DeploymentSpec) -> bool:
        """Whether another deployment may compute on a machine of this one."""
        seats = {self._seat(name) for name in self._world.nodes_of(spec)}
        others = (other for other in self._world.scenario.deployments if other is not spec)
        return any(self._seat(name) in seats for other in others for name in self._world.nodes_of(other))

    def _seat(self, node: str) -> str:
        return self._world.node_specs[node].machine or node

    def _taken(self, index: int) -> dict[str, float]:
        """What other deployments use of the machines of this one's nodes; of a machine that is fully used, a fair part."""
        run = self._runs[index]
        if not run.shares:
            return {}
        used: dict[str, float] = {}
        users: dict[str, int] = {}
        for number, other in enumerate(self._runs):
            for node, share in other.service.busy.items():
                if number != index and share > 0:
                    seat = self._seat(node)
                    used[seat] = used.get(seat, 0.0) + share
                    users[seat] = users.get(seat, 0) + 1
        taken = {seat: min(share, users[seat] / (users[seat] + 1)) for seat, share in used.items()}
        return {name: taken[seat] for name in self._world.nodes_of(run.spec) if (seat := self._seat(name)) in taken}

    def _world_changed(self, now_s: float, index: int) -> None:
        """Plans meet new truths: lives end and come back, trust goes."""
        run = self._runs[index]
        run.service.advance(now_s)
        plan = run.service.plan
        if plan is not None and any(self._returns(name, now_s) for name in plan.nodes):
            # A node that comes back has lost its KV: sessions go on once their tokens were computed again.
            run.service.paused = True
            cost_s = replay_ms(plan, run.service.truth(), run.settings.policy) / 1e3
            self._push(now_s + cost_s, _Kind.PAUSE, index, 1)
        self._check_exposure(now_s, run)
        self._refresh(index)

    def _returns(self, node: str, now_s: float) -> bool:
        return self._world.member(node, now_s).alive and not self._world.member(node, now_s - 1e-6).alive

    def _tick(self, now_s: float) -> None:
        self._push(now_s + self._world.scenario.tick_s, _Kind.TICK)
        due: dict[str, Snapshot] = {}
        everyone: dict[str, Snapshot] = {}
        for index, run in enumerate(self._runs):
            run.service.advance(now_s)
            if run.service.sessions or run.service.waiting or run.spec.demand.streams:
                self._refresh(index)
            if not self._controller.listens:
                if run.pending is None and self._controller.is_due(now_s, run.spec.name, run.service.plan):
                    names = self._world.nodes_of(run.spec)
                    loads, plan = run.service.gateway_loads(), run.service.plan
                    due[run.spec.name] = self._world.snapshot(run.spec, now_s, names, loads, plan)
                continue
            if self._is_old_news(now_s, run):
                continue
            run.observer.listen(now_s, run.service, self._taken(index), run.held)
            seen = run.observer.estimate(now_s, run.service.plan)
            everyone[run.spec.name] = seen
            if run.pending is not None:
                continue
            if not _same(seen, run.seen):
                run.seen, run.quiet_since_s = seen, now_s
            self._note_forecasts(now_s, run, seen)
            policy = run.settings.policy
            settled_s = max(policy.calm_s, policy.longest_cooldown_s, policy.longest_retry_s)
            if now_s - run.quiet_since_s <= settled_s:
                due[run.spec.name] = seen
        decisions = self._controller.decide(now_s, due, everyone)
        for index, run in enumerate(self._runs):
            decision = decisions.get(run.spec.name)
            if decision is not None:
                self._act(now_s, index, decision, due[run.spec.name])

    def _is_old_news(self, now_s: float, run: _Run) -> bool:
        """Whether all that is to be seen of a deployment was decided about already; only in worlds that measure seldom."""
        measured = self._world.scenario.measurement
        if measured.measured_every_s <= measured.report_s or run.shares:
            return False
        changed_s = max((t for t in self._world.change_times_of(run.spec) if t <= now_s), default=-inf)
        plan = run.service.plan
        news = (
            floor(now_s / measured.measured_every_s),
            changed_s,
            None if plan is None else plan.epoch,
            len(run.service.sessions),
            len(run.service.waiting),
            run.pending is None,
        )
        fresh = news != run.looked_at or now_s - changed_s <= NEWS_LAST_S or now_s - run.looked_s >= LOOK_AGAIN_S
        if fresh:
            run.looked_s, run.looked_at = now_s, news
        return not fresh

    def _act(self, now_s: float, index: int, decision: Decision, seen: Snapshot) -> None:
        run = self._runs[index]
        kind, known = decision_kind(decision), run.record.decisions
        if not isinstance(decision, Wait | Keep) or not known or known[-1].kind != kind:
            known.append(DecisionRecord(now_s, kind, decision.reason))
        match decision:
            case Reconfigure():
                self._begin(now_s, index, decision, seen)
            case Shed():
                run.service.session_limit = decision.session_limit
                self._refresh(index)
            case DropChain():
                run.service.drop()
                run.record.plans.append((now_s, ()))
                self._refresh(index)
            case Wait() | Keep() | AddChain():
                pass
            case _:
                assert_never(decision)

    def _begin(self, now_s: float, index: int, decision: Reconfigure, seen: Snapshot) -> None:
        """Carries a change out from here on, as the true world lets it."""
        run = self._runs[index]
        # What is handed out must keep trust by what the platform knew; limits of memory are for `tick` to keep.
        errors = check_plan(decision.plan, seen, run.settings.planning)
        run.record.violations += [f"{now_s:.1f} s: {error}" for error in errors if "not trusted" in error]
        # No two attempts share an epoch, as in `control_loop`.
        run.last_attempt = max(run.last_attempt, decision.plan.parent_epoch) + 1
        plan = replace(decision.plan, epoch=run.last_attempt)
        names = {*plan.members, *(run.service.plan.members if run.service.plan is not None else ())}
        truth = self._world.snapshot(
            run.spec, now_s, sorted(names), run.service.gateway_loads(), run.service.plan, self._taken(index)
        )
        change = plan_the_change(self._world, run.spec, plan, seen, truth, now_s, run.held, run.settings.policy)
        run.pending = _Pending(decision, plan, change, now_s)
        self._push(change.paused_s, _Kind.PAUSE, index)
        self._push(change.committed_s, _Kind.COMMIT, index)

    def _pause(self, now_s: float, index: int) -> None:
        run = self._runs[index]
        run.service.advance(now_s)
        run.service.paused = run.pending is not None and now_s >= run.pending.change.paused_s
        self._refresh(index)

    def _commit(self, now_s: float, index: int) -> None:
        run, pending = self._runs[index], self._runs[index].pending
        assert pending is not None
        run.service.advance(now_s)
        run.service.paused, run.pending = False, None
        dead = [name for name in pending.plan.members if not self._alive_since(name, pending.decided_s, now_s)]
        if not dead:
            for stage in pending.plan.stages:
                missing = missing_blocks(self._world, run.spec, stage.node, frozenset(stage.layers), run.held)
                run.held[stage.node] = run.held.get(stage.node, frozenset()) | missing
            run.service.plan = pending.plan
            run.record.plans.append((now_s, pending.plan.stages))
            self._check_exposure(now_s, run)
        change = pending.change
        run.record.reconfigurations.append(
            ReconfigurationRecord(
                decided_s=pending.decided_s,
                ended_s=now_s,
                kind=pending.decision.kind.value,
                trigger=pending.decision.trigger.value,
                reason=pending.decision.reason,
                outcome=f"aborted: {dead[0]} was lost" if dead else "committed",
                stages=pending.plan.stages,
                pause_s=change.pause_s,
                moved_bytes=0 if dead else change.moved_bytes,
                weights_bytes=change.weights_bytes,
                replayed_tokens=change.replayed_tokens,
            )
        )
        self._refresh(index)

    def _alive_since(self, node: str, since_s: float, now_s: float) -> bool:
        times = (since_s, *(t for t in self._world.change_times if since_s < t <= now_s))
        return all(self._world.member(node, at_s).alive for at_s in times)

    def _check_exposure(self, now_s: float, run: _Run) -> None:
        """Whether the plan in force would be refused for trust now, by the independent checker: since when, and till when."""
        plan = run.service.plan
        errors = [] if plan is None else check_stages(plan, run.service.truth(), run.settings.planning)
        exposed = any("not trusted" in error for error in errors)
        if exposed and run.exposed_since_s is None:
            run.exposed_since_s = now_s
        elif not exposed and run.exposed_since_s is not None:
            run.record.exposed_s += now_s - run.exposed_since_s
            run.exposed_since_s = None

    def _note_forecasts(self, now_s: float, run: _Run, seen: Snapshot) -> None:
        """Keeps what was forecast of links in use, and holds what is due against what came."""
        due = [each for each in run.forecasts if each.due_s <= now_s]
        for each in due:
            run.record.forecasts.append(replace(each, came_s=self._trip_s(each.source, each.target, each.due_s)))
        run.forecasts = [each for each in run.forecasts if each.due_s > now_s]
        if run.service.plan is None:
            return
        ends = {*run.service.plan.nodes, *self._world.gateways_of(run.spec)}
        for link in seen.links:
            if link.forecast is not None and link.source in ends and link.target in ends:
                run.forecasts.append(_forecast(now_s, link))

    def _trip_s(self, source: str, target: str, at_s: float) -> float:
        """The mean round trip of the second around that time."""
        series = self._world.link_series(source, target)
        if series is None or series.round_trip_s is None:
            state = self._world.link(source, target, at_s)
            return 0.0 if state is None else state.round_trip_s
        return series.round_trip_s.mean(at_s - 0.5, at_s + 0.5)

    def _finish(self, policy: str, ended_s: float) -> RunRecord:
        busy_s: dict[str, float] = {}
        for run in self._runs:
            run.service.advance(ended_s)
            run.service.end()
            open_requests = [Served(s.request, s.first_token_s) for s in run.service.sessions]
            open_requests += [Served(request) for request in run.service.waiting]
            run.record.served = sorted(run.service.served + open_requests, key=lambda each: each.request.number)
            run.record.flows = run.service.flows
            if run.exposed_since_s is not None:
                run.record.exposed_s += ended_s - run.exposed_since_s
            for node, spent_s in run.service.busy_s.items():
                busy_s[node] = busy_s.get(node, 0.0) + spent_s
        records = tuple(run.record for run in self._runs)
        return RunRecord(policy, self._world.scenario.duration_s, ended_s, records, busy_s)


def _same(seen: Snapshot, before: Snapshot | None) -> bool:
    return before is not None and replace(seen, now_s=before.now_s) == before


def _forecast(now_s: float, link: LinkCapacity) -> ForecastRecord:
    assert link.forecast is not None
    due_s = now_s + link.forecast.after_s
    return ForecastRecord(link.source, link.target, due_s, link.forecast.round_trip_s, link.round_trip_s, 0.0)
