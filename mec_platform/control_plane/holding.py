"""Plans that nothing may be sent into any more: gateways are told at once, and again in answer to every report.

A plan is held when a node of it has lost the trust that its blocks need. A plan without that node comes as soon as it is
prepared; until then, and where there is none, sessions wait instead of giving the node more of what it must not see.
Counterpart: `mec_apps.split_inference.gateway.active_plan`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.standing import HeldPlan
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.convert import held_to_messages
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.v1 import inference_pb2, inference_pb2_grpc

TELL_TIMEOUT_S = 2.0
"""A gateway that cannot be told by then learns it in answer to its next report, or is cut off and waits by itself."""

_log = logging.getLogger(__name__)


class Holds:
    """Of one deployment. Gateways are called as `identity`."""

    def __init__(self, identity: GrpcIdentity | None = None) -> None:
        self._channels = Channels(identity)
        self._tasks = BackgroundTasks()
        self.held: tuple[HeldPlan, ...] = ()

    def hold(self, held: tuple[HeldPlan, ...], model: str, gateways: Mapping[str, str]) -> None:
        """Makes these the plans that are held; gateways, addresses by name, are told where that is news."""
        if held == self.held:
            return
        self.held = held
        for plan in held:
            _log.warning("%s: epoch %d is held: %s", model, plan.epoch, plan.reason)
        request = inference_pb2.HoldPlansRequest(model=model, held=held_to_messages(held))
        for name, address in gateways.items():
            self._tasks.start(f"tell {name} what is held", self._tell(name, address, request))

    async def stop(self) -> None:
        """Ends calls under way."""
        await self._tasks.stop()
        await self._channels.close()

    async def _tell(self, name: str, address: str, request: inference_pb2.HoldPlansRequest) -> None:
        try:
            gateway = inference_pb2_grpc.InferenceStub(self._channels.to(address, name))
            await gateway.HoldPlans(request, timeout=TELL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _log.warning("%s could not be told which plans are held: %s", name, error.details())
