"""The chains of one deployment: their plans, what they are on their way to, whose nodes are whose, and their epochs.

`control_loop` decides for each of them; a `ChainControl` carries out what concerns one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mec_platform.control_plane.broadcast.sender import Record
from mec_platform.control_plane.chain_control import ChainControl
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.standing import ChainEpoch
from mec_platform.domain.failures import Failure
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.identity.grpc_identity import GrpcIdentity


class Chains:
    """Of the deployment of `model`. `addresses` are of members by name, `gone` names those that are lost right now, `on_silent`
    learns of members that hang while they are waited for."""

    def __init__(
        self,
        model: str,
        journal: Journal,
        record: Record,
        addresses: Callable[[], Mapping[str, str]],
        gone: Callable[[], frozenset[str]],
        on_silent: Callable[[str, Failure], None],
        identity: GrpcIdentity | None = None,
    ) -> None:
        self.model = model
        self._journal = journal
        self._record = record
        self._addresses = addresses
        self._gone = gone
        self._identity = identity
        self._on_silent = on_silent
        self._controls: dict[int, ChainControl] = {}
        self._last_attempt = 0
        self._given_out: set[int] = set()

    @property
    def plans(self) -> dict[int, SplitPlan]:
        """The committed plans by chain, the first chain's first."""
        return self._journal.plans(self.model)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The chains that there are, or are to be: without any plan, the one that gets the first."""
        return tuple(self.plans) or (0,)

    def control(self, number: int) -> ChainControl:
        """What carries out changes of a chain; made where there was none of that number."""
        if number not in self._controls:
            self._controls[number] = ChainControl(
                number,
                self._record,
                self._next_epoch,
                self._addresses,
                self._gone,
                self._on_silent,
                self._identity,
            )
        return self._controls[number]

    def unused(self) -> ChainControl:
        """That of a chain to come: its number is the lowest that no chain has or is about to have."""
        plans, number = self.plans, 0
        while number in plans or not self.control(number).idle:
            number += 1
        return self.control(number)

    def others(self, number: int) -> tuple[SplitPlan, ...]:
        """Plans of all chains but one. What a chain is on its way to stands for it: its nodes are taken."""
        plans = self.plans
        plans |= {of: plan for of, plan in self._under_way() if plan.stages}
        return tuple(plan for of, plan in sorted(plans.items()) if of != number)

    def changes(self) -> list[tuple[ChainControl, SplitPlan]]:
        """What is under way, and towards which plan."""
        return [(self._controls[number], plan) for number, plan in self._under_way()]

    def conflicts(self, plan: SplitPlan) -> list[str]:
        """Why nodes of a plan are not free for it: another chain is on them, or on its way to them or from them."""
        others = [*self.plans.values(), *(plan for _, plan in self._under_way())]
        return [
            f"node {node} is in chain {other.chain}"
            for other in others
            if other.chain != plan.chain
            for node in plan.members
            if node in other.members
        ]

    def describe(self) -> str:
        """For people: which chains there are."""
        return f"chains: {', '.join(map(str, self.plans)) or 'none yet'}"

    def epochs(self) -> tuple[ChainEpoch, ...]:
        """What every chain was last committed to."""
        latest = self._journal.latest(self.model)
        return tuple(ChainEpoch(plan.chain, plan.epoch, dropped=not plan.stages) for plan in latest)

    def epoch_for(self, member: str) -> int:
        """The committed epoch that a member shall be at: that of the chain that a node is in, for others the newest.

        But none that overtakes a change which a node is prepared for: it would let go of its new stage.
        """
        own = next((plan.epoch for plan in self.plans.values() if member in plan.members), None)
        if own is not None:
            return own
        held = [plan.epoch - 1 for _, plan in self._under_way() if member in plan.members]
        return min([self._journal.last_epoch(self.model), *held])

    def begin_to_lead(self) -> None:
        """Forgets what was remembered from decision to decision, and leaves epochs to what others attempted."""
        for control in self._controls.values():
            control.policy = PolicyState()
        self._last_attempt = max(self._journal.epochs_from, self._journal.last_epoch(self.model))

    @property
    def living_epoch(self) -> int:
        """The lowest epoch that is still being worked on; the next one where none is. See `standing`."""
        return min([self._last_attempt + 1, *self._given_out, *(plan.epoch for _, plan in self._under_way())])

    def tell_gone(self) -> None:
        """Tells every change under way which members are gone."""
        for control in self._controls.values():
            control.tell_gone()

    async def stop(self) -> None:
        """Leaves changes under way where they are; they are finished or forgotten by epochs."""
        for control in self._controls.values():
            await control.stop()

    def _under_way(self) -> Iterator[tuple[int, SplitPlan]]:
        for number, control in self._controls.items():
            if control.under_way is not None:
                yield number, control.under_way

    async def _next_epoch(self) -> int:
        """No two attempts share one: a member that missed an abort must not take the next plan for the aborted one.

        Raises LogUnavailable where the log must know of it and does not answer.
        """
        self._last_attempt = max(self._last_attempt, self._journal.last_epoch(self.model)) + 1
        attempt = self._last_attempt
        self._given_out.add(attempt)
        try:
            await self._journal.allow_epoch(self.model, attempt)
        finally:
            self._given_out.discard(attempt)  # whoever asked for it has it under way before anything else happens
        return attempt
