"""The last copy of a change: KV of the token that is under way, brought to the new plan while the token is.

Its source waits until it has computed the position, so the copy goes on beside the stages behind it, and at the token boundary
it is mostly over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.kv_copies import COPY_FAILURES, copy_kv
from mec_apps.split_inference.gateway.sessions import Session
from mec_platform.background import BackgroundTasks
from mec_platform.domain.split_plan import KvMove

LAST_COPY_S = 1.0
"""The token under way is expected within this time, or its position is not copied while it is."""


@dataclass(frozen=True, slots=True)
class LastCopy:
    """The copy of what is missing up to the position of the token under way; `task` gives its bytes, None where it failed."""

    positions: int
    task: asyncio.Task[int | None]

    @property
    def is_there(self) -> bool:
        """Whether the target has it all."""
        return self.task.done() and self.task.result() is not None


@asynccontextmanager
async def copying_last(
    session: Session, source: ActivePlan, target: ActivePlan, moves: tuple[KvMove, ...], there: int, most: int
) -> AsyncIterator[LastCopy | None]:
    """Copies positions from `there` up to that of the token under way once it is computed; nothing where none have been copied
    or more than `most` are missing. Given up at the end."""
    span = (there, session.kv_positions + 1)
    if not (moves and there and 0 < span[1] - span[0] <= most):
        yield None
        return

    async def copy() -> int | None:
        try:
            return await copy_kv(session, source, target, moves, span, in_background=False, wait_s=LAST_COPY_S)
        except COPY_FAILURES:
            return None

    async with BackgroundTasks() as tasks:
        yield LastCopy(span[1], tasks.start(f"last copy of session {session.id:x}", copy()))
