"""Where a node's or a gateway's model comes from: named folders, the local store, the platform, or the compiler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from mec_apps.cli.compile import CompiledFolders, ensure_compiled, has_compiler, run_compiler
from mec_apps.cli.requests import CliError, run_async
from mec_apps.split_inference.content.choice import Choice, Wanted
from mec_apps.split_inference.content.fetching import (
    OnProgress,
    fetch_artefact,
    fetch_package,
    find_local,
    find_offer,
    local_package,
)
from mec_apps.split_inference.content.sources import SourceDirectory, platform_first
from mec_apps.split_inference.member_identity import MemberFiles
from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_platform.content_store.entries import ARTEFACTS
from mec_platform.content_store.store import ContentStore
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.endpoints import Channels

_ASK_AGAIN_S = 0.5

source_option = click.option(
    "--source",
    type=click.Choice(["auto", "local", "platform"]),
    default="auto",
    show_default=True,
    help="Where the model comes from: 'local' compiles what the store lacks; 'platform' fetches it from the platform and "
    "from other nodes, weights only as stages need them; 'auto' takes what the store has, or else what the platform has, or "
    "else compiles.",
)
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Content store of this process (default: the user's cache, $MEC_CACHE).",
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the command line says of the model.

    `machine` is None for a gateway, which runs no artefact; `target` is the row that was asked for, None for what suits best.
    """

    name: str
    model: str
    quantisation: str
    package: Path | None
    artefact: Path | None
    source: str
    store_dir: Path | None
    platform_grpc: str
    platform_wait_s: float
    machine: MachineFacts | None
    target: str | None = None
    identity: MemberFiles | None = None


def obtain_model(request: ModelRequest) -> CompiledFolders:
    """The folders to run; compiled or fetched where they are missing. Raises CliError or FetchError with what to do."""
    if (request.package is None) != (request.artefact is None):
        raise CliError("--package and --artefact go together")
    if request.package is not None and request.artefact is not None:
        return CompiledFolders(request.package, request.artefact, built=False)
    if request.source == "local" or request.model.endswith(".pt2"):  # a torch module is compiled where its file is
        return ensure_compiled(request.model, request.quantisation, request.target, request.store_dir)
    store = ContentStore(request.store_dir)
    found = _find_here(request, store) if request.source == "auto" else {}
    package, artefact = found.get("package"), found.get("artefact")
    if package is not None and (artefact is not None or request.machine is None):
        return CompiledFolders(Path(package), Path(artefact or package), built=False)
    wanted = Wanted(
        request.model,
        request.quantisation,
        found.get("package_key") or "",
        found.get("source") or "",
        request.target or "",
    )
    with _progress_bars() as show:
        fetched, reason = run_async(_fetch(request, wanted, store, show))
    if fetched is not None:
        return fetched
    if request.source == "auto" and has_compiler():
        return ensure_compiled(request.model, request.quantisation, request.target, request.store_dir)
    raise CliError(
        f"{request.model} is not in {store.root} and cannot be fetched ({reason}); compile it there for this machine with "
        "mec compile, or install the compiler here: pip install 'mec-platform[compiler]'"
    )


def _find_here(request: ModelRequest, store: ContentStore) -> dict[str, Any]:
    """Folders in the local store, and by what others would be the same, in the words of `python -m compiler --find`."""
    if has_compiler():
        target = [] if request.target is None else ["--target", request.target]
        facts, code = run_compiler(
            [
                "--find",
                "--model",
                request.model,
                "--quantisation",
                request.quantisation,
                "--cache",
                str(store.root),
                *target,
            ]
        )
        if code != 0:
            raise CliError(f"cannot look for {request.model} in {store.root}")
        return facts
    return _folders(
        find_local(store, Wanted(request.model, request.quantisation, target=request.target or ""), request.machine),
        store,
    )


def _folders(choice: Choice, store: ContentStore) -> dict[str, Any]:
    return {
        "package": None if choice.package is None else local_package(store, choice.package.key),
        "artefact": None if choice.artefact is None else store.folder(ARTEFACTS, choice.artefact.key),
    }


async def _fetch(
    request: ModelRequest, wanted: Wanted, store: ContentStore, show: OnProgress
) -> tuple[CompiledFolders | None, str]:
    """What the platform and the nodes have of the model, fetched; or None and what each of them said."""
    channels = Channels(None if request.identity is None else GrpcIdentity.from_files(request.identity.files))
    directory = SourceDirectory(request.platform_grpc, request.name, channels)
    give_up = asyncio.get_running_loop().time() + (request.platform_wait_s if request.source == "platform" else 0)
    try:
        while True:
            sources = await directory.sources()
            choice, reason = await find_offer(platform_first(sources), wanted, request.machine)
            if choice.package is not None:
                break
            if asyncio.get_running_loop().time() >= give_up:
                return None, reason
            await asyncio.sleep(_ASK_AGAIN_S)
        package = await fetch_package(store, choice.package, sources, show)
        artefact = package
        if choice.artefact is not None:
            artefact = await fetch_artefact(store, choice.artefact, sources, show)
        return CompiledFolders(package, artefact, built=False), ""
    finally:
        await channels.close()


@contextmanager
def _progress_bars() -> Iterator[OnProgress]:
    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield show
