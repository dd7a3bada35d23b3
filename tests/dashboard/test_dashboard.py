"""The dashboard's routes over real sockets, and its page in a real browser where one is installed."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from aiohttp import web

import mec_apps.dashboard
from mec_apps.dashboard.server import add_dashboard_routes

STATIC = Path(mec_apps.dashboard.__path__[0]) / "static"
CHROMIUM = shutil.which("chromium")
BROWSER_PATIENCE_S = 60

EMPTY: dict[str, Any] = {
    "now_s": 1000.0,
    "model": None,
    "plan": None,
    "replicas": [],
    "nodes": [],
    "gateways": [],
    "links": [],
    "decisions": [],
    "reconfigurations": [],
}


def node(name: str, **other: Any) -> dict[str, Any]:
    """An edge node as the page expects it."""
    usual = {"address": "10.0.0.1:1", "trusted": True, "threads": 4, "target": "llvm", "memory_bytes": 3 * 2**29}
    return {"name": name, **usual, "block_time_us": 812.4, "sessions": 2, "emulated": False, **other}


FULL: dict[str, Any] = {
    "now_s": 1000.0,
    "model": {"name": "tiny", "blocks": 6},
    "plan": {
        "chain": 0,
        "epoch": 3,
        "stages": [{"node": "b", "start": 0, "stop": 4}, {"node": "a", "start": 4, "stop": 6}],
    },
    "replicas": [],
    "nodes": [node("a", emulated=True), node("b"), node("<img src=x onerror=alert(1)>")],
    "gateways": [{"name": "g", "tokens_per_s": 41.26, "sessions": 1}],
    "links": [{"source": "b", "target": "a", "bytes_per_s": 12.5e6, "round_trip_ms": 0.4, "emulated": False}],
    "decisions": [
        {"at_s": 900.0, "kind": "keep", "reason": "older"},
        {"at_s": 990.0, "kind": "re-split", "reason": "newer"},
    ],
    "reconfigurations": [
        {
            "at_s": 991.0,
            "kind": "re-split",
            "reason": "slow link",
            "outcome": "committed",
            "pause_ms_max": 4.31,
            "moved_bytes": 1_843_200,
        }
    ],
}


@asynccontextmanager
async def dashboard(*states: dict[str, Any] | Exception) -> AsyncIterator[str]:
    """A served dashboard that shows one state after the other and then the last, or whose platform fails in some way."""
    coming = list(states)

    async def read_state() -> dict[str, Any]:
        state = coming.pop(0) if len(coming) > 1 else coming[0]
        if isinstance(state, Exception):
            raise state
        return state

    app = web.Application()
    add_dashboard_routes(app, read_state)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_state_is_served_as_it_is() -> None:
    async with dashboard(FULL) as address, aiohttp.request("GET", f"{address}/dashboard/state") as response:
        assert await response.json() == FULL
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("no answer within 2 s"), "no answer within 2 s"),
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "no route"),
            "UNAVAILABLE: no route",
        ),
    ],
)
async def test_platform_that_cannot_be_reached_is_said_so(error: Exception, words: str) -> None:
    async with dashboard(error) as address, aiohttp.request("GET", f"{address}/dashboard/state") as response:
        assert response.status == 503
        assert await response.json() == {"error": words}


async def test_page_is_found_without_the_slash() -> None:
    async with dashboard(EMPTY) as address, aiohttp.request("GET", f"{address}/dashboard") as response:
        assert response.url.path == "/dashboard/"
        assert "<title>Split inference</title>" in await response.text()


async def test_every_file_of_the_page_is_served_and_confined_to_this_host() -> None:
    types = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
    async with dashboard(EMPTY) as address, aiohttp.ClientSession() as session:
        for file in STATIC.iterdir():
            name = "" if file.name == "index.html" else file.name
            async with session.get(f"{address}/dashboard/{name}") as response:
                assert response.status == 200, file.name
                assert response.content_type == types[file.suffix]
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                assert await response.read() == file.read_bytes()


async def test_nothing_else_is_served() -> None:
    async with dashboard(EMPTY) as address, aiohttp.ClientSession() as session:
        for path in ("server.py", "../server.py", "%2e%2e/server.py", "static/app.js"):
            async with session.get(f"{address}/dashboard/{path}") as response:
                assert response.status == 404


def test_page_names_no_other_host_and_writes_no_markup() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            file.name
        )


def test_every_import_and_link_of_the_page_exists() -> None:
    wanted = set()
    for file in STATIC.iterdir():
        wanted |= set(re.findall(r'(?:from "\./|src="|href=")([a-z]+\.(?:js|css))"', file.read_text(encoding="utf-8")))
    assert wanted == {file.name for file in STATIC.iterdir()} - {"index.html"}


async def render(address: str, profile: Path) -> str:
    """The document after the page has run for a while in a browser."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=3000 --dump-dom"
    )
    assert CHROMIUM is not None
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *flags.split(),
        f"--user-data-dir={profile}",
        f"{address}/dashboard/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(browser.communicate(), BROWSER_PATIENCE_S)
    finally:
        if browser.returncode is None:
            browser.kill()
            await browser.wait()
    return output.decode()


def words(document: str) -> str:
    """What a reader sees: tags dropped, spaces joined."""
    return " ".join(re.sub(r"<[^>]*>", " ", document).split())


Render = Callable[..., Awaitable[str]]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs the chromium browser")
class TestInABrowser:
    @pytest.fixture
    def show(self, tmp_path: Path) -> Render:
        async def show(*states: dict[str, Any] | Exception) -> str:
            async with dashboard(*states) as address:
                return await render(address, tmp_path / "profile")

        return show

    async def test_shows_everything_with_units(self, show: Render) -> None:
        document = await show(FULL)
        text = words(document)
        assert 'aria-label="blocks 0–3 on b, then blocks 4–5 on a"' in document
        assert document.count('class="block"') == 6
        for expected in ("tiny, 6 blocks", "plan epoch 3", "41.3 tokens/s", "1.50 GiB", "812 µs", "b → a 12.5 MB/s"):
            assert expected in text
        assert "re-split 9 s ago committed 4.31 ms 1.84 MB slow link" in text
        assert text.index("newer") < text.index("older")

    async def test_chains_beside_the_first_are_drawn_below_it(self, show: Render) -> None:
        replica = {"chain": 1, "epoch": 5, "stages": [{"node": "c", "start": 0, "stop": 6}]}
        document = await show({**FULL, "nodes": [node("a"), node("b"), node("c"), node("d")], "replicas": [replica]})
        text = words(document)
        assert "chain 0, plan epoch 3" in text
        assert text.index("chain 0, plan epoch 3") < text.index("chain 1, plan epoch 5")
        assert 'aria-label="blocks 0–5 on c"' in document
        assert document.count('class="block"') == 12
        assert text.count("idle") == 1

    async def test_text_from_the_platform_stays_text(self, show: Render) -> None:
        document = await show(FULL)
        assert "<img" not in document
        assert "&lt;img src=x onerror=alert(1)&gt;" in document

    async def test_world_without_nodes_is_explained(self, show: Render) -> None:
        text = words(await show(EMPTY))
        for expected in (
            "No split plan is committed yet.",
            "No edge node has reported yet.",
            "No gateway has registered.",
        ):
            assert expected in text

    async def test_lost_platform_raises_the_alarm(self, show: Render) -> None:
        document = await show(TimeoutError("no answer within 2 s"))
        assert "The platform cannot be reached (no answer within 2 s). Still trying." in words(document)
        assert re.search(r'<p id="alarm" role="alert">', document)

    async def test_platform_lost_later_leaves_its_last_state_marked_as_old(self, show: Render) -> None:
        document = await show(FULL, TimeoutError("no answer within 2 s"))
        assert "What you see is the last state it gave." in words(document)
        assert "41.3 tokens/s" in words(document)
        assert '<body class="stale">' in document
        assert re.search(r"last seen (now|\d+ s ago)", words(document))
