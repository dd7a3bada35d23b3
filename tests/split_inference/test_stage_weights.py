"""The weights of a stage arrive before it is loaded: only those, once, and with room made by what nobody uses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mec_apps.split_inference.content.choice import Candidate
from mec_apps.split_inference.content.fetching import fetch_artefact, fetch_package
from mec_apps.split_inference.content.source import ContentSource
from mec_apps.split_inference.content.sources import SourceDirectory
from mec_apps.split_inference.content.stage_weights import StageWeights
from mec_apps.split_inference.content.transfer import FetchError
from mec_apps.split_inference.node.stages import LoadedStage
from mec_platform.content_store.entries import write_manifest
from mec_platform.content_store.grpc_service import ContentStoreService
from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.layers import LayerRange
from mec_platform.rpc.endpoints import Channels, make_server, start_server
from mec_platform.rpc.v1 import content_store_pb2_grpc
from tests.content_store.packages import BLOCK_BYTES, EMBED_BYTES, ROPE_BYTES, add_artefact, add_package

MIDDLE = LoadedStage(1, LayerRange(2, 4), is_first=False, next_node="edge-2")
FIRST = LoadedStage(2, LayerRange(0, 1), is_first=True, next_node="edge-2")


class Site:
    """A platform that serves a package, and a node that has none of its weights."""

    def __init__(self, root: Path) -> None:
        self.there = ContentStore(root / "there")
        self.here = ContentStore(root / "here", 10_000_000)
        self.manifest = add_package(self.there)
        self.channels = Channels()

    async def start(self) -> None:
        self.server = make_server()
        content_store_pb2_grpc.add_ContentStoreServicer_to_server(ContentStoreService(self.there), self.server)
        self.address = await start_server(self.server, "127.0.0.1", 0, [])
        source = ContentSource("there", self.channels.to(self.address))
        self.folder = await fetch_package(self.here, Candidate("p1", self.manifest), [source], lambda *step: None)

    def weights(self) -> StageWeights:
        # Of a package, weights need its folder, and whether the head has a matrix of its own.
        package: Any = SimpleNamespace(folder=self.folder, spec=SimpleNamespace(tied_embedding=True))
        return StageWeights(package, SourceDirectory(self.address, "edge-1", self.channels), self.here)

    def whole(self) -> frozenset[str]:
        return PartialWeights(self.folder, self.manifest).whole_parts()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.channels.close()
    await site.server.stop(grace=None)


async def test_a_stage_gets_its_own_parts_and_later_only_what_it_lacks(site: Site) -> None:
    weights = site.weights()
    assert weights.local_blocks() == frozenset()
    assert weights.bytes_per_s == 0
    await weights.ensure(MIDDLE)
    assert site.whole() == {"rope", "block.2", "block.3"}
    assert weights.local_blocks() == {2, 3}
    assert weights.bytes_per_s > 0
    assert weights.fetched_bytes == ROPE_BYTES + 2 * sum(BLOCK_BYTES)
    await weights.ensure(FIRST)
    assert site.whole() == {"rope", "block.0", "block.2", "block.3", "embed"}
    assert weights.fetched_bytes == ROPE_BYTES + 3 * sum(BLOCK_BYTES) + EMBED_BYTES


async def test_two_loads_at_once_fetch_once(site: Site) -> None:
    one, other = site.weights(), site.weights()
    await asyncio.gather(one.ensure(MIDDLE), one.ensure(MIDDLE), other.ensure(MIDDLE))
    assert one.fetched_bytes + other.fetched_bytes == ROPE_BYTES + 2 * sum(BLOCK_BYTES)


async def test_weights_that_nobody_has_are_named(site: Site) -> None:
    site.there.remove("models", "p1")
    with pytest.raises(FetchError, match=r"rope cannot be fetched .the platform: models/p1 is not in this store"):
        await site.weights().ensure(MIDDLE)


async def test_a_part_that_is_damaged_there_is_not_taken(site: Site) -> None:
    part = PartialWeights(site.folder, site.manifest).parts["block.3"]
    folder = site.there.folder("models", "p1")
    with (folder / "weights.bin").open("r+b") as file:
        file.seek(part.extents[1].offset)
        file.write(b"damaged")
    write_manifest(folder, site.manifest)  # or the store would notice: these weights are few enough to be hashed
    with pytest.raises(FetchError, match=r"block\.3"):
        await site.weights().ensure(MIDDLE)
    assert site.whole() == {"rope", "block.2"}


async def test_what_nobody_uses_makes_room_for_weights(site: Site) -> None:
    add_artefact(site.here, "old", size=9_500_000)
    with site.here.hold("partial_models", "p1"):
        await site.weights().ensure(FIRST)
    assert [entry.key for entry in site.here.entries()] == ["p1"]


def _fetch_with_little_room(root: str, address: str, answer: Any) -> None:
    """In a process of its own: a limit on file sizes stands for the disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    async def fetch() -> None:
        channels = Channels()
        source = ContentSource("there", channels.to(address))
        manifest = await source.manifest("artefacts", "a1")
        await fetch_artefact(ContentStore(Path(root)), Candidate("a1", manifest), [source], lambda *step: None)

    try:
        asyncio.run(fetch())
    except OSError as error:
        answer.send([type(error).__name__, str(error)])
    else:
        answer.send(["nothing", ""])


async def test_a_fetch_on_a_full_disk_leaves_nothing_and_says_what_to_do(site: Site) -> None:
    add_artefact(site.there)
    spawn = multiprocessing.get_context("spawn")
    answer, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_fetch_with_little_room, args=(str(site.here.root), site.address, theirs))
    process.start()
    kind, message = await asyncio.to_thread(answer.recv)
    await asyncio.to_thread(process.join)
    assert kind == "StoreFull"
    assert "MEC_CACHE_LIMIT" in message
    assert [path.name for path in (site.here.root / "artefacts").iterdir()] == [".a1.lock"]


def _load_middle(root: str, folder: str, address: str) -> None:
    """In a process of its own, which is killed."""

    async def load() -> None:
        package: Any = SimpleNamespace(folder=Path(folder), spec=SimpleNamespace(tied_embedding=True))
        directory = SourceDirectory(address, "edge-1", Channels())
        await StageWeights(package, directory, ContentStore(Path(root))).ensure(MIDDLE)

    asyncio.run(load())


async def test_what_a_killed_node_had_fetched_is_not_fetched_again(site: Site) -> None:
    async with stalling_proxy(site.address, after_bytes=ROPE_BYTES + sum(BLOCK_BYTES) + 100_000) as (address, stalled):
        arguments = (str(site.here.root), str(site.folder), address)
        process = multiprocessing.get_context("spawn").Process(target=_load_middle, args=arguments)
        process.start()
        await asyncio.wait_for(stalled.wait(), 60)
        assert site.whole() == {"rope", "block.2"}  # parts come one by one, and bytes of the third have passed
        process.kill()
        await asyncio.to_thread(process.join)
    weights = site.weights()
    await weights.ensure(MIDDLE)
    assert site.whole() == {"rope", "block.2", "block.3"}
    assert weights.fetched_bytes == sum(BLOCK_BYTES)


@contextlib.asynccontextmanager
async def stalling_proxy(address: str, after_bytes: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A relay that passes so many bytes from the server, and no more; the event tells when it has."""
    host, port = address.split(":")
    stalled = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []
    copies: list[asyncio.Future[None]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (data := await reader.read(min(left, 65536))):
            writer.write(data)
            left -= len(data)
        stalled.set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        writers.extend((writer, server_writer))
        copies.append(asyncio.ensure_future(copy(reader, server_writer, 1 << 30)))
        copies.append(asyncio.ensure_future(copy(server_reader, writer, after_bytes)))

    proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}", stalled
    finally:
        proxy.close()
        for way in copies:
            way.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*copies, return_exceptions=True)


async def test_a_whole_package_needs_no_source(site: Site) -> None:
    site.folder = site.there.folder("models", "p1")
    weights = site.weights()
    await weights.ensure(FIRST)
    assert weights.fetched_bytes == 0
    assert json.loads((site.folder / "manifest.json").read_text()) == site.manifest
