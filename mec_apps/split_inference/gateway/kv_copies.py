"""Has nodes copy a session's KV to each other; the gateway asks for it and sees none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc.aio

from mec_apps.split_inference.gateway.active_plan import ActivePlan, PlanHeld
from mec_platform.domain.split_plan import KvMove
from mec_platform.rpc.convert import layers_to_message
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc

if TYPE_CHECKING:
    from mec_apps.split_inference.gateway.sessions import Session

COPY_FAILURES = (grpc.aio.AioRpcError, TimeoutError, PlanHeld)
"""A node refused or vanished, the link is slower than the plan was made for, or a node of it lost its trust: the tokens are
replayed instead."""

CopyFailure = grpc.aio.AioRpcError | TimeoutError | PlanHeld


def words_of(error: CopyFailure) -> str:
    """For people: why a copy failed."""
    match error:
        case TimeoutError():
            return "it took too long"
        case PlanHeld():
            return str(error)
        case _:
            return error.details() or error.code().name


async def copy_kv(
    session: Session,
    source: ActivePlan,
    target: ActivePlan,
    moves: Iterable[KvMove],
    positions: tuple[int, int],
    *,
    in_background: bool,
    wait_s: float = 0.0,
) -> int:
    """Copies positions `[first, last)` of all moves side by side, from nodes of one plan to those of another; returns the
    bytes. Sources wait up to `wait_s` for a position that they have not computed yet. Raises AioRpcError or PlanHeld."""
    first, last = positions
    if last == first:
        return 0
    target.check_open()

    async def send(move: KvMove) -> int:
        selection = edge_node_pb2.KvSelection(
            session=session.id, layers=layers_to_message(move.layers), first_position=first, last_position=last
        )
        request = edge_node_pb2.SendKvRequest(
            selection=selection,
            target=move.target,
            target_address=target.addresses[move.target],
            in_background=in_background,
            wait_s=wait_s,
        )
        node = edge_node_pb2_grpc.EdgeNodeStub(source.channels.to(source.addresses[move.source], move.source))
        return (await node.SendKv(request)).bytes

    return sum(await asyncio.gather(*(send(move) for move in moves)))
