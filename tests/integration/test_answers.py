"""Answers through the OpenAI API of a real edge: streamed, whole, side by side, cancelled, refused."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import openai
import pytest

from tests.integration.edge import Edge, generate_request, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUESTIONS = [
    "What is an edge node?",
    "Write one sentence about rain.",
    "Name three colours and say why you like them.",
    "Count from one to twenty in words.",
]


async def complete(client: openai.AsyncOpenAI, question: str, max_tokens: int = 40, **options: Any) -> str:
    completion = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        **({"temperature": 0} | options),
    )
    return completion.choices[0].message.content or ""


async def test_the_official_client_streams_what_it_would_get_whole(client: openai.AsyncOpenAI) -> None:
    whole = await complete(client, QUESTIONS[0])
    stream = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": QUESTIONS[0]}],
        max_tokens=40,
        temperature=0,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces) == whole
    assert whole.strip()
    assert len(pieces) > 5


async def test_the_model_that_is_served_is_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["smollm2"]


async def test_usage_counts_the_tokens_of_the_answer(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": QUESTIONS[3]}], max_tokens=7, temperature=0
    )
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 7
    assert completion.choices[0].finish_reason == "length"


async def test_chats_side_by_side_read_as_if_alone(client: openai.AsyncOpenAI) -> None:
    alone = [await complete(client, question) for question in QUESTIONS]
    together = await asyncio.gather(*(complete(client, question) for question in QUESTIONS * 2))
    assert list(together) == alone * 2


async def test_sampling_repeats_itself_with_its_seed_only(client: openai.AsyncOpenAI) -> None:
    options = {"temperature": 0.8, "seed": 5}
    first = await complete(client, QUESTIONS[1], **options)
    assert await complete(client, QUESTIONS[1], **options) == first
    assert await complete(client, QUESTIONS[1], **(options | {"seed": 6})) != first


async def test_a_reader_that_hangs_up_frees_its_session_on_every_node(edge: Edge, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": QUESTIONS[2]}],
        max_tokens=700,
        temperature=0.8,
        stream=True,
    )
    await anext(aiter(stream))
    for node in ("edge-1", "edge-2"):
        assert (await edge.describe(node)).kv_pages_used > 0
    await stream.close()
    await edge.drained()


async def test_a_grpc_caller_that_cancels_frees_its_session_on_every_node(edge: Edge) -> None:
    call = edge.cluster.inference.Generate(generate_request(700))
    async for _ in call:
        break

    async def both_hold() -> bool:
        return all([(await edge.describe(node)).sessions for node in ("edge-1", "edge-2")])

    await until(both_hold, "the session shows on both nodes")
    call.cancel()
    await edge.drained()


async def test_a_request_longer_than_the_context_is_told_so(edge: Edge, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await complete(client, "word " * 2000)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as error:
        await complete(client, "Hello", max_tokens=5000)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"[]",
        b'{"model": "smollm2", "messages": []}',
        b'{"model": "smollm2", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
        b'{"model": "smollm2", "messages": [{"role": "user", "content": "x"}], "temperature": 9}',
    ],
)
async def test_a_body_that_makes_no_sense_is_a_bad_request_with_a_reason(edge: Edge, body: bytes) -> None:
    url = f"{edge.cluster.openai_url}/chat/completions"
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
