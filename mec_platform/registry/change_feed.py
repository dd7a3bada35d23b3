"""The last changes of services, in the order of their revisions, for any number of watchers.

One bounded ring serves all: a watcher has a place in it and nothing else, so a slow one keeps no memory and holds nobody
up. When its place is dropped from the ring it is told so, and has to list again. The ring is filled by the registry's
effects, at the start by those of the log's replay: a watcher may resume over a restart, as far back as the log reaches.

What edges write of a change is kept with it (`encoded`), so that a change is written once for all watchers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.effects import AnnounceService, Effect, HistoryBegins
from mec_platform.registry.errors import ChangesCompacted, QuotaExceeded, RevisionAhead
from mec_platform.registry.registry import Registry

CAPACITY = 20_000
"""Changes that are kept, some 2 KiB each with what edges have written of them: minutes of the heaviest load, and as many as
the log holds behind its snapshot when it is compacted."""


TURN = 256
"""Change sets that one watcher looks at before others have their turn."""

Send: TypeAlias = "Callable[[ChangeSet], Awaitable[bool]]"
"""Tells a client of what concerns it; whether there was anything."""

Pause: TypeAlias = Callable[[int], Awaitable[None]]
"""Tells a client that up to this revision there is nothing else for it."""


@dataclass(slots=True)
class Change:
    """What happened to a service; `before` is None for one that was added."""

    kind: ChangeType
    service: ServiceInfo
    before: ServiceInfo | None
    encoded: dict[Any, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class ChangeSet:
    """All that one event has changed. It is complete when the first watcher sees it."""

    revision: int
    changes: list[Change] = field(default_factory=list)
    encoded: dict[Any, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFilter:
    """Which services a watcher wants: attributes AND, values OR, empty matches all; at `place`, what is offered there;
    with `own_only`, none that another host looks after."""

    names: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    app_instance_ids: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    place: Locality | None = None
    own_only: bool = False

    def matches(self, service: ServiceInfo) -> bool:
        """Whether the watcher wants to know of a service that is like this."""
        return (
            (not self.names or service.name in self.names)
            and (not self.category_ids or (service.category is not None and service.category.id in self.category_ids))
            and (not self.app_instance_ids or service.app_instance_id in self.app_instance_ids)
            and (not self.states or service.state in self.states)
            and (not self.models or (service.capabilities is not None and service.capabilities.model in self.models))
            and (self.place is None or service.is_offered_at(self.place))
            and not (self.own_only and service.origin)
        )

    def select(self, changes: ChangeSet) -> list[tuple[Change, ChangeType]]:
        """The changes that concern the watcher, and what each is for it: a service that begins to match is added, one that
        no longer does is removed."""
        found = []
        for change in changes.changes:
            is_wanted = change.kind is not ChangeType.REMOVED and self.matches(change.service)
            was_wanted = change.before is not None and self.matches(change.before)
            if is_wanted:
                found.append((change, change.kind if was_wanted else ChangeType.ADDED))
            elif was_wanted:
                found.append((change, ChangeType.REMOVED))
        return found


class Watcher:
    """A place in the feed, from `ChangeFeed.watch`. `seen` is the revision up to which everything was taken."""

    def __init__(self, feed: ChangeFeed, place: int, seen: int) -> None:
        self._feed = feed
        self._place = place
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self.seen = seen

    def take(self) -> ChangeSet | None:
        """The next change set, or None for now.

        Raises:
            ChangesCompacted: it was dropped before it was taken.
        """
        if self._place < self._feed.first:
            raise ChangesCompacted(self.seen, self._feed.revision)
        found = self._feed.at(self._place)
        if found is None:
            self.seen = self._feed.revision
            return None
        self._place += 1
        self.seen = found.revision
        return found

    async def follow(self, send: Send, pause: Pause, quiet_s: float) -> NoReturn:
        """Hands on change sets as they come, for ever; `pause` is called where a client was told nothing for `quiet_s`.

        Raises ChangesCompacted, as `take`, and what `send` and `pause` raise.
        """
        clock = asyncio.get_running_loop().time
        due_s = clock() + quiet_s
        try:
            while True:
                for _ in range(TURN):
                    changes = self.take()
                    if changes is None:
                        break
                    if await send(changes):
                        due_s = clock() + quiet_s
                if clock() >= due_s:
                    await pause(self.seen)
                    due_s = clock() + quiet_s
                await self._wait(due_s)
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    async def _wait(self, until_s: float) -> None:
        """Returns when there may be something to take, or about then; others have their turn before.

        An alarm is set once and rings again where it was early: a thousand watchers need not set theirs at each change.
        """
        if self.lag:
            await asyncio.sleep(0)
            return
        self._waiter = self._feed.wait(self)
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_at(until_s, self._ring)
        await self._waiter

    def _ring(self) -> None:
        self._alarm = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def lag(self) -> int:
        """Change sets that it has not taken."""
        return max(self._feed.end - self._place, 0)


class ChangeFeed:
    """The feed of a registry that is not started yet."""

    def __init__(self, registry: Registry, quotas: Quotas | None = None, capacity: int = CAPACITY) -> None:
        self._registry = registry
        self._quotas = quotas or Quotas()
        self._capacity = capacity
        self._sets: deque[ChangeSet] = deque()
        self._count = 0
        self._first = 0
        self._compacted = 0
        self._known: dict[str, ServiceInfo] = {}
        self._waiting: dict[Watcher, asyncio.Future[None]] = {}
        self._watchers: set[Watcher] = set()
        self._watches_of: Counter[str] = Counter()
        registry.add_listener(self._note, history=True)

    @property
    def revision(self) -> int:
        """The registry's: all changes up to it are in the feed or were."""
        return self._registry.state.revision

    @property
    def compacted_revision(self) -> int:
        """The oldest revision that a watcher may begin after."""
        return self._compacted

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    @property
    def largest_lag(self) -> int:
        """How many change sets the slowest watcher is behind."""
        return max((each.lag for each in self._watchers), default=0)

    @property
    def size(self) -> int:
        """Changes that are kept."""
        return self._count

    @property
    def services(self) -> Mapping[str, ServiceInfo]:
        """All services, as they are at `revision`."""
        return self._registry.state.services

    @property
    def first(self) -> int:
        """The place of the oldest change set."""
        return self._first

    @property
    def end(self) -> int:
        """The place behind the newest change set."""
        return self._first + len(self._sets)

    @contextmanager
    def watch(self, after_revision: int | None = None, client_id: str = "") -> Iterator[Watcher]:
        """A watcher of every change after a revision, from now on where None. `client_id` is whose it is, where that is known.

        Raises:
            QuotaExceeded: the client has as many watches as it may have.
            ChangesCompacted: changes after that revision were dropped.
            RevisionAhead: the registry has not come to that revision.
        """
        after = self.revision if after_revision is None else after_revision
        if after > self.revision:
            raise RevisionAhead(after, self.revision)
        if after < self._compacted:
            raise ChangesCompacted(after, self.revision)
        watcher = Watcher(self, self._first + self._count_sets(lambda each: each.revision <= after), after)
        if client_id and self._watches_of[client_id] >= self._quotas.watches_per_client:
            raise QuotaExceeded(f"client {client_id!r}", self._quotas.watches_per_client, "watches")
        self._watchers.add(watcher)
        self._watches_of[client_id] += 1
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._waiting.pop(watcher, None)
            self._watches_of[client_id] -= 1
            if not self._watches_of[client_id]:
                del self._watches_of[client_id]

    def at(self, place: int) -> ChangeSet | None:
        """The change set at a place that is not before the `first`; None behind the newest."""
        return self._sets[place - self._first] if place < self.end else None

    def wait(self, watcher: Watcher) -> asyncio.Future[None]:
        """Is done at the next change; a watcher waits for one at a time."""
        waiting = self._waiting[watcher] = asyncio.get_running_loop().create_future()
        return waiting

    def _count_sets(self, holds: Callable[[ChangeSet], bool]) -> int:
        """How many from the oldest on, where it holds for none behind the first for which it does not."""
        low, high = 0, len(self._sets)
        while low < high:
            middle = (low + high) // 2
            if holds(self._sets[middle]):
                low = middle + 1
            else:
                high = middle
        return low

    def _note(self, effect: Effect) -> None:
        match effect:
            case HistoryBegins(revision):
                self._begin_anew(revision)
            case AnnounceService(kind, service, revision):
                self._add(kind, service, revision)
            case _:
                return
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_result(None)

    def _begin_anew(self, revision: int) -> None:
        # The place that is left out is one that every watcher has passed or stands at, so each of them learns of it.
        self._first, self._count, self._compacted = self.end + 1, 0, revision
        self._sets.clear()
        self._known = dict(self.services)

    def _add(self, kind: ChangeType, service: ServiceInfo, revision: int) -> None:
        if not self._sets or self._sets[-1].revision != revision:
            self._sets.append(ChangeSet(revision))
        service_id = service.service_id
        self._sets[-1].changes.append(Change(kind, service, self._known.get(service_id)))
        if kind is ChangeType.REMOVED:
            self._known.pop(service_id, None)
        else:
            self._known[service_id] = service
        self._count += 1
        while self._count > self._capacity and len(self._sets) > 1:
            dropped = self._sets.popleft()
            self._first += 1
            self._count -= len(dropped.changes)
            self._compacted = dropped.revision
