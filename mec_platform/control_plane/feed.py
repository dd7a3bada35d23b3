"""A short history that watchers follow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

HISTORY = 200
"""Items kept, and items that a watcher may fall behind before it misses the oldest."""

Item = TypeVar("Item")


class Feed(Generic[Item]):
    """Any number of watchers; none of them can slow down who publishes."""

    def __init__(self) -> None:
        self._history: deque[Item] = deque(maxlen=HISTORY)
        self._watchers: set[asyncio.Queue[Item]] = set()

    @property
    def latest(self) -> Item | None:
        """The item published last, or None."""
        return self._history[-1] if self._history else None

    def publish(self, item: Item) -> None:
        """Adds an item and hands it to every watcher."""
        self._history.append(item)
        for watcher in self._watchers:
            if watcher.full():
                watcher.get_nowait()
            watcher.put_nowait(item)

    async def watch(self) -> AsyncIterator[Item]:
        """The latest item, if there is one, then each new one as it comes."""
        queue: asyncio.Queue[Item] = asyncio.Queue(HISTORY)
        if self._history:
            queue.put_nowait(self._history[-1])
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)
