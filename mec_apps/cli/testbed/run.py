"""Runs a story on the testbed: the network, the processes, what is asked of them, and what is done to them meanwhile."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, assert_never

import click

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.cli.requests import run_async
from mec_apps.cli.testbed.calibration import Measures
from mec_apps.cli.testbed.cleanup import Cleaner, prefix_of, remove_leftovers
from mec_apps.cli.testbed.demand import Asked, Asker, Demand
from mec_apps.cli.testbed.kernel import check_tools
from mec_apps.cli.testbed.measuring import measure
from mec_apps.cli.testbed.network import Network, enter_namespace
from mec_apps.cli.testbed.premises import GATEWAY, PLATFORM, NamespacedPremises
from mec_apps.cli.testbed.questions import Questions
from mec_apps.cli.testbed.quotas import CpuQuotas
from mec_apps.cli.testbed.timeline import Change, CpuShare, LinkRate, NodeKilled, NodeStarted, Setting
from mec_platform.background import BackgroundTasks
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc
from mec_platform.scenario.writing import policy_toml

SETTLE_S = 6.0
"""From the first plan until time begins: members have measured each other several times by then."""

DRAIN_S = 30.0
"""Answers that were asked for in time have so long to end after it."""

_LOADS_S = 1.0


@dataclass(slots=True)
class Measured:
    """What a run showed; times are seconds since its beginning. `plans` are those in force, the first one included;
    `busy_s` is for how long each node computed."""

    adaptive: bool
    duration_s: float
    requests: list[Asked] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    plans: list[tuple[float, SplitPlan]] = field(default_factory=list)
    reconfigurations: list[tuple[float, control_plane_pb2.Reconfiguration]] = field(default_factory=list)
    decisions: list[tuple[float, control_plane_pb2.Decision]] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_s(self) -> list[float]:
        """When tokens came."""
        return sorted(at_s for asked in self.requests for at_s in asked.came_s)

    @property
    def gaps_s(self) -> list[float]:
        """Between each token of an answer and the next."""
        return [after - before for asked in self.requests for before, after in pairwise(asked.came_s)]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a testbed stands on: the network and the quotas. `cores` are those that nodes compute with."""

    network: Network
    quotas: CpuQuotas
    cores: dict[str, int]


@dataclass(slots=True)
class Testbed:
    """A cluster on its ground; `rates` are what links carry now, in bytes per second; `first_plan` stood at the beginning."""

    ground: Ground
    cluster: LocalCluster
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    first_plan: SplitPlan | None = None

    async def apply(self, change: Change) -> None:
        """Makes the change. Raises CliError where that fails."""
        match change:
            case LinkRate():
                self.ground.network.shape(change.source, change.target, change.bytes_per_s)
                self.rates[change.source, change.target] = change.bytes_per_s
            case CpuShare():
                self.ground.quotas.limit(change.node, self.ground.cores[change.node] * change.share)
            case NodeKilled():
                if change.node in self.cluster.running:
                    await self.cluster.kill(change.node)
            case NodeStarted():
                if change.node not in self.cluster.running:
                    await self.cluster.start_node(change.node)
            case _:
                assert_never(change)


@contextmanager
def lay_ground(nodes: Sequence[NodeOptions]) -> Iterator[Ground]:
    """Network and quotas, taken down at the end, whatever happens; this process is inside the network from then on.

    Comes before anything that makes threads: those would stay outside.

    Raises:
        CliError: this process may not, or the kernel does not do it.
    """
    check_tools()
    remove_leftovers()
    prefix, names = prefix_of(os.getpid()), [node.name for node in nodes]
    cleaner = Cleaner(prefix)
    try:
        ground = Ground(
            Network(prefix, [PLATFORM, GATEWAY, *names]), CpuQuotas(prefix), {node.name: node.threads for node in nodes}
        )
        ground.network.set_up()
        ground.quotas.set_up(names)
        enter_namespace(ground.network.hub)
        yield ground
    finally:
        cleaner.finish()


@asynccontextmanager
async def open_testbed(
    ground: Ground,
    compiled: CompiledFolders,
    nodes: Sequence[NodeOptions],
    start: Sequence[Setting],
    policy: Mapping[str, Any],
    *,
    adaptive: bool,
    stages: Sequence[Stage] | None = None,
) -> AsyncIterator[Testbed]:
    """Every process up under those settings and that policy, and a plan committed that is made of settled measurements.

    With `stages` it is that plan, whatever the platform would have chosen: for runs that are to begin alike.

    Raises:
        CliError: a process does not start, or there is no plan.
    """
    for node in nodes:
        ground.quotas.limit(node.name, node.threads)
    with tempfile.TemporaryDirectory(prefix="mec-testbed-") as folder:
        premises = NamespacedPremises(ground.network, ground.quotas, list(ground.cores), Path(folder))
        policies = Path(folder) / "policy.toml"
        policies.write_text(policy_toml(policy))
        cluster = LocalCluster(compiled, nodes, manual=not adaptive, policy=policies, premises=premises)
        testbed = Testbed(ground, cluster)
        for setting in start:
            await testbed.apply(setting)
        async with cluster:
            await cluster.wait_for_plan()
            await asyncio.sleep(SETTLE_S)
            testbed.first_plan = plan_from_message(await cluster.wait_for_plan())
            if stages is not None and tuple(stages) != testbed.first_plan.stages:
                await cluster.apply([(s.node, s.layers.start, s.layers.stop) for s in stages], "both runs begin alike")
                testbed.first_plan = plan_from_message(await cluster.wait_for_plan())
            yield testbed


@dataclass(frozen=True, slots=True)
class Trial:
    """What is done with and without adaptation. `story` says what happens, given the plan that is in force at `told_at_s`.

    `policy` is a table as in a policy file. With `measures` it is also measured what a simulation needs to know.
    """

    nodes: Sequence[NodeOptions]
    start: Sequence[Setting]
    story: Callable[[SplitPlan], Sequence[Change]]
    duration_s: float
    demand: Demand
    policy: Mapping[str, Any]
    measures: bool = False
    told_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Runs:
    """Both runs, the adaptive one first, and what was measured right before each, where that was asked for."""

    runs: Sequence[Measured]
    measures: Sequence[Measures]


def run_trial(trial: Trial, compiled: CompiledFolders) -> Runs:
    """First with adaptation, then from the same plan without. Raises CliError where the testbed cannot be made or fails."""
    with lay_ground(trial.nodes) as ground:
        return run_async(_both(trial, ground, compiled))


async def _both(trial: Trial, ground: Ground, compiled: CompiledFolders) -> Runs:
    runs: list[Measured] = []
    measures: list[Measures] = []
    stages, questions = None, Questions(compiled.package)
    for adaptive in (True, False):
        click.echo(f"{'with' if adaptive else 'without'} adaptation: {trial.duration_s:g} s ...", err=True)
        async with open_testbed(
            ground,
            compiled,
            trial.nodes,
            trial.start,
            trial.policy,
            adaptive=adaptive,
            stages=stages,
        ) as bed:
            if trial.measures:
                click.echo("measuring what one session takes ...", err=True)
                measures.append(await measure(bed.cluster, questions))
                bed.first_plan = measures[-1].plan
            stages = None if bed.first_plan is None else bed.first_plan.stages
            runs.append(await _play(bed, trial, adaptive, questions))
    return Runs(runs, measures)


async def _play(testbed: Testbed, trial: Trial, adaptive: bool, questions: Questions) -> Measured:
    """What is asked for `duration_s`, while the changes happen at their times."""
    measured = Measured(adaptive, trial.duration_s)
    measured.changes = [LinkRate(0.0, source, target, rate) for (source, target), rate in testbed.rates.items()]
    assert testbed.first_plan is not None  # set before anything is played
    measured.plans.append((0.0, testbed.first_plan))
    began = time.perf_counter()
    asker = Asker(testbed.cluster.inference, questions, began)
    measured.requests = asker.asked
    async with BackgroundTasks() as tasks:
        tasks.start("reconfigurations", _follow(testbed, measured, began))
        tasks.start("decisions", _follow_decisions(testbed, measured, began))
        tasks.start("loads", _follow_loads(testbed, measured))
        tasks.start("requests", asker.serve(trial.demand, tasks))
        await asyncio.sleep(began + trial.told_at_s - time.perf_counter())
        changes = trial.story(measured.plans[-1][1])
        for change in sorted((each for each in changes if each.at_s < trial.duration_s), key=lambda each: each.at_s):
            await asyncio.sleep(began + change.at_s - time.perf_counter())
            await testbed.apply(change)
            measured.changes.append(change)
        await asyncio.sleep(began + trial.duration_s - time.perf_counter())
        await asker.drain(DRAIN_S)
    return measured


async def _follow(testbed: Testbed, measured: Measured, began: float) -> None:
    stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(testbed.cluster.platform)
    first = measured.plans[0][1]
    async for done in stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest()):
        if done.plan.epoch <= first.epoch:
            continue
        now = time.perf_counter() - began
        measured.reconfigurations.append((now, done))
        if done.outcome == "committed":
            measured.plans.append((now, plan_from_message(done.plan)))


async def _follow_decisions(testbed: Testbed, measured: Measured, began: float) -> None:
    """Those that differ in kind from the one before, and those that change something."""
    stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(testbed.cluster.platform)
    async for decision in stub.WatchDecisions(control_plane_pb2.WatchDecisionsRequest()):
        known = measured.decisions
        if decision.kind not in ("keep", "wait") or not known or known[-1][1].kind != decision.kind:
            known.append((time.perf_counter() - began, decision))


async def _follow_loads(testbed: Testbed, measured: Measured) -> None:
    before_s = time.perf_counter()
    while True:
        await asyncio.sleep(_LOADS_S)
        seen, now_s = await testbed.cluster.snapshot(), time.perf_counter()
        for member in seen.members:
            if member.role == control_plane_pb2.MEMBER_ROLE_NODE:
                measured.busy_s[member.name] = measured.busy_s.get(member.name, 0.0) + member.load.busy_share * (
                    now_s - before_s
                )
        before_s = now_s
