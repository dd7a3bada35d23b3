"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio

import pytest


class ManualClock:
    """Implements `Clock`. Sleepers wake when `advance` has passed their time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._someone_sleeps = asyncio.Event()

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return 1_700_000_000 * 10**9 + int(self.now_s * 10**9)

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.Event()
        self._sleepers.append((self.now_s + seconds, wake))
        self._someone_sleeps.set()
        await wake.wait()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for due_s, wake in self._sleepers:
            if due_s <= self.now_s:
                wake.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]
        if not self._sleepers:
            self._someone_sleeps.clear()

    async def until_someone_sleeps(self) -> None:
        await self._someone_sleeps.wait()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
