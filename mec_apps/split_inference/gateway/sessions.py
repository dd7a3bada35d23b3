"""Sessions: every token of every live generation, and the loop that turns them into frames.

A session keeps its tokens and counts how many of them have KV on the stages of its plan (`kv_positions`). Each step
sends the tokens that are not there yet and awaits the token that follows: for a prompt that is the prefill, afterwards
one token, and after a stage was lost (`kv_positions = 0`) a replay of everything. Kernels are batch-invariant, so the
three give the same bits.

`Session.busy` is held while a frame is under way; whoever gets it stands at a token boundary. `switching` uses that, and
holds `Session.moving` while it copies: changes of two chains may concern one session.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mec_apps.split_inference.frames import MAX_ROWS, RECOVERABLE, SAMPLE, Frame, FrameKind, Refusal, roll_frame
from mec_apps.split_inference.gateway.active_plan import ActivePlan, StageLost
from mec_apps.split_inference.gateway.plan_user import MAX_RECOVERIES, RECOVERY_TIMEOUT_S, PlanUser
from mec_apps.split_inference.gateway.recent_times import RecentTimes
from mec_apps.split_inference.gateway.standby import resume_on
from mec_apps.split_inference.generation import (
    ContextExceeded,
    EmbeddedRows,
    GeneratedToken,
    GenerationFailed,
    NotAdmitted,
    Overloaded,
    SamplingSettings,
)
from mec_apps.split_inference.peer_link import LinkLost
from mec_platform.domain.failures import Failure
from mec_platform.domain.split_plan import Stage

TOKEN_TIMEOUT_S = 20.0
"""A frame without an answer for so long counts as lost, the next one after twice as long, and so on up to MOST_PATIENCE times:
where nodes are merely overloaded, tokens that are sent again and again are what keeps them so."""

MOST_PATIENCE = 8

LONGEST_FRAME_S = 2.0
"""Every further frame of a prompt or a replay is given so long: thousands of tokens take a slow node a minute."""

_SHARE_OF_LATEST = 0.25
"""Of the latest token in what tokens take of late: some tokens are a tenth of a second, and single ones are delayed."""

COME_AGAIN_S = 5.0
"""A client that is turned away is told to come again after so long; for that time it counts as waiting."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """One generation. `left` is the plan it came from; `round_trip_s` and `compute_s` are of the latest token, `token_s` is
    what tokens take of late, prompts and replays aside: 0 before there was one.

    `bound_for` is the chain that it is about to move to, where that is another than it runs on. `copies` says up to where
    standbys of its plan have its KV, `rescues` how often that has spared it a replay, `recomputed` how many positions were
    missing there the last time.
    `unanswered` counts frames in a row that no answer came to in time.
    """

    id: int
    tokens: list[int]
    prompt_length: int
    sampling: SamplingSettings
    active: ActivePlan
    rows: tuple[EmbeddedRows, ...] = ()
    left: ActivePlan | None = None
    bound_for: int | None = None
    kv_positions: int = 0
    copies: dict[Stage, int] = field(default_factory=dict)
    rescues: int = 0
    recomputed: int = 0
    state: str = "prefill"
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: asyncio.Future[Frame] | None = None
    resumed: asyncio.Event = field(default_factory=asyncio.Event)
    wants_token: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    lost_at: float | None = None
    unanswered: int = 0
    replayed_tokens: int = 0
    round_trip_s: float = 0.0
    token_s: float = 0.0
    compute_s: float = 0.0

    @property
    def generated(self) -> int:
        """Tokens made so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def chain(self) -> int:
        """The chain that it counts for."""
        return self.active.plan.chain if self.bound_for is None else self.bound_for

    def move_to(self, plan: ActivePlan) -> None:
        """The next step runs on `plan`, whose nodes hold the session's KV. Only for whoever holds `busy`."""
        before, self.left, self.active = self.left, self.active, plan
        self.bound_for = None
        self.copies = {at: count for at, count in self.copies.items() if at in plan.plan.standbys}
        if self.left.plan.chain != plan.plan.chain:
            for left in (self.left, before):
                if left is not None:
                    _leave_chain(self, left)
            self.left = None

    def restart_on(self, plan: ActivePlan) -> None:
        """The next step replays every token on `plan`. Only for whoever holds `busy`."""
        self.move_to(plan)
        self.kv_positions, self.state = 0, "replaying"
        self.replayed_tokens += len(self.tokens)

    def note_token(self) -> None:
        """Counts the latest token in `token_s`."""
        self.token_s += (self.round_trip_s - self.token_s) * (_SHARE_OF_LATEST if self.token_s else 1.0)

    @property
    def patience_s(self) -> float:
        """How long it waits for the answer to its next frame."""
        return TOKEN_TIMEOUT_S * min(1 << self.unanswered, MOST_PATIENCE)

    def give_up_waiting(self, waited_s: float) -> None:
        """The frame under way has not been answered in time."""
        self.unanswered += 1
        self.lose_stage(f"no token within {waited_s:g} s")

    def lose_stage(self, reason: str) -> None:
        """Fails the frame under way, if any: the loop then replays."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(StageLost(reason))


class Sessions(PlanUser):
    """All sessions of a gateway and the plan that new ones start on. Implements `generation.Generator`."""

    def __init__(
        self,
        gateway_number: int,
        context_length: int,
        max_sessions: int,
        on_failure: Callable[[str, Failure], None],
    ) -> None:
        super().__init__()
        self._newest = gateway_number << 32
        self._context_length = context_length
        self._max_sessions = max_sessions
        self._limit: tuple[int, str] | None = None
        self._arriving = 0
        self._turned_away: deque[float] = deque()
        self._on_failure = on_failure
        self.tokens_made = 0
        self.times = RecentTimes()

    @property
    def context_length(self) -> int:
        """Positions that a prompt and its answer may take together."""
        return self._context_length

    @property
    def queued(self) -> int:
        """Requests that want a place and have none: those that wait for a plan, and those that were told to come again."""
        now = asyncio.get_running_loop().time()
        while self._turned_away and now - self._turned_away[0] > COME_AGAIN_S:
            self._turned_away.popleft()
        return self._arriving + len(self._turned_away)

    def limit(self, max_sessions: int | None, reason: str) -> None:
        """Turns new sessions away from this number on, and says why; None lifts the limit. No session ends for it."""
        self._limit = None if max_sessions is None else (max_sessions, reason)

    async def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingSettings,
        rows: Sequence[EmbeddedRows] = (),
    ) -> AsyncGenerator[GeneratedToken, None]:
        """See `generation.Generator`. Raises the errors of `generation`."""
        if not prompt:
            raise ContextExceeded("the prompt is empty")
        if len(prompt) + max_tokens > self._context_length:
            raise ContextExceeded(
                f"{len(prompt)} prompt tokens and {max_tokens} to generate; the context holds {self._context_length}"
            )
        since_s = self.times.clock_s()
        self._arriving += 1
        try:
            active = await self.first_plan()
        finally:
            self._arriving -= 1
        self._check_room()  # after the wait: requests that waited together count each other
        self._newest += 1
        session = Session(self._newest, list(prompt), len(prompt), sampling, active, rows=tuple(rows))
        self.live[session.id] = session
        try:
            while session.generated < max_tokens:
                token = await self._next_token(session)
                self.times.note(since_s, first=session.generated == 1)
                position, epoch = len(session.tokens) - 1, session.active.plan.epoch
                yield GeneratedToken(token, position, epoch, session.round_trip_s, session.compute_s)
                since_s = self.times.clock_s()
        finally:
            del self.live[session.id]
            session.ended = True
            session.resumed.set()
            if session.left is not None:  # its nodes keep the KV until the change is committed, or for good if not
                end_session(session, session.left)
            end_session(session, session.active)

    def roll(self) -> Frame:
        """For nodes: which sessions live, of all that there have been."""
        return roll_frame(self._newest, self.live)

    def _check_room(self) -> None:
        count = len(self.live)
        limited, reason = (None, "") if self._limit is None else self._limit
        if count < self._max_sessions and (limited is None or count < limited):
            return
        self._turned_away.append(asyncio.get_running_loop().time())
        if count >= self._max_sessions:
            raise Overloaded(f"{self._max_sessions} sessions run already; try again later")
        raise NotAdmitted(
            f"the platform lets this gateway have {limited} sessions for now, and it has {count}: {reason}; try again later"
        )

    def on_frame(self, node: str, frame: Frame) -> None:
        """A RESULT or REFUSED frame from a node; what no session waits for is dropped (an older plan's, or repeated)."""
        session = self.live.get(frame.session)
        if session is None or session.answer is None or session.answer.done():
            return
        if frame.epoch != session.active.plan.epoch:
            return
        if frame.kind is FrameKind.REFUSED:
            self._refused(session, node, frame)
        elif frame.kind is FrameKind.RESULT and frame.position == len(session.tokens):
            session.answer.set_result(frame)

    def leave_plan(self, epoch: int, reason: str) -> None:
        """See `PlanUser`: its sessions replay elsewhere, as after the loss of a node."""
        for session in self.live.values():
            if session.active.plan.epoch == epoch:
                session.lose_stage(reason)
                session.copies.clear()
                _leave_chain(session, session.active)

    def on_link_lost(self, node: str, failure: Failure) -> None:
        """The stream to a node broke: sessions whose plan uses it lose their frame, and the platform is told."""
        self._on_failure(node, failure)
        for session in self.live.values():
            if node in session.active.plan.nodes:
                session.lose_stage(f"{node}: {failure}")

    def _refused(self, session: Session, node: str, frame: Frame) -> None:
        assert session.answer is not None
        reason = f"{node} refused a frame: {frame.payload.decode(errors='replace')}"
        code = frame.flags
        full = code == Refusal.NO_PAGES
        if code in RECOVERABLE or (full and session.state == "replaying"):  # an answer under way waits for room
            session.answer.set_exception(StageLost(reason))
        elif full:
            session.answer.set_exception(Overloaded(reason))
        else:
            session.answer.set_exception(GenerationFailed(reason))

    async def _next_token(self, session: Session) -> int:
        session.wants_token.set()
        tried: set[int] = set()
        for _ in range(MAX_RECOVERIES):
            async with session.busy:
                active = session.active
                try:
                    token = await self._step(session)
                except StageLost as lost:
                    reason = str(lost)
                    session.lost_at = session.lost_at or time.perf_counter()
                else:
                    session.tokens.append(token)
                    self.tokens_made += 1
                    session.state, session.lost_at, session.unanswered = "decode", None, 0
                    session.wants_token.clear()
                    session.resumed.set()
                    return token
            tried.add(active.plan.epoch)
            await self._recover(session, active, tried, reason)
        raise GenerationFailed(f"gave up after {MAX_RECOVERIES} replays in a row: {reason}")

    async def _recover(self, session: Session, lost: ActivePlan, tried: set[int], reason: str) -> None:
        """Waits for a plan to go on with, of another chain at once; the next step replays the session's tokens on it, where no
        standby has spared it that.

        `tried` are epochs of plans that have failed since its last token.
        """
        _log.warning("session %x lost its stages (%s); waiting for a plan to replay on", session.id, reason)
        session.state = "waiting"
        if session.active is lost:
            try:
                usable = await self.next_plan(lost, tried, RECOVERY_TIMEOUT_S)
            except TimeoutError as error:
                raise GenerationFailed(f"{reason}; no plan without it came within {RECOVERY_TIMEOUT_S:g} s") from error
            async with session.busy:
                if session.active is lost:
                    await resume_on(session, usable)

    async def _step(self, session: Session) -> int:
        """Sends the tokens that have no KV yet and returns the token that follows. Raises StageLost."""
        loop = asyncio.get_running_loop()
        answer = session.answer = loop.create_future()
        frames = -(-(len(session.tokens) - session.kv_positions) // MAX_ROWS)
        patience_s = session.patience_s + LONGEST_FRAME_S * (frames - 1)
        give_up = loop.call_later(patience_s, session.give_up_waiting, patience_s)
        sent = time.perf_counter()
        self.note_sent(session.id, session.active)
        try:
            self._send(session, session.active)
            frame = await answer
        except LinkLost as error:
            raise StageLost(str(error)) from error
        finally:
            give_up.cancel()
            self.note_settled(session.id)
            session.answer = None
        session.round_trip_s = time.perf_counter() - sent
        if len(session.tokens) - session.kv_positions == 1:
            self.note_pace(session.active, session.round_trip_s)
            session.note_token()
        session.kv_positions = len(session.tokens)
        session.compute_s = frame.compute_us / 1e6
        return int(struct.unpack("<i", frame.payload)[0])

    def _send(self, session: Session, active: ActivePlan) -> None:
        total = len(session.tokens)
        for start, stop, rows in _chunks(session):
            if rows is None:
                kind, payload = FrameKind.TOKENS, np.array(session.tokens[start:stop], np.int32).tobytes()
            else:
                kind, payload = FrameKind.ROWS, rows.tobytes()
            active.enter(
                Frame(
                    kind=kind,
                    epoch=active.plan.epoch,
                    session=session.id,
                    position=start,
                    rows=stop - start,
                    flags=SAMPLE if stop == total else 0,
                    sampling=session.sampling,
                    payload=payload,
                )
            )


def _chunks(session: Session) -> Iterator[tuple[int, int, npt.NDArray[np.float32] | None]]:
    """What has no KV yet, in pieces of at most a frame: positions, and the rows that stand there in place of tokens."""
    start, total = session.kv_positions, len(session.tokens)
    while start < total:
        stop, values = min(start + MAX_ROWS, total), None
        for rows in session.rows:
            end = rows.position + len(rows.values)
            if rows.position <= start < end:
                stop = min(stop, end)
                values = rows.values[start - rows.position : stop - rows.position]
            elif start < rows.position:
                stop = min(stop, rows.position)
        yield start, stop, values
        start = stop


def end_session(session: Session, active: ActivePlan) -> None:
    """Tells the chain of a plan, in order behind the session's frames, that the session is over; and those that stand by."""
    for link in (active.first, *active.standby_links.values()):
        active.end(session.id, link)


def _leave_chain(session: Session, active: ActivePlan) -> None:
    """Tells every node of a plan that the session has gone on on another chain.

    Each of them itself: the way along the chain may be what was lost, and no later plan of that chain, which goes on
    without this session, tells them.
    """
    for link in (*active.links.values(), *active.standby_links.values()):
        active.end(session.id, link)
