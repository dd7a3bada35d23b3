"""`mec demo`: starts the edge, plays the story, sums it up; `--serve` keeps everything running."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from mec_apps.cli.compile import CompiledFolders, ensure_compiled, model_option
from mec_apps.cli.demo.board import Board
from mec_apps.cli.demo.scenario import NODES, QUESTION, Result, run_scenario
from mec_apps.cli.demo.view import event_line, render, summary
from mec_apps.cli.local_cluster import LocalCluster
from mec_apps.cli.requests import CliError, run_async
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_platform.background import BackgroundTasks

COOLDOWN_S = 3.0
BETA = 1.0
"""The demo weighs throughput above the latency of one stream, so that all three nodes get work."""


@click.command(epilog="Example: mec demo --json result.json")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
@click.option("--serve", is_flag=True, help="Keep everything running afterwards, on the default ports.")
@click.option(
    "--question", default=QUESTION, help="What to ask; the answer must be long enough for everything to happen."
)
@model_option
def demo(json_path: Path | None, serve: bool, question: str, model: str) -> None:
    """A chat answer over three edge nodes while a link degrades, a node dies and the plan changes live."""
    if json_path is not None and not json_path.resolve().parent.is_dir():
        raise CliError(f"{json_path} cannot be written: {json_path.resolve().parent} is no folder")
    console = Console()
    compiled = ensure_compiled(model, "auto", None)
    console.print("model compiled" if compiled.built else "model found in the cache, nothing to compile")
    result = run_async(_demo(console, compiled, question, json_path, serve))
    if result.failure is not None:
        raise CliError(result.failure)


async def _demo(
    console: Console, compiled: CompiledFolders, question: str, json_path: Path | None, serve: bool
) -> Result:
    console.print(f"starting a platform, {len(NODES)} edge nodes and a gateway, each a process of its own")
    rest_port, grpc_port, http_port = (8081, 50051, 8080) if serve else (0, 0, 0)
    board = Board(question)
    async with LocalCluster(
        compiled,
        NODES,
        cooldown_s=COOLDOWN_S,
        beta=BETA,
        rest_port=rest_port,
        grpc_port=grpc_port,
        http_port=http_port,
    ) as cluster:
        async with _shown(console, board):
            result = await run_scenario(cluster, board)
        console.print(summary(result))
        if json_path is not None:
            await asyncio.to_thread(json_path.write_text, json.dumps(result.as_json(), indent=2), encoding="utf-8")
        if serve:
            await _serve_on(console, cluster)
    return result


@asynccontextmanager
async def _shown(console: Console, board: Board) -> AsyncIterator[None]:
    """The live picture on a terminal; line by line elsewhere."""
    picture = _picture(console, board) if console.is_terminal else _lines(console, board)
    async with BackgroundTasks() as tasks:
        drawing = tasks.start("draw", picture)
        try:
            yield
        finally:
            await tasks.cancel(drawing)


async def _picture(console: Console, board: Board) -> None:
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(render(board), refresh=True)
                await asyncio.sleep(0.1)
        finally:
            live.update(render(board), refresh=True)


async def _lines(console: Console, board: Board) -> None:
    printed = 0
    try:
        while True:
            await asyncio.sleep(0.1)
            for event in board.events[printed:]:
                console.print(event_line(*event), soft_wrap=True)
            printed = len(board.events)
    finally:
        for event in board.events[printed:]:
            console.print(event_line(*event), soft_wrap=True)
        console.print("".join(text for text, _ in board.answer), markup=False, soft_wrap=True)


async def _serve_on(console: Console, cluster: LocalCluster) -> None:
    """Brings back what the story broke and waits for Ctrl-C."""
    gone = [node.name for node in NODES if node.name not in cluster.running]
    for name in gone:
        await cluster.start_node(name)
    for node in NODES:
        if node.name not in gone:
            # The story's own link back to what the node began with.
            peers = {other.name: node.links.get("*", EmulatedLink()) for other in NODES if other is not node}
            await cluster.emulate(node.name, peers)
    console.print(f"dashboard    {cluster.dashboard_url}")
    console.print(f"OpenAI API   {cluster.openai_url}")
    console.print(f"Mp1          {cluster.platform_url}")
    console.print(f"gRPC         {cluster.platform_grpc}")
    console.print("everything keeps running; Ctrl-C ends it")
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
