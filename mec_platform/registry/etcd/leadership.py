"""Which replica leads, decided by one key in etcd that lives as long as its holder's lease.

The holder counts its lease from before it asked for it and gives up a part early, so it has stopped acting by the time
etcd lets somebody else have the key, however long an answer took. Time is that of the machine's uptime: a machine
that was asleep does not wake up as leader.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing, suppress

from mec_platform.background import BackgroundTasks
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone, LeaseGone, WatchLost
from mec_platform.registry.etcd.layout import Keys
from mec_platform.registry.leadership import LeadershipListener
from mec_platform.rpc.etcd import etcd_pb2 as pb

logger = logging.getLogger(__name__)

LEASE_S = 5
"""How long nobody leads after a leader died, at most; one that resigns is followed at once."""

RENEWALS = 4
"""A lease is renewed so many times while it lasts: one or two lost answers do not end it."""

EARLY = 0.2
"""Part of a lease that its holder does without."""

STAND_AGAIN_S = 0.2
"""Between attempts at a store that does not answer."""


class EtcdLeadership:
    """Implements `Leadership`. `name` is shown to operators as the leader's."""

    def __init__(self, client: EtcdClient, keys: Keys, name: str, *, lease_s: int = LEASE_S) -> None:
        self._client = client
        self._keys = keys
        self._name = name
        self._lease_s = lease_s
        self._lease_id = 0
        self._leads_until_s = -math.inf
        self._told = False
        self._leader = ""
        self._expiry: asyncio.TimerHandle | None = None
        self._listeners: list[LeadershipListener] = []
        self._tasks = BackgroundTasks()

    @property
    def is_leader(self) -> bool:
        """See Leadership.is_leader."""
        return _uptime_s() < self._leads_until_s

    @property
    def leader(self) -> str:
        """See Leadership.leader."""
        return self._leader

    def add_listener(self, listener: LeadershipListener) -> None:
        """See Leadership.add_listener."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """See Leadership.start."""
        await self._stand()
        self._tasks.start("leadership", self._stand_and_hold())

    async def stop(self) -> None:
        """See Leadership.stop."""
        await self._tasks.stop()
        self._step_down()
        if self._lease_id:
            with suppress(LogUnavailable):  # it ends by itself
                await self._client.revoke_lease(self._lease_id)

    async def _stand_and_hold(self) -> None:
        while True:
            try:
                if self.is_leader:
                    await self._hold()
                    # Whatever ended it: the key must not wait for its lease to end, also where this one may stand again.
                    await self._client.revoke_lease(self._lease_id)
                else:
                    revision = await self._stand()
                    if not self.is_leader:
                        await self._await_vacancy(revision)
            except LogUnavailable as error:
                logger.warning("cannot stand for leadership: %s", error)
                await asyncio.sleep(STAND_AGAIN_S)

    async def _stand(self) -> int:
        """Takes the key where nobody has it. Returns the etcd revision at which that was tried. Raises LogUnavailable."""
        key = self._keys.leader()
        before = await self._client.range(pb.RangeRequest(key=key))
        self._leader = _name(before)
        if before.kvs:
            return int(before.header.revision)
        asked_s = _uptime_s()
        lease = await self._client.grant_lease(self._lease_s)
        try:
            answer = await self._client.txn(
                compare=[layout.is_absent(key)],
                success=[layout.put(key, self._name.encode(), lease.ID)],
                failure=[layout.get(key)],
            )
        except LeaseGone:  # Attempts took longer than it lasts.
            return int(before.header.revision)
        # A lost answer: the key is ours all the same.
        holder = None if answer.succeeded else answer.responses[0].response_range
        if holder is None or [kv.lease for kv in holder.kvs] == [lease.ID]:
            self._lease_id, self._leader = lease.ID, self._name
            self._lead_until(asked_s, lease.TTL)
        else:
            self._leader = _name(holder)
            await self._client.revoke_lease(lease.ID)
        return int(answer.header.revision)

    async def _await_vacancy(self, revision: int) -> None:
        """Returns when the key may be free; after a while in any case, so that nothing depends on one watch."""
        create = pb.WatchCreateRequest(key=self._keys.leader(), start_revision=revision + 1)
        with suppress(TimeoutError, WatchLost, HistoryGone):
            async with asyncio.timeout(self._lease_s), aclosing(self._client.watch(create)) as watch:
                async for events in watch:
                    if any(event.type == pb.Event.DELETE for event in events):
                        return
        await asyncio.sleep(0)

    async def _hold(self) -> None:
        """Renews the lease as long as that works."""
        while self.is_leader:
            await asyncio.sleep(self._lease_s / RENEWALS)
            asked_s = _uptime_s()
            try:
                ttl_s = await self._client.renew_lease(self._lease_id)
            except LogUnavailable as error:
                logger.warning("the leader's lease was not renewed: %s", error)
                continue
            except LeaseGone:
                ttl_s = 0
            if ttl_s == 0:
                break
            if self._told:
                self._lead_until(asked_s, ttl_s)
        self._lose()

    def _lose(self) -> None:
        if self._told:
            logger.warning("%s does not lead any more: its lease was not renewed in time", self._name)
        self._step_down()

    def _lead_until(self, asked_s: float, ttl_s: int) -> None:
        self._leads_until_s = asked_s + ttl_s * (1 - EARLY)
        if self._expiry is not None:
            self._expiry.cancel()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(self._leads_until_s - _uptime_s(), self._lose)
        self._tell(True)

    def _step_down(self) -> None:
        self._leads_until_s = -math.inf
        if self._expiry is not None:
            self._expiry.cancel()
        self._tell(False)

    def _tell(self, leads: bool) -> None:
        if leads is self._told:
            return
        self._told = leads
        if leads:
            logger.info("%s leads from now on", self._name)
        for listener in self._listeners:
            listener(leads)


def _name(leader: pb.RangeResponse) -> str:
    return str(leader.kvs[0].value.decode(errors="replace")) if leader.kvs else ""


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
