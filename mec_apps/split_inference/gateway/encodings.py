"""Requests to an encoder: one tensor goes through its chain of nodes, and rows for the language model come back.

A request keeps nothing on nodes, so one that loses a stage, or whose plan is replaced, is sent again whole under the same
id on the next plan: kernels give the same bits, wherever the cuts are. Counterpart: `node.compiled_encoder`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.frames import RECOVERABLE, Frame, FrameKind, Refusal
from mec_apps.split_inference.gateway.active_plan import ActivePlan, StageLost
from mec_apps.split_inference.gateway.plan_user import MAX_RECOVERIES, RECOVERY_TIMEOUT_S, PlanUser
from mec_apps.split_inference.generation import GenerationFailed, Overloaded
from mec_apps.split_inference.peer_link import LinkLost
from mec_platform.domain.failures import Failure

ANSWER_TIMEOUT_S = 20.0
"""A request without an answer for so long counts as lost."""

_log = logging.getLogger(__name__)
Rows = npt.NDArray[np.float32]


class Encodings(PlanUser):
    """All requests of a gateway to one encoder, and the plan that they run on."""

    def __init__(
        self,
        gateway_number: int,
        package: EncoderPackage,
        max_requests: int,
        on_failure: Callable[[str, Failure], None],
    ) -> None:
        super().__init__()
        self._gateway_number = gateway_number
        self._package = package
        self._max_requests = max_requests
        self._on_failure = on_failure
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[ActivePlan, asyncio.Future[Frame]]] = {}
        self._running = 0

    def plans_under_work(self) -> Iterable[ActivePlan]:
        """The plan of every request under way."""
        return [active for active, _ in self._waiting.values()]

    def requests_on(self, chain: int) -> int:
        """Requests that run on a chain."""
        return sum(active.plan.chain == chain for active, _ in self._waiting.values())

    async def encode(self, tensor: Rows) -> Rows:
        """Rows [n, width] for a tensor of the shape that the encoder takes.

        Raises:
            NoPlan, Overloaded, GenerationFailed: see `generation`.
        """
        if self._running >= self._max_requests:
            raise Overloaded(f"{self._max_requests} pictures are being encoded already; try again later")
        self._running += 1
        request = self._gateway_number << 32 | next(self._ids)
        try:
            active = await self.first_plan()
            tried: set[int] = set()
            for _ in range(MAX_RECOVERIES):
                try:
                    answer = await self._ask(request, active, tensor)
                except StageLost as lost:
                    reason = str(lost)
                    _log.warning(
                        "request %x lost its stages (%s); waiting for a plan to send it again on", request, reason
                    )
                else:
                    return self._read(answer)
                tried.add(active.plan.epoch)
                try:
                    active = await self.next_plan(active, tried, RECOVERY_TIMEOUT_S)
                except TimeoutError as error:
                    raise GenerationFailed(
                        f"{reason}; no plan without it came within {RECOVERY_TIMEOUT_S:g} s"
                    ) from error
            raise GenerationFailed(f"gave up after {MAX_RECOVERIES} attempts in a row: {reason}")
        finally:
            self._running -= 1

    def on_frame(self, node: str, frame: Frame) -> None:
        """A HIDDEN or REFUSED frame from a node; what no request waits for is dropped (an older plan's, or repeated)."""
        active, answer = self._waiting.get(frame.session, (None, None))
        if active is None or answer is None or answer.done() or frame.epoch != active.plan.epoch:
            return
        if frame.kind is FrameKind.HIDDEN:
            answer.set_result(frame)
        elif frame.kind is FrameKind.REFUSED:
            reason = f"{node} refused a frame: {frame.payload.decode(errors='replace')}"
            if frame.flags in RECOVERABLE:
                answer.set_exception(StageLost(reason))
            elif frame.flags == Refusal.NO_PAGES:
                answer.set_exception(Overloaded(reason))
            else:
                answer.set_exception(GenerationFailed(reason))

    def on_link_lost(self, node: str, failure: Failure) -> None:
        """The stream to a node broke: requests whose plan uses it are sent again, and the platform is told."""
        self._on_failure(node, failure)
        for active, answer in self._waiting.values():
            if node in active.plan.nodes and not answer.done():
                answer.set_exception(StageLost(f"{node}: {failure}"))

    def leave_plan(self, epoch: int, reason: str) -> None:
        """See `PlanUser`: its requests are sent again elsewhere."""
        for active, answer in self._waiting.values():
            if active.plan.epoch == epoch and not answer.done():
                answer.set_exception(StageLost(reason))

    async def _ask(self, request: int, active: ActivePlan, tensor: Rows) -> Frame:
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[request] = (active, answer)
        self.note_sent(request, active)
        frame = Frame(FrameKind.ROWS, active.plan.epoch, request, rows=1, payload=tensor.tobytes())
        try:
            active.enter(frame)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except LinkLost as error:
            raise StageLost(str(error)) from error
        except TimeoutError as error:
            raise StageLost(f"no answer within {ANSWER_TIMEOUT_S:g} s") from error
        finally:
            self.note_settled(request)
            del self._waiting[request]
            active.end(request, active.first)  # its place is free again

    def _read(self, answer: Frame) -> Rows:
        shape = self._package.boundaries[-1]
        if len(answer.payload) != self._package.boundary_bytes(len(self._package.boundaries) - 1):
            raise GenerationFailed(f"the encoder's rows have {len(answer.payload)} bytes, which are not {shape}")
        return np.frombuffer(answer.payload, np.float32).reshape(-1, shape[-1])
