"""The example from end to end, in processes of its own: `python -m mec_apps.examples.vision.walk PICTURE.png`.

A platform with two deployments, each cut over two edge nodes: a vision encoder, whose weights are RANDOM, and a language
model. The same question about the picture is asked while nothing happens, while the encoder's partitions move, while
the language model's blocks move, and after an encoder node was killed; the answers must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from mec_apps.cli.compile import CompiledFolders, ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.examples.vision.export import NOTE, make_program
from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.model_package import ModelPackage

QUESTION = "What is in this picture?"
TOKENS = 40
NODES = (
    NodeOptions("vision-1", encodes=True),
    NodeOptions("vision-2", encodes=True),
    NodeOptions("text-1"),
    NodeOptions("text-2"),
)
Change = Callable[[], Awaitable[object]]


def data_url(picture: Path) -> str:
    """A PNG or JPEG file as a URL that holds it."""
    kind = "png" if picture.suffix.lower() == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


async def ask(cluster: LocalCluster, model: str, url: str, tokens: int = TOKENS) -> str:
    """The greedy answer to the question about a picture, over the OpenAI API."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{cluster.openai_url}/chat/completions", json=body) as reply,
    ):
        answer = await reply.json()
        if reply.status != 200:
            raise RuntimeError(f"the gateway answered {reply.status}: {answer['error']['message']}")
        return str(answer["choices"][0]["message"]["content"])


async def walk(compiled: CompiledFolders, encoder: CompiledFolders, url: str) -> bool:
    """Prints every step; whether all answers were the same."""
    text, vision = ModelPackage.open(compiled.package).shape, EncoderPackage.open(encoder.package).shape
    async with LocalCluster(compiled, NODES, manual=True, context=512, encoder=encoder) as cluster:
        for shape in (text, vision):
            plan = await cluster.wait_for_plan(model=shape.name)
            stages = " -> ".join(f"{s.node} [{s.layers.start}, {s.layers.stop})" for s in plan.stages)
            _say(f"{shape.name}: epoch {plan.epoch}, {stages}")
        cut, blocks = vision.blocks // 2, text.blocks

        async def move_encoder() -> None:
            for first, second in (("vision-1", "vision-2"), ("vision-2", "vision-1")):
                await cluster.apply([(first, 0, cut), (second, cut, vision.blocks)], "the example", vision.name)

        async def cut_again() -> None:
            await cluster.apply([("text-2", 0, 10), ("text-1", 10, blocks)], "the example", text.name)

        async def kill_encoder_node() -> None:
            await cluster.kill("vision-2")

        steps: list[tuple[str, Change | None]] = [
            ("undisturbed", None),
            ("while the encoder's partitions move twice", move_encoder),
            ("while the language model is cut again", cut_again),
            ("while an encoder node is killed", kill_encoder_node),
        ]
        answers = []
        for what, change in steps:
            asked = [ask(cluster, text.name, url) for _ in range(1 if change is None else 3)]
            given, _ = await asyncio.gather(
                asyncio.gather(*asked), change() if change is not None else asyncio.sleep(0)
            )
            answers += given
            _say(f"{what}: {given[0]!r}" if change is None else f"{what}: {len(given)} answers")
        answers.append(await ask(cluster, text.name, url))
        plan = await cluster.wait_for_plan(model=vision.name)
        _say(f"after it: one more answer, on epoch {plan.epoch} of {vision.name}")
        identical = len(set(answers)) == 1
        _say(f"all {len(answers)} answers are {'the same' if identical else 'NOT the same'}; {NOTE}")
        return identical


def main() -> int:
    """Exit code 1 where the answers differ."""
    parser = argparse.ArgumentParser(description=f"A picture in a question, over edge nodes; {NOTE}.")
    parser.add_argument("picture", type=Path, help="a PNG or JPEG file")
    arguments = parser.parse_args()
    _say(f"the encoder is an example: {NOTE}")
    compiled = ensure_compiled("smollm2", "auto", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vision-random.pt2"
        _export(path, ModelPackage.open(compiled.package).dims.hidden)
        encoder = ensure_compiled(str(path), "auto", None)
    return 0 if asyncio.run(walk(compiled, encoder, data_url(arguments.picture))) else 1


def _export(path: Path, width: int) -> None:
    from compiler.torch_modules.program import save_program

    save_program(make_program(seed=0, output=width), path)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
