"""Turns plans that the control plane announces into plans that sessions run on; one switch of a chain at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import grpc.aio

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.plan_user import PlanUser
from mec_apps.split_inference.gateway.switching import (
    CopyLimits,
    SwitchReport,
    end_chain,
    revert_sessions,
    switch_sessions,
)
from mec_apps.split_inference.peer_link import LinkLost, LinkPool, PeerLink
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.convert import addresses_from_message, plan_from_message
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

CONNECT_TIMEOUT_S = 3.0
STANDBY_TIMEOUT_S = 0.5
"""A node that only stands by is not waited for longer: the plan works without it."""

_log = logging.getLogger(__name__)


async def follow_chains(
    platform_grpc: str, model: str, switcher: PlanSwitcher, reply: control_plane_pb2.ReportReply
) -> None:
    """Goes over to what is committed of every chain of `model`, where its announcement was missed, and back to it where
    sessions were switched to a plan that has been given up; a warning where that cannot be done yet."""
    wanted = [each for each in _known(switcher, reply) if each.epoch != switcher.epoch_of(each.chain)]
    if not wanted:
        return
    try:
        stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(switcher.channels.to(platform_grpc))
        for each in wanted:
            message = types_pb2.SplitPlan(epoch=each.epoch, model=model, chain=each.chain)
            if not each.dropped:
                request = control_plane_pb2.GetPlanRequest(model=model, chain=each.chain)
                message = await stub.GetPlan(request, timeout=2)
            plan, addresses = plan_from_message(message), addresses_from_message(message)
            if plan.epoch > switcher.epoch_of(plan.chain):
                await switcher.switch(plan, addresses, frozenset(), "replay", 0.0)
            elif switcher.epoch_of(plan.chain) < reply.living_epoch:
                _log.warning("epoch %d was given up; back to epoch %d", switcher.epoch_of(plan.chain), plan.epoch)
                await switcher.revert(plan, addresses)
    except (grpc.aio.AioRpcError, LinkLost, OldPlan) as error:
        _log.warning("a committed plan cannot be used yet: %s", error)


def _known(switcher: PlanSwitcher, reply: control_plane_pb2.ReportReply) -> Iterator[control_plane_pb2.ChainEpoch]:
    """What the platform says of every chain that either side has heard of; one that it does not know is to end."""
    yield from reply.chains
    for chain in switcher.chains - {each.chain for each in reply.chains}:
        yield control_plane_pb2.ChainEpoch(chain=chain, epoch=0, dropped=True)


class OldPlan(Exception):
    """The plan is older than the one in use."""


class Overtaken(OldPlan):
    """Another plan of the chain came while sessions were moving: they go there instead."""


class PlanSwitcher:
    """The one door by which `sessions` get other plans: one change of a chain at a time, chains beside each other.

    A change that is overtaken ends at once. It may be waiting for tokens of a plan whose nodes are dead, and what comes next
    is what rescues its sessions.
    """

    def __init__(self, sessions: PlanUser, links: LinkPool) -> None:
        self._sessions = sessions
        self._links = links
        self.channels = Channels(links.identity)
        """To the platform and to nodes."""
        self._switching: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: dict[int, asyncio.Timeout] = {}
        self._epochs: dict[int, int] = {}

    @property
    def epoch(self) -> int:
        """The newest epoch of the plans in use; 0 while there is none."""
        return max((active.plan.epoch for active in self._sessions.chains.values()), default=0)

    @property
    def chains(self) -> frozenset[int]:
        """Every chain that was ever switched here."""
        return frozenset(self._epochs)

    def epoch_of(self, chain: int) -> int:
        """The epoch that a chain is at, its end included; 0 where it was never heard of."""
        return self._epochs.get(chain, 0)

    async def switch(
        self,
        plan: SplitPlan,
        addresses: Mapping[str, str],
        lost_nodes: frozenset[str],
        transfer_mode: str,
        replay_s: float,
    ) -> list[SwitchReport]:
        """Moves every session of its chain to `plan`, or to the other chains where it has no stages.

        The same epoch again moves only those that are not there yet.

        Raises:
            OldPlan: a newer plan of the chain is in use, or came meanwhile.
            LinkLost: a node of the plan does not answer; nothing has changed.
        """
        async with self._changing(plan.chain, overtake=plan.epoch > self.epoch_of(plan.chain)):
            if plan.epoch < self.epoch_of(plan.chain):
                raise OldPlan(f"epoch {plan.epoch}; this gateway uses epoch {self.epoch_of(plan.chain)}")
            target = await self._activate(plan, addresses, lost_nodes) if plan.stages else None
            self._epochs[plan.chain] = plan.epoch
            limits = CopyLimits.from_replay(replay_s)
            if target is None:
                reports = await end_chain(self._sessions, plan.chain, lost_nodes, transfer_mode, limits)
            else:
                reports = await switch_sessions(self._sessions, target, lost_nodes, transfer_mode, limits)
            where = f"{plan.describe()}; {len(reports)} sessions moved"
            _log.info("chain %d, epoch %d in use: %s", plan.chain, plan.epoch, where)
            return reports

    async def revert(self, plan: SplitPlan, addresses: Mapping[str, str]) -> None:
        """Takes every session of its chain back to the older `plan`; to other chains where it has no stages.

        Raises LinkLost where one of its nodes does not answer, OldPlan where another plan came meanwhile.
        """
        async with self._changing(plan.chain, overtake=True):
            previous = await self._activate(plan, addresses) if plan.stages else None
            self._epochs[plan.chain] = plan.epoch
            if previous is None:
                await end_chain(self._sessions, plan.chain, frozenset(), "replay", CopyLimits.from_replay(0.0))
            else:
                await revert_sessions(self._sessions, previous)

    def hold(self, held: Mapping[int, str], as_of_s: float) -> None:
        """Has nothing more sent into these plans, reasons by epoch, and into no others: see `PlanHolds.take`."""
        for epoch, reason in self._sessions.holds.take(held, as_of_s).items():
            _log.warning("epoch %d is held: %s", epoch, reason)
            self._sessions.leave_plan(epoch, reason)

    async def close(self) -> None:
        """Closes the calls' channels; the links belong to their owner."""
        await self.channels.close()

    @asynccontextmanager
    async def _changing(self, chain: int, *, overtake: bool) -> AsyncIterator[None]:
        """Waits for the change of a chain that is under way, which is broken off to `overtake` it. Raises Overtaken."""
        under_way = self._under_way.pop(chain, None) if overtake else None
        if under_way is not None:
            under_way.reschedule(asyncio.get_running_loop().time())
        async with self._switching[chain]:
            scope = self._under_way[chain] = asyncio.timeout(None)
            try:
                async with scope:
                    yield
            except TimeoutError as error:
                if not scope.expired():
                    raise
                raise Overtaken(f"another plan of chain {chain} came while sessions were moving") from error
            finally:
                if self._under_way.get(chain) is scope:
                    del self._under_way[chain]

    async def _activate(
        self, plan: SplitPlan, addresses: Mapping[str, str], lost: frozenset[str] = frozenset()
    ) -> ActivePlan:
        active = self._sessions.chains.get(plan.chain)
        if active is not None and active.plan == plan:
            return active
        missing = [node for node in plan.nodes if not addresses.get(node)]
        if missing:
            raise LinkLost(f"the plan gives no address for {', '.join(missing)}")
        links = await asyncio.gather(
            *(self._links.connect(node, addresses[node], CONNECT_TIMEOUT_S) for node in plan.nodes)
        )
        standing_by = [node for node in plan.members if node not in plan.nodes and addresses.get(node)]
        found = await asyncio.gather(
            *(self._links.connect(node, addresses[node], STANDBY_TIMEOUT_S) for node in standing_by),
            return_exceptions=True,
        )
        return ActivePlan(
            plan=plan,
            addresses={node: addresses[node] for node in (*plan.nodes, *standing_by)},
            links={link.peer: link for link in links},
            channels=self.channels,
            holds=self._sessions.holds,
            standby_links={link.peer: link for link in found if isinstance(link, PeerLink)},
            lost=lost,
        )
