"""gRPC `ContentStore`: what lies in a store, for readers elsewhere. The platform serves it, and every edge node.

Counterpart: `mec_apps.split_inference.content`. It changes nothing; names from the wire never become paths unless the
store's own manifests have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mec_platform.content_store.entries import (
    ARTEFACTS,
    MANIFEST,
    MODELS,
    PARTIAL_MODELS,
    StoredEntry,
    read_entry,
    read_manifest,
)
from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import WEIGHTS, Extent, ManifestError, weight_parts
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import content_store_pb2, content_store_pb2_grpc

CONTENT_STORE_SERVICE = "mec_platform.rpc.v1.ContentStore"
CHUNK_BYTES = 1 << 20
MAX_STREAMS_PER_CLIENT = 4
MAX_LISTED = 1000
_SERVED_KINDS = (MODELS, ARTEFACTS)


@dataclass(frozen=True, slots=True)
class Source:
    """Another store that may hold entries."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What the platform knows of stores besides its own; `preferred` says to ask them first."""

    others: tuple[Source, ...] = ()
    preferred: bool = False


class _Refused(Exception):
    """A request that is answered with a status; `Context.abort` says it."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ContentStoreService(content_store_pb2_grpc.ContentStoreServicer):
    """The servicer over one store. `find_sources` is the platform's knowledge of its nodes."""

    def __init__(self, store: ContentStore, find_sources: Callable[[], Sources] = Sources) -> None:
        self._store = store
        self._find_sources = find_sources
        self._streams: Counter[str] = Counter()

    async def ListEntries(
        self, request: content_store_pb2.ListEntriesRequest, context: Context
    ) -> content_store_pb2.ListEntriesReply:
        entries = await asyncio.to_thread(lambda: list(self._matching(request)))
        return content_store_pb2.ListEntriesReply(entries=entries[:MAX_LISTED])

    async def GetManifest(
        self, request: content_store_pb2.EntryReference, context: Context
    ) -> content_store_pb2.EntryManifest:
        try:
            folder, manifest = await asyncio.to_thread(self._find, request)
            parts = await asyncio.to_thread(_whole_parts, folder, manifest)
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        return content_store_pb2.EntryManifest(manifest=json.dumps(manifest).encode(), parts=sorted(parts))

    async def ReadFile(
        self, request: content_store_pb2.ReadFileRequest, context: Context
    ) -> AsyncIterator[content_store_pb2.ContentChunk]:
        async for chunk in self._read(
            request.entry, context, lambda folder, facts: _file_extents(request, folder, facts)
        ):
            yield chunk

    async def ReadPart(
        self, request: content_store_pb2.ReadPartRequest, context: Context
    ) -> AsyncIterator[content_store_pb2.ContentChunk]:
        async for chunk in self._read(
            request.entry, context, lambda folder, facts: _part_extents(request, folder, facts)
        ):
            yield chunk

    async def ListSources(
        self, request: content_store_pb2.ListSourcesRequest, context: Context
    ) -> content_store_pb2.ListSourcesReply:
        sources = self._find_sources()
        return content_store_pb2.ListSourcesReply(
            sources=[content_store_pb2.ContentSource(name=each.name, address=each.address) for each in sources.others],
            prefer_sources=sources.preferred,
        )

    async def _read(
        self,
        entry: content_store_pb2.EntryReference,
        context: Context,
        extents_of: Callable[[Path, dict[str, Any]], tuple[Path, Sequence[Extent]]],
    ) -> AsyncIterator[content_store_pb2.ContentChunk]:
        """Streams extents of a file of an entry, which is held meanwhile."""
        client = context.peer()
        if self._streams[client] >= MAX_STREAMS_PER_CLIENT:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS_PER_CLIENT} streams at once")
        self._streams[client] += 1
        try:
            with contextlib.ExitStack() as held:
                folder, manifest = await asyncio.to_thread(self._find, entry)
                await asyncio.to_thread(held.enter_context, self._store.hold_folder(folder))
                path, extents = await asyncio.to_thread(extents_of, folder, manifest)
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                held.callback(os.close, file)
                for offset, size in _chunks(extents):
                    data = await asyncio.to_thread(os.pread, file, size, offset)
                    if len(data) != size:
                        raise _Refused(grpc.StatusCode.DATA_LOSS, f"{path.name} ends before its size")
                    yield content_store_pb2.ContentChunk(data=data)
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        except OSError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{entry.kind}/{entry.key}: {error.strerror}")
        finally:
            self._streams[client] -= 1
            if not self._streams[client]:
                del self._streams[client]

    def _find(self, entry: content_store_pb2.EntryReference) -> tuple[Path, dict[str, Any]]:
        """Folder and manifest of an entry, whole or, for a package, in part. Looking at it is no use of it; sending it is."""
        if entry.kind not in _SERVED_KINDS:
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, f"kinds are {' and '.join(_SERVED_KINDS)}")
        kinds = (MODELS, PARTIAL_MODELS) if entry.kind == MODELS else (ARTEFACTS,)
        for kind in kinds:
            try:
                folder = self._store.folder(kind, entry.key)
            except ValueError as error:
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
            manifest = read_entry(folder)
            if manifest is not None:
                return folder, manifest
        raise _Refused(grpc.StatusCode.NOT_FOUND, f"{entry.kind}/{entry.key} is not in this store")

    def _matching(self, request: content_store_pb2.ListEntriesRequest) -> Iterator[content_store_pb2.ContentEntry]:
        seen = set()
        for entry in sorted(self._served_entries(), key=lambda each: -each.used_s):
            described = _describe(entry)
            wanted = (
                (request.kind, described.entry.kind),
                (request.model, described.model),
                (request.quantisation, described.quantisation),
                (request.target, described.target),
                (request.interface, described.interface),
            )
            if entry.key not in seen and all(asked in ("", found) for asked, found in wanted):
                seen.add(entry.key)
                yield described

    def _served_entries(self) -> Iterable[StoredEntry]:
        return (entry for entry in self._store.entries() if entry.kind in (*_SERVED_KINDS, PARTIAL_MODELS))


def _describe(entry: StoredEntry) -> content_store_pb2.ContentEntry:
    """Empty where the manifest says nothing that makes sense: whoever fetches it checks it anyway."""
    manifest = read_manifest(entry.folder) or {}
    shape, files = manifest.get("shape"), manifest.get("files")
    kind = MODELS if entry.kind == PARTIAL_MODELS else entry.kind
    return content_store_pb2.ContentEntry(
        entry=content_store_pb2.EntryReference(kind=kind, key=entry.key),
        model=str(shape.get("name", "")) if isinstance(shape, dict) else "",
        quantisation=str(manifest.get("quantisation", "")),
        target=str(manifest.get("target", "")),
        interface=str(manifest.get("interface", "")),
        bytes=_bytes_of(files) if isinstance(files, dict) else 0,
    )


def _bytes_of(files: dict[str, Any]) -> int:
    sizes = (facts.get("bytes") for facts in files.values() if isinstance(facts, dict))
    return sum(size for size in sizes if isinstance(size, int) and size > 0)


def _whole_parts(folder: Path, manifest: dict[str, Any]) -> Iterable[str]:
    try:
        if folder.parent.name == PARTIAL_MODELS:
            return PartialWeights(folder, manifest).whole_parts()
        return weight_parts(manifest) if folder.parent.name == MODELS else ()
    except ManifestError:
        return ()  # from a release whose manifests said less: its files are served, its parts are not


def _file_extents(
    request: content_store_pb2.ReadFileRequest, folder: Path, manifest: dict[str, Any]
) -> tuple[Path, Sequence[Extent]]:
    is_partial = folder.parent.name == PARTIAL_MODELS and request.file == WEIGHTS
    facts = None if is_partial or request.file == MANIFEST else manifest["files"].get(request.file)
    if facts is None or Path(request.file).name != request.file:
        raise _Refused(grpc.StatusCode.NOT_FOUND, f"{request.entry.key} has no such file here, or not all of it")
    if request.offset > facts["bytes"]:
        raise _Refused(grpc.StatusCode.OUT_OF_RANGE, f"{request.file} has {facts['bytes']} bytes")
    return folder / request.file, [Extent(request.offset, facts["bytes"] - request.offset)]


def _part_extents(
    request: content_store_pb2.ReadPartRequest, folder: Path, manifest: dict[str, Any]
) -> tuple[Path, Sequence[Extent]]:
    try:
        parts = weight_parts(manifest)
    except ManifestError as error:
        raise _Refused(grpc.StatusCode.NOT_FOUND, str(error)) from error
    if request.part not in parts or request.part not in _whole_parts(folder, manifest):
        raise _Refused(grpc.StatusCode.NOT_FOUND, f"{request.entry.key} has no such part here, or not all of it")
    if request.offset > parts[request.part].size:
        raise _Refused(grpc.StatusCode.OUT_OF_RANGE, f"{request.part} has {parts[request.part].size} bytes")
    return folder / WEIGHTS, list(parts[request.part].extents_from(request.offset))


def _chunks(extents: Sequence[Extent]) -> Iterator[tuple[int, int]]:
    """(offset, size) of what is read at a time."""
    for extent in extents:
        for start in range(0, extent.size, CHUNK_BYTES):
            yield extent.offset + start, min(CHUNK_BYTES, extent.size - start)
