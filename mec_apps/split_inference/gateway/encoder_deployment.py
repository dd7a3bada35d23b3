"""The encoder that a gateway puts pictures through: its links, plan and membership of the encoder's own deployment.

Beside the gateway's language model; the two deployments have nothing in common but the gateway.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.gateway.encodings import Encodings
from mec_apps.split_inference.gateway.plan_switcher import PlanSwitcher, follow_chains
from mec_apps.split_inference.gateway.stall_watch import StallWatch
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.membership import Membership
from mec_apps.split_inference.peer_link import LinkPool
from mec_platform.background import BackgroundTasks
from mec_platform.domain.failures import Failure
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.convert import held_from_messages, shape_to_message
from mec_platform.rpc.v1 import control_plane_pb2

MAX_REQUESTS = 32


class EncoderDeployment:
    """`join`, then `encodings` are served, then `stop`. `grpc_address()` is where the gateway's own service listens."""

    def __init__(
        self,
        gateway: str,
        incarnation: str,
        package_dir: Path,
        platform_grpc: str,
        grpc_address: Callable[[], str],
        on_failure: Callable[[str, Failure], None],
        identity: GrpcIdentity | None = None,
    ) -> None:
        """Raises PackageError."""
        self.package = EncoderPackage.open(package_dir)
        self._gateway = gateway
        self._incarnation = incarnation
        self._platform_grpc = platform_grpc
        self._grpc_address = grpc_address
        number = secrets.randbits(31) + 1
        self.encodings = Encodings(number, self.package, MAX_REQUESTS, on_failure)
        hello = Frame(FrameKind.HELLO, session=number << 32, payload=gateway.encode())
        self._links = LinkPool(hello, LinkShapers(), self.encodings.on_frame, self.encodings.on_link_lost, identity)
        self.switcher = PlanSwitcher(self.encodings, self._links)
        self._stall_watch = StallWatch(self.encodings, identity)
        self._tasks = BackgroundTasks()
        self._following: asyncio.Task[None] | None = None
        self._reported_s = 0.0
        self._membership = Membership(
            gateway,
            platform_grpc,
            self._build_report,
            self._links.measure,
            self._on_reply,
            identity=identity,
        )

    async def join(self, wait_s: float) -> None:
        """Raises JoinError where no platform answers in time, or it has another gateway of this name."""
        await self._membership.join(wait_s)
        self._stall_watch.start()

    async def stop(self) -> None:
        """Signs off and closes everything."""
        await self._tasks.stop()
        await self._stall_watch.stop()
        await self._membership.leave()
        await self._links.close()
        await self.switcher.close()

    def _build_report(self) -> control_plane_pb2.MemberReport:
        self._reported_s = asyncio.get_running_loop().time()
        return control_plane_pb2.MemberReport(
            name=self._gateway,
            role=control_plane_pb2.MEMBER_ROLE_GATEWAY,
            address=self._grpc_address(),
            incarnation=self._incarnation,
            trusted=True,
            model=shape_to_message(self.package.shape),
        )

    async def _on_reply(self, reply: control_plane_pb2.ReportReply, nodes: frozenset[str]) -> None:
        self.switcher.hold(held_from_messages(reply.held), self._reported_s)
        await self._links.keep_only(nodes | self.encodings.nodes_in_use)
        # Beside the reports, as the gateway itself does.
        if self._following is None or self._following.done():
            follow = follow_chains(self._platform_grpc, self.package.shape.name, self.switcher, reply)
            self._following = self._tasks.start("follow chains", follow)
