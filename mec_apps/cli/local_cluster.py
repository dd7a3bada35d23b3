"""A whole edge on one machine: platform, nodes and gateway as real processes. For the demo, benchmarks and tests.

What is emulated is said so by its name: `EmulatedLink` on a node's sending side and an emulated CPU share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import grpc.aio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.parent import PARENT_VARIABLE
from mec_apps.cli.requests import CliError
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.v1 import (
    control_plane_pb2,
    control_plane_pb2_grpc,
    edge_node_pb2,
    edge_node_pb2_grpc,
    inference_pb2_grpc,
    types_pb2,
)

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """One edge node. `links` are emulated, by peer name, `*` for all others; `cpu_share` below 1 is emulated too.

    A node with a `store` of its own is not given compiled folders: it fetches what it needs from the platform and its peers.
    `artefact` is for a node that computes on other hardware than the others, a simulated GPU for one; `interpreter` is the
    command that runs Python there, where this process's own will not do: an emulator of the other hardware.
    """

    name: str
    threads: int = 1
    memory_mib: int = 1024
    trusted: bool = True
    links: Mapping[str, EmulatedLink] = field(default_factory=dict)
    cpu_share: float = 1.0
    store: Path | None = None
    artefact: Path | None = None
    interpreter: tuple[str, ...] = (sys.executable,)
    kv_compression: str = "none"
    arguments: tuple[str, ...] = ()
    """Further options of `mec node`."""
    encodes: bool = False
    """Whether it serves the cluster's encoder instead of its language model."""


class Premises:
    """Where the processes of a cluster run: here, on loopback, with nothing to prove to each other. Others may differ."""

    def command(self, member: str) -> tuple[str, ...]:
        """What the member's own command is run by; empty where it needs nothing."""
        return ()

    def listening(self, member: str) -> list[str]:
        """Options by which the member listens where the others find it."""
        return []

    async def access(self, member: str, platform_url: str) -> list[str]:
        """Options by which the member proves who it is to the platform."""
        return []


class LocalCluster:
    """An async context manager: at its end, and when this process dies, every process of the cluster is gone."""

    def __init__(
        self,
        compiled: CompiledFolders,
        nodes: Sequence[NodeOptions],
        *,
        cooldown_s: float = 5.0,
        manual: bool = False,
        beta: float = 0.5,
        context: int = 2048,
        rest_port: int = 0,
        grpc_port: int = 0,
        http_port: int = 0,
        encoder: CompiledFolders | None = None,
        store: Path | None = None,
        prefer_peers: bool = False,
        premises: Premises | None = None,
        policy: Path | None = None,
        state: Path | None = None,
        standbys: int = 0,
    ) -> None:
        self._premises = premises or Premises()
        self._compiled = compiled
        self._encoder = encoder
        self._options = {node.name: node for node in nodes}
        self._cooldown_s = cooldown_s
        self._manual = manual
        self._beta = beta
        self._context = context
        self._ports = (rest_port, grpc_port, http_port)
        self._store = store
        self._prefer_peers = prefer_peers
        self._policy = policy
        self._state = state
        self._standbys = standbys
        self._folder = tempfile.TemporaryDirectory(prefix="mec-cluster-")
        self._channels = Channels()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def running(self) -> frozenset[str]:
        """Names of the processes that were started and not killed."""
        return frozenset(self._processes)

    @property
    def platform_grpc(self) -> str:
        """`host:port` of the platform's gRPC server."""
        return str(self.facts["platform"]["grpc"])

    @property
    def platform_url(self) -> str:
        """Mp1's base URL."""
        return str(self.facts["platform"]["rest"])

    @property
    def dashboard_url(self) -> str:
        """The dashboard's page."""
        return str(self.facts["platform"]["dashboard"])

    @property
    def openai_url(self) -> str:
        """Base URL of the gateway's OpenAI API."""
        return str(self.facts["gateway"]["openai"])

    @property
    def platform(self) -> grpc.aio.Channel:
        """Channel to the platform."""
        return self._channels.to(self.platform_grpc)

    @property
    def inference(self) -> inference_pb2_grpc.InferenceAsyncStub:
        """The gateway's gRPC service."""
        return inference_pb2_grpc.InferenceStub(self._channels.to(str(self.facts["gateway"]["grpc"])))

    def node(self, name: str) -> edge_node_pb2_grpc.EdgeNodeAsyncStub:
        """A node's gRPC service."""
        return edge_node_pb2_grpc.EdgeNodeStub(self._channels.to(str(self.facts[name]["grpc"])))

    async def snapshot(self, model: str = "") -> control_plane_pb2.Snapshot:
        """The world as the platform sees it; `model` names the deployment where there are two."""
        stub = control_plane_pb2_grpc.CapacityProfilerStub(self.platform)
        return await stub.GetSnapshot(control_plane_pb2.GetSnapshotRequest(model=model))

    async def apply(
        self,
        stages: Sequence[tuple[str, int, int]],
        reason: str = "",
        model: str = "",
        *,
        chain: int | None = None,
        add_chain: bool = False,
    ) -> control_plane_pb2.Reconfiguration:
        """Applies an operator's plan of (node, start, stop), to a chain or as one more."""
        request = control_plane_pb2.ApplyPlanRequest(
            reason=reason,
            model=model,
            stages=[
                types_pb2.Stage(node=node, layers=types_pb2.LayerRange(start=start, stop=stop))
                for node, start, stop in stages
            ],
            chain=chain,
            add_chain=add_chain,
        )
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(self.platform).ApplyPlan(request)

    async def drop_chain(self, chain: int, reason: str = "") -> control_plane_pb2.Reconfiguration:
        """Takes a chain away."""
        request = control_plane_pb2.DropChainRequest(chain=chain, reason=reason)
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(self.platform).DropChain(request)

    async def abort(self, chain: int | None = None, reason: str = "") -> control_plane_pb2.Reconfiguration:
        """Gives up the change of a chain that is under way."""
        request = control_plane_pb2.AbortReconfigurationRequest(chain=chain, reason=reason)
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(self.platform).AbortReconfiguration(request)

    async def wait_for_plan(self, timeout_s: float = 30.0, model: str = "") -> types_pb2.SplitPlan:
        """The committed plan, once there is one."""
        give_up = asyncio.get_running_loop().time() + timeout_s
        while True:
            seen = await self.snapshot(model)
            if seen.HasField("plan"):
                return seen.plan
            if asyncio.get_running_loop().time() > give_up:
                raise CliError(f"no plan within {timeout_s:g} s; platform log: {self.log_tail('platform')}")
            await asyncio.sleep(_POLL_S)

    async def emulate(self, node: str, links: Mapping[str, EmulatedLink] | None = None, cpu_share: float = 0.0) -> None:
        """Changes EMULATED links or the EMULATED CPU share of a node while it runs."""
        request = edge_node_pb2.EmulateRequest(cpu_share=cpu_share)
        for peer, link in (links or {}).items():
            request.links[peer].bytes_per_s = link.bytes_per_s
            request.links[peer].delay_ms = link.delay_s * 1e3
        await self.node(node).Emulate(request)

    async def kill(self, name: str) -> None:
        """SIGKILL: the process gets no chance to say goodbye."""
        process = self._processes.pop(name)
        process.kill()
        await process.wait()

    def hang(self, name: str) -> None:
        """SIGSTOP: the process stands still while its kernel keeps its connections up."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT: a process that hangs goes on where it stood."""
        self._processes[name].send_signal(signal.SIGCONT)

    async def start_platform(self) -> None:
        """Starts the platform; after a kill again, where it was and on the same state, if it has any of its own."""
        rest_port, grpc_port, _ = self._ports
        if "platform" in self.facts:
            rest_port, grpc_port = urlsplit(self.platform_url).port or 0, int(self.platform_grpc.rpartition(":")[2])
        serve = ["serve", "--rest-port", str(rest_port), "--grpc-port", str(grpc_port)]
        serve += ["--expected-nodes", str(self._expected_nodes()), "--cooldown-s", str(self._cooldown_s)]
        serve += ["--beta", str(self._beta), *(["--prefer-peers"] if self._prefer_peers else [])]
        serve += ["--standbys", str(self._standbys)]
        serve += [] if self._store is None else ["--store", str(self._store)]
        serve += [] if self._policy is None else ["--policy", str(self._policy)]
        serve += [] if self._state is None else ["--state", str(self._state)]
        serve += [*(["--manual"] if self._manual else []), *self._premises.listening("platform")]
        await self._start_process("platform", serve)

    async def start_node(self, name: str) -> None:
        """Starts a node of the options, again after a kill."""
        options = self._options[name]
        arguments = ["node", "--name", name, "--threads", str(options.threads)]
        arguments += ["--memory-mib", str(options.memory_mib), "--emulate", "--context", str(self._context)]
        arguments += options.arguments
        arguments += [] if options.kv_compression == "none" else ["--kv-compression", options.kv_compression]
        arguments += [] if options.trusted else ["--untrusted"]
        for peer, link in options.links.items():
            arguments += ["--emulate-link", f"{peer}={link.bytes_per_s:g},{link.delay_s * 1e3:g}"]
        if options.cpu_share < 1:
            arguments += ["--emulate-cpu-share", str(options.cpu_share)]
        if options.encodes and self._encoder is not None:
            arguments += ["--package", str(self._encoder.package), "--artefact", str(self._encoder.artefact)]
        elif options.store is None:
            arguments += self._folder_arguments(options.artefact)
        else:
            arguments += ["--source", "platform", "--store", str(options.store), "--model", self._shape_name()]
        await self._start_process(name, [*arguments, *await self._member_arguments(name)], options.interpreter)

    def process_id(self, name: str) -> int:
        """Of a process that was started and not killed."""
        return self._processes[name].pid

    def log_path(self, name: str) -> Path:
        """What a process has printed and logged, over all its starts."""
        return Path(self._folder.name) / f"{name}.log"

    def log_tail(self, name: str, lines: int = 5) -> str:
        """The end of a process's log."""
        text = self.log_path(name).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    async def _start(self) -> None:
        await self.start_platform()
        http_port = self._ports[2]
        encoder = [] if self._encoder is None else ["--encoder", str(self._encoder.package)]
        gateway = ["gateway", *encoder, "--name", "gateway", "--port", str(http_port), "--context", str(self._context)]
        await asyncio.gather(
            self._start_gateway([*gateway, *self._folder_arguments()]),
            *(self.start_node(name) for name in self._options),
        )

    async def _start_gateway(self, arguments: list[str]) -> None:
        await self._start_process("gateway", [*arguments, *await self._member_arguments("gateway")])

    def _expected_nodes(self) -> int:
        """The nodes of the smaller deployment: the platform has one number for all."""
        encoding = sum(node.encodes for node in self._options.values())
        answering = len(self._options) - encoding
        return min(encoding, answering) if encoding else answering

    def _folder_arguments(self, artefact: Path | None = None) -> list[str]:
        return ["--package", str(self._compiled.package), "--artefact", str(artefact or self._compiled.artefact)]

    async def _member_arguments(self, name: str) -> list[str]:
        addresses = ["--platform-url", self.platform_url, "--platform-grpc", self.platform_grpc]
        access = await self._premises.access(name, self.platform_url)
        return [*addresses, *self._premises.listening(name), *access]

    def _shape_name(self) -> str:
        """What the compiled package calls its model."""
        return str(json.loads((self._compiled.package / "manifest.json").read_text())["shape"]["name"])

    async def _start_process(
        self, name: str, arguments: list[str], interpreter: tuple[str, ...] = (sys.executable,)
    ) -> None:
        ready = Path(self._folder.name) / f"{name}.ready"
        ready.unlink(missing_ok=True)
        with self.log_path(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._premises.command(name),
                *interpreter,
                "-m",
                "mec_apps.cli",
                *arguments,
                "--verbose",
                "--ready-file",
                str(ready),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            )
        self._processes[name] = process
        give_up = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        while not ready.exists():
            if process.returncode is not None or asyncio.get_running_loop().time() > give_up:
                raise CliError(f"{name} did not start: {self.log_tail(name)}")
            await asyncio.sleep(_POLL_S)
        self.facts[name] = json.loads(ready.read_text(encoding="utf-8"))

    async def _stop(self) -> None:
        await self._channels.close()
        # The platform last: the others sign off there.
        platform = self._processes.pop("platform", None)
        await asyncio.gather(*(_terminate(process) for process in self._processes.values()))
        if platform is not None:
            await _terminate(platform)
        self._processes.clear()
        self._folder.cleanup()


async def _terminate(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        process.send_signal(signal.SIGCONT)  # one that hangs would never see the other
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):  # it has ended at this moment
            process.kill()
        await process.wait()
