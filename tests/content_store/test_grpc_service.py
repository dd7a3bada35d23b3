"""The store over real gRPC: what is served, from where on, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from mec_platform.content_store.grpc_service import (
    CHUNK_BYTES,
    CONTENT_STORE_SERVICE,
    MAX_STREAMS_PER_CLIENT,
    ContentStoreService,
    Source,
    Sources,
)
from mec_platform.content_store.partial_weights import PartialWeights, create_partial_weights
from mec_platform.content_store.store import ContentStore, EntryInUse
from mec_platform.content_store.weights import weight_parts
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import content_store_pb2, content_store_pb2_grpc
from tests.content_store.packages import add_artefact, add_package


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path)


@pytest.fixture
async def stub(store: ContentStore) -> AsyncIterator[Any]:
    server = make_server()
    sources = Sources((Source("edge-1", "127.0.0.1:1"),), preferred=True)
    service = ContentStoreService(store, lambda: sources)
    content_store_pb2_grpc.add_ContentStoreServicer_to_server(service, server)
    address = await start_server(server, "127.0.0.1", 0, [CONTENT_STORE_SERVICE])
    async with open_channel(address) as channel:
        yield content_store_pb2_grpc.ContentStoreStub(channel)
    await server.stop(grace=None)


def entry(kind: str, key: str) -> content_store_pb2.EntryReference:
    return content_store_pb2.EntryReference(kind=kind, key=key)


def file(key: str, name: str, offset: int = 0, kind: str = "artefacts") -> content_store_pb2.ReadFileRequest:
    return content_store_pb2.ReadFileRequest(entry=entry(kind, key), file=name, offset=offset)


def part(key: str, name: str, offset: int = 0) -> content_store_pb2.ReadPartRequest:
    return content_store_pb2.ReadPartRequest(entry=entry("models", key), part=name, offset=offset)


async def chunks(call: Any) -> list[bytes]:
    return [chunk.data async for chunk in call]


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chunks(call)
    return caught.value.code()


async def test_entries_are_found_by_what_they_are_for(store: ContentStore, stub: Any) -> None:
    add_package(store)
    add_artefact(store, "a1", target="raspberry-pi-5")
    add_artefact(store, "a2", target="x86-64-v3")

    async def keys(**wanted: str) -> list[str]:
        reply = await stub.ListEntries(content_store_pb2.ListEntriesRequest(**wanted))
        return sorted(each.entry.key for each in reply.entries)

    assert await keys() == ["a1", "a2", "p1"]
    assert await keys(kind="models", model="small", quantisation="int4") == ["p1"]
    assert await keys(model="small", quantisation="int8") == []
    assert await keys(kind="artefacts", interface="abc", target="raspberry-pi-5") == ["a1"]


async def test_a_manifest_that_makes_no_sense_hides_no_other_entry(store: ContentStore, stub: Any) -> None:
    add_artefact(store, "a1")
    add_artefact(store, "a2")
    manifest = json.loads((store.folder("artefacts", "a1") / "manifest.json").read_text())
    (store.folder("artefacts", "a1") / "manifest.json").write_text(json.dumps(manifest | {"files": {"lib.so": 5}}))
    reply = await stub.ListEntries(content_store_pb2.ListEntriesRequest())
    assert "a2" in [each.entry.key for each in reply.entries]


async def test_a_file_is_read_from_any_byte_in_bounded_chunks(store: ContentStore, stub: Any) -> None:
    add_artefact(store)
    whole = (store.folder("artefacts", "a1") / "lib.so").read_bytes()
    pieces = await chunks(stub.ReadFile(file("a1", "lib.so")))
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) == CHUNK_BYTES
    assert b"".join(await chunks(stub.ReadFile(file("a1", "lib.so", 2_999_990)))) == whole[-10:]
    assert await chunks(stub.ReadFile(file("a1", "lib.so", len(whole)))) == []


async def test_a_manifest_names_the_parts_that_are_here(store: ContentStore, stub: Any) -> None:
    manifest = add_package(store)
    reply = await stub.GetManifest(entry("models", "p1"))
    assert json.loads(reply.manifest) == manifest
    assert list(reply.parts) == sorted(weight_parts(manifest))


async def test_to_look_at_an_entry_is_no_use_of_it_and_to_take_it_is(store: ContentStore, stub: Any) -> None:
    add_artefact(store, "a1")
    (use,) = store.root.glob("artefacts/.a1.use")
    os.utime(use, (0, 0))
    await stub.ListEntries(content_store_pb2.ListEntriesRequest())
    await stub.GetManifest(entry("artefacts", "a1"))
    assert [each.used_s for each in store.entries("artefacts")] == [0]
    await chunks(stub.ReadFile(file("a1", "lib.so")))
    assert [each.used_s for each in store.entries("artefacts")] != [0]


async def test_a_package_in_part_serves_the_parts_that_are_whole(
    store: ContentStore, stub: Any, tmp_path: Path
) -> None:
    other = ContentStore(tmp_path / "other")
    manifest = add_package(other)

    def build(folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")
        create_partial_weights(folder, manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    store.ensure("partial_models", "p1", build)
    weights = PartialWeights(store.folder("partial_models", "p1"), manifest)
    rope = weights.parts["rope"]
    data = (other.folder("models", "p1") / "weights.bin").read_bytes()[rope.extents[0].offset :][: rope.size]
    weights.write(rope, 0, data)
    assert weights.finish(rope)
    assert list((await stub.GetManifest(entry("models", "p1"))).parts) == ["rope"]
    assert b"".join(await chunks(stub.ReadPart(part("p1", "rope", 39_000)))) == data[39_000:]
    assert await code_of(stub.ReadPart(part("p1", "block.0"))) is grpc.StatusCode.NOT_FOUND
    assert await code_of(stub.ReadFile(file("p1", "weights.bin", kind="models"))) is grpc.StatusCode.NOT_FOUND
    assert b"".join(await chunks(stub.ReadFile(file("p1", "tokenizer.json", kind="models")))) == b"{}"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (file("a1", "../../models/p1/tokenizer.json"), grpc.StatusCode.NOT_FOUND),
        (file("a1", "/etc/passwd"), grpc.StatusCode.NOT_FOUND),
        (file("a1", "manifest.json"), grpc.StatusCode.NOT_FOUND),
        (file("a1", "x" * 100_000), grpc.StatusCode.NOT_FOUND),
        (file("a1", "lib.so", 3_000_001), grpc.StatusCode.OUT_OF_RANGE),
        (file("a1", "lib.so", 2**64 - 1), grpc.StatusCode.OUT_OF_RANGE),
        (file("..", "lib.so"), grpc.StatusCode.INVALID_ARGUMENT),
        (file("a1/../a1", "lib.so"), grpc.StatusCode.INVALID_ARGUMENT),
        (file("nosuch", "lib.so"), grpc.StatusCode.NOT_FOUND),
        (file("a1", "lib.so", kind="names"), grpc.StatusCode.INVALID_ARGUMENT),
        (file("a1", "lib.so", kind=".."), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_is_not_an_entrys_own_file_is_refused(
    store: ContentStore, stub: Any, request_: Any, code: grpc.StatusCode
) -> None:
    add_package(store)
    add_artefact(store)
    assert await code_of(stub.ReadFile(request_)) is code


@pytest.mark.parametrize(
    ("name", "offset", "code"),
    [
        ("block.6", 0, grpc.StatusCode.NOT_FOUND),
        ("../rope", 0, grpc.StatusCode.NOT_FOUND),
        ("rope", 40_001, grpc.StatusCode.OUT_OF_RANGE),
    ],
)
async def test_parts_that_are_none_are_refused(
    store: ContentStore, stub: Any, name: str, offset: int, code: grpc.StatusCode
) -> None:
    add_package(store)
    assert await code_of(stub.ReadPart(part("p1", name, offset))) is code


async def test_one_client_reads_a_few_streams_at_once(store: ContentStore, stub: Any) -> None:
    add_artefact(store, size=30_000_000)
    running = [aiter(stub.ReadFile(file("a1", "lib.so"))) for _ in range(MAX_STREAMS_PER_CLIENT)]
    await asyncio.gather(*(anext(stream) for stream in running))
    with pytest.raises(EntryInUse):
        store.remove("artefacts", "a1")
    assert await code_of(stub.ReadFile(file("a1", "lib.so"))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in running:
        assert sum(map(len, await chunks(stream))) == 30_000_000 - CHUNK_BYTES
    assert len(b"".join(await chunks(stub.ReadFile(file("a1", "lib.so"))))) == 30_000_000


async def test_the_platforms_knowledge_of_other_stores_is_served(stub: Any) -> None:
    reply = await stub.ListSources(content_store_pb2.ListSourcesRequest())
    assert [(each.name, each.address) for each in reply.sources] == [("edge-1", "127.0.0.1:1")]
    assert reply.prefer_sources
