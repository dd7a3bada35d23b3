"""Tells nodes that hang from nodes that are slow, while requests wait for them.

A frame that takes several times as long as usual has the nodes of its plan asked whether they live, on connections of
their own (`rpc.liveness`). A node that does not answer has its link broken off: from there all goes as after any break.
"""

from __future__ import annotations

import asyncio

from mec_apps.split_inference.gateway.plan_user import PlanUser
from mec_apps.split_inference.peer_link import PeerLink
from mec_platform.background import BackgroundTasks
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.liveness import Pulses

LOOK_EVERY_S = 0.1
ASK_AGAIN_S = 0.5
"""A node that lives is not asked again sooner, however long its work takes."""


class StallWatch:
    """Over the requests of one `PlanUser`; `start`, then `stop`."""

    def __init__(self, requests: PlanUser, identity: GrpcIdentity | None = None) -> None:
        self._requests = requests
        self._channels = Channels(identity)
        self._pulses = Pulses(self._channels)
        self._tasks = BackgroundTasks()
        self._asked_s: dict[str, float] = {}
        self._asking: set[str] = set()

    def start(self) -> None:
        """Begins to look."""
        self._tasks.start("stall watch", self._look())

    async def stop(self) -> None:
        """Stops looking; questions under way are dropped."""
        await self._tasks.stop()
        await self._channels.close()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            links = {name: link for active in self._requests.late_plans() for name, link in active.links.items()}
            for name, link in links.items():
                due = loop.time() - self._asked_s.get(name, -ASK_AGAIN_S) >= ASK_AGAIN_S
                if due and link.connected and name not in self._asking:
                    self._asking.add(name)
                    self._tasks.start(f"ask {name}", self._ask(name, link))

    async def _ask(self, name: str, link: PeerLink) -> None:
        try:
            failure = await self._pulses.find_silence(link.address, name)
        finally:
            self._asking.discard(name)
        self._asked_s[name] = asyncio.get_running_loop().time()
        if failure is not None:
            link.break_off(failure)
