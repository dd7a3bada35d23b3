"""Copies of sessions' KV on nodes that stand by: kept up to date while tokens flow, and used where a stage is lost.

A copy follows the decoding by some positions. What it lacks is computed again with the first frame on the new plan, so a
killed node costs about a token, whatever the context is. The platform says who stands by for whom (`SplitPlan.standbys`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.kv_copies import COPY_FAILURES, CopyFailure, copy_kv, words_of
from mec_platform.background import BackgroundTasks
from mec_platform.domain.split_plan import KvMove, SplitPlan, Stage, kv_holders, kv_moves

if TYPE_CHECKING:
    from collections.abc import Collection

    from mec_apps.split_inference.gateway.plan_user import PlanUser
    from mec_apps.split_inference.gateway.sessions import Session

LOOK_EVERY_S = 0.1
"""How far a copy may fall behind where there is time: some ten tokens, which one frame computes again in hardly more time
than one token. Each round is followed by a rest as long as itself, so that copies take half the time at most."""

AT_ONCE = 4
"""Copies under way at a time: each is a message through two nodes that have tokens to make."""

STEP_POSITIONS = 256
"""A copy has arrived that far, for a rescue, before the next step begins: a long prompt takes a second or more in all."""

COPY_TIMEOUT_S = 10.0
RESCUE_TIMEOUT_S = 2.0
"""KV that a standby has and another node needs is brought there within this time, or replayed."""

PAUSE_AFTER_FAILURE_S = 1.0

_log = logging.getLogger(__name__)


async def resume_on(session: Session, target: ActivePlan) -> None:
    """Has the session go on on `target` after it lost a stage: with the KV that is left of it where standbys have what is lost,
    else with a replay. Only for whoever holds `busy`.
    """
    source = session.active
    lost = target.lost | source.unreachable
    left = positions_left(session, source.plan, lost) if target.plan.chain == source.plan.chain else 0
    if not left:
        session.restart_on(target)
        return
    try:
        async with asyncio.timeout(RESCUE_TIMEOUT_S):
            moves = kv_moves(source.plan, target.plan, lost)
            await copy_kv(session, source, target, moves, (0, left), in_background=False)
    except COPY_FAILURES as error:
        _log.warning("session %x: a standby could not pass its KV on (%s); replaying", session.id, words_of(error))
        session.restart_on(target)
        return
    session.move_to(target)
    session.rescues += 1
    session.recomputed, session.kv_positions = session.kv_positions - left, left
    session.state = "decode"
    _log.info("session %x goes on at position %d with what standbys have of its KV", session.id, left)


def positions_left(session: Session, plan: SplitPlan, lost: Collection[str]) -> int:
    """How many leading positions have KV for every block on nodes that are not lost; 0 where no standby makes a difference."""
    holders = kv_holders(plan, lost)
    copies = [session.copies.get(holder, 0) for holder in holders if holder not in plan.stages]
    if not copies or len(holders) < len(plan.stages):
        return 0
    return min(session.kv_positions, *copies)


class StandbyCopies:
    """Over the sessions of one gateway; `start`, then `stop`."""

    def __init__(self, requests: PlanUser) -> None:
        self._requests = requests
        self._tasks = BackgroundTasks()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._paused_until_s: dict[str, float] = {}

    def start(self) -> None:
        """Begins to copy."""
        self._tasks.start("standby copies", self._run())

    async def stop(self) -> None:
        """Stops copying."""
        await self._tasks.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            behind = [
                self._bring_up(session, session.active, standby)
                for session in self._requests.live.values()
                for standby in session.active.plan.standbys
                if session.kv_positions > session.copies.get(standby, 0)
                and self._paused_until_s.get(standby.node, 0.0) <= began_s
            ]
            await asyncio.gather(*behind)
            await asyncio.sleep(max(LOOK_EVERY_S, loop.time() - began_s))

    async def _bring_up(self, session: Session, active: ActivePlan, standby: Stage) -> None:
        """Brings one standby up to the session's last token boundary."""
        stage = next(stage for stage in active.plan.stages if stage.layers == standby.layers)
        if active.unreachable & {stage.node, standby.node}:
            return
        async with self._at_once:
            while await self._copy_step(session, active, KvMove(stage.node, standby.node, standby.layers)):
                pass
        link = active.standby_links.get(standby.node)
        if session.ended and link is not None:  # it was told so, but a piece may have come after that
            active.end(session.id, link)

    async def _copy_step(self, session: Session, active: ActivePlan, move: KvMove) -> bool:
        """Whether another step is due at once."""
        standby = Stage(move.target, move.layers)
        first = session.copies.get(standby, 0)
        last = min(session.kv_positions, first + STEP_POSITIONS)
        if session.ended or session.active is not active or first >= last:
            return False
        try:
            async with asyncio.timeout(COPY_TIMEOUT_S):
                await copy_kv(session, active, active, [move], (first, last), in_background=True)
        except COPY_FAILURES as error:
            self._give_up(session, standby, error)
            return False
        self._paused_until_s.pop(standby.node, None)
        if session.active is not active:
            return False
        session.copies[standby] = last
        return last - first == STEP_POSITIONS

    def _give_up(self, session: Session, standby: Stage, error: CopyFailure) -> None:
        """A standby that lacks what it had, as after it was started again, gets everything anew; else it still has that, above
        all where the copy failed because its source died."""
        if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.OUT_OF_RANGE:
            session.copies.pop(standby, None)
        if session.ended:
            return
        if standby.node not in self._paused_until_s:
            _log.warning("session %x: no copy of its KV on %s: %s", session.id, standby.node, words_of(error))
        self._paused_until_s[standby.node] = asyncio.get_running_loop().time() + PAUSE_AFTER_FAILURE_S
