"""The registry's one door for changes: decide, append, show, tell. The facades beside it know what may be decided.

Every change waits in one queue. A writer takes all that waits, lets each decide on what those before it left, and appends
the events as one group: one sync to disk for many changes (group commit), and nobody sees, or is told of, anything that
a power cut could take back. Several registries may share one log: each follows its tail, and whoever loses a
compare-and-set reads what the other appended and decides again, which is why decisions are pure functions of the state.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from mec_platform.background import BackgroundTasks
from mec_platform.registry.actor import current_actor
from mec_platform.registry.clock import Clock, SystemClock
from mec_platform.registry.effects import (
    AwaitExpiry,
    AwaitTermination,
    DeliverNotifications,
    Effect,
    ForgetExpiry,
    ForgetTermination,
    HistoryBegins,
)
from mec_platform.registry.errors import Compacted, LogUnavailable, RegistryError, RevisionConflict
from mec_platform.registry.event_codec import decode_event, encode_event
from mec_platform.registry.event_log import EventLog, LogEntry, LogSnapshot, Record
from mec_platform.registry.events import Event, Occurrence
from mec_platform.registry.leadership import AlwaysLeader, Leadership
from mec_platform.registry.state import RegistryState
from mec_platform.registry.state_codec import decode_state, encode_state
from mec_platform.registry.transitions import (
    IllegalEvent,
    apply_events,
    effects_between,
    effects_of,
    pending_expiries,
    pending_terminations,
)

logger = logging.getLogger(__name__)

STREAM = "registry"

LARGEST_GROUP = 256
"""Changes per append: enough to make the sync to disk cheap for each, few enough to be decided within milliseconds."""

PASSES = 8
"""Turns of the event loop without another change after which a group is complete. gRPC takes in one call in a turn or two, so
without them most groups had one or two changes, and 64 clients over SQLite got about half as many through.
"""

COMPACT_AFTER = 20_000
"""Entries behind the last snapshot, at least, before there is a new one: some seconds of the heaviest load."""

LINES_AT_A_TIME, GIVE_WAY_S = 50, 0.000_1
"""How a snapshot is written beside a busy event loop: lines for a tenth of a millisecond, then as long a pause."""

FOLLOW_AGAIN_S = 0.5
"""Between attempts to follow a log that cannot be read."""

_AWAITED = (AwaitTermination, AwaitExpiry)

Decide: TypeAlias = Callable[[RegistryState], Event | None]
"""A pure function: what shall happen in this state; None for nothing. Raises RegistryError to refuse. May run again."""

Listener: TypeAlias = Callable[[Effect], None]


@dataclass(frozen=True, slots=True)
class _Change:
    decide: Decide
    actor: str
    outcome: asyncio.Future[Event | None]


class Registry:
    """The state of one MEC host's applications, in step with the log between `start` and `stop`.

    Where the log is shared, every registry over it is told the same effects in the same order, but for
    `AwaitTermination` and `AwaitExpiry`: these are the leader's, who is told again what there is to await when it begins to lead.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        clock: Clock | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        compact_after: int = COMPACT_AFTER,
        leadership: Leadership | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.new_id = new_id
        self.log = log
        self.leadership = leadership or AlwaysLeader()
        self._compact_after = compact_after
        self._state = RegistryState()
        self._snapshot_revision = 0
        self._listeners: list[Listener] = []
        self._historians: list[Listener] = []
        self._changes: deque[_Change] = deque()
        self._group: Sequence[_Change] = ()
        self._something_waits = asyncio.Event()
        self._compaction_due = asyncio.Event()
        self._tasks = BackgroundTasks()
        self._running = False
        self._moving = asyncio.Lock()
        """Held while the state moves on: its own events and those of others come one way each, and must not meet."""
        self._is_following = True
        self.leadership.add_listener(self._hear_of_leadership)

    async def start(self) -> None:
        """Rebuilds the state from the log, tells the listeners what that leaves to do, and begins to take changes.

        Raises:
            LogUnavailable: the log cannot be read.
            IllegalEvent: the log holds what this version cannot have written.
        """
        self._state, occurrences = await self._read_log()
        _tell([HistoryBegins(self._state.revision)], self._historians)
        self._state, replayed = apply_events(self._state, occurrences)
        _tell(replayed, self._historians)
        self._tell(effects_of(self._state))
        self._running = True
        self._tasks.start("registry writer", self._write_changes())
        self._tasks.start("registry compaction", self._compact_when_due())
        if self.log.is_shared:
            self._tasks.start("registry follower", self._follow())
        self._note_growth()

    async def stop(self) -> None:
        """Finishes what waits, takes no more; the log stays open and is its owner's to close."""
        if self._running:
            self._running = False
            under_way = [each.outcome for each in (*self._group, *self._changes)]
            await asyncio.gather(*under_way, return_exceptions=True)
        await self._tasks.stop()

    @property
    def state(self) -> RegistryState:
        """The state as of now, durable; immutable, so it may be kept."""
        return self._state

    @property
    def is_stale(self) -> bool:
        """Whether others may have changed what this registry does not know of, because it cannot reach the log."""
        return self.log.is_shared and not (self.log.is_reachable and self._is_following)

    def add_listener(self, listener: Listener, *, history: bool = False) -> None:
        """Calls `listener` with every effect from now on, in order, once its cause is durable; it must not block.

        With `history`, at the start also with what the log has behind its snapshot. That was done long ago, by whoever had
        to: it is for listeners that remember what happened.
        """
        self._listeners.append(listener)
        if history:
            self._historians.append(listener)

    async def commit(self, decide: Decide) -> Event | None:
        """Decides, and returns the event once it is durable and visible; None where `decide` named none.

        Cancelled, the change may or may not happen.

        Raises:
            RegistryError: what `decide` raised.
            LogUnavailable: nothing was changed, as far as can be told; a later read shows it if it was.
        """
        return await self.propose(decide)

    def propose(self, decide: Decide) -> asyncio.Future[Event | None]:
        """As `commit`, for who has many changes under way and needs no task for each. Raises LogUnavailable."""
        if not self._running:
            raise LogUnavailable("the registry does not run: it takes no changes")
        change = _Change(decide, current_actor.get(), asyncio.get_running_loop().create_future())
        self._changes.append(change)
        self._something_waits.set()
        return change.outcome

    # The writer

    async def _write_changes(self) -> None:
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while self._changes:
                await self._gather_changes()
                self._group = group = [self._changes.popleft() for _ in range(min(len(self._changes), LARGEST_GROUP))]
                try:
                    async with self._moving:
                        await self._write(group)
                except LogUnavailable as error:
                    _refuse(group, error)
                except BaseException:
                    _refuse(group, LogUnavailable("the registry has stopped"))
                    raise

    async def _gather_changes(self) -> None:
        """Lets changes join that are on their way: as long as some come in `PASSES` of the event loop there may be more."""
        waiting, quiet = len(self._changes), 0
        while quiet < PASSES and waiting < LARGEST_GROUP:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._changes) == waiting else 0
            waiting = len(self._changes)

    async def _write(self, group: Sequence[_Change]) -> None:
        while True:
            head, effects = self._state, list[Effect]()
            outcomes: list[Event | Exception | None] = []
            records: list[Record] = []
            now_ns = self.clock.unix_ns()
            for change in group:
                outcome = _decide(change, head)
                if outcome is not None and not isinstance(outcome, Exception):
                    try:
                        head, caused = apply_events(head, [Occurrence(head.revision + 1, now_ns, outcome)])
                    except IllegalEvent as error:
                        # As a decision that fails: its requester's to see, and nobody else's.
                        outcome = error
                    else:
                        effects += caused
                        records.append(encode_event(outcome, now_ns, change.actor))
                outcomes.append(outcome)
            if records:
                try:
                    await self.log.append(STREAM, records, self._state.revision)
                except RevisionConflict:
                    await self._catch_up()
                    continue
            self._show(head, effects)
            for change, outcome in zip(group, outcomes, strict=True):
                _settle(change.outcome, outcome)
            return

    def _show(self, state: RegistryState, effects: Sequence[Effect]) -> None:
        self._state = state
        self._tell(effects)
        self._note_growth()

    def _tell(self, effects: Iterable[Effect]) -> None:
        leads = self.leadership.is_leader
        _tell([each for each in effects if leads or not isinstance(each, _AWAITED)], self._listeners)

    def _hear_of_leadership(self, leads: bool) -> None:
        if leads:
            to_do = (DeliverNotifications, *_AWAITED)
            self._tell(effect for effect in effects_of(self._state) if isinstance(effect, to_do))
            self._note_growth()
        else:
            self._tell(ForgetTermination(each) for each in pending_terminations(self._state))
            self._tell(ForgetExpiry(each) for each in pending_expiries(self._state))

    # The log

    async def _follow(self) -> None:
        """Takes over what others append, as they append it."""
        try:
            while True:
                try:
                    async with aclosing(self.log.tail(STREAM, self._state.revision)) as tail:
                        async for entry in tail:
                            await self._take_over(entry)
                except Compacted:
                    await self._follow_again()
                except LogUnavailable as error:
                    self._is_following = False
                    logger.warning("the registry cannot follow its log for now: %s", error)
                    await self.clock.sleep(FOLLOW_AGAIN_S)
                    await self._follow_again()
        finally:
            self._is_following = False

    async def _follow_again(self) -> None:
        try:
            async with self._moving:
                await self._catch_up()
        except LogUnavailable:
            self._is_following = False
        else:
            self._is_following = True

    async def _take_over(self, entry: LogEntry) -> None:
        if entry.revision <= self._state.revision:
            return  # Its own, or seen already.
        async with self._moving:
            if entry.revision == self._state.revision + 1:
                self._show(*apply_events(self._state, [decode_event(entry)]))
            elif entry.revision > self._state.revision:
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Takes over all that others have appended, or summed up."""
        state, occurrences = await self._read_log()
        if state is not self._state:
            self._show(state, (*effects_between(self._state, state), HistoryBegins(state.revision)))
        self._show(*apply_events(state, occurrences))

    async def _read_log(self) -> tuple[RegistryState, list[Occurrence]]:
        """The state of now, or a later one where the log has only a snapshot of it, and what happened since."""
        state = self._state
        while True:
            snapshot = await self.log.read_snapshot(STREAM)
            if snapshot is not None and snapshot.revision > state.revision:
                state = await asyncio.to_thread(decode_state, snapshot.payload)
                self._snapshot_revision = snapshot.revision
            try:
                return state, [decode_event(entry) for entry in await self.log.read(STREAM, state.revision)]
            except Compacted:
                continue  # By another registry, since its snapshot was looked for.

    def _note_growth(self) -> None:
        """A snapshot costs as much as there are records, so it waits for at least as many events: linear in all."""
        if not self.leadership.is_leader:
            return
        state = self._state
        records = len(state.apps) + len(state.services) + len(state.subscriptions)
        if state.revision - self._snapshot_revision >= max(self._compact_after, records):
            self._compaction_due.set()

    async def _compact_when_due(self) -> None:
        while True:
            await self._compaction_due.wait()
            try:
                await self.compact()
            except LogUnavailable as error:
                logger.error("the log stays as long as it is for now: %s", error)
            self._compaction_due.clear()

    async def compact(self) -> None:
        """Puts the state of now in place of the events that led to it. Raises LogUnavailable."""
        state = self._state
        if state.revision == self._snapshot_revision:
            return
        payload = await asyncio.to_thread(_encode_beside_others, state)
        await self.log.compact(STREAM, LogSnapshot(state.revision, payload))
        self._snapshot_revision = max(self._snapshot_revision, state.revision)
        logger.info("registry compacted up to revision %d: %d bytes", state.revision, len(payload))


def _encode_beside_others(state: RegistryState) -> bytes:
    """For a thread of its own: answering goes on meanwhile."""
    lines: list[bytes] = []
    for number, line in enumerate(encode_state(state)):
        lines.append(line)
        if number % LINES_AT_A_TIME == 0:
            # Whoever waits for Python's lock gets it now, and not after `sys.getswitchinterval`, again and again.
            time.sleep(GIVE_WAY_S)
    return b"".join(lines)


def _tell(effects: Sequence[Effect], listeners: Sequence[Listener]) -> None:
    for effect in effects:
        for listener in listeners:
            listener(effect)


def _decide(change: _Change, state: RegistryState) -> Event | Exception | None:
    if change.outcome.done():  # cancelled while it waited: nobody would learn of it
        return None
    try:
        return change.decide(state)
    except RegistryError as refusal:
        return refusal
    except Exception as error:
        # A defect in one decision is its requester's to see, and must not stop everybody's writer.
        logger.debug("a decision failed", exc_info=error)
        return error


def _settle(outcome: asyncio.Future[Event | None], result: Event | Exception | None) -> None:
    if outcome.done():
        return
    if isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)


def _refuse(group: Sequence[_Change], error: LogUnavailable) -> None:
    for change in group:
        _settle(change.outcome, error)
