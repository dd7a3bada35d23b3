"""One chain of a deployment: its changes are carried out here, one at a time and whatever other chains do.

`control_loop` decides and holds what chains share: members, the journal, the count of epochs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationEnded, describe_transfer
from mec_platform.control_plane.broadcast.protocol import Deadlines, Phase
from mec_platform.control_plane.broadcast.sender import Assignment, ReconfigurationSender, Record
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import Decision
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.orchestrator.switch_cost import choose_transfer_mode, replay_ms
from mec_platform.control_plane.trust import exposed_nodes
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.failures import Failure
from mec_platform.domain.split_plan import PlanChange, SplitPlan
from mec_platform.identity.grpc_identity import GrpcIdentity

WATCH_MEMBERS_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What shall become of a chain, and what was seen when that was decided."""

    plan: SplitPlan
    kind: PlanChange
    reason: str
    seen: Snapshot


class ChainControl:
    """The chain of that number. `record` commits a plan; `next_epoch` gives one that no attempt of the deployment had.

    `addresses` are of members by name, `gone` names those that are lost right now; `on_silent` learns of members that hang
    while they are waited for. Members are called as `identity`.
    """

    def __init__(
        self,
        number: int,
        record: Record,
        next_epoch: Callable[[], Awaitable[int]],
        addresses: Callable[[], Mapping[str, str]],
        gone: Callable[[], frozenset[str]],
        on_silent: Callable[[str, Failure], None],
        identity: GrpcIdentity | None = None,
    ) -> None:
        self.number = number
        self.policy = PolicyState()
        self.told: Decision | None = None
        """The decision that was told last."""
        self.under_way: SplitPlan | None = None
        """What the chain is on its way to; its nodes are taken already. None while nothing changes."""
        self.passed_over = False
        """Whether nothing was decided at a tick because of the change under way: it is made up for."""
        self._next_epoch = next_epoch
        self._addresses = addresses
        self._gone = gone
        self._sender = ReconfigurationSender(record, Deadlines(), identity=identity, on_silent=on_silent)
        self._ended: asyncio.Future[ReconfigurationEnded] | None = None
        self._changing = asyncio.Lock()
        self._tasks = BackgroundTasks()

    @property
    def idle(self) -> bool:
        """Whether nothing changes this chain."""
        return self.under_way is None and not self._changing.locked()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Waits for the change under way, if any, and keeps others from beginning meanwhile."""
        async with self._changing:
            try:
                yield
            finally:
                self.under_way = None

    async def carry_out(self, order: Order, settings: ControlSettings) -> ReconfigurationEnded:
        """Carries an order out, committed or aborted. Only inside `changing`."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            ended = await self._carry_out(order, settings)
        except BaseException:
            self._ended.cancel()
            raise
        self._ended.set_result(ended)
        return ended

    async def abort(self, reason: str) -> ReconfigurationEnded:
        """Gives up the change under way and returns how it ended. Raises PlanRejected: there is none, or it is too late."""
        ended = self._ended
        if self.under_way is None or ended is None or ended.done():
            raise PlanRejected(f"nothing is under way for chain {self.number}")
        refusal = self.give_up(reason)
        if refusal is not None:
            raise PlanRejected(f"too late: {refusal}")
        end = await asyncio.shield(ended)
        if end.outcome == "committed":
            raise PlanRejected(f"too late: epoch {end.plan.epoch} was recorded at the same moment")
        return end

    def give_up(self, reason: str) -> str | None:
        """Has the change under way aborted; returns why it is too late for that, or None."""
        return self._sender.request_abort(reason)

    async def _carry_out(self, order: Order, settings: ControlSettings) -> ReconfigurationEnded:
        seen, addresses, policy = order.seen, self._addresses(), settings.policy
        plan = self.under_way = replace(order.plan, epoch=await self._next_epoch())
        alive = {node.name for node in seen.nodes}
        # Sessions of a chain that ends go on on another; where there is none, nothing moves.
        towards = plan if plan.stages else next(iter(seen.replicas), plan)
        choice = choose_transfer_mode(towards, seen, policy)
        assignment = Assignment(
            plan=plan,
            old_plan=seen.plan,
            nodes=addresses,
            gateways={gateway.name: gateway.address for gateway in seen.gateways},
            lost=frozenset(name for name in seen.lost_nodes.union(plan.members) if name not in alive),
            transfer_mode=choice.mode,
            replay_ms=replay_ms(towards, seen, policy),
            left=self._left(seen, settings),
        )
        clock = asyncio.get_running_loop()
        started = clock.time()
        watching = self._tasks.start("watch members", self._watch_members())
        try:
            end = await self._sender.carry_out(assignment)
        finally:
            await self._tasks.cancel(watching)
        committed, total_ms = end.phase is Phase.DONE, (clock.time() - started) * 1e3
        outcome = "committed" if committed else "aborted"
        transfer = describe_transfer(choice.mode, choice.reason, end.switched)
        _log.info(
            "%s: chain %d, epoch %d %s after %.0f ms: %s; %s",
            plan.model,
            self.number,
            plan.epoch,
            outcome,
            total_ms,
            end.reason,
            transfer,
        )
        return ReconfigurationEnded(
            at_s=clock.time(),
            plan=plan,
            kind=order.kind,
            reason=order.reason,
            outcome=outcome,
            error="" if committed else end.reason,
            prepare_ms=max((load_ms for _, load_ms in end.load_ms), default=0.0),
            total_ms=total_ms,
            pause_ms_max=end.pause_ms_max,
            moved_bytes=end.moved_bytes,
            sessions=len(end.switched),
            replayed_tokens=end.replayed_tokens,
            transfer=transfer,
            held_ms_max=max((each.held_ms for each in end.switched), default=0.0),
            tail_positions_max=max((each.tail_positions for each in end.switched), default=0),
        )

    def _left(self, seen: Snapshot, settings: ControlSettings) -> frozenset[str]:
        """Nodes that answer, but whose part of the plan in force is not to be used: not trusted, or lost in a new start."""
        exposed = frozenset() if seen.plan is None else exposed_nodes(seen.plan, seen, settings.planning)
        return exposed | seen.lost_nodes.intersection(node.name for node in seen.nodes)

    def tell_gone(self) -> None:
        """Tells the change under way, if any, which members are gone. Repeating it is harmless."""
        if self.under_way is not None:
            for name in self._gone():
                self._sender.member_lost(name)

    async def stop(self) -> None:
        """Leaves a change under way where it is; it is finished or forgotten by epochs."""
        await self._tasks.stop()
        await self._sender.close()

    async def _watch_members(self) -> None:
        while True:
            await asyncio.sleep(WATCH_MEMBERS_S)
            self.tell_gone()
