"""Whether a process is there and answers, asked on a way of its own: not behind frames, nor behind what it computes.

The question is that of gRPC health checking (`grpc.health.v1.Health`), which every server of the product answers on its
event loop. A node that is busy answers it; one that hangs, whose connections its kernel keeps up, cannot.
"""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2

from mec_platform.domain.failures import Failure, FailureKind

CHECK = f"/{health.SERVICE_NAME}/Check"

ANSWER_S = 0.4
"""A process that lives answers within this: a thousand times what it takes, for the sake of machines that are busy."""

QUESTIONS = 2
"""Unanswered in a row before silence is believed. One is not enough: it may be the asking process that stood still."""

CONNECT_S = 0.5


async def find_silence(channel: grpc.aio.Channel) -> Failure | None:
    """Asks the process behind a channel; None where it answers, whatever it says. Takes 0.8 s at most."""
    check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, bytes] = channel.unary_unary(
        CHECK, request_serializer=health_pb2.HealthCheckRequest.SerializeToString
    )
    for _ in range(QUESTIONS):
        try:
            await check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                continue
        return None
    return Failure(FailureKind.NOT_ANSWERING, f"{QUESTIONS} questions in {QUESTIONS * ANSWER_S:g} s")


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
