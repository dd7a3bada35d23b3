"""Gives other hosts the services of this one: the gRPC service `Federation`. The counterpart of `peer_link`.

Each follower has its own place in the change feed. It is told of services that were registered here, as far as they may be
known where it is: `consumedLocalOnly` keeps one to its scope (ETSI GS MEC 011 clause 8.1.2.2).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.change_feed import ChangeSet, Watcher, WatchFilter
from mec_platform.registry.federation.messages import (
    Follow,
    read_follow,
    write_changes,
    write_listing,
    write_place,
)
from mec_platform.registry.federation.reconciliation import Digests
from mec_platform.registry.grpc.calls import Caller, Calls, Gate, NoteCall, OpenGate, ignore_call
from mec_platform.registry.grpc.refusals import NotPermitted
from mec_platform.registry.grpc.writing import kpis_of
from mec_platform.registry.host import HostRegistry
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import federation_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2

SERVICE_NAME = "mec_platform.rpc.v1.Federation"

KPI_INTERVAL_S = 2.0
"""How often followers are told of new KPIs: applications send them with heartbeats, which are seconds apart."""

MOST_KPIS = 5_000
"""In one message, some 500 KiB."""


class Sharing:
    """What peers may follow, of one host's registry. `peers` are the names of the hosts that may."""

    def __init__(self, host: HostRegistry, peers: Collection[str]) -> None:
        self._host = host
        self._peers = frozenset(peers)
        self._followers: Counter[str] = Counter()

    @property
    def followers(self) -> Collection[str]:
        """Hosts that follow this one now."""
        return [name for name, count in self._followers.items() if count]

    def add_to(self, server: grpc.aio.Server, gate: Gate | None = None, note: NoteCall = ignore_call) -> None:
        """Puts the service on a server that is not started. Without `gate` every peer's name is believed."""
        following = _Following(self, self._host, gate or OpenGate())
        calls = Calls(gate or OpenGate(), note, lambda: self._host.registry.is_stale)
        follow = calls.stream("Follow", following.follow, pb.FollowRequest.FromString, of_requests=False)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, {"Follow": follow}),))

    @contextmanager
    def admit(self, wish: Follow, client_id: str) -> Iterator[None]:
        """While it follows. `client_id` is empty where nobody is asked who they are.

        Raises:
            NotPermitted: who calls is no peer of this host, or has the credentials of another one.
        """
        name = wish.place.mec_host
        if wish.registry_id == self._host.registry.state.registry_id:
            raise NotPermitted(f"host {name!r} has this registry, or a copy of it: each host needs a state of its own")
        if name not in self._peers:
            raise NotPermitted(
                f"host {name!r} is no peer of {self._host.services.locality.mec_host!r}; see mec serve --peer"
            )
        if client_id not in ("", name):
            raise NotPermitted(f"client {client_id!r} cannot be host {name!r}: a peer's client is called like its host")
        self._followers[name] += 1
        try:
            yield
        finally:
            self._followers[name] -= 1


class _Following:
    """The method."""

    def __init__(self, sharing: Sharing, host: HostRegistry, gate: Gate) -> None:
        self._sharing = sharing
        self._host = host
        self._gate = gate
        self._place = host.services.locality

    async def follow(self, request: pb.FollowRequest, context: Context, caller: Caller) -> None:
        """Goes on until the follower goes, or falls too far behind.

        Raises:
            InvalidRequest, NotPermitted: who calls, or what it asks for, is not right.
            ChangesCompacted: the follower was too slow; it may come back at once, and lists.
            NotAuthenticated: the follower's token has expired meanwhile.
        """
        wish = read_follow(request)
        after_revision, start = self._begin_after(wish)
        with self._sharing.admit(wish, caller.client_id), self._host.changes.watch(after_revision) as watcher:
            wanted = WatchFilter(place=wish.place, own_only=True)
            state = self._host.registry.state
            begin = pb.FollowBegin(registry_id=state.registry_id, place=write_place(self._place), start=start)
            # The list and the watcher's place are of one revision: nothing is awaited between taking the one and the other.
            after_list = watcher.seen
            await context.write(pb.FollowReply(begin=begin).SerializeToString())
            if start != pb.FOLLOW_START_RESUMED:
                listed = [state.services[each] for each in state.in_order(state.services)]
                for message in write_listing(filter(wanted.matches, listed), after_list):
                    await context.write(message)
            await _Telling(self._host, self._gate, context, watcher, wanted, wish.digest_s).go_on()

    def _begin_after(self, wish: Follow) -> tuple[int | None, pb.FollowStart.ValueType]:
        """The revision after which changes are told, None for those from now on, behind a list; and why."""
        feed, after = self._host.changes, wish.after
        if after is None or after.revision is None:
            return None, pb.FOLLOW_START_LISTED
        if after.registry_id != self._host.registry.state.registry_id:
            return None, pb.FOLLOW_START_OTHER_REGISTRY
        if after.revision > feed.revision:
            return None, pb.FOLLOW_START_AHEAD
        if after.revision < feed.compacted_revision:
            return None, pb.FOLLOW_START_COMPACTED
        return after.revision, pb.FOLLOW_START_RESUMED


class _Telling:
    """What one follower is told behind the list, or from its cursor on."""

    def __init__(
        self, host: HostRegistry, gate: Gate, context: Context, watcher: Watcher, wanted: WatchFilter, digest_s: float
    ) -> None:
        self._registry = host.registry
        self._gate = gate
        self._context = context
        self._watcher = watcher
        self._wanted = wanted
        self._digests = Digests()
        self._digest_s = digest_s
        self._digest_due_s = 0.0
        self._news = _KpiNews(host, wanted.matches)

    async def go_on(self) -> None:
        """Tells all that there is, compares, and then goes on with changes as they come."""
        while (changes := self._watcher.take()) is not None:
            await self._send(changes)
        await self._pause(self._watcher.seen)
        await self._watcher.follow(self._send, self._pause, min(self._digest_s, KPI_INTERVAL_S))

    async def _send(self, changes: ChangeSet) -> bool:
        for message in write_changes(changes, self._wanted):
            await self._context.write(message)
        # Digests and KPIs are due in busy times too.
        return False

    async def _pause(self, revision: int) -> None:
        now_s = asyncio.get_running_loop().time()
        # Only who was told everything can compare; nothing is awaited between this and taking the digest.
        if now_s >= self._digest_due_s and self._watcher.lag == 0:
            self._digest_due_s = now_s + self._digest_s
            self._gate.confirm(self._context)
            state = self._registry.state
            digest = self._digests.digest_of(filter(self._wanted.matches, state.services.values()))
            message = pb.FollowReply(digest=pb.SharedDigest(revision=state.revision, digest=digest))
            await self._context.write(message.SerializeToString())
        for news in self._news.take():
            await self._context.write(news)


class _KpiNews:
    """KPIs that one follower has not been told yet."""

    def __init__(self, host: HostRegistry, shares: Callable[[ServiceInfo], bool]) -> None:
        self._host = host
        self._shares = shares
        self._told: dict[str, Kpis] = {}

    def take(self) -> Iterator[bytes]:
        """`FollowReply` messages of the newest; none where nothing is new."""
        services, told, self._told = self._host.registry.state.services, self._told, {}
        news = []
        for service_id, kpis in self._host.services.kpis.items():
            service = services.get(service_id)
            if service is None or not self._shares(service):
                continue
            self._told[service_id] = kpis
            if told.get(service_id) is not kpis:
                news.append(registry_pb2.ServiceHeartbeat(service_id=service_id, kpis=kpis_of(kpis)))
        for start in range(0, len(news), MOST_KPIS):
            kpis_of_some = pb.SharedKpis(services=news[start : start + MOST_KPIS])
            yield pb.FollowReply(kpis=kpis_of_some).SerializeToString()
