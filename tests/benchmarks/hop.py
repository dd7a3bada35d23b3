"""`mec bench hop`: a frame from process to process in the clear and over mutual TLS, in turns within the same run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.peer_link import LinkPool, PeerLink
from mec_platform.identity.authority import Purpose, issue, make_authority
from mec_platform.identity.folder import certificate_path, key_path, save
from mec_platform.identity.grpc_identity import GrpcIdentity, IdentityFiles
from mec_platform.rpc.endpoints import make_server, start_server
from tests.benchmarks.machine import CHECKOUT, at_most, machine

SIZES = {"token": 4, "row": 2304, "prompt_rows": 256 * 2304}
"""Payload bytes: a token, a row of the default model's activations, and the most rows that one frame carries."""

PROBES = {"token": 400, "row": 400, "prompt_rows": 60}
ROUNDS = 5
PAUSE_S = 0.002
ADDED_ROW_MS_BOUND = 0.1
"""A token takes some milliseconds; what TLS adds to a hop must be lost in that."""

NODE = "edge-1"


def run() -> dict[str, Any]:
    """Half a round trip is a hop. Clear and TLS take turns, round by round, against one serving process."""
    with tempfile.TemporaryDirectory() as folder:
        _make_certificates(Path(folder))
        command = [sys.executable, "-m", "tests.benchmarks.hop", folder]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                clear, secure = process.stdout.readline().split()
                hops = uvloop.run(_measure(Path(folder), clear, secure))
            finally:
                process.terminate()
    metrics = {}
    for (how, what), times in hops.items():
        metrics[f"{how}_{what}_hop_ms_p50"] = round(float(np.percentile(times, 50)), 4)
        metrics[f"{how}_{what}_hop_ms_p99"] = round(float(np.percentile(times, 99)), 4)
    added = round(metrics["tls_row_hop_ms_p50"] - metrics["clear_row_hop_ms_p50"], 4)
    metrics["added_row_hop_ms_p50"] = added
    criteria = [at_most("added_row_hop_ms_p50", added, ADDED_ROW_MS_BOUND)]
    return {"bench": "hop", "machine": machine(), "metrics": metrics, "criteria": criteria}


async def _measure(folder: Path, clear: str, secure: str) -> dict[tuple[str, str], list[float]]:
    pools = {"clear": _pool(None), "tls": _pool(_identity(folder, "gateway"))}
    links = {how: await pools[how].connect(NODE, at, 5.0) for how, at in (("clear", clear), ("tls", secure))}
    hops: dict[tuple[str, str], list[float]] = {(how, what): [] for what in SIZES for how in links}
    for _ in range(ROUNDS):
        for what, size in SIZES.items():
            for how, link in links.items():
                hops[how, what] += await _probe(link, size, PROBES[what])
    for pool in pools.values():
        await pool.close()
    return hops


async def _probe(link: PeerLink, size: int, count: int) -> list[float]:
    """Hops in milliseconds, after one that does not count: with pauses, as decoding has them."""
    payload, times = bytes(size), []
    await link.ping(payload)
    for _ in range(count):
        took_s = await link.ping(payload)
        assert took_s is not None, "a probe was lost"
        times.append(took_s * 1e3 / 2)
        await asyncio.sleep(PAUSE_S)
    return times


def _pool(identity: GrpcIdentity | None) -> LinkPool:
    hello = Frame(FrameKind.HELLO, payload=b"gateway")
    return LinkPool(hello, LinkShapers(), lambda *_: None, lambda *_: None, identity)


def _make_certificates(folder: Path) -> None:
    authority = make_authority("benchmark", time.time())
    save(folder, "ca", authority, replace=False)
    for name in (NODE, "gateway"):
        save(folder, name, issue(authority, Purpose.MEMBER, name, [], time.time(), 1), replace=False)


def _identity(folder: Path, name: str) -> GrpcIdentity:
    files = IdentityFiles(
        certificate=certificate_path(folder, name),
        key=key_path(folder, name),
        authority=certificate_path(folder, "ca"),
    )
    return GrpcIdentity.from_files(files)


async def _serve(folder: Path) -> None:
    """Prints where it echoes probes in the clear and over mutual TLS, and goes on until it is ended."""
    addresses, servers = [], []
    for identity in (None, _identity(folder, NODE)):
        plane = DataPlane(NODE, LinkShapers(), lambda _: None, asyncio.sleep, identity)
        server = make_server(identity=identity)
        servers.append(server)  # one that nobody refers to ends
        server.add_generic_rpc_handlers((plane.handler(),))
        credentials = None if identity is None else identity.server_credentials()
        addresses.append(await start_server(server, "127.0.0.1", 0, [], credentials))
    print(*addresses, flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
