"""What the long-running commands share: their options, and a life between start and signal."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.parent import end_with_parent
from mec_apps.cli.private_memory import keep_memory_private
from mec_apps.cli.requests import CliError, run_async
from mec_platform.background import BackgroundTasks

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

kv_compression_option = click.option(
    "--kv-compression",
    type=click.Choice(["none", "int8"]),
    default="none",
    show_default=True,
    help="How KV is sent to other nodes: int8 takes half the bytes, and answers may differ from undisturbed ones.",
)
host_option = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
remote_option = click.option(
    "--allow-remote",
    is_flag=True,
    help="The network that reaches --host proves itself who is who: speak in the clear and ask for no certificates.",
)
ready_option = click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Write the addresses here as JSON once everything serves."
)
verbose_option = click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only warnings.")
compiled_options = [
    click.option("--package", type=click.Path(path_type=Path), help="Folder of a compiled model package."),
    click.option("--artefact", type=click.Path(path_type=Path), help="Folder of a compiled artefact."),
]


def run_process(
    what: str,
    make: Callable[[], Any],
    describe: Callable[[Any], dict[str, Any]],
    ready_file: Path | None,
    verbose: bool,
    *,
    private: bool = False,
) -> None:
    """Starts what `make` gives, says where it serves, and stops it in order at SIGINT or SIGTERM.

    It has `start` and `stop`, and may have `wait_failed`, which returns why it cannot go on, and `reload` for SIGHUP. One that
    is `private` holds what users say.
    """
    if private:
        keep_memory_private()
    end_with_parent()
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format=LOG_FORMAT)
    run_async(_run_until_signal(what, make, describe, ready_file))


async def _run_until_signal(
    what: str, make: Callable[[], Any], describe: Callable[[Any], dict[str, Any]], ready_file: Path | None
) -> None:
    stopping = asyncio.Event()
    process = make()
    if not await _start(process, stopping):
        return
    gc.freeze()  # what a process has loaded stays: to look through it again costs its loop a twentieth of a second
    try:
        facts = {**describe(process), "pid": os.getpid()}
        click.echo(f"{what} ready: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
        if ready_file is not None:
            _write_whole(ready_file, json.dumps(facts))
        await _wait_for_end(process, stopping)
    finally:
        await process.stop()


async def _start(process: Any, stopping: asyncio.Event) -> bool:
    """Starts the process; a signal that comes meanwhile cancels that, and then this is False."""
    loop, starting = asyncio.get_running_loop(), asyncio.current_task()
    started = False

    def on_signal() -> None:
        stopping.set()
        if not started and starting is not None:
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await process.start()
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
        return False
    started = True
    if hasattr(process, "reload"):
        loop.add_signal_handler(signal.SIGHUP, process.reload)
    return True


async def _wait_for_end(process: Any, stopping: asyncio.Event) -> None:
    """Returns when a signal came; raises CliError where the process cannot go on."""
    if not hasattr(process, "wait_failed"):
        await stopping.wait()
        return
    async with BackgroundTasks() as tasks:
        stopped = tasks.start("await signal", stopping.wait())
        failed = tasks.start("await failure", process.wait_failed())
        await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise CliError(f"the platform no longer takes this process: {failed.result()}")


def _write_whole(path: Path, text: str) -> None:
    """Readers see the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
