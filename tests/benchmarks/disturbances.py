"""What happens to an edge in the middle of its answers: live re-splits, plans that are given up, nodes that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc.aio

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2
from tests.benchmarks.answers import Answer, ask
from tests.benchmarks.machine import BenchmarkError
from tests.benchmarks.pauses import Change

NODES = ("edge-1", "edge-2", "edge-3")
TOKENS = 72
EARLIEST, LATEST = 8, 32
"""Tokens after which a change begins: it takes some 25, and as long as nothing fails it ends within the answer."""

RECOVERED_S = 30.0

Stages = list[tuple[str, int, int]]


@dataclass(slots=True)
class Disturbed:
    """One answer and what was done to it. Of a kill, when it was and when the platform had decided what to do, in monotonic
    seconds."""

    answer: Answer
    done: list[control_plane_pb2.Reconfiguration] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    aborted: bool = False
    killed_s: float = 0.0
    decided_s: float = 0.0


class Disturber:
    """Disturbs the answers of one cluster; `blocks` are those of its model."""

    def __init__(self, cluster: LocalCluster, blocks: int, choices: random.Random) -> None:
        self._cluster = cluster
        self._blocks = blocks
        self._choices = choices

    async def disturb(self, kind: str) -> Disturbed:
        """One answer with a "re-split", an "abort" or a "kill" in it. Raises what the cluster's calls raise."""
        current = stages_of(await self._cluster.wait_for_plan())
        return await {"kill": self._kill, "abort": self._abort, "re-split": self._re_split}[kind](current)

    async def mend(self) -> None:
        """Has every node there and awake, whatever happened. Raises TimeoutError, CliError."""
        for name in NODES:
            if name in self._cluster.running:
                self._cluster.go_on(name)
            else:
                await self._cluster.start_node(name)
        await self._all_here()

    async def _re_split(self, current: Stages) -> Disturbed:
        stages = self._other_plan(current)
        disturbed = Disturbed(Answer())

        async def apply() -> None:
            change, times = await timed_apply(self._cluster, stages)
            disturbed.done.append(change)
            disturbed.changes.append(times)

        disturbed.answer = await self._answer_through(apply)
        return disturbed

    async def _abort(self, current: Stages) -> Disturbed:
        """A plan with a node that hangs: it is given up, and the old one goes on."""
        if len(current) == len(NODES):  # every node is in use: first to a plan that leaves one free
            current = [(NODES[0], 0, self._blocks)]
            await self._cluster.apply(current, "benchmark")
        stages = current
        while not (fresh := {name for name, _, _ in stages} - {name for name, _, _ in current}):
            stages = self._other_plan(current)
        process = int(self._cluster.facts[min(fresh)]["pid"])
        disturbed = Disturbed(Answer())

        async def apply() -> None:
            os.kill(process, signal.SIGSTOP)
            try:
                await self._cluster.apply(stages, "benchmark: to be aborted")
            except grpc.aio.AioRpcError:
                disturbed.aborted = True
            finally:
                os.kill(process, signal.SIGCONT)

        disturbed.answer = await self._answer_through(apply)
        await self._all_here()
        return disturbed

    async def _kill(self, current: Stages) -> Disturbed:
        """SIGKILL to a node of the plan; the platform finds another one and the answer goes on there."""
        victim = self._choices.choice([name for name, _, _ in current])
        disturbed = Disturbed(Answer())

        async def kill() -> None:
            decisions = control_plane_pb2_grpc.AdaptiveOrchestratorStub(self._cluster.platform).WatchDecisions(
                control_plane_pb2.WatchDecisionsRequest()
            )
            try:
                await decisions.read()  # the stream stands: it begins with what is known
                disturbed.killed_s = time.monotonic()
                await self._cluster.kill(victim)
                async with asyncio.timeout(RECOVERED_S):
                    while not disturbed.decided_s:
                        decision = await decisions.read()
                        if not isinstance(decision, control_plane_pb2.Decision):
                            raise BenchmarkError("the platform ended the stream of its decisions")
                        if decision.kind != "keep" and decision.at_s >= disturbed.killed_s:
                            disturbed.decided_s = decision.at_s
            finally:
                decisions.cancel()

        disturbed.answer = await self._answer_through(kill)
        await self._cluster.start_node(victim)
        await self._all_here()
        return disturbed

    async def _all_here(self) -> None:
        """Waits until the platform counts on every node again."""
        async with asyncio.timeout(RECOVERED_S):
            while True:
                seen = await self._cluster.snapshot()
                if {member.name for member in seen.members} >= set(NODES):
                    return
                await asyncio.sleep(0.1)

    async def _answer_through(self, change: Callable[[], Awaitable[None]]) -> Answer:
        reached, after = asyncio.Event(), self._choices.randint(EARLIEST, LATEST)

        def watch(count: int) -> None:
            if count >= after:
                reached.set()

        async def disturb() -> None:
            await reached.wait()
            await change()

        async with asyncio.TaskGroup() as both:
            asked = both.create_task(ask(self._cluster, TOKENS, watch))
            both.create_task(disturb())
        return asked.result()

    def _other_plan(self, current: Stages) -> Stages:
        """Nodes in random order, as many as chance has it, random cuts; never the plan that is in force."""
        while True:
            chosen = self._choices.sample(NODES, self._choices.randint(1, len(NODES)))
            cuts = sorted(self._choices.sample(range(1, self._blocks), len(chosen) - 1))
            ranges = ranges_from_cuts(self._blocks, cuts)
            stages = [(name, r.start, r.stop) for name, r in zip(chosen, ranges, strict=True)]
            if stages != current:
                return stages


async def timed_apply(cluster: LocalCluster, stages: Stages) -> tuple[control_plane_pb2.Reconfiguration, Change]:
    """Applies a plan. Raises grpc.aio.AioRpcError where it does not come about."""
    began = time.monotonic()
    done = await cluster.apply(stages, "benchmark")
    return done, Change(began, began + done.prepare_ms / 1e3, time.monotonic())


def stages_of(plan: types_pb2.SplitPlan) -> Stages:
    """As `LocalCluster.apply` takes them."""
    return [(stage.node, stage.layers.start, stage.layers.stop) for stage in plan.stages]
