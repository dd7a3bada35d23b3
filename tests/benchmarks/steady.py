"""`mec bench steady`: what it costs an answer that everything is watched and may be changed at any time, while nothing changes.

A chain of real processes under a platform (reports, link probes, heartbeats, control ticks, journals, fencing, looks at late
answers) and the same chain without any of it answer the same question in turns. While one answers, the other one and its
platform stand still (SIGSTOP), for less than the silence that a platform forgives.

Three measures: time per token as a client sees it; CPU time of gateway and nodes per token, which others on the machine
disturb less; and CPU time of each of them while nobody asks anything. A token is in one process at a time, so where each has
a machine of its own, the largest of the last is the most that decoding can lose.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mec_apps.cli.compile import CompiledFolders, ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.domain.layers import LayerRange, even_ranges
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.v1 import edge_node_pb2, inference_pb2
from tests.benchmarks.answers import ask
from tests.benchmarks.machine import CHECKOUT, at_most, machine

NODES = ("edge-1", "edge-2", "edge-3")
TOKENS = 96
"""Of each answer: about a second, so that the other chain stands still no longer than that."""

ANSWERS = 3
"""In each half of a turn: what is done once a second has its full share."""

SETTLE_S = 0.3
"""After it stood still, a chain catches up with what was due meanwhile."""

IDLE_S = 10.0
LARGEST_SHARE = 0.02
_PATH = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
_BARE = ("env", f"PYTHONPATH={_PATH}", sys.executable, "-m", "tests.benchmarks.bare_member")

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Half:
    """What one chain did in its half of a turn."""

    tokens: int = 0
    decoding_s: float = 0.0
    cpu_s: float = 0.0
    platform_cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(slots=True)
class _Turns:
    watched: list[_Half] = field(default_factory=list)
    bare: list[_Half] = field(default_factory=list)


class BareChain(LocalCluster):
    """Nodes and gateway without a platform: `use` plays the control plane."""

    async def _start(self) -> None:
        await asyncio.gather(*(self.start_node(name) for name in self._options))
        gateway = ["gateway", "--name", "gateway", "--port", "0", "--context", str(self._context)]
        arguments = [*gateway, *self._folder_arguments(), *await self._member_arguments("gateway")]
        await self._start_process("gateway", arguments, _BARE)

    async def _member_arguments(self, name: str) -> list[str]:
        nowhere = "127.0.0.1:9"
        return ["--platform-url", f"http://{nowhere}", "--platform-grpc", nowhere]

    async def use(self, model: str, ranges: Sequence[LayerRange]) -> None:
        """Loads stages on the nodes, has the gateway use them, and commits."""
        stages = tuple(Stage(name, layers) for name, layers in zip(NODES, ranges, strict=True))
        plan = plan_to_message(SplitPlan(1, 0, model, stages), {name: str(self.facts[name]["grpc"]) for name in NODES})
        for index in reversed(range(len(NODES))):
            await self.node(NODES[index]).LoadStage(edge_node_pb2.LoadStageRequest(plan=plan, stage_index=index))
        await self.inference.SwitchPlan(inference_pb2.SwitchPlanRequest(plan=plan, transfer_mode="replay"))
        for name in NODES:
            await self.node(name).CommitEpoch(edge_node_pb2.EpochRequest(epoch=1))


def run(turns: int, tell: Tell = lambda text: None) -> dict[str, Any]:
    """`tell` is given lines of progress."""
    return asyncio.run(_run(turns, tell))


async def _run(turns: int, tell: Tell) -> dict[str, Any]:
    compiled = ensure_compiled("smollm2", "int4", None)
    seen = _Turns()
    async with _watched(compiled) as watched, _bare(compiled) as bare:
        plan = await watched.wait_for_plan()
        ranges = even_ranges(plan.stages[-1].layers.stop, len(NODES))
        await watched.apply([(name, r.start, r.stop) for name, r in zip(NODES, ranges, strict=True)], "benchmark")
        await bare.use(plan.model, ranges)
        for chain in (watched, bare):
            await ask(chain, TOKENS)
        for turn in range(turns):
            await _turn(watched, bare, seen, watched_first=turn % 2 == 0)
            tell(f"turn {turn + 1} of {turns}: {_words(seen)}")
        idle = await _idle_cpu(watched)
    return _result(seen, idle)


def _watched(compiled: CompiledFolders) -> LocalCluster:
    return LocalCluster(compiled, [NodeOptions(name) for name in NODES], manual=True)


def _bare(compiled: CompiledFolders) -> BareChain:
    return BareChain(compiled, [NodeOptions(name, interpreter=_BARE) for name in NODES])


async def _turn(watched: LocalCluster, bare: BareChain, seen: _Turns, *, watched_first: bool) -> None:
    """An answer of either chain, then of the other, several times: what drifts over seconds is the same for both."""
    of_watched, of_bare = _Half(), _Half()
    for number in range(ANSWERS):
        for is_watched in (True, False) if watched_first == (number % 2 == 0) else (False, True):
            answers, half, stands = (watched, of_watched, bare) if is_watched else (bare, of_bare, watched)
            await asyncio.sleep(SETTLE_S)
            with _standing_still(stands):
                await _answer(answers, half)
    seen.watched.append(of_watched)
    seen.bare.append(of_bare)


async def _answer(chain: LocalCluster, half: _Half) -> None:
    pids = _members(chain)
    platform = [int(chain.facts["platform"]["pid"])] if "platform" in chain.facts else []
    began, cpu_s, platform_s = time.monotonic(), cpu_of(pids), cpu_of(platform)
    answer = await ask(chain, TOKENS)
    half.cpu_s += cpu_of(pids) - cpu_s
    half.platform_cpu_s += cpu_of(platform) - platform_s
    half.wall_s += time.monotonic() - began
    half.tokens += len(answer.tokens)
    half.decoding_s += answer.came_s[-1] - answer.came_s[0]


async def _idle_cpu(chain: LocalCluster) -> dict[str, float]:
    """Of a core, what each process of a chain takes while nobody asks anything."""
    pids = {name: [int(facts["pid"])] for name, facts in chain.facts.items()}
    before, began = {name: cpu_of(pid) for name, pid in pids.items()}, time.monotonic()
    await asyncio.sleep(IDLE_S)
    seconds = time.monotonic() - began
    return {name: (cpu_of(pid) - before[name]) / seconds for name, pid in pids.items()}


def _members(chain: LocalCluster) -> list[int]:
    return [int(chain.facts[name]["pid"]) for name in ("gateway", *NODES)]


@contextmanager
def _standing_still(chain: LocalCluster) -> Iterator[None]:
    pids = [int(facts["pid"]) for facts in chain.facts.values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds that the threads of these processes have had, to the nanosecond; of threads that have ended, none."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def shares(watched: Sequence[float], bare: Sequence[float]) -> tuple[float, float]:
    """By how much more the watched chain takes of something, as the median over the turns, and the half width of its 95 %
    interval: 1.96 standard errors of a median, from the median deviation."""
    ratios = [ours / least - 1 for ours, least in zip(watched, bare, strict=True)]
    middle = statistics.median(ratios)
    deviation = 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios)
    return middle, 1.96 * 1.2533 * deviation / math.sqrt(len(ratios))


def _per_token(halves: Sequence[_Half], what: str) -> list[float]:
    return [getattr(half, what) / half.tokens for half in halves]


def _slowdown(seen: _Turns) -> tuple[float, float]:
    return shares(_per_token(seen.watched, "decoding_s"), _per_token(seen.bare, "decoding_s"))


def _cpu_share(seen: _Turns) -> tuple[float, float]:
    return shares(_per_token(seen.watched, "cpu_s"), _per_token(seen.bare, "cpu_s"))


def _words(seen: _Turns) -> str:
    (slower, unsure), (cpu, cpu_unsure) = _slowdown(seen), _cpu_share(seen)
    return f"time per token {slower:+.2%} (+-{unsure:.2%}), CPU per token {cpu:+.2%} (+-{cpu_unsure:.2%})"


def _result(seen: _Turns, idle: dict[str, float]) -> dict[str, Any]:
    members = [share for name, share in idle.items() if name != "platform"]
    (slower, slower_unsure), (cpu, cpu_unsure) = _slowdown(seen), _cpu_share(seen)
    metrics = {
        "turns": float(len(seen.watched)),
        "watched_tokens_per_s": round(1 / statistics.median(_per_token(seen.watched, "decoding_s")), 1),
        "bare_tokens_per_s": round(1 / statistics.median(_per_token(seen.bare, "decoding_s")), 1),
        "time_per_token_share": round(slower, 4),
        "time_per_token_share_uncertainty": round(slower_unsure, 4),
        "watched_cpu_ms_per_token": round(1e3 * statistics.median(_per_token(seen.watched, "cpu_s")), 3),
        "bare_cpu_ms_per_token": round(1e3 * statistics.median(_per_token(seen.bare, "cpu_s")), 3),
        "cpu_share": round(cpu, 4),
        "cpu_share_uncertainty": round(cpu_unsure, 4),
        "platform_cpu_ms_per_s": round(
            1e3 * statistics.median(half.platform_cpu_s / half.wall_s for half in seen.watched), 2
        ),
        "idle_cpu_share_of_busiest_member": round(max(members), 4),
        "idle_members_cpu_ms_per_s": round(1e3 * sum(members), 2),
        "idle_platform_cpu_ms_per_s": round(1e3 * idle["platform"], 2),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    criteria = [
        # What is not sure is not met.
        at_most("time_per_token_share_at_most", round(slower + slower_unsure, 4), LARGEST_SHARE),
        at_most("idle_cpu_share_of_busiest_member", metrics["idle_cpu_share_of_busiest_member"], LARGEST_SHARE),
        at_most("cpu_share", metrics["cpu_share"], LARGEST_SHARE),
    ]
    return {"bench": "steady", "machine": machine(), "metrics": metrics, "criteria": criteria}
