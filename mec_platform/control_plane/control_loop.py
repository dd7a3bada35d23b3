"""The shell around `tick`: observe, decide, commit, act, for one deployment. `deployments` has one of these per model.

A deployment has one chain or several, each with a plan on nodes of its own. Every tick decides for each chain that is not
being changed; what was decided is carried out beside the ticks (`chain_control`), one change of a chain at a time.
Everything is told to watchers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationAborted, ReconfigurationEnded
from mec_platform.control_plane.chain_control import ChainControl, Change
from mec_platform.control_plane.feed import Feed
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import (
    MemberFailed,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    Refusal,
    apply_failure,
    apply_radio,
    apply_report,
    is_alive,
    snapshot,
)
from mec_platform.control_plane.monitoring.radio_forecast import RadioState
from mec_platform.control_plane.orchestrator.decisions import Decision, Keep, Reconfigure, Trigger, Wait
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.standing import ChainEpoch, SessionLimit, Standing, share_of_limit
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage, plan_change
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.leadership import AlwaysLeader, Leadership

TICK_S = 1.0
SKIPPED_EPOCHS = 100
"""Left free for what an earlier leader attempted and did not commit: no two attempts share an epoch."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """A decision about a chain and when it was made (seconds of the platform's monotonic clock)."""

    at_s: float
    decision: Decision
    chain: int = 0


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
        identity: GrpcIdentity | None = None,
    ) -> None:
        self.model = model
        self._leadership = leadership or AlwaysLeader()
        self._has_led = self._leadership.is_leader
        self._journal = journal
        self._control = control
        self._monitoring_settings = monitoring
        self._manual = manual
        self._identity = identity
        self._monitoring = MonitoringState(started_s=0.0)
        self._chains: dict[int, ChainControl] = {}
        self._limit: SessionLimit | None = None
        self._tasks = BackgroundTasks()
        self._wake = asyncio.Event()
        self._last_attempt = 0
        self._decisions: Feed[DecisionMade] = Feed()
        self._reconfigurations: Feed[ReconfigurationEnded] = Feed()

    def start(self) -> None:
        """Begins to decide, from the plans that the journal has."""
        self._monitoring = MonitoringState(started_s=self.now_s)
        self._tasks.start("control loop", self._run())

    async def stop(self) -> None:
        """Stops deciding; a reconfiguration under way is left where it is and is finished or forgotten by epochs."""
        await self._tasks.stop()
        for chain in self._chains.values():
            await chain.stop()

    @property
    def now_s(self) -> float:
        """The clock that every snapshot and decision is stamped with."""
        return asyncio.get_running_loop().time()

    @property
    def plan(self) -> SplitPlan | None:
        """The committed plan of the first chain."""
        return next(iter(self.plans), None)

    @property
    def plans(self) -> tuple[SplitPlan, ...]:
        """The committed plans of all chains, the first chain's first."""
        return tuple(self._journal.plans(self.model).values())

    def plan_of(self, chain: int | None) -> SplitPlan | None:
        """The committed plan of a chain, None standing for the first."""
        return self.plan if chain is None else self._journal.plans(self.model).get(chain)

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

    def observe(self, chain: int | None = None) -> Snapshot:
        """The world as decisions about a chain see it now, the first where none is named.

        What another chain is on its way to stands for that chain: its nodes are taken.
        """
        plans = self._journal.plans(self.model)
        number = next(iter(plans), 0) if chain is None else chain
        seen = snapshot(self._monitoring, self.now_s, plans.get(number), self._monitoring_settings)
        for other in self._chains.values():
            if other.under_way is not None and other.under_way.stages:
                plans[other.number] = other.under_way
        replicas = tuple(plan for of, plan in sorted(plans.items()) if of != number)
        return replace(seen, replicas=replicas) if replicas else seen

    def standing(self, member: str) -> Standing:
        """What a member is told in answer to its report."""
        latest = self._journal.latest(self.model)
        chains = tuple(ChainEpoch(plan.chain, plan.epoch, dropped=not plan.stages) for plan in latest)
        limit = None
        if self._limit is not None:
            sessions = {gateway.name: gateway.sessions for gateway in self.observe().gateways}
            limit = replace(self._limit, max_sessions=share_of_limit(self._limit.max_sessions, sessions, member))
        return Standing(self._epoch_for(member), chains, limit)

    def _epoch_for(self, member: str) -> int:
        """The committed epoch of the chain that a node is in; for others the newest, but none that overtakes a change
        which the node is prepared for: it would let go of its new stage."""
        own = next((plan.epoch for plan in self.plans if member in plan.nodes), None)
        if own is not None:
            return own
        changes = [chain.under_way for chain in self._chains.values() if chain.under_way is not None]
        return min([self._journal.last_epoch(self.model), *(p.epoch - 1 for p in changes if member in p.nodes)])

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

    def take_radio(self, measurement: RadioMeasurement) -> None:
        """Takes in what a radio network tells of a UE, stamped with `now_s`."""
        self._monitoring = apply_radio(self._monitoring, measurement, self._monitoring_settings)

    def radio(self) -> RadioState:
        """What is known of UEs, and how right forecasts of them have been."""
        return self._monitoring.radio

    def fail_member(self, name: str, reason: str) -> None:
        """Takes word of a member's failure and decides at once; others' members are no matter of this deployment."""
        if name not in self._monitoring.members:
            return
        _log.warning("%s is reported as failed: %s", name, reason)
        self._monitoring = apply_failure(self._monitoring, MemberFailed(self.now_s, name, reason))
        for chain in self._chains.values():
            chain.tell_gone()
        self._wake.set()

    async def apply_stages(
        self, stages: Sequence[Stage], reason: str, chain: int | None = None, *, add: bool = False
    ) -> ReconfigurationEnded:
        """Carries out an operator's plan for a chain, the first where none is named, or for one more (`add`).

        Raises:
            PlanRejected: it breaks a limit, there is no model or no such chain yet, or another platform leads.
            ReconfigurationAborted: it could not be carried out.
        """
        await self._require_lead()
        number = self._free_number() if add else next(iter(self._journal.plans(self.model)), 0)
        control = self._chain(number if chain is None else chain)
        async with control.changing():
            seen = self.observe(control.number)
            if seen.model is None:
                raise PlanRejected("no edge node has reported a model yet")
            if seen.plan is None and seen.replicas and not add:
                raise PlanRejected(f"there is no chain {control.number}; {self._names_of_chains()}")
            parent = 0 if seen.plan is None else seen.plan.epoch
            plan = SplitPlan(parent + 1, parent, seen.model.name, tuple(stages), control.number)
            errors = check_plan(plan, seen, self._control.planning) + list(self._taken(plan))
            if errors:
                raise PlanRejected("; ".join(errors))
            kind = PlanChange.ADD_CHAIN if seen.replicas and seen.plan is None else plan_change(seen.plan, plan)
            return await self._carry_out_order(control, Change(plan, kind, reason or "asked for", seen))

    async def drop_chain(self, chain: int, reason: str) -> ReconfigurationEnded:
        """Takes a chain away on an operator's order; its sessions go on on the others.

        Raises:
            PlanRejected: there is no such chain, it is the only one, or another platform leads.
            ReconfigurationAborted: it could not be carried out.
        """
        await self._require_lead()
        control = self._chain(chain)
        async with control.changing():
            change = self._drop(control, reason or "asked for")
            if change is None:
                raise PlanRejected(f"there is no chain {chain}; {self._names_of_chains()}")
            if not change.seen.replicas:
                raise PlanRejected(f"chain {chain} is the only one; its sessions would have nowhere to go")
            return await self._carry_out_order(control, change)

    async def _run(self) -> None:
        while True:
            # Not wait_for: that one loses a cancellation which comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._tick()
            except LogUnavailable as error:
                _log.error("plans cannot be read, nothing is decided: %s", error)

    async def _tick(self) -> None:
        if not await self._lead():
            self._tell(self._chain(0), Wait(self._who_leads()))
            return
        for number in self._journal.plans(self.model) or [0]:
            chain = self._chain(number)
            if chain.idle:
                self._decide(chain)
            else:
                chain.passed_over = True

    def _decide(self, chain: ChainControl) -> None:
        seen = self.observe(chain.number)
        decision, chain.policy = tick(seen, chain.policy, self._control)
        self._tell(chain, decision)
        match decision:
            case Wait() | Keep():
                return
            case Reconfigure():
                if self._manual and decision.trigger not in (Trigger.INITIAL, Trigger.NODE_LOST):
                    return
                plan = replace(decision.plan, chain=chain.number)
                self._begin(chain, decision, Change(plan, decision.kind, decision.reason, seen))
            case _:
                assert_never(decision)

    def _begin(self, chain: ChainControl, decision: Reconfigure, change: Change) -> None:
        chain.under_way = change.plan
        self._tasks.start(f"chain {chain.number}", self._act(chain, decision, change))

    async def _act(self, chain: ChainControl, decision: Reconfigure, change: Change) -> None:
        async with chain.changing():
            if self.plan_of(chain.number) != change.seen.plan or any(self._taken(change.plan)):
                return  # an operator's order came first
            try:
                await self._journal.note_decision(decision, change.seen)
            except LogUnavailable as error:
                _log.error("the decision could not be noted and is not carried out: %s", error)
                return
            await self._carry_out(chain, change)

    async def _lead(self) -> bool:
        """Whether this platform may act; where it has just begun to, what others committed is read first."""
        leads = self._leadership.is_leader
        if leads and not self._has_led:
            await self._journal.load()
            for chain in self._chains.values():
                chain.policy = PolicyState()
            self._last_attempt = self._journal.last_epoch(self.model) + SKIPPED_EPOCHS
        self._has_led = leads
        return leads

    async def _require_lead(self) -> None:
        if not await self._lead():
            raise PlanRejected(self._who_leads())

    def _who_leads(self) -> str:
        leader = self._leadership.leader
        return f"{leader} leads: nodes, gateways and orders belong there" if leader else "no platform leads right now"

    async def _commit(self, plan: SplitPlan) -> str | None:
        if not self._leadership.is_leader:
            return "this platform has ceased to lead"
        return await self._journal.commit(plan)

    def _tell(self, chain: ChainControl, decision: Decision) -> None:
        """Publishes and logs a decision; one like the last of its chain is a tick of an unchanged world and told once."""
        last, chain.told = chain.told, decision
        if isinstance(decision, Reconfigure) or type(decision) is not type(last):
            _log.info("decision: %s: %s", type(decision).__name__.lower(), decision.reason)
        if last != decision:
            self._decisions.publish(DecisionMade(self.now_s, decision, chain.number))

    def _chain(self, number: int) -> ChainControl:
        if number not in self._chains:
            self._chains[number] = ChainControl(
                number, self._commit, self._next_epoch, self.addresses, lambda: frozenset(self._gone()), self._identity
            )
        return self._chains[number]

    def _free_number(self) -> int:
        """The lowest number that no chain has or is about to have."""
        plans = self._journal.plans(self.model)
        return next(n for n in range(len(plans) + len(self._chains) + 1) if n not in plans and self._chain(n).idle)

    def _names_of_chains(self) -> str:
        return f"chains: {', '.join(str(number) for number in self._journal.plans(self.model)) or 'none yet'}"

    def _taken(self, plan: SplitPlan) -> Iterator[str]:
        """Why nodes of a plan are not free for it: another chain is on them, or on its way to them or from them."""
        for other in [*self.plans, *(chain.under_way for chain in self._chains.values())]:
            if other is not None and other.chain != plan.chain:
                yield from (f"node {node} is in chain {other.chain}" for node in plan.nodes if node in other.nodes)

    def _next_epoch(self) -> int:
        """No two attempts share an epoch: who missed an abort must not take the next plan for the aborted one."""
        self._last_attempt = max(self._last_attempt, self._journal.last_epoch(self.model)) + 1
        return self._last_attempt

    def _drop(self, chain: ChainControl, reason: str) -> Change | None:
        """The change that takes a chain away; None where there is no such chain."""
        seen = self.observe(chain.number)
        if seen.plan is None:
            return None
        end = SplitPlan(seen.plan.epoch + 1, seen.plan.epoch, self.model, (), chain.number)
        return Change(end, PlanChange.DROP_CHAIN, reason, seen)

    async def _carry_out_order(self, chain: ChainControl, change: Change) -> ReconfigurationEnded:
        ended = await self._carry_out(chain, change)
        if ended.outcome != "committed":
            raise ReconfigurationAborted(ended.error)
        return ended

    async def _carry_out(self, chain: ChainControl, change: Change) -> ReconfigurationEnded:
        ended = await chain.carry_out(change, self._control.policy)
        if self.plan_of(chain.number) is None:
            chain.policy = PolicyState()  # whatever has this number next is another chain
        self._reconfigurations.publish(ended)
        if chain.passed_over:
            chain.passed_over = False
            self._wake.set()
        return ended

    def _gone(self) -> Iterator[str]:
        for name, member in self._monitoring.members.items():
            if not is_alive(member, self.now_s, self._monitoring_settings):
                yield name
