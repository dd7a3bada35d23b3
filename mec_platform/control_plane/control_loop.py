"""The shell around `tick`: observe, decide, commit, act, for one deployment. `deployments` has one of these per model.

One reconfiguration of a deployment at a time; everything is told to watchers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationAborted, ReconfigurationEnded
from mec_platform.control_plane.broadcast.protocol import Deadlines, Phase
from mec_platform.control_plane.broadcast.sender import Assignment, ReconfigurationSender
from mec_platform.control_plane.feed import Feed
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import (
    MemberFailed,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    Refusal,
    apply_failure,
    apply_report,
    is_alive,
    snapshot,
)
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.orchestrator.switch_cost import choose_transfer_mode, replay_ms
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage, plan_change
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.leadership import AlwaysLeader, Leadership

TICK_S = 1.0
SKIPPED_EPOCHS = 100
"""Left free for what an earlier leader attempted and did not commit: no two attempts share an epoch."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """A decision and when it was made (seconds of the platform's monotonic clock)."""

    at_s: float
    decision: Decision


class ControlLoop:
    """The loop of the deployment of `model`, which is "" until a node has reported one.

    `manual` decides and says so, but carries out only the first plan and what replaces a plan that has lost a node.
    A platform that does not lead takes reports, and waits.
    """

    def __init__(
        self,
        journal: Journal,
        control: ControlSettings,
        monitoring: MonitoringSettings,
        model: str,
        *,
        manual: bool = False,
        leadership: Leadership | None = None,
    ) -> None:
        self.model = model
        self._leadership = leadership or AlwaysLeader()
        self._has_led = self._leadership.is_leader
        self._journal = journal
        self._control = control
        self._monitoring_settings = monitoring
        self._manual = manual
        self._monitoring = MonitoringState(started_s=0.0)
        self._policy = PolicyState()
        self._sender = ReconfigurationSender(self._commit, Deadlines())
        self._tasks = BackgroundTasks()
        self._wake = asyncio.Event()
        self._acting = asyncio.Lock()
        self._last_attempt = 0
        self._decisions: Feed[DecisionMade] = Feed()
        self._reconfigurations: Feed[ReconfigurationEnded] = Feed()

    def start(self) -> None:
        """Begins to decide, from the plan that the journal has."""
        self._monitoring = MonitoringState(started_s=self.now_s)
        self._tasks.start("control loop", self._run())

    async def stop(self) -> None:
        """Stops deciding; a reconfiguration under way is left where it is and is finished or forgotten by epochs."""
        await self._tasks.stop()
        await self._sender.close()

    @property
    def now_s(self) -> float:
        """The clock that every snapshot and decision is stamped with."""
        return asyncio.get_running_loop().time()

    @property
    def plan(self) -> SplitPlan | None:
        """The committed plan."""
        return self._journal.plans.get(self.model)

    @property
    def is_served(self) -> bool:
        """Whether any node of this deployment is alive."""
        return bool(self.observe().nodes)

    def has_node(self, name: str) -> bool:
        """Whether a live node of this deployment has that name."""
        return self.observe().node(name) is not None

    def plan_settings(self) -> PlanSettings:
        """Limits and weights of plans in force."""
        return self._control.planning

    def watch_decisions(self) -> AsyncIterator[DecisionMade]:
        """Decisions, "keep" included; starts with the latest."""
        return self._decisions.watch()

    def watch_reconfigurations(self) -> AsyncIterator[ReconfigurationEnded]:
        """Reconfigurations as they end; starts with the latest."""
        return self._reconfigurations.watch()

    def addresses(self) -> dict[str, str]:
        """`host:port` of every member ever seen, by name."""
        return {name: member.latest.address for name, member in self._monitoring.members.items()}

    def observe(self) -> Snapshot:
        """The world as decisions see it now."""
        return snapshot(self._monitoring, self.now_s, self.plan, self._monitoring_settings)

    def take_report(self, event: MemberReported) -> Refusal | None:
        """Takes a member's report; a refusal is for its sender."""
        outcome = apply_report(self._monitoring, event, self._monitoring_settings)
        if isinstance(outcome, Refusal):
            return outcome
        is_new = event.name not in self._monitoring.members or event.leaving
        self._monitoring = outcome
        if is_new:
            self._wake.set()
        return None

    def fail_member(self, name: str, reason: str) -> None:
        """Takes word of a member's failure and decides at once; others' members are no matter of this deployment."""
        if name not in self._monitoring.members:
            return
        _log.warning("%s is reported as failed: %s", name, reason)
        self._monitoring = apply_failure(self._monitoring, MemberFailed(self.now_s, name, reason))
        self._tell_sender()
        self._wake.set()

    async def apply_stages(self, stages: Sequence[Stage], reason: str) -> ReconfigurationEnded:
        """Carries out an operator's plan.

        Raises:
            PlanRejected: it breaks a limit, there is no model yet, or another platform leads.
            ReconfigurationAborted: it could not be carried out.
        """
        async with self._acting:
            if not await self._lead():
                raise PlanRejected(self._who_leads())
            seen = self.observe()
            if seen.model is None:
                raise PlanRejected("no edge node has reported a model yet")
            committed = 0 if seen.plan is None else seen.plan.epoch
            plan = SplitPlan(committed + 1, committed, seen.model.name, tuple(stages))
            errors = check_plan(plan, seen, self._control.planning)
            if errors:
                raise PlanRejected("; ".join(errors))
            ended = await self._carry_out(plan, plan_change(seen.plan, plan), reason or "asked for", seen)
        if ended.outcome != "committed":
            raise ReconfigurationAborted(ended.error)
        return ended

    async def _run(self) -> None:
        while True:
            # Not wait_for: that one loses a cancellation which comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with self._acting:
                    await self._tick()
            except LogUnavailable as error:
                _log.error("the decision could not be noted and is not carried out: %s", error)

    async def _tick(self) -> None:
        if not await self._lead():
            self._tell(self.now_s, Wait(self._who_leads()))
            return
        seen = self.observe()
        decision, self._policy = tick(seen, self._policy, self._control)
        self._tell(seen.now_s, decision)
        match decision:
            case Wait() | Keep() | AddChain() | DropChain() | Shed():
                return
            case Reconfigure():
                if self._manual and decision.trigger not in (Trigger.INITIAL, Trigger.NODE_LOST):
                    return
                await self._journal.note_decision(decision, seen)
                await self._carry_out(decision.plan, decision.kind, decision.reason, seen)
            case _:
                assert_never(decision)

    async def _lead(self) -> bool:
        """Whether this platform may act; where it has just begun to, what others committed is read first."""
        leads = self._leadership.is_leader
        if leads and not self._has_led:
            await self._journal.load()
            self._policy = PolicyState()
            self._last_attempt = (self.plan.epoch if self.plan is not None else 0) + SKIPPED_EPOCHS
        self._has_led = leads
        return leads

    def _who_leads(self) -> str:
        leader = self._leadership.leader
        return f"{leader} leads: nodes, gateways and orders belong there" if leader else "no platform leads right now"

    async def _commit(self, plan: SplitPlan) -> str | None:
        if not self._leadership.is_leader:
            return "this platform has ceased to lead"
        return await self._journal.commit(plan)

    def _tell(self, at_s: float, decision: Decision) -> None:
        """Publishes and logs a decision; one like the last is a tick of an unchanged world and told once."""
        last = None if self._decisions.latest is None else self._decisions.latest.decision
        if isinstance(decision, Reconfigure) or type(decision) is not type(last):
            _log.info("decision: %s: %s", type(decision).__name__.lower(), decision.reason)
        if last != decision:
            self._decisions.publish(DecisionMade(at_s, decision))

    async def _carry_out(self, plan: SplitPlan, kind: PlanChange, reason: str, seen: Snapshot) -> ReconfigurationEnded:
        # No two attempts share an epoch: a member that missed an abort must not take the next plan for the aborted one.
        self._last_attempt = max(self._last_attempt, plan.parent_epoch) + 1
        plan = replace(plan, epoch=self._last_attempt)
        addresses = self.addresses()
        alive = {node.name for node in seen.nodes}
        assignment = Assignment(
            plan=plan,
            old_plan=seen.plan,
            nodes=addresses,
            gateways={gateway.name: gateway.address for gateway in seen.gateways},
            lost=frozenset(seen.lost_nodes | {name for name in plan.nodes if name not in alive}),
            transfer_mode=choose_transfer_mode(plan, seen, self._control.policy),
            replay_ms=replay_ms(plan, seen, self._control.policy),
        )
        started = self.now_s
        watching = self._tasks.start("watch members", self._watch_members())
        try:
            end = await self._sender.carry_out(assignment)
        finally:
            await self._tasks.cancel(watching)
        committed = end.phase is Phase.DONE
        ended = ReconfigurationEnded(
            at_s=self.now_s,
            plan=plan,
            kind=kind,
            reason=reason,
            outcome="committed" if committed else "aborted",
            error="" if committed else end.reason,
            prepare_ms=max((load_ms for _, load_ms in end.load_ms), default=0.0),
            total_ms=(self.now_s - started) * 1e3,
            pause_ms_max=end.pause_ms_max,
            moved_bytes=end.moved_bytes,
            sessions=len(end.switched),
            replayed_tokens=end.replayed_tokens,
        )
        _log.info(
            "%s: epoch %d %s after %.0f ms: %s", plan.model, plan.epoch, ended.outcome, ended.total_ms, end.reason
        )
        self._reconfigurations.publish(ended)
        return ended

    async def _watch_members(self) -> None:
        while True:
            await asyncio.sleep(TICK_S / 2)
            self._tell_sender()

    def _tell_sender(self) -> None:
        for name, member in self._monitoring.members.items():
            if not is_alive(member, self.now_s, self._monitoring_settings):
                self._sender.member_lost(name)
