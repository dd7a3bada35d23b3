"""The grpcurl lines of the registry client's README do what it says: with grpcurl where it is on the PATH, and always by the
same calls, made through the platform's reflection as grpcurl makes them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mec_platform.domain.applications import AppDescription
from tests.cli.platforms import host_of, running_platform
from tests.examples.reflective_calls import ReflectiveClient

README = Path(__file__).parents[2] / "mec_apps" / "examples" / "registry_client" / "README.md"
ADDRESS = "127.0.0.1:50051"
SERVICE = "mec_platform.rpc.v1.ServiceRegistry"

_WORDS = re.compile("_([a-z])")

Run = Callable[[list[str], str], Any]


def grpcurl_lines() -> list[str]:
    """The lines of the block that is for the shell."""
    block = README.read_text(encoding="utf-8").partition("```sh\n")[2].partition("```")[0]
    return [line for line in block.splitlines() if line.startswith("grpcurl ")]


def words_of(line: str, **variables: str) -> list[str]:
    """A line as a shell reads it."""
    for name, value in variables.items():
        line = line.replace(f"'${name}'", value)
    assert "$" not in line
    return shlex.split(line)


def run_grpcurl(words: list[str], address: str) -> Any:
    """What grpcurl prints: texts of list and describe, else messages."""
    ran = subprocess.run(
        [address if each == ADDRESS else each for each in words], capture_output=True, text=True, check=False
    )
    if "-max-time" in words:
        assert "DeadlineExceeded" in ran.stderr
    else:
        assert ran.returncode == 0, ran.stderr
    if "-d" not in words:
        return ran.stdout
    decoder, text, found = json.JSONDecoder(object_hook=in_camel_case), ran.stdout.strip(), []
    while text:
        message, end = decoder.raw_decode(text)
        found.append(message)
        text = text[end:].strip()
    return found


def in_camel_case(message: dict[str, Any]) -> dict[str, Any]:
    """Names as newer versions of grpcurl print them; older ones print those of the .proto file."""
    return {_WORDS.sub(lambda found: found[1].upper(), name): value for name, value in message.items()}


def run_reflection(words: list[str], address: str) -> Any:
    """The same, by the same calls."""
    client = ReflectiveClient(address)
    try:
        if words[-1] == "list":
            return "\n".join(client.services())
        if words[-2] == "describe":
            return "\n".join(f"rpc {each} (" for each in client.methods(words[-1]))
        at_most = 1 if "-max-time" in words else None
        return client.call(words[-1], json.loads(words[words.index("-d") + 1]), at_most)
    finally:
        client.close()


@pytest.mark.parametrize(
    "run",
    [
        run_reflection,
        pytest.param(
            run_grpcurl,
            marks=pytest.mark.skipif(shutil.which("grpcurl") is None, reason="needs grpcurl on the PATH"),
        ),
    ],
)
async def test_every_line_does_what_the_readme_says(tmp_path: Path, run: Run) -> None:
    listing, describing, *calls = grpcurl_lines()
    assert [each.rpartition("/")[2] for each in calls] == [
        "Register",
        "Renew",
        "Get",
        "Discover",
        "Chain",
        "Watch",
        "Deregister",
    ]
    async with running_platform(tmp_path) as platform:
        app = await host_of(platform).applications.register(AppDescription(name="shell"))
        known = {"APP": app.app_instance_id, "SERVICE": ""}

        async def do(line: str) -> Any:
            return await asyncio.to_thread(run, words_of(line, **known), platform.grpc_address)

        assert SERVICE in (await do(listing)).splitlines()
        assert "rpc Register (" in await do(describing)
        register, renew, get, discover, chain, watch, deregister = calls
        (registered,) = await do(register)
        known["SERVICE"] = service_id = registered["service"]["serviceId"]
        (renewed,) = await do(renew)
        assert renewed == {"shortestIntervalS": 30}
        (got,) = await do(get)
        assert (got["kpis"]["load"], got["kpis"]["tokensPerS"]) == (0.5, 20)
        (found,) = await do(discover)
        assert [each["service"]["serviceId"] for each in found["candidates"]] == [service_id]
        (answer,) = await do(chain)
        assert answer["chain"]["latencyMs"] == 52
        listed = (await do(watch))[0]
        assert [each["service"]["serviceId"] for each in listed["changes"]] == [service_id]
        assert await do(deregister) == [{}]
        assert service_id not in host_of(platform).registry.state.services
