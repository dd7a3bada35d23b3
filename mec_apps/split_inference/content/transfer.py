"""Brings the bytes of one thing (a file, a part of weights) here: from source to source, on from where the last one stopped.

Counterpart: a `Sink` that knows how much of the thing is here and whether it is what it should be. Bytes are trusted only
when the sink says so; a source whose bytes are not right is not asked for this thing again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from mec_apps.split_inference.content.source import ContentSource, Reader, SourceFailed
from mec_platform.domain.errors import MendableError

ATTEMPTS = 4
"""How often a source that breaks off is asked again in a row without having sent anything."""

_PAUSE_S = 0.2
_log = logging.getLogger(__name__)


class FetchError(MendableError):
    """Something could not be fetched from any source; the message says why and what to do."""


class Sink(Protocol):
    """Where the bytes of one thing go. `position` is how many are here."""

    name: str
    size: int
    position: int

    def write(self, data: bytes) -> None:
        """Appends bytes. Raises OSError where the disk has no room."""

    def accept(self) -> bool:
        """Whether the whole thing is here and has its hash; then it is kept."""

    def reset(self) -> None:
        """Begins anew."""


async def transfer(
    sink: Sink,
    sources: Sequence[ContentSource],
    reader_of: Callable[[ContentSource], Reader],
    on_bytes: Callable[[int], None],
) -> None:
    """Fills `sink`, whose calls run beside the event loop; `on_bytes` learns of every piece that arrived.

    Raises:
        FetchError: no source has it whole and right.
        OSError: the disk has no room.
    """
    reasons = []
    for source in sources:
        reason = await _from_one(sink, source, reader_of(source), on_bytes)
        if reason is None:
            return
        reasons.append(f"{source.name}: {reason}")
        _log.info("%s could not be fetched from %s: %s", sink.name, source.name, reason)
    raise FetchError(
        f"{sink.name} cannot be fetched ({'; '.join(reasons) or 'no source'}); check that the platform or a node has it"
    )


async def _from_one(sink: Sink, source: ContentSource, read: Reader, on_bytes: Callable[[int], None]) -> str | None:
    """Fills `sink` from one source; returns why that failed, or None. Breaks are waited out while bytes keep coming."""
    failures = 0
    while True:
        began_at = sink.position
        try:
            await _receive(sink, read, on_bytes)
        except SourceFailed as failed:
            failures = 0 if sink.position > began_at else failures + 1
            if failed.is_final or failures == ATTEMPTS:
                return str(failed)
            _log.info("%s broke off at %d of %d bytes: %s", sink.name, sink.position, sink.size, failed)
            await asyncio.sleep(_PAUSE_S * 2**failures)
            continue
        if await asyncio.to_thread(sink.accept):
            return None
        await asyncio.to_thread(sink.reset)
        if began_at == 0:
            return "what it sends does not have the hash of the manifest"
        _log.info("%s was put together from pieces that do not fit; it is read again from %s", sink.name, source.name)


async def _receive(sink: Sink, read: Reader, on_bytes: Callable[[int], None]) -> None:
    if sink.position == sink.size:
        return
    async for data in read(sink.position):
        if sink.position + len(data) > sink.size:
            raise SourceFailed("it sends more bytes than the manifest says", is_final=True)
        await asyncio.to_thread(sink.write, data)
        on_bytes(len(data))
    if sink.position < sink.size:
        raise SourceFailed(f"it ended after {sink.position} of {sink.size} bytes", is_final=False)
