"""Many waits, one task: what is due next is slept for, everything else is an entry in a heap."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from mec_platform.background import BackgroundTasks
from mec_platform.registry.clock import Clock


class Timers:
    """Calls `fire` with a name once the time of that name has come; a name has one timer at most.

    `purpose` is what the task that sleeps is called.
    """

    def __init__(self, purpose: str, clock: Clock, tasks: BackgroundTasks, fire: Callable[[str], None]) -> None:
        self._purpose = purpose
        self._clock = clock
        self._tasks = tasks
        self._fire = fire
        self._due_s: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._sleeper: asyncio.Task[None] | None = None
        self._sleeps_until_s = 0.0

    def start(self, name: str, delay_s: float) -> None:
        """Starts the timer of this name, or starts it anew."""
        due_s = self._clock.monotonic_s() + delay_s
        self._due_s[name] = due_s
        heapq.heappush(self._heap, (due_s, name))
        self._sleep_until_next()

    def cancel(self, name: str) -> bool:
        """Whether there was one; its entry in the heap is passed over when its time comes."""
        return self._due_s.pop(name, None) is not None

    def _sleep_until_next(self) -> None:
        while self._heap and self._due_s.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap:
            return
        next_s = self._heap[0][0]
        if self._sleeper is not None and not self._sleeper.done():
            if self._sleeps_until_s <= next_s:
                return
            self._sleeper.cancel()
        self._sleeps_until_s = next_s
        self._sleeper = self._tasks.start(self._purpose, self._run(next_s))

    async def _run(self, until_s: float) -> None:
        await self._clock.sleep(max(until_s - self._clock.monotonic_s(), 0.0))
        self._sleeper = None
        now_s = self._clock.monotonic_s()
        while self._heap and self._heap[0][0] <= now_s:
            due_s, name = heapq.heappop(self._heap)
            if self._due_s.get(name) == due_s:
                del self._due_s[name]
                self._fire(name)
        self._sleep_until_next()
