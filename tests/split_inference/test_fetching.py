"""Fetching over real gRPC and real sockets: resumed after a cut, verified, from another source where one fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mec_apps.split_inference.content import source as source_module
from mec_apps.split_inference.content import transfer as transfer_module
from mec_apps.split_inference.content.choice import Candidate, Wanted, choose_entries
from mec_apps.split_inference.content.fetching import fetch_artefact, fetch_package, find_local, find_offer
from mec_apps.split_inference.content.sinks import PartSink
from mec_apps.split_inference.content.source import ContentSource
from mec_apps.split_inference.content.sources import SourceDirectory, platform_first
from mec_apps.split_inference.content.transfer import FetchError, transfer
from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_platform.content_store.entries import bytes_on_disk, read_manifest
from mec_platform.content_store.grpc_service import ContentStoreService, Source, Sources
from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS
from mec_platform.rpc.endpoints import Channels, make_server, start_server
from mec_platform.rpc.v1 import content_store_pb2_grpc
from tests.content_store.packages import add_artefact, add_package

MACHINE = MachineFacts("edge-9", "aarch64", "linux-gnu", "Cortex-A76", frozenset({"asimd"}), "cortex-a76")
FITTING = {
    "target": "cortex-a76",
    "arch": "aarch64",
    "system": "linux-gnu",
    "features": ["asimd"],
    "kernel_version": KERNEL_VERSION,
    "page_tokens": PAGE_TOKENS,
    "tvm": "0.27.0",
    "functions": {},
    "regions": [],
}
Serve = Callable[..., Awaitable[str]]


def count(size: int) -> None:
    """Nobody counts."""


def quiet(what: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """serve(store, sources) starts a server over a store and gives its address."""
    servers = []

    async def start(store: ContentStore, sources: Sources | None = None) -> str:
        server = make_server()
        service = ContentStoreService(store, lambda: sources or Sources())
        content_store_pb2_grpc.add_ContentStoreServicer_to_server(service, server)
        servers.append(server)
        return await start_server(server, "127.0.0.1", 0, [])

    yield start
    for server in servers:
        await server.stop(grace=None)


@pytest.fixture
async def channels() -> AsyncIterator[Channels]:
    channels = Channels()
    yield channels
    await channels.close()


@pytest.fixture
def here(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "there")


@contextlib.asynccontextmanager
async def cutting_proxy(address: str, cut_after: list[int]) -> AsyncIterator[str]:
    """A relay that breaks each connection after so many bytes from the server: the first after the first count, and so on."""
    host, port = address.split(":")
    left = list(cut_after)
    relays: set[asyncio.Task[Any]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        sent = 0
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            sent += len(data)
            if limit is not None and sent > limit:
                return

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = left.pop(0) if left else None
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        ways = [asyncio.ensure_future(copy(reader, server_writer, None))]
        ways.append(asyncio.ensure_future(copy(server_reader, writer, limit)))
        relays.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, server_writer):
            end.transport.abort()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        proxy.close()
        for way in relays:
            way.cancel()


async def test_an_artefact_is_the_same_here_as_there(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    manifest = add_artefact(there)
    source = ContentSource("there", channels.to(await serve(there)))
    seen: list[tuple[str, int, int]] = []
    folder = await fetch_artefact(here, Candidate("a1", manifest), [source], lambda *step: seen.append(step))
    original = there.folder("artefacts", "a1")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in original.iterdir()
    }
    assert seen[0] == ("artefacts/a1", 0, 3_000_000)
    assert seen[-1] == ("artefacts/a1", 3_000_000, 3_000_000)
    assert here.find("artefacts", "a1") == manifest
    await fetch_artefact(here, Candidate("a1", manifest), [], quiet)  # a local copy needs no source


async def test_a_connection_that_is_cut_is_continued_where_it_was(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    manifest = add_artefact(there, size=8_000_000)
    arrived: list[int] = []
    async with cutting_proxy(await serve(there), [3_000_000, 2_500_000]) as address:
        source = ContentSource("there", channels.to(address))
        await fetch_artefact(here, Candidate("a1", manifest), [source], lambda what, done, total: arrived.append(done))
    assert here.find("artefacts", "a1") == manifest
    assert arrived == sorted(arrived)
    assert arrived[-1] == 8_000_000  # each byte was sent once


async def test_a_fetch_that_was_killed_goes_on_from_what_is_on_the_disk(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    manifest = add_artefact(there)
    whole = (there.folder("artefacts", "a1") / "lib.so").read_bytes()
    half = here.root / "artefacts" / ".a1.fetch"
    half.mkdir(parents=True)
    (half / "lib.so").write_bytes(whole[:2_000_000])
    arrived: list[int] = []
    source = ContentSource("there", channels.to(await serve(there)))
    await fetch_artefact(here, Candidate("a1", manifest), [source], lambda what, done, total: arrived.append(done))
    assert arrived[:2] == [0, 2_000_000]
    assert (here.folder("artefacts", "a1") / "lib.so").read_bytes() == whole


async def test_a_source_whose_bytes_are_wrong_is_refused_and_another_one_asked(
    here: ContentStore, there: ContentStore, tmp_path: Path, serve: Serve, channels: Channels
) -> None:
    manifest = add_artefact(there)
    liar = ContentStore(tmp_path / "liar")
    add_artefact(liar)  # other random bytes under the same key
    sources = [
        ContentSource(name, channels.to(await serve(store))) for name, store in (("liar", liar), ("there", there))
    ]
    await fetch_artefact(here, Candidate("a1", manifest), sources, quiet)
    assert here.find("artefacts", "a1") == manifest


async def test_where_no_source_has_it_right_each_reason_is_said_and_nothing_is_kept(
    here: ContentStore, there: ContentStore, tmp_path: Path, serve: Serve, channels: Channels
) -> None:
    manifest = add_artefact(there)
    liar, empty = ContentStore(tmp_path / "liar"), ContentStore(tmp_path / "empty")
    add_artefact(liar)
    sources = [
        ContentSource(name, channels.to(await serve(store))) for name, store in (("liar", liar), ("empty", empty))
    ]
    with pytest.raises(FetchError, match=r"liar: what it sends does not have the hash.*empty: .* not in this store"):
        await fetch_artefact(here, Candidate("a1", manifest), sources, quiet)
    assert here.find("artefacts", "a1") is None
    assert here.entries() == []


async def test_pieces_of_two_sources_that_do_not_fit_are_read_again(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    """As after a cut from a source with other bytes: what is on the disk is not a beginning of what comes."""
    manifest = add_artefact(there)
    half = here.root / "artefacts" / ".a1.fetch"
    half.mkdir(parents=True)
    (half / "lib.so").write_bytes(bytes(1_500_000))
    source = ContentSource("there", channels.to(await serve(there)))
    await fetch_artefact(here, Candidate("a1", manifest), [source], quiet)
    assert here.find("artefacts", "a1") == manifest


@pytest.mark.parametrize(
    "files",
    [
        {"../evil": {"bytes": 1, "sha256": ""}},
        {"manifest.json": {"bytes": 1, "sha256": ""}},
        {"lib.so": {"bytes": 1 << 60, "sha256": ""}},
        {"lib.so": {"bytes": -1, "sha256": ""}},
        {"lib.so": 5},
        {f"file{number}": {"bytes": 1, "sha256": ""} for number in range(100)},
    ],
)
async def test_a_manifest_with_files_that_no_entry_has_is_refused(here: ContentStore, files: Any) -> None:
    with pytest.raises(FetchError, match=r"compile it again|names a file that no entry has"):
        await fetch_artefact(here, Candidate("a1", {"files": files}), [], quiet)
    with pytest.raises(FetchError, match="no entry can be called"):
        await fetch_artefact(here, Candidate("../a1", {"files": {}}), [], quiet)
    assert here.entries() == []


async def test_a_package_arrives_without_weights_and_each_part_when_it_is_wanted(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    manifest = add_package(there)
    source = ContentSource("there", channels.to(await serve(there)))
    folder = await fetch_package(here, Candidate("p1", manifest), [source], quiet)
    assert here.find("partial_models", "p1") == manifest
    assert (folder / "weights.bin").stat().st_size == manifest["files"]["weights.bin"]["bytes"]
    assert bytes_on_disk(folder) < 100_000
    weights = PartialWeights(folder, manifest)
    part = weights.parts["block.4"]
    await transfer(PartSink(weights, part), [source], lambda each: each.part_reader("p1", part.name, part.size), count)
    assert weights.whole_parts() == {"block.4"}
    assert bytes_on_disk(folder) < 500_000
    peer = ContentSource("here", channels.to(await serve(here)))
    other = ContentStore(here.root / "other")
    theirs = PartialWeights(await fetch_package(other, Candidate("p1", manifest), [peer], quiet), manifest)
    await transfer(PartSink(theirs, part), [peer], lambda each: each.part_reader("p1", part.name, part.size), count)
    assert theirs.whole_parts() == {"block.4"}  # a node that has only this part gives it to another one


async def test_a_local_package_needs_no_source(here: ContentStore) -> None:
    manifest = add_package(here)
    assert await fetch_package(here, Candidate("p1", manifest), [], quiet) == here.folder("models", "p1")


async def test_the_wrong_artefact_is_refused_before_its_library_is_fetched(
    here: ContentStore, there: ContentStore, serve: Serve, channels: Channels
) -> None:
    add_package(there)
    add_artefact(there, **FITTING | {"target": "neoverse-v2", "features": ["asimd", "i8mm"]})
    source = ContentSource("there", channels.to(await serve(there)))
    choice, reason = await find_offer([source], Wanted("small", "auto"), MACHINE)
    assert choice.package is None
    assert "compiled for neoverse-v2" in reason
    assert "edge-9 is cortex-a76 (aarch64) and lacks i8mm" in reason
    add_artefact(there, "a2", **FITTING)
    choice, _ = await find_offer([source], Wanted("small", "int4"), MACHINE)
    assert (choice.package, choice.artefact) == (
        Candidate("p1", read_manifest(there.folder("models", "p1")) or {}),
        Candidate("a2", read_manifest(there.folder("artefacts", "a2")) or {}),
    )


async def test_a_gateway_takes_a_package_without_an_artefact(
    there: ContentStore, serve: Serve, channels: Channels
) -> None:
    add_package(there)
    choice, _ = await find_offer(
        [ContentSource("there", channels.to(await serve(there)))], Wanted("small", "int4"), None
    )
    assert choice.package is not None
    assert choice.artefact is None


def test_of_artefacts_that_fit_the_one_for_this_target_is_taken(here: ContentStore) -> None:
    add_package(here)
    add_artefact(here, "base", **FITTING | {"target": "cortex-a53", "features": []})
    add_artefact(here, "own", **FITTING)
    add_artefact(here, "old", **FITTING | {"kernel_version": KERNEL_VERSION - 1})
    choice = find_local(here, Wanted("small", "auto"), MACHINE)
    assert choice.artefact is not None
    assert choice.artefact.key == "own"


def test_an_artefact_for_the_target_that_was_asked_for_is_taken_or_none(here: ContentStore) -> None:
    add_package(here)
    add_artefact(here, "base", **FITTING | {"target": "cortex-a53", "features": []})
    add_artefact(here, "own", **FITTING)
    asked = find_local(here, Wanted("small", "auto", target="cortex-a53"), MACHINE)
    assert asked.artefact is not None
    assert asked.artefact.key == "base"
    missing = find_local(here, Wanted("small", "auto", target="h100"), MACHINE)
    assert missing.artefact is None
    assert "h100" in missing.reason


def test_what_was_compiled_from_other_code_is_not_taken_for_what_this_machine_would_compile() -> None:
    package = Candidate("p1", {"shape": {"name": "small"}, "quantisation": "int4", "interface": "abc"})
    assert choose_entries([package], [], Wanted("small", "int4", package_key="p2"), MACHINE).package is None


async def test_the_platform_says_whom_to_ask_first(here: ContentStore, serve: Serve, channels: Channels) -> None:
    nodes = (Source("edge-1", "127.0.0.1:1"), Source("edge-9", "127.0.0.1:2"))
    for preferred, order in ((True, ["edge-1", "the platform"]), (False, ["the platform", "edge-1"])):
        address = await serve(here, Sources(nodes, preferred))
        directory = SourceDirectory(address, "edge-9", channels)
        sources = await directory.sources()
        assert [source.name for source in sources] == order
        assert [source.name for source in platform_first(sources)] == ["the platform", "edge-1"]


async def test_a_source_that_says_nothing_is_given_up(
    here: ContentStore, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "CHUNK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(transfer_module, "_PAUSE_S", 0.0)
    manifest = json.loads('{"files": {"lib.so": {"bytes": 5, "sha256": ""}}}')
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        source = ContentSource("silent", channels.to(f"127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises(FetchError, match=r"silent: nothing came for 0\.05 s"):
            await fetch_artefact(here, Candidate("a1", manifest), [source], quiet)
