"""Bad input to the real command line: one line that says what to do, the right exit code, nothing left running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mec_apps.cli.compile import CompiledFolders
from tests.integration.edge import Edge

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

TIMEOUT_S = 60.0
NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.lower().startswith("error")]


async def mec(*arguments: object) -> Ended:
    """Runs the command in a process group of its own and checks that the group is empty when the command has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mec_apps.cli",
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
        pytest.fail(f"mec {' '.join(map(str, arguments))} did not end")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def check_one_line(ended: Ended, *words: str) -> None:
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len(ended.error_lines) == 1
    assert ended.err.splitlines()[-1] == ended.error_lines[0]
    for word in words:
        assert word in ended.error_lines[0]


@pytest.fixture
def folders(compiled: CompiledFolders) -> list[str]:
    return ["--package", str(compiled.package), "--artefact", str(compiled.artefact)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconfigure", "edge-1"], ["edge-1", "NODE=START:STOP"]),
        (["reconfigure", "edge-1=0:x"], ["NODE=START:STOP"]),
        (["chat", "Hello", "--url", f"http://{NOWHERE}/v1"], [NOWHERE, "mec gateway"]),
        (["status", "--platform-grpc", NOWHERE], [NOWHERE, "mec serve"]),
        (
            ["serve", "--host", "0.0.0.0", "--rest-port", 0, "--grpc-port", 0],
            ["0.0.0.0", "mec certs", "--behind-proxy"],
        ),
        (["serve", "--host", "0.0.0.0", "--auth", "off"], ["0.0.0.0", "--auth off", "mec client create"]),
        (["node", "--package", "somewhere"], ["--artefact"]),
        (["node", "--target", "z80"], ["z80", "x86-64-v3"]),
    ],
)
async def test_what_a_user_can_mend_is_one_line_that_says_how(arguments: list[str], words: list[str]) -> None:
    check_one_line(await mec(*arguments), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile", "--model", "nosuch"], ["nosuch", ".gguf", "smollm2"]),
        (["node", "--model", "nosuch", "--platform-grpc", NOWHERE], ["nosuch", ".gguf"]),
        (["compile", "--target", "toaster"], ["toaster", "x86-64-v3"]),
    ],
)
async def test_what_cannot_be_compiled_is_one_line_that_says_why(arguments: list[str], words: list[str]) -> None:
    check_one_line(await mec(*arguments), *words)


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(100)], ids=["empty", "cut off"])
async def test_a_damaged_model_file_is_named(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(content)
    check_one_line(await mec("compile", "--model", model), "broken.gguf")


@pytest.mark.parametrize("what", ["node", "gateway"])
async def test_a_folder_without_a_compiled_model_is_named(tmp_path: Path, what: str) -> None:
    ended = await mec(what, "--package", tmp_path, "--artefact", tmp_path, "--platform-grpc", NOWHERE)
    check_one_line(ended, str(tmp_path), "mec compile")


async def test_damaged_weights_are_named(tmp_path: Path, compiled: CompiledFolders) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for file in compiled.package.iterdir():
        (package / file.name).symlink_to(file)
    weights = package / "weights.bin"
    weights.unlink()
    weights.write_bytes(b"short")
    ended = await mec("node", "--package", package, "--artefact", compiled.artefact, "--platform-grpc", NOWHERE)
    check_one_line(ended, "weights.bin", "mec compile")


@pytest.mark.parametrize("what", ["node", "gateway"])
async def test_a_member_without_a_platform_says_how_to_start_one(folders: list[str], what: str) -> None:
    ports = ["--port", 0] if what == "gateway" else []
    ended = await mec(what, *folders, *ports, "--platform-grpc", NOWHERE, "--platform-wait-s", 0.5)
    check_one_line(ended, NOWHERE, "mec serve")


async def test_more_kv_than_kernels_can_index_is_refused_by_its_option(folders: list[str]) -> None:
    ended = await mec("node", *folders, "--kv-tokens", 10**8, "--platform-grpc", NOWHERE, "--platform-wait-s", 0.5)
    check_one_line(ended, "--kv-tokens")


@pytest.mark.parametrize("what", ["node", "gateway"])
async def test_listening_beyond_this_machine_must_be_asked_for(folders: list[str], what: str) -> None:
    check_one_line(await mec(what, *folders, "--host", "0.0.0.0"), "--allow-remote")


@pytest.mark.parametrize("link", ["edge-2=fast", "=1000", "edge-2=10,-1"])
async def test_an_emulated_link_that_makes_no_sense_is_shown_an_example(folders: list[str], link: str) -> None:
    check_one_line(await mec("node", *folders, "--emulate-link", link), link, "PEER=BYTES_PER_S")


async def test_a_second_node_of_a_name_is_refused(edge: Edge, folders: list[str]) -> None:
    members = ["--platform-grpc", edge.cluster.platform_grpc, "--platform-url", edge.cluster.platform_url]
    ended = await mec("node", "--name", "edge-1", *folders, *members)
    check_one_line(ended, "edge-1")
    assert len(await edge.answer(3)) == 3


@pytest.mark.parametrize(
    ("option", "of"), [("--rest-port", ("platform", "rest")), ("--grpc-port", ("platform", "grpc"))]
)
async def test_a_platform_on_a_port_in_use_is_refused(edge: Edge, option: str, of: tuple[str, str]) -> None:
    port = edge.cluster.facts[of[0]][of[1]].rpartition(":")[2]
    free = "--grpc-port" if option == "--rest-port" else "--rest-port"
    check_one_line(await mec("serve", option, port, free, 0), port)


@pytest.mark.parametrize(
    ("what", "option", "of"),
    [
        ("node", "--port", ("edge-1", "grpc")),
        ("node", "--metrics-port", ("edge-1", "metrics")),
        ("gateway", "--port", ("gateway", "openai")),
        ("gateway", "--grpc-port", ("gateway", "grpc")),
    ],
)
async def test_a_member_on_a_port_in_use_is_refused(
    edge: Edge, folders: list[str], what: str, option: str, of: tuple[str, str]
) -> None:
    port = edge.cluster.facts[of[0]][of[1]].split(":")[-1].split("/")[0]
    other = ["--port", 0] if (what, option) == ("gateway", "--grpc-port") else []
    members = ["--platform-grpc", edge.cluster.platform_grpc, "--platform-url", edge.cluster.platform_url]
    ended = await mec(what, "--name", "late", *folders, *members, *other, option, port)
    check_one_line(ended, port)


async def test_a_plan_that_breaks_rules_is_refused_with_the_reasons(edge: Edge) -> None:
    ended = await mec("reconfigure", "edge-1=0:12", "edge-9=12:30", "--platform-grpc", edge.cluster.platform_grpc)
    check_one_line(ended, "edge-9 is not alive")


async def test_an_abort_where_nothing_is_under_way_says_so(edge: Edge) -> None:
    ended = await mec("reconfigure", "--abort", "--platform-grpc", edge.cluster.platform_grpc)
    check_one_line(ended, "nothing is under way for chain 0")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["serve", "--rest-port", "99999"],
        ["node", "--threads", "0"],
        ["node", "--emulate-cpu-share", "0"],
        ["chat"],
        ["compile", "--quantisation", "int3"],
    ],
)
async def test_wrong_usage_ends_with_two_and_points_to_the_help(arguments: list[str]) -> None:
    ended = await mec(*arguments)
    assert ended.code == 2
    assert "--help" in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.error_lines) == 1


async def test_chat_streams_an_answer(edge: Edge) -> None:
    ended = await mec("chat", "Say hello.", "--max-tokens", 12, "--url", edge.cluster.openai_url)
    assert ended.code == 0
    assert ended.out.strip()
    assert ended.err == ""


async def test_reconfigure_applies_a_plan(edge: Edge) -> None:
    ended = await mec("reconfigure", "edge-1=0:15", "edge-2=15:30", "--platform-grpc", edge.cluster.platform_grpc)
    assert ended.code == 0
    assert ended.out.startswith("committed: epoch")
    assert await edge.plan() == [("edge-1", 0, 15), ("edge-2", 15, 30)]


async def test_a_damaged_package_in_the_cache_is_named_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "broken"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("MEC_CACHE", str(tmp_path))
    ended = await mec("models")
    assert ended.code == 0
    assert f"{folder} is damaged" in ended.err
    assert "Traceback" not in ended.err


async def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "ready.json"
    ended = await mec("serve", "--rest-port", 0, "--grpc-port", 0, "--ready-file", missing)
    check_one_line(ended, "missing")
