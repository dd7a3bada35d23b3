"""How a group of appends gets into etcd: one transaction that compares the stream's head and moves it.

Its counterpart is `event_log`, which makes the groups. A transaction whose answer was lost is made again as it was: at
most one of the two finds the head where both expect it, and the other one recognises its twin by the id in the batch.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from mec_platform.registry.appends import Append, Row, plan_appends
from mec_platform.registry.errors import RevisionConflict
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient
from mec_platform.registry.etcd.layout import LARGEST_VALUE_BYTES, Batch, Keys
from mec_platform.rpc.etcd import etcd_pb2 as pb

logger = logging.getLogger(__name__)


class StreamAppender:
    """Appends groups to one stream, one after the other, and remembers where it stands."""

    def __init__(self, client: EtcdClient, keys: Keys, stream: str) -> None:
        self._client = client
        self._keys = keys
        self._stream = stream
        self._last: int | None = None

    async def append(self, appends: Sequence[Append]) -> Sequence[int | RevisionConflict]:
        """Appends all that are not refused, or none; the outcome of each.

        Raises:
            LogUnavailable: it may have happened or not; a later read shows it.
        """
        # Not known again before this has ended well.
        last, self._last = self._last, None
        is_fresh = last is None
        if last is None:
            last = await self._read_head()
        while True:
            plan = plan_appends(appends, {self._stream: last})
            if plan.refuses and not is_fresh:
                last, is_fresh = await self._read_head(), True
                continue
            actual = await self._commit(plan.rows, last) if plan.rows else None
            if actual is not None:  # Another platform appended.
                last, is_fresh = actual, True
                continue
            self._last = plan.last[self._stream]
            return plan.outcomes

    async def _read_head(self) -> int:
        return _revision(await self._client.range(pb.RangeRequest(key=self._keys.head(self._stream))))

    async def _commit(self, rows: Sequence[Row], base: int) -> int | None:
        """Returns None where the rows are in the log, or else the revision at which the stream stands."""
        keys, stream = self._keys, self._stream
        last = base + len(rows)
        append_id = secrets.token_bytes(16)
        batch = await self._prepare(append_id, base + 1, last, layout.encode_rows(rows))
        head = keys.head(stream)
        answer = await self._client.txn(
            compare=[layout.has_value(head, b"%d" % base) if base else layout.is_absent(head)],
            success=[layout.put(keys.batch(stream, last), layout.encode(batch)), layout.put(head, b"%d" % last)],
            failure=[layout.get(key) for key in (head, keys.batch(stream, last), keys.audit(stream, last))],
        )
        if answer.succeeded:
            return None
        at, *twins = [each.response_range for each in answer.responses]
        if any(layout.decode_batch(kv.value).append_id == append_id for twin in twins for kv in twin.kvs):
            logger.info("an append to %r was acknowledged at the second attempt", stream)
            return None
        return _revision(at)

    async def _prepare(self, append_id: bytes, first: int, last: int, rows: bytes) -> Batch:
        """The batch; rows that are too large for it are written beside it first."""
        if len(rows) <= LARGEST_VALUE_BYTES:
            return Batch(append_id, first, 0, rows)
        parts = layout.cut(rows)
        for number, part in enumerate(parts):
            key = self._keys.part("part", self._stream, last, append_id, number)
            await self._client.txn([layout.put(key, part)])
        return Batch(append_id, first, len(parts), b"")


def _revision(head: pb.RangeResponse) -> int:
    return int(head.kvs[0].value) if head.kvs else 0
