"""The compute thread takes turns: what comes while a long job is under way does not wait for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mec_apps.split_inference.frames import Frame, FrameKind
from mec_platform.domain.layers import LayerRange
from tests.split_inference.in_process import Edge

SESSION = 5 << 32 | 1

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_what_comes_during_a_job_in_steps_runs_before_its_end(edge: Edge) -> None:
    compute, ran = edge.nodes["a"].compute, []
    under_way = asyncio.Event()
    loop = asyncio.get_running_loop()

    def steps() -> Iterator[None]:
        ran.append("step")
        loop.call_soon_threadsafe(under_way.set)
        while "frame" not in ran:  # ends only because the other has its turn
            yield
        ran.append("last step")

    async def frame() -> None:
        await under_way.wait()
        await compute.call(lambda: ran.append("frame"))

    async with asyncio.timeout(30):
        await asyncio.gather(compute.call_in_steps(steps()), frame())
    assert ran == ["step", "frame", "last step"]


async def test_a_step_that_fails_fails_its_job(edge: Edge) -> None:
    def steps() -> Iterator[None]:
        yield
        raise MemoryError("no room for the second step")

    with pytest.raises(MemoryError, match="second step"):
        await edge.nodes["a"].compute.call_in_steps(steps())


async def test_who_waits_for_positions_gets_them_or_the_end_of_the_wait(edge: Edge) -> None:
    compute, layers = edge.nodes["a"].compute, LayerRange(0, 3)
    waiting = asyncio.create_task(compute.wait_held(SESSION, layers, 4, timeout_s=30))
    await compute.wait_held(SESSION, layers, 4, timeout_s=0.01)
    assert not waiting.done()

    def hold() -> None:
        compute.kv.reserve(SESSION, 4)
        compute.kv.mark_valid(SESSION, layers, 4)

    await compute.call(hold)
    compute.submit(Frame(FrameKind.END, session=SESSION + 1))  # anything that runs
    async with asyncio.timeout(30):
        await waiting
    await compute.call(lambda: compute.kv.end(SESSION))
    await compute.wait_held(SESSION, layers, 4, timeout_s=0.01)
    assert not compute._awaited or all(each.done.done() for each in compute._awaited)
