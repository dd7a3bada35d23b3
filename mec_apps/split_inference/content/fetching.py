"""Fetches entries into the local store: artefacts whole, model packages without their weights, weights part by part.

Every byte is checked against the manifest that came from the source that was asked first. An artefact's manifest is put
before `artefact_check` by whoever chooses it; its library is fetched only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from mec_apps.split_inference.content.choice import Candidate, Choice, Wanted, choose_entries
from mec_apps.split_inference.content.sinks import FileSink
from mec_apps.split_inference.content.source import ContentSource, SourceFailed
from mec_apps.split_inference.content.transfer import FetchError, transfer
from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_platform.content_store.entries import ARTEFACTS, MANIFEST, MODELS, PARTIAL_MODELS, read_manifest
from mec_platform.content_store.partial_weights import create_partial_weights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import WEIGHTS, ManifestError

MAX_FILES = 32
MAX_FILE_BYTES = 4 << 30
MAX_CANDIDATES = 64
OnProgress = Callable[[str, int, int], None]
"""Learns of what is fetched how many bytes are here, of how many."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_log = logging.getLogger(__name__)


async def find_offer(
    sources: Sequence[ContentSource], wanted: Wanted, machine: MachineFacts | None
) -> tuple[Choice, str]:
    """What the sources offer of the model, artefact included where `machine` is given; and what each of them said."""
    packages: dict[str, Candidate] = {}
    artefacts: dict[str, Candidate] = {}
    said = []
    for source in sources:
        try:
            quantisation = "" if wanted.quantisation == "auto" else wanted.quantisation
            found = await _candidates(source, MODELS, model=wanted.model, quantisation=quantisation)
            packages |= {each.key: each for each in found if each.key not in packages}
            for interface in {str(each.manifest.get("interface")) for each in packages.values()} if machine else ():
                for each in await _candidates(source, ARTEFACTS, interface=interface):
                    artefacts.setdefault(each.key, each)
        except SourceFailed as failed:
            said.append(f"{source.name}: {failed}")
            continue
        choice = choose_entries(list(packages.values()), list(artefacts.values()), wanted, machine)
        if choice.package is not None:
            return choice, ""
        said.append(f"{source.name}: {choice.reason}")
    return Choice(reason="; ".join(said)), "; ".join(said)


def find_local(store: ContentStore, wanted: Wanted, machine: MachineFacts | None) -> Choice:
    """What the local store has of the model; packages that are here in part come last."""

    def candidates(kind: str) -> list[Candidate]:
        entries = sorted(store.entries(kind), key=lambda entry: -entry.used_s)
        return [Candidate(entry.key, read_manifest(entry.folder) or {}) for entry in entries]

    return choose_entries([*candidates(MODELS), *candidates(PARTIAL_MODELS)], candidates(ARTEFACTS), wanted, machine)


def local_package(store: ContentStore, key: str) -> Path | None:
    """Folder of a package that is here, whole or in part."""
    for kind in (MODELS, PARTIAL_MODELS):
        if store.find(kind, key) is not None:
            return store.folder(kind, key)
    return None


async def fetch_artefact(
    store: ContentStore, artefact: Candidate, sources: Sequence[ContentSource], on_progress: OnProgress
) -> Path:
    """Folder of the artefact, fetched unless it is here. Raises FetchError, or OSError where the disk has no room."""
    async with _building(store, ARTEFACTS, artefact.key) as fresh:
        if fresh is not None:
            await _fetch_files(fresh, ARTEFACTS, artefact, sources, on_progress)
    return store.folder(ARTEFACTS, artefact.key)


async def fetch_package(
    store: ContentStore, package: Candidate, sources: Sequence[ContentSource], on_progress: OnProgress
) -> Path:
    """Folder of the package: a whole one that is here, or one with everything but weights. Raises as `fetch_artefact`."""
    here = await asyncio.to_thread(local_package, store, package.key)
    if here is not None:
        return here
    async with _building(store, PARTIAL_MODELS, package.key) as fresh:
        if fresh is not None:
            await _fetch_files(fresh, MODELS, package, sources, on_progress)
            try:
                await asyncio.to_thread(create_partial_weights, fresh, package.manifest)
            except ManifestError as error:
                raise FetchError(f"package {package.key}: {error}; compile it again where it comes from") from error
    return store.folder(PARTIAL_MODELS, package.key)


async def _candidates(source: ContentSource, kind: str, **wanted: str) -> list[Candidate]:
    offered = await source.list_entries(kind, **wanted)
    return [Candidate(each.key, await source.manifest(kind, each.key)) for each in offered[:MAX_CANDIDATES]]


async def _fetch_files(
    folder: Path, kind: str, entry: Candidate, sources: Sequence[ContentSource], on_progress: OnProgress
) -> None:
    """Fetches every file but weights, then writes the manifest."""
    files = {name: facts for name, facts in _checked_files(entry).items() if name != WEIGHTS}
    what, total, done = f"{kind}/{entry.key[:8]}", sum(size for size, _ in files.values()), 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        on_progress(what, done, total)

    on_progress(what, 0, total)
    for name, (size, sha256) in files.items():
        sink = FileSink(folder / name, size, sha256)
        advance(sink.position)
        await transfer(
            sink,
            sources,
            lambda source, name=name, size=size: source.file_reader(kind, entry.key, name, size),  # type: ignore[misc]
            advance,
        )
    (folder / MANIFEST).write_text(json.dumps(entry.manifest, indent=1), encoding="utf-8")


def _checked_files(entry: Candidate) -> dict[str, tuple[int, str]]:
    """Size and hash of an entry's files by name. Raises FetchError where the manifest makes no sense."""
    try:
        files = {
            str(name): (int(facts["bytes"]), str(facts["sha256"])) for name, facts in entry.manifest["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FetchError(f"the manifest of {entry.key} is damaged ({error}); compile it again") from error
    for name, (size, _) in files.items():
        fits = size >= 0 and (name == WEIGHTS or size <= MAX_FILE_BYTES)
        if len(files) > MAX_FILES or _FILE_NAME.fullmatch(name) is None or name == MANIFEST or not fits:
            raise FetchError(
                f"the manifest of {entry.key} names a file that no entry has ({name[:100]!r}, {size} bytes)"
            )
    return files


@contextlib.asynccontextmanager
async def _building(store: ContentStore, kind: str, key: str) -> AsyncIterator[Path | None]:
    """`store.building`, resumed, whose waiting and flushing do not stop the event loop."""
    context = store.building(kind, key, resumed=True)
    try:
        fresh = await asyncio.to_thread(context.__enter__)
    except ValueError as error:
        raise FetchError(str(error)) from error
    try:
        yield fresh
    except BaseException as error:
        if not await asyncio.to_thread(context.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(context.__exit__, None, None, None)
