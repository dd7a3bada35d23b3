"""An edge on an address that other machines reach: nodes join by tokens, everything speaks mutual TLS, strangers stay out.

Real processes of the command line on this machine's own address in its network.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mec_apps.cli.clients import MP1
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.parent import PARENT_VARIABLE
from mec_apps.cli.rest_client import PlatformAddress, call
from mec_apps.sdk.session import Access, ClientCredentials
from mec_platform.identity.authority import Purpose, issue, make_authority
from mec_platform.identity.folder import save
from mec_platform.private_files import write_private
from tests.integration.test_command_line import check_one_line, mec
from tests.security.planes import own_address

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

READY_S = 90.0


class SecureEdge:
    """Processes in a folder of files as operators have them."""

    def __init__(self, folder: Path, compiled: CompiledFolders) -> None:
        self.folder = folder
        self.host = own_address()
        self.compiled = ["--package", compiled.package, "--artefact", compiled.artefact]
        self.certs = folder / "certs"
        self.facts: dict[str, dict[str, Any]] = {}
        self._processes: list[asyncio.subprocess.Process] = []

    def shows(self, name: str) -> list[Any]:
        """Options of who shows that certificate."""
        return [
            "--cert",
            self.certs / f"{name}.crt",
            "--key",
            self.certs / f"{name}.key",
            "--ca",
            self.certs / "ca.crt",
        ]

    async def administer(self, path: str, message: dict[str, Any]) -> Any:
        """What an operator asks of the platform."""
        credentials = ClientCredentials.read(self.folder / "mec.sqlite.operator.json")
        access = Access(credentials=credentials, ca=self.certs / "ca.crt")
        return await call(PlatformAddress(self.facts["platform"]["rest"], access), "POST", path, message)

    @property
    def platform(self) -> list[Any]:
        facts = self.facts["platform"]
        return ["--platform-url", facts["rest"], "--platform-grpc", facts["grpc"]]

    async def run(self, *arguments: object) -> str:
        ended = await mec(*arguments)
        assert ended.code == 0, ended.err
        return ended.out

    async def start(self, name: str, *arguments: object) -> None:
        """Starts a process and waits until it serves."""
        ready, log = self.folder / f"{name}.ready", self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "mec_apps.cli", *map(str, arguments), "--ready-file", str(ready)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            )
        self._processes.append(process)
        give_up = asyncio.get_running_loop().time() + READY_S
        while not ready.exists():
            assert process.returncode is None, log.read_text()
            assert asyncio.get_running_loop().time() < give_up, log.read_text()
            await asyncio.sleep(0.05)
        self.facts[name] = json.loads(ready.read_text())

    async def join_node(self, name: str) -> None:
        """A token at the platform, and a node that has nothing else."""
        await self.make_token(name, {})
        where = ["--identity-dir", self.folder / name, "--host", self.host, *self.platform]
        await self.start(name, "node", "--join", f"@{self.folder / name}.token", *where, *self.compiled)

    async def make_token(self, name: str, granted: dict[str, Any]) -> None:
        """A file with a token for a member of that name."""
        made = await self.administer("admin/v1/join-tokens", {"name": name} | granted)
        write_private(self.folder / f"{name}.token", made["token"].encode())

    async def start_gateway(self) -> None:
        """With a certificate that was issued by hand, and credentials that were made for it."""
        made = await self.administer("admin/v1/clients", {"scopes": list(MP1), "clientId": "gateway"})
        file = self.folder / "gateway.json"
        credentials = {"client_id": made["clientId"], "client_secret": made["clientSecret"]}
        write_private(file, json.dumps(credentials).encode())
        where = ["--credentials", file, "--port", 0, "--host", self.host, *self.platform]
        await self.start("gateway", "gateway", "--name", "gateway", *self.shows("gateway"), *where, *self.compiled)

    async def stop(self) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


def make_certificates(folder: Path, host: str, **purposes: Purpose) -> None:
    """What `mec certs init` and `mec certs issue` make."""
    authority = make_authority("test authority", time.time())
    save(folder, "ca", authority, replace=False)
    for name, purpose in purposes.items():
        save(folder, name, issue(authority, purpose, name, [host], time.time(), 1), replace=False)


@asynccontextmanager
async def secure_edge(folder: Path, compiled: CompiledFolders) -> AsyncIterator[SecureEdge]:
    edge = SecureEdge(folder, compiled)
    try:
        make_certificates(
            edge.certs, edge.host, platform=Purpose.SERVER, alice=Purpose.OPERATOR, gateway=Purpose.MEMBER
        )
        authority = ["--member-ca-cert", edge.certs / "ca.crt", "--member-ca-key", edge.certs / "ca.key"]
        tls = ["--tls-cert", edge.certs / "platform.crt", "--tls-key", edge.certs / "platform.key"]
        ports = ["--rest-port", 0, "--grpc-port", 0, "--state", folder / "mec.sqlite", "--expected-nodes", 2]
        await edge.start("platform", "serve", "--host", edge.host, *tls, *authority, *ports)
        yield edge
    finally:
        await edge.stop()


async def test_an_edge_over_mutual_tls_answers_and_lets_no_stranger_in(
    tmp_path: Path, compiled: CompiledFolders
) -> None:
    async with secure_edge(tmp_path, compiled) as edge:
        await asyncio.gather(edge.join_node("edge-1"), edge.join_node("edge-2"), edge.start_gateway())
        operator = ["--platform-grpc", edge.facts["platform"]["grpc"], *edge.shows("alice")]
        applied = await edge.run("reconfigure", "edge-1=0:12", "edge-2=12:30", *operator)
        assert applied.startswith("committed")
        seen = json.loads(await edge.run("status", "--json", *operator))
        assert {member["name"] for member in seen["members"]} == {"edge-1", "edge-2", "gateway"}
        openai = edge.facts["gateway"]["openai"]
        assert openai.startswith("https://")
        question = ["chat", "Say hello.", "--max-tokens", 8, "--url", openai]
        assert (await edge.run(*question, *edge.shows("alice"))).strip()

        await check_metrics(edge)
        await strangers_stay_out(edge, tmp_path, question)
        assert (await edge.run(*question, *edge.shows("alice"))).strip()


async def check_metrics(edge: SecureEdge) -> None:
    """For who shows a certificate."""
    context = ssl.create_default_context(cafile=edge.certs / "ca.crt")
    url = edge.facts["edge-1"]["metrics"]
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.get(url, ssl=context)
        context.load_cert_chain(edge.certs / "alice.crt", edge.certs / "alice.key")
        async with http.get(url, ssl=context) as answer:
            assert "mec_node_frames_total" in await answer.text()


async def strangers_stay_out(edge: SecureEdge, tmp_path: Path, question: list[Any]) -> None:
    """Each in words that say what to do."""
    elsewhere = tmp_path / "elsewhere"
    make_certificates(elsewhere, edge.host, **{"edge-3": Purpose.MEMBER})
    node = ["node", "--name", "edge-3", "--host", edge.host, "--platform-wait-s", 1, *edge.platform, *edge.compiled]
    identity = ["--identity-dir", tmp_path / "edge-3"]
    pair = ["--cert", elsewhere / "edge-3.crt", "--key", elsewhere / "edge-3.key", "--ca", elsewhere / "ca.crt"]
    await edge.make_token("edge-4", {"role": "gateway"})
    join = [*node[:1], *node[3:], "--join"]
    no_certificate, wrong_authority, wrong_name, no_trust, used, no_node = await asyncio.gather(
        mec(*node, *identity),
        mec(*node, *pair),
        mec(*node, *edge.shows("gateway")),
        mec(*question, "--ca", edge.certs / "ca.crt"),
        mec(*join, f"@{tmp_path / 'edge-1.token'}", *identity),
        mec(*join, f"@{tmp_path / 'edge-4.token'}", "--identity-dir", tmp_path / "edge-4"),
    )
    check_one_line(no_certificate, "mec join-token create edge-3", "mec certs issue edge-3 --member")
    # gRPC says beside what has failed.
    assert (wrong_authority.code, len(wrong_authority.error_lines)) == (1, 1)
    assert "over mutual TLS with this certificate" in wrong_authority.error_lines[0]
    check_one_line(wrong_name, "that of gateway, not of edge-3")
    check_one_line(no_trust, "--cert")
    check_one_line(used, "join token is not good")
    check_one_line(no_node, "edge-4 reports as a node, and its certificate does not grant it to be one")
