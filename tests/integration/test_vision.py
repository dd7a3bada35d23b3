"""Two deployments on one platform, of real processes: pictures go through an encoder that moves, into a model that moves."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from compiler.targets.choice import detect_local_target, find_target
from compiler.torch_modules.build import ensure_encoder
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.examples.vision.export import make_program
from mec_apps.examples.vision.walk import ask
from mec_platform.content_store.store import ContentStore

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

TEXT, VISION = "smollm2", "vision-random"
TOKENS = 24


def picture(colour: tuple[int, int, int]) -> str:
    """A disc of that colour as a data URL."""
    image, content = Image.new("RGB", (120, 80), (30, 120, 200)), io.BytesIO()
    ImageDraw.Draw(image).ellipse((20, 10, 80, 70), fill=colour)
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


SUN = picture((250, 200, 20))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> CompiledFolders:
    store = ContentStore(tmp_path_factory.mktemp("vision"))
    target = find_target(detect_local_target())
    compiled = ensure_encoder("example", lambda: make_program(0, 576), [target], store, lambda *_: None)
    (outcome,) = compiled.targets
    assert outcome.artefact_dir is not None
    return CompiledFolders(compiled.package_dir, outcome.artefact_dir, built=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(compiled_model_dirs: Any, encoder: CompiledFolders) -> AsyncIterator[LocalCluster]:
    compiled = CompiledFolders(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, built=False)
    nodes = [NodeOptions(name, encodes=name.startswith("v")) for name in ("v1", "v2", "t1", "t2")]
    async with LocalCluster(compiled, nodes, manual=True, context=512, encoder=encoder) as cluster:
        for model in (TEXT, VISION):
            await cluster.wait_for_plan(model=model)
        yield cluster


async def epochs(cluster: LocalCluster) -> dict[str, int]:
    return {model: (await cluster.snapshot(model)).plan.epoch for model in (TEXT, VISION)}


async def test_answers_are_the_same_while_encoder_and_model_move_and_each_has_its_own_epochs(
    cluster: LocalCluster,
) -> None:
    undisturbed = await ask(cluster, TEXT, SUN, TOKENS)
    before = await epochs(cluster)
    moves = [
        (VISION, [("v2", 0, 3), ("v1", 3, 8)]),
        (VISION, [("v1", 0, 8)]),
        (TEXT, [("t2", 0, 11), ("t1", 11, 30)]),
        (VISION, [("v1", 0, 5), ("v2", 5, 8)]),
    ]
    for model, stages in moves:
        asked = [ask(cluster, TEXT, SUN, TOKENS) for _ in range(2)]
        answers, done = await asyncio.gather(asyncio.gather(*asked), cluster.apply(stages, model=model))
        assert answers == [undisturbed] * 2
        assert (done.outcome, done.plan.model) == ("committed", model)
    assert await epochs(cluster) == {TEXT: before[TEXT] + 1, VISION: before[VISION] + 3}


async def test_another_picture_gets_another_answer_and_none_gets_one_too(cluster: LocalCluster) -> None:
    answers = {await ask(cluster, TEXT, picture(colour), TOKENS) for colour in ((250, 200, 20), (0, 0, 0))}
    assert len(answers) == 2


async def test_a_request_that_names_no_model_is_told_which_there_are(cluster: LocalCluster) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await cluster.snapshot()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(model in (error.value.details() or "") for model in (TEXT, VISION))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/cat.png", "must be a data URL"),
        ("data:image/gif;base64,AAAA", "must be a data URL"),
        ("data:image/png;base64,!!!", "base64 is damaged"),
        ("data:image/png;base64,AAAA", "no PNG or JPEG"),
    ],
)
async def test_a_picture_that_cannot_be_used_is_a_clear_400(cluster: LocalCluster, url: str, said: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"model": TEXT, "messages": [{"role": "user", "content": content}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{cluster.openai_url}/chat/completions", json=body) as reply,
    ):
        assert reply.status == 400
        assert said in (await reply.json())["error"]["message"]


async def test_a_node_that_encodes_has_neither_torch_nor_the_compiler_loaded(cluster: LocalCluster) -> None:
    maps = Path(f"/proc/{cluster.facts['v1']['pid']}/maps").read_text()  # noqa: ASYNC240 - not a file of a disk
    assert "libtvm_runtime.so" in maps
    assert not any(name in maps for name in ("libtvm_compiler", "libtorch", "libc10"))


async def test_a_killed_encoder_node_costs_no_answer(cluster: LocalCluster) -> None:
    undisturbed = await ask(cluster, TEXT, SUN, TOKENS)
    asked = [ask(cluster, TEXT, SUN, TOKENS) for _ in range(3)]
    answers, _ = await asyncio.gather(asyncio.gather(*asked), cluster.kill("v2"))
    assert [*answers, await ask(cluster, TEXT, SUN, TOKENS)] == [undisturbed] * 4
