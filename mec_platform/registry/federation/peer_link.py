"""Follows one peer and keeps the copies of its services in step: a thin shell around `reconciliation`.

The counterpart of `sharing`. What is read is written to this registry in the order of the peer's history, many changes at one
sync to disk; the place in that history is kept with them, so that a restart of either side goes on where it was. Where the two
have come apart, whatever the reason, the peer's list is compared with the copies, and only the differences are changes.

A peer that is not heard of for `suspend_after_s` has its services SUSPENDED, as a service has whose heartbeats are missed:
consumers keep what they know and see that it may not answer. Nothing is removed for silence. When the peer is back, its list
says how they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from random import Random

import grpc
import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry import events
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.federation.messages import Follow, read_place, read_service, write_follow
from mec_platform.registry.federation.peers import FederationSettings, LinkCounts, PeerAccess, PeerStatus
from mec_platform.registry.federation.reconciliation import (
    Digests,
    Reconciliation,
    Refused,
    Step,
    decide_changes,
    decide_listing,
    decide_suspension,
    steps_of,
)
from mec_platform.registry.grpc.reading import InvalidRequest, read_kpis
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.state import RegistryState
from mec_platform.rpc.v1 import federation_pb2 as pb
from mec_platform.rpc.v1 import federation_pb2_grpc, registry_pb2

logger = logging.getLogger(__name__)

MOST_READ = 256
"""Messages that are read ahead of what is durable: as many as the log takes at one stroke."""

CURSOR_STEP = 1_000
"""By how many revisions without a shared change the peer moves on before its cursor is written: far below what its log keeps,
and so rare that two hosts do not keep each other busy with their cursors."""


_ANOTHER_TOKEN_MAY_DO = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
"""It has expired, or its client has been given the scope since."""


_REASONS = {number: name.removeprefix("FOLLOW_START_").lower() for name, number in pb.FollowStart.items()}


class _Broken(Exception):
    """The connection is of no use any more; the message says why."""


class _OutOfStep(Exception):
    """The copies are not what the peer shares: list again."""


class PeerLink:
    """The link to one peer, between `start` and `stop`. `die` spreads the attempts of many hosts."""

    def __init__(
        self, host: HostRegistry, name: str, access: PeerAccess, settings: FederationSettings, die: Random
    ) -> None:
        self.name = name
        self.counts = LinkCounts()
        self._host = host
        self._registry = host.registry
        self._access = access
        self._settings = settings
        self._die = die
        self._tasks = BackgroundTasks()
        self._digests = Digests()
        self._refused: dict[str, Refused] = {}
        self._cursor: PeerCursor | None = None
        self._pending = pb.SharedChanges()
        self._connected = self._suspended = False
        self._contact_s = 0.0
        self._contact_unix_ns: int | None = None
        self._lag = 0
        self._relist_at_s = self._relist_wait_s = 0.0
        self._error = ""

    def start(self) -> None:
        """Begins to follow; the registry runs."""
        self._contact_s = self._now_s()
        self._cursor = self._registry.state.peers.get(self.name)
        self._tasks.start(f"peer {self.name}", self._keep_following())

    async def stop(self) -> None:
        """Ends that; the copies stay."""
        await self._tasks.stop()

    def status(self, *, follows: bool) -> PeerStatus:
        """For operators."""
        cursor = self._cursor
        return PeerStatus(
            name=self.name,
            address=self._access.address,
            connected=self._connected,
            suspended=self._suspended,
            follows=follows,
            registry_id="" if cursor is None else cursor.registry_id,
            revision=None if cursor is None else cursor.revision,
            services=len(self._copies()),
            lag=self._lag,
            last_contact_unix_ns=self._contact_unix_ns,
            counts=self.counts,
            refused=tuple(self._refused.values()),
            error=self._error,
        )

    def _copies(self) -> Mapping[str, None]:
        return self._registry.state.services_with(("origin", self.name))

    def _services(self) -> Iterable[ServiceInfo]:
        services = self._registry.state.services
        return (services[each] for each in self._copies())

    def _now_s(self) -> float:
        return self._registry.clock.monotonic_s()

    # The connection

    async def _keep_following(self) -> None:
        renew = False
        channel = self._access.open_channel()
        try:
            while True:
                try:
                    await self._follow(channel, renew)
                except _OutOfStep:
                    self._connected, self._cursor = False, None
                    continue
                except (grpc.aio.AioRpcError, MendableError, TimeoutError, _Broken) as error:
                    renew = isinstance(error, grpc.aio.AioRpcError) and error.code() in _ANOTHER_TOKEN_MAY_DO
                    self._note_failure(_reason_of(error))
                    if isinstance(error, LogUnavailable):
                        # What of it was written, the state will tell.
                        self._cursor = self._registry.state.peers.get(self.name)
                self._connected, self._lag = False, 0
                await self._suspend_if_silent()
                await self._registry.clock.sleep(self._settings.retry_s * (1 + self._die.random()))
        finally:
            await channel.close()

    def _note_failure(self, reason: str) -> None:
        # Told once of each kind: while a peer is away, the same attempt fails in many words.
        is_new = self._connected or reason.partition(":")[0] != self._error.partition(":")[0]
        level = logging.WARNING if is_new else logging.DEBUG
        logger.log(level, "peer %s at %s is not followed for now: %s", self.name, self._access.address, reason)
        self._error = reason

    async def _follow(self, channel: grpc.aio.Channel, renew: bool) -> None:
        """Follows until the connection ends, and raises what ended it."""
        metadata = await self._access.metadata(renew=renew)
        registry_id = self._registry.state.registry_id
        wish = Follow(self._host.services.locality, registry_id, self._cursor, self._settings.digest_s)
        self._pending = pb.SharedChanges()
        call = federation_pb2_grpc.FederationStub(channel).Follow(write_follow(wish), metadata=metadata)
        replies: asyncio.Queue[pb.FollowReply | Exception] = asyncio.Queue(MOST_READ)
        try:
            async with BackgroundTasks() as tasks:
                tasks.start(f"replies of peer {self.name}", _read_all(call, replies))
                while True:
                    async with asyncio.timeout(self._settings.silent_after_s):
                        found = [await replies.get()]
                    while not replies.empty():
                        found.append(replies.get_nowait())
                    if taken := [each for each in found if isinstance(each, pb.FollowReply)]:
                        await self._take(taken)
                    for end in found:
                        if isinstance(end, Exception):
                            raise end
        finally:
            call.cancel()

    async def _suspend_if_silent(self) -> None:
        after_s = self._settings.suspend_after_s
        if self._suspended or not after_s or self._now_s() - self._contact_s < after_s:
            return
        silent = decide_suspension(self._services())
        known = self._registry.state.peers.get(self.name)
        try:
            if silent and known is not None:
                # The copies are now what the peer has never said, so its list has to set them right.
                for step in steps_of(Reconciliation(put=silent), PeerCursor(known.registry_id, None)):
                    await self._commit(step, is_listed=True)
                    self._cursor = step.cursor
        except LogUnavailable as error:
            logger.error("services of the silent peer %s stay as they are for now: %s", self.name, error)
            return
        self._suspended = True
        logger.warning(
            "peer %s was not heard of for %.0f s: %d services are suspended", self.name, after_s, len(silent)
        )

    # What the peer says

    async def _take(self, replies: Iterable[pb.FollowReply]) -> None:
        """Takes replies in their order; changes that follow each other are written together."""
        waiting: list[Step] = []
        for reply in replies:
            kind = reply.WhichOneof("content")
            if kind == "changes" and not reply.changes.is_listing:
                self._pending.MergeFrom(reply.changes)
                if not reply.changes.more:
                    waiting.append(self._read_step())
                    self._lag = len(waiting)
                continue
            await self._write(waiting)
            waiting = []
            match kind:
                case "begin":
                    self._begin(reply.begin)
                case "changes":
                    await self._take_listing(reply.changes)
                case "digest":
                    await self._compare(reply.digest)
                case "kpis":
                    self._take_kpis(reply.kpis.services)
        await self._write(waiting)
        self._contact_s, self._contact_unix_ns = self._now_s(), self._registry.clock.unix_ns()

    def _begin(self, begin: pb.FollowBegin) -> None:
        called = read_place(begin.place).mec_host
        if called != self.name:
            raise _Broken(f"it calls itself {called!r}; name it so in --peer")
        resumed = begin.start == pb.FOLLOW_START_RESUMED
        if resumed:
            self._suspended = False
        else:
            self._cursor = PeerCursor(begin.registry_id, None)
            self.counts.listings[_REASONS.get(begin.start, "unknown")] += 1
        self.counts.connections += 1
        self._connected, self._error = True, ""
        logger.info("following peer %s at %s, %s", self.name, self._access.address, "resumed" if resumed else "by list")

    def _read_step(self) -> Step:
        """What was put together from the pieces of one change."""
        changes, self._pending = self._pending, pb.SharedChanges()
        return Step(
            tuple(self._read_services(changes.put)), tuple(changes.removed_ids), self._cursor_at(changes.revision)
        )

    def _read_services(self, messages: Iterable[pb.SharedService]) -> Iterable[ServiceInfo]:
        for message in messages:
            try:
                yield read_service(message, self.name)
            except InvalidRequest as error:
                self._refuse([Refused(message.service.service_id, str(error), None)])

    def _cursor_at(self, revision: int) -> PeerCursor:
        if self._cursor is None:
            raise _Broken("it did not begin with FollowBegin")
        return PeerCursor(self._cursor.registry_id, revision)

    async def _take_listing(self, piece: pb.SharedChanges) -> None:
        self._pending.MergeFrom(piece)
        if piece.more:
            return
        self._refused = {}
        listing = self._read_step()
        whole = decide_listing(self._registry.state.services, self._copies(), self.name, listing.put)
        self._refuse(whole.refused)
        for step in steps_of(whole, listing.cursor):
            # What is listed counts, even where the peer was put back to an earlier state.
            await self._commit(step, is_listed=True)
            self._cursor = step.cursor
        self._suspended = False

    async def _compare(self, digest: pb.SharedDigest) -> None:
        """Moves on to the revision of the digest. Raises _OutOfStep where the copies are not what the peer has there."""
        refused = [each.service for each in self._refused.values() if each.service is not None]
        # An id that was taken may be free by now.
        await self._write([Step(tuple(refused), (), self._cursor_at(digest.revision))])
        if any(each.service is None for each in self._refused.values()):
            return  # There is no telling what they would have to be.
        others = [each.service for each in self._refused.values() if each.service is not None]
        if self._digests.digest_of([*self._services(), *others]) == digest.digest:
            self._relist_wait_s = 0.0
            return
        self.counts.mismatches += 1
        now_s = self._now_s()
        if now_s >= self._relist_at_s or not self._relist_wait_s:
            settings = self._settings
            self._relist_wait_s = min(max(2 * self._relist_wait_s, settings.digest_s), settings.longest_relist_s)
            self._relist_at_s = now_s + self._relist_wait_s
            logger.warning("what peer %s shares is not what is known of it here; listing again", self.name)
            raise _OutOfStep

    def _take_kpis(self, heartbeats: Iterable[registry_pb2.ServiceHeartbeat]) -> None:
        now_ns, services = self._registry.clock.unix_ns(), self._registry.state.services
        for heartbeat in heartbeats:
            service, kpis = services.get(heartbeat.service_id), read_kpis(heartbeat, now_ns)
            if kpis is not None and service is not None and service.origin == self.name:
                self._host.services.kpis.update(heartbeat.service_id, kpis, now_ns)

    # What is written

    async def _write(self, steps: Sequence[Step]) -> None:
        """Writes steps in their order at one stroke. Raises LogUnavailable."""
        if steps:
            await asyncio.gather(*map(self._commit, steps))
            self._cursor, self._lag = steps[-1].cursor, 0

    async def _commit(self, step: Step, *, is_listed: bool = False) -> None:
        decision = Reconciliation()

        def decide(state: RegistryState) -> events.Event | None:
            nonlocal decision
            known = state.peers.get(self.name)
            if not is_listed and _is_behind(step.cursor, known):
                return None
            decision = decide_changes(state.services, self.name, step.put, step.removed)
            if not decision and _is_near(known, step.cursor):
                return None
            return events.PeerServicesChanged(self.name, step.cursor, decision.put, decision.removed)

        await self._registry.commit(decide)
        self.counts.changes += len(decision.put) + len(decision.removed)
        for service_id in (*(each.service_id for each in step.put), *step.removed):
            self._refused.pop(service_id, None)
        self._refuse(decision.refused)

    def _refuse(self, refused: Iterable[Refused]) -> None:
        for each in refused:
            self._refused[each.service_id] = each
            self.counts.refusals += 1
            logger.warning("service %s of peer %s is not taken over: %s", each.service_id, self.name, each.reason)


def _is_behind(cursor: PeerCursor, known: PeerCursor | None) -> bool:
    """Whether another platform, over the same log, has come further already."""
    if known is None or known.registry_id != cursor.registry_id or known.revision is None or cursor.revision is None:
        return False
    return cursor.revision < known.revision


def _is_near(known: PeerCursor | None, cursor: PeerCursor) -> bool:
    """Whether the cursor that is written will do for one that has moved on without a change."""
    if known is None or known.registry_id != cursor.registry_id or known.revision is None or cursor.revision is None:
        return known == cursor
    return 0 <= cursor.revision - known.revision < CURSOR_STEP


async def _read_all(call: AsyncIterable[pb.FollowReply], replies: asyncio.Queue[pb.FollowReply | Exception]) -> None:
    """Hands on all that comes, and at last why nothing more does."""
    try:
        async for reply in call:
            await replies.put(reply)
    except grpc.aio.AioRpcError as error:
        await replies.put(error)
    else:
        await replies.put(_Broken("it has ended the stream"))


def _reason_of(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "it is silent" if isinstance(error, TimeoutError) else str(error)
