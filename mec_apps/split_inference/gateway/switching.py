"""Moving live sessions to another plan: KV ahead while tokens flow, and a switch at a token boundary.

Copies ahead follow the decoding until only the position of the token under way is missing. That one is copied as soon as its
stage has computed it, while the token goes on through the other stages, and is mostly there when the token is. Where it is
not, it is not waited for: the first frame on the new plan carries its token too, and a stage computes a few rows in hardly
more time than one; unless the context is so long that this takes longer than the rest of the copy.

The gateway drives this because it alone stands at token boundaries. Counterparts: `node.kv_transfer` cuts and stores
pages; the control plane's broadcast prepares the plan before and commits it after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.kv_copies import COPY_FAILURES, CopyFailure, copy_kv, words_of
from mec_apps.split_inference.gateway.last_copy import LastCopy, copying_last
from mec_apps.split_inference.gateway.plan_user import PlanUser
from mec_apps.split_inference.gateway.sessions import Session, end_session
from mec_apps.split_inference.gateway.standby import resume_on
from mec_platform.domain.split_plan import KvMove, kv_moves

MAX_ROUNDS = 8
"""Rounds of copies ahead. They end when they become no shorter, and the frame that is under way then adds one position; a
link that cannot keep up with the decoding leaves more to the pause."""

FEW_POSITIONS = 2
"""Where a round leaves no more than these, or no fewer than the round before, the next one is the last: it begins at a token
boundary, so that it is over before the token under way, whose position is then the only one that is missing. What every
other one costs grows with the context: a row of one token more reads all KV again."""

ROUND_RESTS = 1.0
LONGEST_REST_S = 0.1
"""A round is followed by a rest as long as itself: calls and messages cost nodes as much as the KV of a few positions
does, and tokens flow meanwhile."""

TAIL_POSITIONS = 8
"""So many last positions are computed again in the first frame; where more are missing they are copied in the pause."""

ROW_SHARE = 0.15
"""What one more row of a session adds to a token's computing: its weights are there already, but it reads all KV once more. So
a row more takes the longer, the longer the context, and a copy of a position does not."""

QUICKEST_COPY_S = 0.002
"""No copy between two nodes is quicker: a call to its source, which streams to its target. Those between several nodes wait for
each other where they are called and where their answers come in."""

RESUME_TIMEOUT_S = 30.0
FIRST_TOKEN_TIMEOUT_S = 1.0
"""A change waits so long for the first token after a copy, to tell the pause: a plan that does not answer is no reason to
hold its change up, or an abort."""

READER_TIMEOUT_S = 0.25
"""A client that reads its answer asks for the next token within this time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """When copying KV is given up for a replay: links may have become slower since the plan was made."""

    ahead_s: float
    pause_s: float

    @classmethod
    def from_replay(cls, replay_s: float) -> CopyLimits:
        """Copies ahead hold nothing up and may take longer than a replay; the pause may not, or hardly."""
        return cls(ahead_s=max(2.0, 4 * replay_s), pause_s=max(0.25, replay_s))


@dataclass(frozen=True, slots=True)
class SwitchReport:
    """What the switch of one session took. `mode` is pre_copy, stop_and_copy, standby, replay, or none where no KV had to move.

    `pause_ms` is what the first token took longer than one took before; of a replay, all that it took. Of the pause,
    `held_ms` passed before a frame could go. `tail_positions` were computed again with the first frame.
    """

    session: int
    mode: str
    pause_ms: float = 0.0
    precopied_bytes: int = 0
    paused_bytes: int = 0
    replayed_tokens: int = 0
    tail_positions: int = 0
    held_ms: float = 0.0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What was copied while tokens flowed. `last_s` is how long the last round took."""

    positions: int = 0
    sent_bytes: int = 0
    rounds: int = 0
    last_s: float = 0.0


async def switch_sessions(
    sessions: PlanUser, target: ActivePlan, lost_nodes: frozenset[str], transfer_mode: str, limits: CopyLimits
) -> list[SwitchReport]:
    """Takes every live session of its chain to `target`; new ones start on it at once. Returns when all are there or ended."""
    sessions.use_plan(target)
    moving = _others_of_chain(sessions, target)
    return list(
        await asyncio.gather(*(_switch(session, target, lost_nodes, transfer_mode, limits) for session in moving))
    )


async def revert_sessions(sessions: PlanUser, previous: ActivePlan) -> None:
    """Takes every session of its chain back to `previous`: an abort. Those that had left it replay their tokens there."""
    sessions.use_plan(previous)
    for session in _others_of_chain(sessions, previous):
        session.lose_stage("the new plan was aborted")
        async with session.busy:
            if session.active is not previous:  # else it has found the way back by itself
                session.restart_on(previous)


async def end_chain(
    sessions: PlanUser, chain: int, lost_nodes: frozenset[str], transfer_mode: str, limits: CopyLimits
) -> list[SwitchReport]:
    """Takes every session of a chain to the others; new ones start there at once. Returns when all are there or ended.

    Where there is no other chain, its sessions wait for one, as long as they wait for a plan after a loss.
    """
    sessions.end_chain(chain)
    moving = [session for session in sessions.live.values() if session.active.plan.chain == chain]
    return list(
        await asyncio.gather(*(_move_away(sessions, session, lost_nodes, transfer_mode, limits) for session in moving))
    )


def _others_of_chain(sessions: PlanUser, target: ActivePlan) -> list[Session]:
    """Sessions that run on other plans of the target's chain."""
    chain = target.plan.chain
    return [s for s in sessions.live.values() if s.active.plan.chain == chain and s.active is not target]


async def _move_away(
    sessions: PlanUser, session: Session, lost_nodes: frozenset[str], mode: str, limits: CopyLimits
) -> SwitchReport:
    """Moves a session until it runs on a plan in use: the chain it goes to may get another plan meanwhile."""
    report = SwitchReport(session.id, "none")
    while not session.ended:
        own = sessions.chains.get(session.active.plan.chain)
        if own is session.active:
            break
        target = own or sessions.active
        if target is None:
            session.lose_stage("its chain was taken away, and there is no other")
            break
        session.bound_for = target.plan.chain
        try:
            report = await _switch(session, target, lost_nodes, mode, limits)
        finally:
            session.bound_for = None
    return report


async def _switch(
    session: Session, target: ActivePlan, lost_nodes: frozenset[str], mode: str, limits: CopyLimits
) -> SwitchReport:
    try:
        async with session.moving:
            if session.active is target:  # another change has moved it meanwhile
                return SwitchReport(session.id, "none")
            return await _move(session, target, lost_nodes, mode, limits)
    finally:
        if session.ended:  # its nodes were told, but KV may have reached nodes of the new plan meanwhile
            end_session(session, target)


async def _move(
    session: Session, target: ActivePlan, lost_nodes: frozenset[str], mode: str, limits: CopyLimits
) -> SwitchReport:
    source = session.active
    if lost_nodes & set(source.plan.nodes):
        session.lose_stage("a node of its plan was lost")
        return await _start_again(session, source, target, use_standbys=True)
    if mode == "replay":
        return await _start_again(session, source, target)
    moves = kv_moves(source.plan, target.plan)
    ahead, usual_s = _Ahead(), session.token_s
    if mode != "stop_and_copy" and moves:
        try:
            ahead = await _copy_ahead(session, source, target, moves, limits)
        except COPY_FAILURES as error:
            _tell_failure(session, error)
            return await _start_again(session, source, target)
    return await _switch_over(session, source, target, moves, limits, ahead, usual_s)


async def _start_again(
    session: Session, source: ActivePlan, target: ActivePlan, *, use_standbys: bool = False
) -> SwitchReport:
    """From the next token boundary on, has the session's KV rebuilt from its tokens on the new plan, or what standbys lack of
    it.

    A session that has left `source` by itself meanwhile, for a newer plan or another chain, stays where it is.
    """
    replayed, rescues = session.replayed_tokens, session.rescues
    async with session.busy:
        started = session.lost_at or time.perf_counter()
        session.resumed.clear()
        if session.active is source and use_standbys:
            await resume_on(session, target)
        elif session.active is source:
            session.restart_on(target)
    report = await _resumed(session, started, replayed)
    saved = session.rescues > rescues and not report.replayed_tokens
    return replace(report, mode="standby", tail_positions=session.recomputed) if saved else report


async def _resumed(session: Session, since: float, replayed_before: int, precopied_bytes: int = 0) -> SwitchReport:
    """Waits for the first token after a replay."""
    if session.ended:
        return SwitchReport(session.id, "none", precopied_bytes=precopied_bytes)
    await _first_token(session, RESUME_TIMEOUT_S)
    pause_ms = (time.perf_counter() - since) * 1e3
    replayed = session.replayed_tokens - replayed_before
    return SwitchReport(session.id, "replay", pause_ms, precopied_bytes, replayed_tokens=replayed)


async def _first_token(session: Session, timeout_s: float) -> bool:
    """Whether the session has made its first token on the new plan in time; `resumed` was cleared at the boundary.

    A client that does not read its answer asks for no token, and one that has gone never will: neither is waited for.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(session.wants_token.wait(), READER_TIMEOUT_S)
    if session.wants_token.is_set():
        try:
            await asyncio.wait_for(session.resumed.wait(), timeout_s)
        except TimeoutError:
            _log.warning("session %x has made no token for %g s after its switch", session.id, timeout_s)
    return session.resumed.is_set() and not session.ended


async def _copy_ahead(
    session: Session, source: ActivePlan, target: ActivePlan, moves: tuple[KvMove, ...], limits: CopyLimits
) -> _Ahead:
    """Copies KV while tokens flow. Raises COPY_FAILURES."""
    if session.kv_positions == 0:
        async with session.busy:  # let the prefill end: there is nothing to copy ahead before
            pass
    ahead, is_last, size = _Ahead(), False, 0
    async with asyncio.timeout(limits.ahead_s):
        while ahead.rounds < MAX_ROUNDS and not is_last:
            await asyncio.sleep(min(ROUND_RESTS * ahead.last_s, LONGEST_REST_S))
            missing = session.kv_positions - ahead.positions
            if ahead.rounds and missing > 0 and (missing <= FEW_POSITIONS or missing >= size):
                is_last = True
                await _next_boundary(session)
            reached = session.kv_positions
            if session.active is not source or reached == ahead.positions:
                break
            size = reached - ahead.positions
            began = time.perf_counter()
            sent = await copy_kv(session, source, target, moves, (ahead.positions, reached), in_background=True)
            ahead = _Ahead(reached, ahead.sent_bytes + sent, ahead.rounds + 1, time.perf_counter() - began)
    return ahead


async def _next_boundary(session: Session) -> None:
    """Waits until the session has its next token, unless nobody asks for one."""
    session.resumed.clear()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(session.resumed.wait(), READER_TIMEOUT_S)


async def _switch_over(
    session: Session,
    source: ActivePlan,
    target: ActivePlan,
    moves: tuple[KvMove, ...],
    limits: CopyLimits,
    ahead: _Ahead,
    usual_s: float,
) -> SwitchReport:
    """The pause: at a token boundary, what is missing is left to the first frame or, where it is much, copied.

    A copy that fails here becomes a replay.
    """
    async with copying_last(session, source, target, moves, ahead.positions, TAIL_POSITIONS) as last, session.busy:
        since, before = time.perf_counter(), session.replayed_tokens
        if session.ended:
            return SwitchReport(session.id, "none", precopied_bytes=ahead.sent_bytes)
        if session.active is not source:  # it lost a stage meanwhile and replays elsewhere, or another change moved it
            return SwitchReport(session.id, "replay", precopied_bytes=ahead.sent_bytes)
        session.state = "switching"
        session.resumed.clear()
        tail, paused_bytes = await _bring_rest(session, source, target, moves, limits, ahead, last)
        held_ms = (time.perf_counter() - since) * 1e3
    if session.replayed_tokens > before:
        return await _resumed(session, since, before, ahead.sent_bytes)
    answered = await _first_token(session, FIRST_TOKEN_TIMEOUT_S)
    if session.replayed_tokens > before:  # the first frame was not answered
        return await _resumed(session, since, before, ahead.sent_bytes)
    longer_ms = (session.round_trip_s - usual_s) * 1e3 if answered else 0.0
    return SwitchReport(
        session.id,
        _mode(moves, ahead),
        held_ms + max(0.0, longer_ms),
        ahead.sent_bytes,
        paused_bytes,
        tail_positions=tail,
        held_ms=held_ms,
        rounds=ahead.rounds,
    )


async def _bring_rest(
    session: Session,
    source: ActivePlan,
    target: ActivePlan,
    moves: tuple[KvMove, ...],
    limits: CopyLimits,
    ahead: _Ahead,
    last: LastCopy | None,
) -> tuple[int, int]:
    """Has the session go on on `target`: returns the positions that are left to its first frame, and the bytes copied now."""
    missing = session.kv_positions - ahead.positions
    if missing < 0:  # it lost a stage during the copies and has not begun to replay
        session.restart_on(target)
        return 0, 0
    if last is not None and last.positions != session.kv_positions:  # no token was under way
        last = None
    few = moves and ahead.positions and missing <= TAIL_POSITIONS
    copy_s = _copy_s(session, ahead, last, len(moves))
    tail = missing if few and missing * ROW_SHARE * session.compute_s <= copy_s else 0
    copied = None
    try:
        if not tail:
            span = (ahead.positions, session.kv_positions)
            async with asyncio.timeout(limits.pause_s):
                if last is not None:
                    copied = await last.task
                if copied is None:
                    copied = await copy_kv(session, source, target, moves, span, in_background=False)
    except COPY_FAILURES as error:
        _tell_failure(session, error)
        session.restart_on(target)
    else:
        session.move_to(target)
        session.kv_positions -= tail
        session.state = "decode"
    return tail, copied or 0


def _copy_s(session: Session, ahead: _Ahead, last: LastCopy | None, moves: int) -> float:
    """What is still to be waited for in the pause where a position or two are copied: nothing where they are there, and as
    long as the last copy ahead took, which waited for a frame as well, where that has not begun."""
    if last is not None and last.is_there:
        return 0.0
    quickest_s = moves * QUICKEST_COPY_S
    return quickest_s if last is not None else max(ahead.last_s - session.compute_s, quickest_s)


def _mode(moves: tuple[KvMove, ...], ahead: _Ahead) -> str:
    if not moves:
        return "none"
    return "pre_copy" if ahead.rounds else "stop_and_copy"


def _tell_failure(session: Session, error: CopyFailure) -> None:
    _log.warning("session %x: KV could not be copied (%s); replaying", session.id, words_of(error))
