"""Carries out what `disturbances` draws, on an edge of real processes, and mends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from mec_apps.cli.local_cluster import LocalCluster
from mec_apps.split_inference.link_shaper import EmulatedLink
from tests.integration.soak.disturbances import (
    PLATFORM,
    Abort,
    AddChain,
    Blow,
    Disconnect,
    DropChain,
    Fade,
    Hang,
    Kill,
    Order,
    ReSplit,
    Starve,
    Step,
)
from tests.integration.soak.processes import break_connections

ORDER_DEADLINE_S = 120.0
"""Above every deadline that a change has, one after the other."""

REFUSALS = frozenset(
    {
        grpc.StatusCode.ABORTED,  # the change was given up, and says why
        grpc.StatusCode.INVALID_ARGUMENT,  # it does not fit what is there: a node has gone, another change is under way
        grpc.StatusCode.FAILED_PRECONDITION,  # there is nothing to abort, or no longer
        grpc.StatusCode.UNAVAILABLE,  # the platform is not there, or does not lead yet
    }
)
"""How orders may end beside committed; each with a reason."""


class Strikes:
    """`play` a step; `told` is what became of its order and blow, in words."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    async def play(self, step: Step) -> list[str]:
        """Returns what was done, and what became of it. Raises AssertionError where an order ends as none may."""
        told: list[str] = []
        async with asyncio.timeout(ORDER_DEADLINE_S):
            ordering = asyncio.ensure_future(self._order(step.order)) if step.order is not None else None
            try:
                await asyncio.sleep(step.after_s)
                if step.blow is not None:
                    async with self._struck(step.blow, told):
                        await asyncio.sleep(step.lasts_s)
                if ordering is not None:
                    told.append(await ordering)
            finally:
                if ordering is not None:
                    ordering.cancel()
        await asyncio.sleep(step.rest_s)
        return told

    async def _order(self, order: Order) -> str:
        try:
            words = await self._give(order)
        except grpc.aio.AioRpcError as error:
            words = _refusal(error)
        return f"{type(order).__name__}: {words}"

    async def _give(self, order: Order) -> str:
        seen = await self._cluster.snapshot()
        plans = [plan for plan in (seen.plan, *seen.replicas) if plan.stages]
        if not plans:
            return "there is no plan yet"
        chosen = plans[0] if isinstance(order, AddChain) else plans[order.chain % len(plans)]
        if isinstance(order, DropChain):
            return (await self._cluster.drop_chain(chosen.chain, "soak")).outcome
        keeps = plans if isinstance(order, AddChain) else [plan for plan in plans if plan is not chosen]
        taken = {stage.node for plan in keeps for stage in plan.stages}
        stages = order.layout.stages({member.name for member in seen.members} - taken)
        if not stages:
            return "too few nodes are free"
        if isinstance(order, ReSplit):
            done = await self._cluster.apply(stages, "soak", chain=chosen.chain)
        else:
            done = await self._cluster.apply(stages, "soak", add_chain=True)
        return f"{done.outcome}, epoch {done.plan.epoch}: {stages}"

    @asynccontextmanager
    async def _struck(self, blow: Blow, told: list[str]) -> AsyncIterator[None]:
        """The blow falls now; at the end it is mended."""
        cluster = self._cluster
        match blow:
            case Kill(names):
                await asyncio.gather(*(cluster.kill(name) for name in names))
                yield
                # Members wait for the platform, but not for as long as it may be gone.
                for name in sorted(names, key=lambda name: name != PLATFORM):
                    await (cluster.start_platform() if name == PLATFORM else cluster.start_node(name))
            case Hang(name):
                cluster.hang(name)
                try:
                    yield
                finally:
                    cluster.go_on(name)
            case Disconnect(name):
                address = str(cluster.facts[name]["grpc"])
                ports = frozenset({int(address.rpartition(":")[2])})
                broken = break_connections(cluster.process_id("gateway"), ports)
                told.append(f"{broken} connections of the gateway to {name} broken")
                yield
            case Fade(source, target, bytes_per_s):
                await cluster.emulate(source, {target: EmulatedLink(bytes_per_s=bytes_per_s)})
                yield
                await cluster.emulate(source, {target: EmulatedLink()})
            case Starve(name, share):
                await cluster.emulate(name, cpu_share=share)
                yield
                await cluster.emulate(name, cpu_share=1.0)
            case Abort():
                try:
                    told.append(f"Abort: {(await cluster.abort(reason='soak')).outcome}")
                except grpc.aio.AioRpcError as error:
                    told.append(f"Abort: {_refusal(error)}")
                yield


def _refusal(error: grpc.aio.AioRpcError) -> str:
    """How an order was refused. Raises AssertionError where it may not be refused so, or was without a reason."""
    if error.code() not in REFUSALS or not error.details():
        raise AssertionError(f"refused with {error.code()}: {error.details()!r}") from error
    return f"{error.code().name}: {error.details()}"
