"""Long-running work beside requests: the one place that creates asyncio tasks.

Everything else starts its loops through `BackgroundTasks`, so that each of them has a name, is referenced until it
ends, is reported when it fails, and is cancelled *and awaited* when its owner stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from mec_platform.domain.errors import MendableError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class BackgroundTasks:
    """The tasks of one owner; also an async context manager that stops them at its end.

    A task that fails is logged with its name and its traceback; its siblings go on. Awaiting the task that `start`
    returned raises its error too, for an owner that wants to act on it.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._stopped = False

    def start(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs `work` as a task called `name`.

        Raises:
            RuntimeError: the owner has stopped already; `work` is closed unstarted.
        """
        if self._stopped:
            work.close()
            raise RuntimeError(f"cannot start background task {name!r}: its owner has stopped")
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # What a person can mend needs no traceback: its message says what to do.
            trace = None if isinstance(error, MendableError) else error
            logger.error("background task %s failed: %s", task.get_name(), error, exc_info=trace)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks that run now, sorted."""
        return tuple(sorted(task.get_name() for task in self._running))

    async def cancel(self, *tasks: asyncio.Task[Any]) -> None:
        """Cancels these tasks and returns once each of them has ended, whatever it ended with."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Cancels and awaits every task; nothing can be started afterwards. Stopping twice is harmless."""
        self._stopped = True
        current = asyncio.current_task()
        await self.cancel(*(task for task in self._running if task is not current))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
