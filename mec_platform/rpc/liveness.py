"""Whether a process is there and answers, asked on a way of its own: not behind frames, nor behind what it computes.

The question is that of gRPC health checking (`grpc.health.v1.Health`), which every server of the product answers on its
event loop. A node that is busy answers it; one that hangs, whose connections its kernel keeps up, cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2

from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.rpc.endpoints import Channels

CHECK = f"/{health.SERVICE_NAME}/Check"

ANSWER_S = 0.4
"""A process that lives answers within this: a thousand times what it takes, for the sake of machines that are busy."""

SLOWER_THAN_EVER = 3.0
LONGEST_ANSWER_S = 2.0
"""Where answers do take long, this many times the longest of the last ones is waited for, up to this."""

QUESTIONS = 2
"""Unanswered in a row before silence is believed: one may have got lost in a short standstill."""

MOST_QUESTIONS = 6
LATE_S = 0.1
"""A deadline that is noticed this much too late says that the asking process stood still itself; it counts for nothing."""

CONNECT_S = 0.5
RECENT = 16


class Pulses:
    """How quickly processes answer, by address, and whether one has fallen silent. `channels` are the owner's."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._took_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def patience_s(self, address: str) -> float:
        """How long an answer is waited for."""
        longest_s = max(self._took_s[address], default=0.0)
        return min(max(ANSWER_S, SLOWER_THAN_EVER * longest_s), LONGEST_ANSWER_S)

    async def find_silence(self, address: str, member: str) -> Failure | None:
        """Asks the process of `member` at `host:port`; None where it answers, whatever it says.

        Takes 0.8 s where it has been quick.
        """
        loop, patience_s, unanswered = asyncio.get_running_loop(), self.patience_s(address), 0
        check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, bytes]
        check = self._channels.to(address, member).unary_unary(
            CHECK, request_serializer=health_pb2.HealthCheckRequest.SerializeToString
        )
        for _ in range(MOST_QUESTIONS):
            asked_s = loop.time()
            try:
                await check(health_pb2.HealthCheckRequest(), timeout=patience_s, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    unanswered += loop.time() - asked_s < patience_s + LATE_S
                    if unanswered == QUESTIONS:
                        break
                    continue
            self._took_s[address].append(loop.time() - asked_s + unanswered * patience_s)
            return None
        return Failure(FailureKind.NOT_ANSWERING, f"{QUESTIONS} questions in {QUESTIONS * patience_s:.1f} s")


async def find_refusal(address: str) -> Failure | None:
    """Says so where the host of `host:port` refuses connections; None where it takes them or does not answer.

    What is not answered may be the network, and proves nothing; a refusal proves that nobody listens.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return Failure(FailureKind.GONE, f"{address} refuses connections")
    except (OSError, TimeoutError, ValueError):
        return None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
