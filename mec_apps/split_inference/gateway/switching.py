"""Moving live sessions to another plan: KV pages ahead while tokens flow, the last pages at a token boundary.

The gateway drives this because it alone stands at token boundaries. Counterparts: `node.kv_transfer` cuts and stores
pages; the control plane's broadcast prepares the plan before and commits it after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

import grpc
import grpc.aio

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.plan_user import PlanUser
from mec_apps.split_inference.gateway.sessions import Session, end_session
from mec_platform.domain.kernel_contract import PAGE_TOKENS
from mec_platform.domain.split_plan import KvMove, kv_moves
from mec_platform.rpc.convert import layers_to_message
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc

CLOSE_ENOUGH_POSITIONS = 2 * PAGE_TOKENS
"""Pre-copy rounds end when no more than this is left for the pause."""

MAX_ROUNDS = 4
"""Pre-copy rounds; a link that cannot keep up with the decoding leaves the rest to the pause."""

RESUME_TIMEOUT_S = 30.0
READER_TIMEOUT_S = 0.25
"""A client that reads its answer asks for the next token within this time."""

COPY_FAILURES = (grpc.aio.AioRpcError, TimeoutError)
"""A node refused or vanished, or the link is slower than the plan was made for: the tokens are replayed instead."""

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
    """What the switch of one session took. `mode` is pre_copy, replay, or none where no KV had to move."""

    session: int
    mode: str
    pause_ms: float = 0.0
    precopied_bytes: int = 0
    paused_bytes: int = 0
    replayed_tokens: int = 0


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
        return await _replay(session, source, target)
    if mode == "replay":
        return await _replay(session, source, target)
    moves = kv_moves(source.plan, target.plan)
    try:
        copied, precopied_bytes = await _copy_ahead(session, source, target, moves, limits)
    except COPY_FAILURES as error:
        _tell_failure(session, error)
        return await _replay(session, source, target)
    return await _copy_rest(session, source, target, moves, limits, copied, precopied_bytes)


async def _replay(session: Session, source: ActivePlan, target: ActivePlan) -> SwitchReport:
    """From the next token boundary on, has the session's KV rebuilt from its tokens on the new plan.

    A session that has left `source` by itself meanwhile, for a newer plan or another chain, stays where it is.
    """
    before = session.replayed_tokens
    async with session.busy:
        started = session.lost_at or time.perf_counter()
        session.resumed.clear()
        if session.active is source:
            session.restart_on(target)
    return await _resumed(session, started, before)


async def _resumed(session: Session, since: float, replayed_before: int, precopied_bytes: int = 0) -> SwitchReport:
    """Waits for the first token after a replay.

    A client that does not read its answer asks for no token, and one that has gone never will: neither is waited for.
    """
    if session.ended:
        return SwitchReport(session.id, "none", precopied_bytes=precopied_bytes)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(session.wants_token.wait(), READER_TIMEOUT_S)
    if session.wants_token.is_set():
        try:
            await asyncio.wait_for(session.resumed.wait(), RESUME_TIMEOUT_S)
        except TimeoutError:
            _log.warning("session %x has made no token for %g s after its replay began", session.id, RESUME_TIMEOUT_S)
    pause_ms = (time.perf_counter() - since) * 1e3
    replayed = session.replayed_tokens - replayed_before
    return SwitchReport(session.id, "replay", pause_ms, precopied_bytes, replayed_tokens=replayed)


async def _copy_ahead(
    session: Session, source: ActivePlan, target: ActivePlan, moves: tuple[KvMove, ...], limits: CopyLimits
) -> tuple[int, int]:
    """Copies KV while tokens flow; returns the positions copied and the bytes. Raises COPY_FAILURES."""
    if session.kv_positions == 0:
        async with session.busy:  # let the prefill end: there is nothing to copy ahead before
            pass
    copied = sent_bytes = 0
    async with asyncio.timeout(limits.ahead_s):
        for _ in range(MAX_ROUNDS):
            reached = session.kv_positions
            if session.active is not source or reached - copied <= CLOSE_ENOUGH_POSITIONS:
                break
            sent_bytes += await _send_kv(session, source, target, moves, copied, reached)
            copied = reached
    return copied, sent_bytes


async def _copy_rest(
    session: Session,
    source: ActivePlan,
    target: ActivePlan,
    moves: tuple[KvMove, ...],
    limits: CopyLimits,
    copied: int,
    precopied_bytes: int,
) -> SwitchReport:
    """The pause: copies what is left at a token boundary and switches. A copy that fails here becomes a replay."""
    async with session.busy:
        held, before = time.perf_counter(), session.replayed_tokens
        if session.ended:
            return SwitchReport(session.id, "none", precopied_bytes=precopied_bytes)
        if session.active is not source:  # it lost a stage meanwhile and replays elsewhere, or another change moved it
            return SwitchReport(session.id, "replay", precopied_bytes=precopied_bytes)
        session.state = "switching"
        try:
            async with asyncio.timeout(limits.pause_s):
                paused_bytes = await _send_kv(session, source, target, moves, copied, session.kv_positions)
        except COPY_FAILURES as error:
            _tell_failure(session, error)
            session.resumed.clear()
            session.restart_on(target)
        else:
            session.move_to(target)
            session.state = "decode"
            pause_ms = (time.perf_counter() - held) * 1e3
            return SwitchReport(session.id, "pre_copy" if moves else "none", pause_ms, precopied_bytes, paused_bytes)
    return await _resumed(session, held, before, precopied_bytes)


def _tell_failure(session: Session, error: grpc.aio.AioRpcError | TimeoutError) -> None:
    reason = "it took too long" if isinstance(error, TimeoutError) else error.details()
    _log.warning("session %x: KV could not be copied (%s); replaying", session.id, reason)


async def _send_kv(
    session: Session, source: ActivePlan, target: ActivePlan, moves: tuple[KvMove, ...], first: int, last: int
) -> int:
    """Copies positions of all moves side by side, from page starts on; returns the bytes. Raises AioRpcError."""
    if last == 0:
        return 0
    sent = await asyncio.gather(
        *(_send_move(session.id, source, target, move, first // PAGE_TOKENS * PAGE_TOKENS, last) for move in moves)
    )
    return sum(sent)


async def _send_move(session: int, source: ActivePlan, target: ActivePlan, move: KvMove, first: int, last: int) -> int:
    selection = edge_node_pb2.KvSelection(
        session=session, layers=layers_to_message(move.layers), first_position=first, last_position=last
    )
    request = edge_node_pb2.SendKvRequest(
        selection=selection, target=move.target, target_address=target.addresses[move.target]
    )
    node = edge_node_pb2_grpc.EdgeNodeStub(source.channels.to(source.addresses[move.source]))
    reply = await node.SendKv(request)
    return reply.bytes
