"""Waiting for times of day, by a clock whose sleeps are counted."""

from __future__ import annotations

import asyncio

import pytest

from mec_platform.registry.deadlines import LONGEST_WAIT_S, RETRY_S, Deadlines
from mec_platform.registry.errors import LogUnavailable


class CountingClock:
    """Whoever sleeps has slept."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return round(self.now_s * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class Acting:
    """What is due is done, after as many failures of the log as `failures` says; `over` after so many deeds."""

    def __init__(self, clock: CountingClock, deeds: int, failures: int = 0) -> None:
        self.clock, self.failures, self._deeds = clock, failures, deeds
        self.done: list[tuple[str, float]] = []
        self.over = asyncio.Event()
        self.deadlines = Deadlines("a test", clock, self.act)

    async def act(self, name: str) -> None:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("the disk is full")
        self.done.append((name, self.clock.now_s))
        self.deadlines.forget(name)
        if len(self.done) == self._deeds:
            self.over.set()

    async def until_over(self) -> None:
        await self.over.wait()
        await self.deadlines.stop()


@pytest.fixture
def clock() -> CountingClock:
    return CountingClock()


async def test_what_is_due_is_done_in_its_order_and_the_clock_looked_at_meanwhile(clock):
    acting = Acting(clock, 2)
    acting.deadlines.expect("later", 1130 * 10**9)
    acting.deadlines.expect("sooner", 1001 * 10**9)
    acting.deadlines.expect("forgotten", 1001 * 10**9)
    acting.deadlines.forget("forgotten")
    await acting.until_over()
    assert acting.done == [("sooner", 1001.0), ("later", 1130.0)]
    assert max(clock.slept) == LONGEST_WAIT_S


async def test_a_time_that_is_put_off_is_waited_for_anew(clock):
    acting = Acting(clock, 1)
    acting.deadlines.expect("one", 1001 * 10**9)
    acting.deadlines.expect("one", 1005 * 10**9)
    await acting.until_over()
    assert acting.done == [("one", 1005.0)]


async def test_what_the_log_does_not_take_is_tried_again(clock):
    acting = Acting(clock, 1, failures=2)
    acting.deadlines.expect("one", 1001 * 10**9)
    await acting.until_over()
    assert acting.done == [("one", 1001.0 + 2 * RETRY_S)]
