"""The shell around `tick`: observe, decide, commit, act, for one deployment. `deployments` has one of these per model.

A deployment has one chain or several, each with a plan on nodes of its own. Every tick decides for each chain that is not
being changed; what was decided is carried out beside the ticks (`chain_control`), one change of a chain at a time.
Everything is told to watchers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import assert_never

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationAborted, ReconfigurationEnded
from mec_platform.control_plane.chain_control import ChainControl, Order
from mec_platform.control_plane.chains import Chains
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.deciding import Decider, DecisionMade
from mec_platform.control_plane.decision_codec import DecisionRecord
from mec_platform.control_plane.feed import Feed
from mec_platform.control_plane.holding import Holds
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.leading import Lead
from mec_platform.control_plane.monitoring.estimates import (
    MemberFailed,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    Refusal,
    apply_failure,
    apply_radio,
    apply_report,
    gone_members,
    snapshot,
    why_gone,
)
from mec_platform.control_plane.monitoring.radio_forecast import RadioState
from mec_platform.control_plane.options import distrusting
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Change,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Trigger,
    Wait,
    decision_kind,
)
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.split_revision.standbys import choose_standbys
from mec_platform.control_plane.standing import HeldPlan, SessionLimit, Standing, share_of_limit
from mec_platform.control_plane.trust import exposed_nodes, not_trusted
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.failures import Failure
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage, kept_standbys, plan_change
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.leadership import AlwaysLeader, Leadership

TICK_S = 1.0
URGENT = frozenset({Trigger.INITIAL, Trigger.NODE_LOST, Trigger.TRUST_CHANGED, Trigger.STANDBY})
"""What is carried out where an operator has all else to himself: no stage moves that can stay."""

_log = logging.getLogger(__name__)


class ControlLoop:
    """The loop of the deployment of `model`, which is "" until a node has reported one.

    `manual` decides and says so, but carries out only the first plan and what replaces a plan that has lost a
    node, or trust in one.
    A platform that does not lead takes reports, and waits.
    """

    def __init__(
        self,
        journal: Journal,
        decider: Decider,
        monitoring: MonitoringSettings,
        model: str,
        *,
        manual: bool = False,
        leadership: Leadership | None = None,
        identity: GrpcIdentity | None = None,
    ) -> None:
        self._lead = Lead(journal, leadership or AlwaysLeader(), self._begin_to_lead)
        self._journal = journal
        self._decider = decider
        self._monitoring_settings = monitoring
        self._manual = manual
        self._monitoring = MonitoringState(started_s=0.0)
        self._chains = Chains(model, journal, self._commit, self.addresses, self._gone, self.fail_member, identity)
        self._holds = Holds(identity)
        self._limit: SessionLimit | None = None
        self._tasks = BackgroundTasks()
        self._wake = asyncio.Event()
        self._decisions: Feed[DecisionMade] = Feed()
        self._reconfigurations: Feed[ReconfigurationEnded] = Feed()

    def start(self) -> None:
        """Begins to decide, from the plans that the journal has."""
        self._monitoring = MonitoringState(started_s=self.now_s)
        self._tasks.start("control loop", self._run())

    async def stop(self) -> None:
        """Stops deciding; a reconfiguration under way is left where it is and is finished or forgotten by epochs."""
        await self._tasks.stop()
        await self._holds.stop()
        await self._chains.stop()

    @property
    def now_s(self) -> float:
        """The clock that every snapshot and decision is stamped with."""
        return asyncio.get_running_loop().time()

    @property
    def model(self) -> str:
        """What the deployment serves, and is named by."""
        return self._chains.model

    @model.setter
    def model(self, name: str) -> None:
        self._chains.model = name

    @property
    def _settings(self) -> ControlSettings:
        return self._decider.settings(self.model)

    def wake(self) -> None:
        """Has it decide at once instead of at its next tick."""
        self._wake.set()

    @property
    def plan(self) -> SplitPlan | None:
        """The committed plan of the first chain."""
        return next(iter(self.plans), None)

    @property
    def plans(self) -> tuple[SplitPlan, ...]:
        """The committed plans of all chains, the first chain's first."""
        return tuple(self._chains.plans.values())

    def plan_of(self, chain: int | None) -> SplitPlan | None:
        """The committed plan of a chain, None standing for the first."""
        return self.plan if chain is None else self._chains.plans.get(chain)

    @property
    def is_served(self) -> bool:
        """Whether any node of this deployment is alive."""
        return bool(self.observe().nodes)

    def has_node(self, name: str) -> bool:
        """Whether a live node of this deployment has that name."""
        return self.observe().node(name) is not None

    def plan_settings(self) -> PlanSettings:
        """Limits and weights of plans in force."""
        return self._settings.planning

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
        """The world as decisions about a chain see it now, the first where none is named."""
        number = self._chains.numbers[0] if chain is None else chain
        seen = snapshot(self._monitoring, self.now_s, self._chains.plans.get(number), self._monitoring_settings)
        seen = distrusting(seen, self._settings)
        others = self._chains.others(number)
        return replace(seen, replicas=others) if others else seen

    def standing(self, member: str) -> Standing:
        """What a member is told in answer to its report."""
        limit = self._limit
        if limit is not None:
            sessions = {gateway.name: gateway.sessions for gateway in self.observe().gateways}
            limit = replace(limit, max_sessions=share_of_limit(limit.max_sessions, sessions, member))
        living = self._chains.living_epoch if self._lead.taken_up else 0
        return Standing(self._chains.epoch_for(member), self._chains.epochs(), limit, living, self._holds.held)

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

    def fail_member(self, name: str, failure: Failure) -> None:
        """Takes word of a member's failure and decides at once; others' members are no matter of this deployment."""
        if name not in self._monitoring.members:
            return
        _log.warning("%s is reported as failed: %s", name, failure)
        self._monitoring = apply_failure(self._monitoring, MemberFailed(self.now_s, name, str(failure)))
        self._chains.tell_gone()
        self._wake.set()

    async def apply_stages(
        self, stages: Sequence[Stage], reason: str, chain: int | None = None, *, add: bool = False
    ) -> ReconfigurationEnded:
        """Carries out an operator's plan for a chain, the first where none is named, or for one more (`add`).

        Raises:
            PlanRejected: it breaks a limit, there is no model or no such chain yet, or another platform leads.
            ReconfigurationAborted: it could not be carried out.
        """
        await self._lead.require()
        numbered = self._chains.control(self._chains.numbers[0] if chain is None else chain)
        control = self._chains.unused() if add else numbered
        async with control.changing():
            seen = self.observe(control.number)
            if seen.model is None:
                raise PlanRejected("no edge node has reported a model yet")
            is_new = seen.plan is None and bool(seen.replicas)
            if is_new and not add:
                raise PlanRejected(f"there is no chain {control.number}; {self._chains.describe()}")
            parent = 0 if seen.plan is None else seen.plan.epoch
            standbys = () if seen.plan is None else self._standbys_for(stages, seen.plan, seen)
            plan = SplitPlan(parent + 1, parent, seen.model.name, tuple(stages), control.number, standbys)
            errors = check_plan(plan, seen, self._settings.planning) + self._chains.conflicts(plan)
            if errors:
                raise PlanRejected("; ".join(errors))
            kind = PlanChange.ADD_CHAIN if is_new else plan_change(seen.plan, plan)
            return await self._obey(control, Order(plan, kind, reason or "asked for", seen))

    async def drop_chain(self, chain: int, reason: str) -> ReconfigurationEnded:
        """Takes a chain away on an operator's order; its sessions go on on the others.

        Raises:
            PlanRejected: there is no such chain, it is the only one, or another platform leads.
            ReconfigurationAborted: it could not be carried out.
        """
        await self._lead.require()
        control = self._chains.control(chain)
        async with control.changing():
            order = self._end(control, reason or "asked for")
            if order is None:
                raise PlanRejected(f"there is no chain {chain}; {self._chains.describe()}")
            if not order.seen.replicas:
                raise PlanRejected(f"chain {chain} is the only one; its sessions would have nowhere to go")
            return await self._obey(control, order)

    async def abort(self, chain: int | None, reason: str) -> ReconfigurationEnded:
        """Gives up the change under way of a chain, the first where none is named; returns when the old plan stands again.

        Raises PlanRejected: nothing is under way, it is too late, or another platform leads.
        """
        await self._lead.require()
        number = self._chains.numbers[0] if chain is None else chain
        return await self._chains.control(number).abort(f"given up: {reason or 'asked for'}")

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
        if not await self._lead.take_up():
            self._tell(self._chains.control(0), Wait(self._lead.who_leads()))
            return
        self._hold_exposing()
        for control, plan in self._chains.changes():
            if exposed := self._exposed(plan):  # a policy may have changed since it was decided on
                control.give_up(not_trusted(exposed))
        for number in self._chains.numbers:
            chain = self._chains.control(number)
            if chain.idle:
                self._decide(chain)
            else:
                chain.passed_over = True

    def _decide(self, chain: ChainControl) -> None:
        """Each chain decides about its own plan; how many chains and sessions there are, the first one decides for all."""
        seen = self.observe(chain.number)
        before = chain.policy
        decision, chain.policy, seen = self._decider.decide(self.model, seen, before)
        record = DecisionRecord(decision, seen, before, self._settings)
        self._tell(chain, decision)
        if isinstance(decision, Wait | Keep):
            if self._journal.decisions.is_news(record):
                self._tasks.start("note", self._note(record))
            return
        urgent = isinstance(decision, Reconfigure) and decision.trigger in URGENT
        if not self._manual or urgent:
            self._begin(chain, decision, record)

    def _begin(self, chain: ChainControl, decision: Change, record: DecisionRecord) -> None:
        """Begins to carry out a decision that was made for a chain; it goes on beside the ticks."""
        match decision:
            case Reconfigure():
                plan = replace(decision.plan, chain=chain.number)
                order = Order(plan, decision.kind, self._with_losses(decision, record.snapshot), record.snapshot)
            case AddChain():
                chain = self._chains.unused()
                plan = replace(decision.plan, epoch=1, parent_epoch=0, chain=chain.number)
                order = Order(plan, PlanChange.ADD_CHAIN, decision.reason, self.observe(chain.number))
            case DropChain():
                chain = self._chains.control(decision.plan.chain)
                end = self._end(chain, decision.reason)
                if end is None or not chain.idle:
                    return
                order = end
            case Shed():
                most = decision.session_limit
                self._limit = None if most is None else SessionLimit(most, decision.reason)
                self._tasks.start("note", self._note(record))
                return
            case _:
                assert_never(decision)
        chain.under_way = order.plan
        self._tasks.start(f"chain {chain.number}", self._act(chain, record, order))

    def _with_losses(self, decision: Reconfigure, seen: Snapshot) -> str:
        """The reason of a decision, with how the nodes were lost that it is about."""
        in_plan = () if seen.plan is None else seen.plan.nodes
        lost = [name for name in in_plan if name in seen.lost_nodes and seen.node(name) is None]
        return "; ".join([decision.reason, *(why_gone(self._monitoring, name, self.now_s) for name in lost)])

    async def _act(self, chain: ChainControl, record: DecisionRecord, order: Order) -> None:
        async with chain.changing():
            if self.plan_of(chain.number) != order.seen.plan or self._chains.conflicts(order.plan):
                return  # an operator's order came first
            if not await self._note(record):
                return
            try:
                await self._carry_out(chain, order)
            except LogUnavailable as error:
                _log.error("no plan is changed, the log does not take the attempt: %s", error)

    async def _note(self, record: DecisionRecord) -> bool:
        try:
            await self._journal.decisions.note(record)
        except LogUnavailable as error:
            _log.error("the decision could not be noted, no plan is changed: %s", error)
            return False
        return True

    def _begin_to_lead(self) -> None:
        self._limit = None
        self._chains.begin_to_lead()

    async def _commit(self, plan: SplitPlan) -> str | None:
        if not self._lead.is_leader:
            return "this platform has ceased to lead"
        exposed = self._exposed(plan)
        if exposed:
            return not_trusted(exposed)
        return await self._journal.commit(plan)

    def _exposed(self, plan: SplitPlan) -> frozenset[str]:
        return exposed_nodes(plan, self.observe(plan.chain), self._settings.planning)

    def _hold_exposing(self) -> None:
        """Has nothing more sent into plans by which a node would see what it is not trusted with any more."""
        exposing = [(plan, exposed) for plan in self.plans if (exposed := self._exposed(plan))]
        held = tuple(HeldPlan(plan.epoch, not_trusted(exposed)) for plan, exposed in exposing)
        self._holds.hold(held, self.model, {each.name: each.address for each in self.observe().gateways})

    def _tell(self, chain: ChainControl, decision: Decision) -> None:
        """Publishes and logs a decision; one like the last of its chain is a tick of an unchanged world and told once."""
        last, chain.told = chain.told, decision
        if not isinstance(decision, Wait | Keep) or type(decision) is not type(last):
            _log.info("decision: %s: %s", decision_kind(decision), decision.reason)
        if last != decision:
            self._decisions.publish(DecisionMade(self.now_s, decision, chain.number))

    def _end(self, chain: ChainControl, reason: str) -> Order | None:
        """What takes a chain away; None where there is no such chain."""
        seen = self.observe(chain.number)
        if seen.plan is None:
            return None
        plan = SplitPlan(seen.plan.epoch + 1, seen.plan.epoch, self.model, (), chain.number)
        return Order(plan, PlanChange.DROP_CHAIN, reason, seen)

    def _standbys_for(self, stages: Sequence[Stage], old: SplitPlan, seen: Snapshot) -> tuple[Stage, ...]:
        """Those of the plan before that are of use to an operator's stages; new ones come once it is in force."""
        settings = self._settings
        kept = choose_standbys(old, seen, settings.planning, settings.policy.replicas.standbys).kept
        return kept_standbys(kept, stages)

    async def _obey(self, chain: ChainControl, order: Order) -> ReconfigurationEnded:
        ended = await self._carry_out(chain, order)
        if ended.outcome != "committed":
            raise ReconfigurationAborted(ended.error)
        return ended

    async def _carry_out(self, chain: ChainControl, order: Order) -> ReconfigurationEnded:
        ended = await chain.carry_out(order, self._settings)
        if self.plan_of(chain.number) is None:
            chain.policy = PolicyState()  # whatever has this number next is another chain
        self._reconfigurations.publish(ended)
        if chain.passed_over:
            chain.passed_over = False
            self._wake.set()
        return ended

    def _gone(self) -> frozenset[str]:
        return gone_members(self._monitoring, self.now_s, self._monitoring_settings)
