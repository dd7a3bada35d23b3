"""Heartbeats between replicas, over one key in etcd that everybody writes and everybody watches.

A watch shows each value in turn, so that none is lost though the next one is written over it; nothing has to be tidied.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import islice

import msgspec

from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone, WatchLost
from mec_platform.registry.etcd.layout import Keys
from mec_platform.registry.heartbeats import Heartbeat, Heartbeats
from mec_platform.rpc.etcd import etcd_pb2 as pb

logger = logging.getLogger(__name__)

LARGEST_TELLING = 3_000
"""Services of one value: some 750 KB with all KPIs, and etcd takes 1.5 MiB."""

WATCH_AGAIN_S = 0.1


class _Told(msgspec.Struct, array_like=True):
    replica: bytes
    heard: dict[str, Heartbeat]


class EtcdHeartbeats:
    """Implements `HeartbeatExchange`."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._key = keys.heard()
        self._replica = secrets.token_bytes(8)

    async def tell(self, heard: Heartbeats) -> None:
        """See HeartbeatExchange.tell."""
        each = iter(heard.items())
        while some := dict(islice(each, LARGEST_TELLING)):
            await self._client.txn([layout.put(self._key, msgspec.msgpack.encode(_Told(self._replica, some)))])

    async def hear(self) -> AsyncGenerator[Heartbeats, None]:
        """See HeartbeatExchange.hear."""
        seen = await self._now()
        while True:
            create = pb.WatchCreateRequest(key=self._key, start_revision=seen + 1)
            try:
                async with aclosing(self._client.watch(create)) as watch:
                    async for events in watch:
                        for event in events:
                            seen = event.kv.mod_revision
                            told = msgspec.msgpack.decode(event.kv.value, type=_Told)
                            if told.replica != self._replica:
                                yield told.heard
            except WatchLost as error:
                logger.info("heartbeats that others heard are asked for again: %s", error)
                await asyncio.sleep(WATCH_AGAIN_S)
            except HistoryGone:
                seen = await self._now()

    async def _now(self) -> int:
        return int((await self._client.range(pb.RangeRequest(key=self._key))).header.revision)
