"""Turns plans that the control plane announces into plans that sessions run on; one switch at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import grpc.aio

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.plan_user import PlanUser
from mec_apps.split_inference.gateway.switching import CopyLimits, SwitchReport, revert_sessions, switch_sessions
from mec_apps.split_inference.peer_link import LinkLost, LinkPool
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.convert import addresses_from_message, plan_from_message
from mec_platform.rpc.endpoints import Channels, open_channel
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc

CONNECT_TIMEOUT_S = 3.0
_log = logging.getLogger(__name__)


async def adopt_committed_plan(platform_grpc: str, model: str, switcher: PlanSwitcher) -> None:
    """Goes over to the committed plan of `model`, whose announcement was missed; a warning where that cannot be done yet."""
    try:
        async with open_channel(platform_grpc) as channel:
            stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
            message = await stub.GetPlan(control_plane_pb2.GetPlanRequest(model=model), timeout=2)
        await switcher.switch(plan_from_message(message), addresses_from_message(message), frozenset(), "replay", 0.0)
    except (grpc.aio.AioRpcError, LinkLost, OldPlan) as error:
        _log.warning("the committed plan cannot be used yet: %s", error)


class OldPlan(Exception):
    """The plan is older than the one in use."""


class PlanSwitcher:
    """The one door by which `sessions` get another plan."""

    def __init__(self, sessions: PlanUser, links: LinkPool) -> None:
        self._sessions = sessions
        self._links = links
        self._channels = Channels()
        self._switching = asyncio.Lock()

    @property
    def epoch(self) -> int:
        """Epoch of the plan that new sessions start on; 0 while there is none."""
        return 0 if self._sessions.active is None else self._sessions.active.plan.epoch

    async def switch(
        self,
        plan: SplitPlan,
        addresses: Mapping[str, str],
        lost_nodes: frozenset[str],
        transfer_mode: str,
        replay_s: float,
    ) -> list[SwitchReport]:
        """Moves every session to `plan`. The same epoch again moves only those that are not there yet.

        Raises:
            OldPlan: a newer plan is in use.
            LinkLost: a node of the plan does not answer; nothing has changed.
        """
        async with self._switching:
            if plan.epoch < self.epoch:
                raise OldPlan(f"epoch {plan.epoch}; this gateway uses epoch {self.epoch}")
            target = await self._activate(plan, addresses)
            limits = CopyLimits.from_replay(replay_s)
            reports = await switch_sessions(self._sessions, target, lost_nodes, transfer_mode, limits)
            _log.info("epoch %d in use: %s; %d sessions moved", plan.epoch, plan.describe(), len(reports))
            return reports

    async def revert(self, plan: SplitPlan, addresses: Mapping[str, str]) -> None:
        """Takes every session back to the older `plan`. Raises LinkLost where one of its nodes does not answer."""
        async with self._switching:
            await revert_sessions(self._sessions, await self._activate(plan, addresses))

    async def close(self) -> None:
        """Closes the calls' channels; the links belong to their owner."""
        await self._channels.close()

    async def _activate(self, plan: SplitPlan, addresses: Mapping[str, str]) -> ActivePlan:
        active = self._sessions.active
        if active is not None and active.plan == plan:
            return active
        missing = [node for node in plan.nodes if not addresses.get(node)]
        if missing:
            raise LinkLost(f"the plan gives no address for {', '.join(missing)}")
        links = await asyncio.gather(
            *(self._links.connect(node, addresses[node], CONNECT_TIMEOUT_S) for node in plan.nodes)
        )
        return ActivePlan(
            plan=plan,
            addresses={node: addresses[node] for node in plan.nodes},
            links={link.peer: link for link in links},
            channels=self._channels,
        )
