"""One content store elsewhere: the client of gRPC `ContentStore`, with a deadline on every call and on every chunk.

It believes nothing that it reads: what comes from here is checked by `transfer` and `fetching`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from mec_platform.rpc.v1 import content_store_pb2, content_store_pb2_grpc

CALL_TIMEOUT_S = 5.0
CHUNK_TIMEOUT_S = 10.0
SLOWEST_BYTES_PER_S = 50_000
"""A source that sends less is given up after the time that this would take, and a minute."""

MAX_MANIFEST_BYTES = 8 << 20
Reader = Callable[[int], AsyncIterator[bytes]]
"""The bytes of something from an offset on."""


class SourceFailed(Exception):
    """The source did not answer as it should; the message says how. `is_final` where asking again would not help."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class OfferedEntry:
    """An entry that a source lists."""

    kind: str
    key: str
    model: str
    quantisation: str
    target: str
    interface: str


class ContentSource:
    """The store behind one channel; `name` is for people."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.name = name
        self._stub = content_store_pb2_grpc.ContentStoreStub(channel)

    async def list_entries(self, kind: str, **wanted: str) -> list[OfferedEntry]:
        """Entries of a kind that match, the most recently used first. Raises SourceFailed."""
        request = content_store_pb2.ListEntriesRequest(kind=kind, **wanted)
        try:
            reply = await self._stub.ListEntries(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        return [
            OfferedEntry(each.entry.kind, each.entry.key, each.model, each.quantisation, each.target, each.interface)
            for each in reply.entries
        ]

    async def manifest(self, kind: str, key: str) -> dict[str, Any]:
        """An entry's manifest. Raises SourceFailed."""
        request = content_store_pb2.EntryReference(kind=kind, key=key)
        try:
            reply = await self._stub.GetManifest(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        try:
            manifest = json.loads(reply.manifest) if len(reply.manifest) <= MAX_MANIFEST_BYTES else None
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            raise SourceFailed(f"its manifest of {kind}/{key} makes no sense", is_final=True)
        return manifest

    async def other_sources(self) -> tuple[list[tuple[str, str]], bool]:
        """(name, address) of other stores that may hold entries, and whether to ask them first. Raises SourceFailed."""
        try:
            reply = await self._stub.ListSources(content_store_pb2.ListSourcesRequest(), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        return [(each.name, each.address) for each in reply.sources], reply.prefer_sources

    def file_reader(self, kind: str, key: str, file: str, size: int) -> Reader:
        """Reads a file of an entry; the reader raises SourceFailed."""
        entry = content_store_pb2.EntryReference(kind=kind, key=key)

        def read(offset: int) -> AsyncIterator[bytes]:
            request = content_store_pb2.ReadFileRequest(entry=entry, file=file, offset=offset)
            return _bytes_of(self._stub.ReadFile(request, timeout=_stream_timeout_s(size - offset)))

        return read

    def part_reader(self, key: str, part: str, size: int) -> Reader:
        """Reads a part of a package's weights; the reader raises SourceFailed."""
        entry = content_store_pb2.EntryReference(kind="models", key=key)

        def read(offset: int) -> AsyncIterator[bytes]:
            request = content_store_pb2.ReadPartRequest(entry=entry, part=part, offset=offset)
            return _bytes_of(self._stub.ReadPart(request, timeout=_stream_timeout_s(size - offset)))

        return read


async def _bytes_of(call: Any) -> AsyncIterator[bytes]:
    try:
        while True:
            chunk = await asyncio.wait_for(call.read(), CHUNK_TIMEOUT_S)
            if chunk is grpc.aio.EOF:
                return
            yield chunk.data
    except TimeoutError as error:
        raise SourceFailed(f"nothing came for {CHUNK_TIMEOUT_S:g} s", is_final=False) from error
    except grpc.aio.AioRpcError as error:
        raise _failed(error) from error
    finally:
        call.cancel()


def _stream_timeout_s(size: int) -> float:
    return 60.0 + max(0, size) / SLOWEST_BYTES_PER_S


def _failed(error: grpc.aio.AioRpcError) -> SourceFailed:
    passing = (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    )
    return SourceFailed(error.details() or error.code().name, is_final=error.code() not in passing)
