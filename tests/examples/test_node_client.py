"""The Node.js client of the registry does what its documentation says, on a real platform."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.platforms import host_of, running_platform
from tests.examples.node_packages import install

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "mec_apps" / "examples" / "registry_client"

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="needs node and npm on the PATH"
)


async def run_client(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, the printed steps, and what is said of errors. It runs beside its packages."""
    client = Path(shutil.copy(EXAMPLE / "client.mjs", folder))
    process = await asyncio.create_subprocess_exec(
        "node", client, "--protos", REPOSITORY / "proto", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        pytest.fail("the client did not end")
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.decode().splitlines()], err.decode()


def test_the_lock_file_names_no_place_to_download_from():
    lock = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages
    for name, each in packages.items():
        assert "resolved" not in each, name
        assert each["integrity"].startswith("sha512-"), name


@needs_node
async def test_a_service_lives_through_node(tmp_path):
    folder = await asyncio.to_thread(install, EXAMPLE)
    async with running_platform(tmp_path) as platform:
        addresses = ("--platform", platform.rest_uri, "--registry", platform.grpc_address)
        code, steps, err = await run_client(folder, *addresses)
        assert (code, err) == (0, "")
        state = host_of(platform).registry.state
        assert (len(state.apps), len(state.services)) == (0, 0)
    said = {each["step"]: each for each in steps}
    service_id = said["registered"]["service_id"]
    kinds = [(each["kind"], each.get("service_id")) for each in steps if each["step"] in ("watching", "change")]
    assert kinds == [("BOOKMARK", None), ("ADDED", service_id), ("REMOVED", service_id)]
    assert said["renewed"]["shortest_interval_s"] == 30
    assert said["discovered"]["found"] == [{"id": service_id, "score": 0.75}]
    assert "82.00 ms a token" in said["chain"]["explanation"]
    kpis = said["kpis"]
    assert (kpis["load"], kpis["tokens_per_s"], kpis["free_memory_bytes"]) == (0.25, 12.5, "2000000000")
    assert steps[-1] == {"step": "done"}


@needs_node
async def test_what_goes_wrong_is_one_line(tmp_path):
    folder = await asyncio.to_thread(install, EXAMPLE)
    async with running_platform(tmp_path, authenticate=True) as platform:
        addresses = ("--platform", platform.rest_uri, "--registry", platform.grpc_address)
        code, _, err = await run_client(folder, *addresses)
    assert code == 1
    assert err.startswith("error: POST /mec_app_support/v2/registrations: 401")
    assert len(err.splitlines()) == 1
