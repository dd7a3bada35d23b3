"""The OpenAI API over real sockets, most of it through the official client; only the generator is scripted."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mec_apps.split_inference.gateway.answer import StopStrings
from mec_apps.split_inference.gateway.chat import ChatTokenizer
from mec_apps.split_inference.gateway.http_api import REGISTRY_KEY, make_http_app, serve_http
from mec_apps.split_inference.generation import (
    ContextExceeded,
    EmbeddedRows,
    GeneratedToken,
    GenerationError,
    GenerationFailed,
    NoPlan,
    NotAdmitted,
    Overloaded,
    SamplingSettings,
)

MODEL = "tiny/one"
CREATED = 1_700_000_000
CONTEXT = 200
PATIENCE_S = 20
TURN, END = 256, 257
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}<|turn|>{{ m.role }}: {{ m.content }}{% endfor %}<|turn|>"
)

WAIT = "wait"  # a step of a script: nothing more until the test lets it go on


class ScriptedGenerator:
    """Plays a list of tokens, errors and waits, and notes what it was asked and that it was closed."""

    context_length = CONTEXT

    def __init__(self) -> None:
        self.script: Sequence[int | Exception | str] = []
        self.asked: tuple[list[int], int, SamplingSettings] | None = None
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()

    async def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingSettings,
        rows: Sequence[EmbeddedRows] = (),
    ) -> AsyncGenerator[GeneratedToken, None]:
        self.asked = (list(prompt), max_tokens, sampling)
        try:
            for position, step in enumerate(self.script[:max_tokens], len(prompt)):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, str):
                    self.waiting.set()
                    await self.go_on.wait()
                else:
                    yield GeneratedToken(step, position, epoch=7)
        finally:
            await asyncio.sleep(0)  # ending a session on the nodes takes a moment, which must be waited for
            self.closed.set()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """One token per byte, two control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tiny = Tokenizer(models.BPE(vocab={letter: token for token, letter in enumerate(alphabet)}, merges=[]))
    tiny.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tiny.decoder = decoders.ByteLevel()
    tiny.add_special_tokens([AddedToken("<|turn|>"), AddedToken("<|end|>")])
    path = tmp_path_factory.mktemp("tiny") / "tokenizer.json"
    tiny.save(str(path))
    return ChatTokenizer(Path(path), TEMPLATE, {END})


@pytest.fixture
async def generator() -> ScriptedGenerator:
    return ScriptedGenerator()


@pytest.fixture
def app(generator: ScriptedGenerator, tokenizer: ChatTokenizer) -> web.Application:
    return make_http_app(generator, tokenizer, MODEL, CREATED, random_bits=lambda bits: 2**bits - 1)


@pytest.fixture
async def address(app: web.Application) -> AsyncIterator[str]:
    """A running gateway."""
    runner = await serve_http(app, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def client(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(address) as session:
        yield session


def question(**options: Any) -> dict[str, Any]:
    """The arguments of a small chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **options}


def counted(app: web.Application, name: str, **labels: str) -> float | None:
    """The value of a metric."""
    return app[REGISTRY_KEY].get_sample_value(name, labels)


async def is_closed(generator: ScriptedGenerator) -> bool:
    """Waits until the generator has been closed."""
    return await asyncio.wait_for(generator.closed.wait(), PATIENCE_S)


class TestAnswers:
    async def test_whole_answer(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = [*tokenizer.encode("Hé 😀"), END]
        answer = await client.chat.completions.create(**question())
        assert answer.choices[0].message.content == "Hé 😀"
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == MODEL
        assert answer.id == "chatcmpl-" + "f" * 24
        assert answer.system_fingerprint == "plan-epoch-7"
        assert answer.usage is not None
        prompt = tokenizer.encode("user: Hi")
        assert answer.usage.prompt_tokens == len(prompt) + 2
        assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (9, len(prompt) + 11)
        assert generator.asked is not None
        assert generator.asked[0] == [TURN, *prompt, TURN]
        assert generator.closed.is_set()

    async def test_streamed_answer(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = [*tokenizer.encode("Hé!"), END]
        stream = await client.chat.completions.create(**question(stream=True))
        deltas = [(chunk.choices[0].delta.role, chunk.choices[0].delta.content, chunk.choices[0].finish_reason)
                  async for chunk in stream]  # fmt: skip
        assert deltas == [
            ("assistant", "", None),
            (None, "H", None),
            (None, "é", None),
            (None, "!", None),
            (None, None, "stop"),
        ]
        assert await is_closed(generator)

    async def test_stream_ends_with_usage_and_done(
        self, http: aiohttp.ClientSession, generator: ScriptedGenerator
    ) -> None:
        generator.script = [0, 1, 2, END]
        body = question(stream=True, max_tokens=3, stream_options={"include_usage": True})
        async with http.post("/v1/chat/completions", json=body) as response:
            assert response.content_type == "text/event-stream"
            *events, done, rest = (await response.text()).split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)

    async def test_each_token_is_sent_at_once(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = [*tokenizer.encode("a"), WAIT, *tokenizer.encode("b"), END]
        stream = await client.chat.completions.create(**question(stream=True))
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        assert (await anext(stream)).choices[0].delta.content == "a"
        await generator.waiting.wait()
        generator.go_on.set()
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["b", None]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("stop", "text", "expected"),
        [
            ("END", "one END two", "one "),
            (["zz", "two", "ne"], "one two", "o"),
            ("ENDED", "the END", "the END"),
            ("aab", "aaab", "a"),
            ([], "all", "all"),
            (["b", "abc"], "xabc", "xa"),
        ],
    )
    async def test_stop_strings_are_cut_off(
        self,
        client: openai.AsyncOpenAI,
        generator: ScriptedGenerator,
        tokenizer: ChatTokenizer,
        stream: bool,
        stop: str | list[str],
        text: str,
        expected: str,
    ) -> None:
        generator.script = [*tokenizer.encode(text), END]
        if stream:
            chunks = [chunk async for chunk in await client.chat.completions.create(**question(stream=True, stop=stop))]
            content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            answer = await client.chat.completions.create(**question(stop=stop))
            content, reason = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        assert (content, reason) == (expected, "stop")
        assert await is_closed(generator)

    @pytest.mark.parametrize("option", ["max_tokens", "max_completion_tokens"])
    async def test_answer_stops_at_its_length(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, option: str
    ) -> None:
        generator.script = [0] * 10
        answer = await client.chat.completions.create(**question(**{option: 4}))
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4

    async def test_text_held_back_comes_with_the_last_token(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = tokenizer.encode("see the EN")
        answer = await client.chat.completions.create(**question(stop="END", max_tokens=10))
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("see the EN", "length")

    async def test_generation_that_ends_by_itself_has_used_its_room(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = tokenizer.encode("abc")
        answer = await client.chat.completions.create(**question())
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("abc", "length")

    async def test_content_may_be_text_parts(
        self, client: openai.AsyncOpenAI, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = [END]
        parts = [{"type": "text", "text": "a<|end|>"}, {"type": "text", "text": "b"}]
        messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
        await client.chat.completions.create(**question(messages=messages))
        assert generator.asked is not None
        expected = [TURN, *tokenizer.encode("system: x"), TURN, *tokenizer.encode("user: a<|end|>b"), TURN]
        assert generator.asked[0] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SamplingSettings(1.0, 1.0, 2**64 - 1)),
        ({"temperature": 0, "seed": 5}, SamplingSettings(0.0, 1.0, 5)),
        ({"temperature": 0.5, "top_p": 0.9, "seed": -1}, SamplingSettings(0.5, 0.9, 2**64 - 1)),
        ({"top_p": 0, "seed": 1}, SamplingSettings(0.0, 1.0, 1)),
        ({"temperature": None, "top_p": None, "seed": None}, SamplingSettings(1.0, 1.0, 2**64 - 1)),
    ],
)
async def test_sampling_options(
    client: openai.AsyncOpenAI, generator: ScriptedGenerator, options: dict[str, Any], expected: SamplingSettings
) -> None:
    generator.script = [END]
    await client.chat.completions.create(**question(**options))
    assert generator.asked is not None
    assert generator.asked[2] == expected


async def test_answer_may_fill_the_context(client: openai.AsyncOpenAI, generator: ScriptedGenerator) -> None:
    generator.script = [END]
    await client.chat.completions.create(**question())
    assert generator.asked is not None
    assert generator.asked[1] == CONTEXT - len(generator.asked[0])


async def test_options_without_effect_are_accepted(client: openai.AsyncOpenAI, generator: ScriptedGenerator) -> None:
    generator.script = [END]
    await client.chat.completions.create(
        **question(user="me", n=1, tools=[], logprobs=False, presence_penalty=0, response_format={"type": "text"}),
        extra_body={"surprise": {"deep": [1]}},
    )


REFUSED = [
    ({"n": 2}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -5}, "max_completion_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"seed": 1.5}, "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": ["x" * 1000]}, "stop"),
    ({"stop": [1]}, "stop[0]"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "x"}}, "audio"),
]


@pytest.mark.parametrize(("options", "param"), REFUSED, ids=[str(options)[:50] for options, _ in REFUSED])
async def test_refuses_options_it_cannot_honour(
    client: openai.AsyncOpenAI, generator: ScriptedGenerator, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**question(), extra_body=options)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.body is not None
    assert generator.asked is None


async def test_unsupported_options_say_so(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="`tools` is not supported") as caught:
        await client.chat.completions.create(**question(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": CONTEXT}, "max_tokens"),
        ({"max_completion_tokens": CONTEXT}, "max_completion_tokens"),
        ({"messages": [{"role": "user", "content": "x" * CONTEXT}]}, "messages"),
    ],
)
async def test_refuses_what_the_context_cannot_hold(
    client: openai.AsyncOpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**question(**options))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (ContextExceeded("too long"), 400, "context_length_exceeded", None),
        (NoPlan("two nodes are missing"), 503, "no_plan", "5"),
        (Overloaded("16 sessions run"), 429, "overloaded", "1"),
        (NotAdmitted("nodes are busy"), 429, "not_admitted", "5"),
        (GenerationFailed("node b is silent"), 502, "generation_failed", None),
        (GenerationError("else"), 500, "generation_error", None),
    ],
)
async def test_generation_that_cannot_start_has_a_status(
    client: openai.AsyncOpenAI,
    app: web.Application,
    generator: ScriptedGenerator,
    stream: bool,
    error: GenerationError,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    generator.script = [error]
    with pytest.raises(openai.APIStatusError, match=str(error)) as caught:
        await client.chat.completions.create(**question(stream=stream))
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers.get("Retry-After") == retry_after
    assert counted(app, "mec_gateway_generations_total", outcome="failed") == 1
    assert counted(app, "mec_gateway_sessions_in_flight") == 0


async def test_generation_without_any_token_has_failed(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="before its first token"):
        await client.chat.completions.create(**question())


@pytest.mark.parametrize("error", [GenerationFailed("node b is silent"), RuntimeError("a bug")])
async def test_failure_in_mid_stream_is_an_event(
    client: openai.AsyncOpenAI,
    app: web.Application,
    generator: ScriptedGenerator,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    generator.script = [0, 1, error]
    stream = await client.chat.completions.create(**question(stream=True))
    with pytest.raises(openai.APIError, match=r"node b is silent|internal error"):
        async for _ in stream:
            pass
    assert await is_closed(generator)
    assert counted(app, "mec_gateway_generations_total", outcome="failed") == 1
    assert ("a bug" in caplog.text) == isinstance(error, RuntimeError)


async def test_stream_that_failed_is_not_done(http: aiohttp.ClientSession, generator: ScriptedGenerator) -> None:
    generator.script = [0, GenerationFailed("node b is silent")]
    async with http.post("/v1/chat/completions", json=question(stream=True)) as response:
        *_, last, rest = (await response.text()).split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "generation_failed"
    assert rest == ""


async def test_bug_is_logged_and_not_shown(
    client: openai.AsyncOpenAI, generator: ScriptedGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    generator.script = [RuntimeError("secret detail")]
    with pytest.raises(openai.InternalServerError, match="internal error") as caught:
        await client.chat.completions.create(**question())
    assert "secret" not in str(caught.value)
    assert "secret detail" in caplog.text


class TestClientsThatGoAway:
    async def test_official_client_closes_a_stream(
        self, client: openai.AsyncOpenAI, app: web.Application, generator: ScriptedGenerator
    ) -> None:
        generator.script = [0, 1, WAIT, 2]
        async with await client.chat.completions.create(**question(stream=True)) as stream:
            await anext(stream)
            await generator.waiting.wait()
            assert counted(app, "mec_gateway_sessions_in_flight") == 1
        assert await is_closed(generator)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("script", [[WAIT], [0, 1, WAIT]])
    async def test_generator_is_closed(
        self, address: str, app: web.Application, generator: ScriptedGenerator, stream: bool, script: list[int | str]
    ) -> None:
        generator.script = script
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
            asking = asyncio.create_task(client.chat.completions.create(**question(stream=stream)))
            await asyncio.wait_for(generator.waiting.wait(), PATIENCE_S)
            assert not generator.closed.is_set()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert await is_closed(generator)

    async def test_shows_in_the_metrics(
        self, http: aiohttp.ClientSession, app: web.Application, address: str, generator: ScriptedGenerator
    ) -> None:
        generator.script = [0, WAIT]
        async with (
            aiohttp.ClientSession(address) as leaver,
            leaver.post("/v1/chat/completions", json=question(stream=True)) as response,
        ):
            await response.content.readline()
            await generator.waiting.wait()
        assert await is_closed(generator)
        async with http.get("/metrics") as response:
            text = await response.text()
        assert 'mec_gateway_generations_total{outcome="disconnected"} 1.0' in text
        assert 'mec_gateway_requests_total{route="/v1/chat/completions",status="499"} 1.0' in text
        assert "mec_gateway_sessions_in_flight 0.0" in text

    async def test_shutdown_waits_until_the_generator_is_closed(
        self, generator: ScriptedGenerator, tokenizer: ChatTokenizer
    ) -> None:
        generator.script = [0, WAIT]
        runner = await serve_http(
            make_http_app(generator, tokenizer, MODEL, CREATED, shutdown_grace_s=0.05), "127.0.0.1", 0
        )
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session,
            session.post("/v1/chat/completions", json=question(stream=True)),
        ):
            await generator.waiting.wait()
            await runner.cleanup()
            assert generator.closed.is_set()


async def test_lists_models(client: openai.AsyncOpenAI) -> None:
    page = await client.models.list()
    assert [(model.id, model.created) for model in page.data] == [(MODEL, CREATED)]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="gpt-5") as caught:
        await client.chat.completions.create(**question() | {"model": "gpt-5"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"null", {}),
        (b"\xff\xfe", {}),
        (b'{"model": "\\ud800", "messages": []}', {}),
        (b'{"surprise":' + b"[" * 100_000, {}),
        (b"[" * 100_000, {}),
        (b"not gzip", {"Content-Encoding": "gzip"}),
    ],
)
async def test_body_that_is_no_request_is_refused(
    http: aiohttp.ClientSession, body: bytes, headers: dict[str, str]
) -> None:
    async with http.post("/v1/chat/completions", data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/anything", 404, "unknown_url"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_answer_in_json(
    http: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with http.request(method, path) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code
        assert ("Allow" in response.headers) == (status == 405)


async def test_body_past_the_bound_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", data=io.BytesIO(b" " * (4 * 2**20 + 1))) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"


async def test_health_and_metrics(
    http: aiohttp.ClientSession, app: web.Application, client: openai.AsyncOpenAI, generator: ScriptedGenerator
) -> None:
    generator.script = [0, 1, END]
    await client.chat.completions.create(**question())
    async with http.get("/health") as response:
        assert await response.json() == {"status": "ok", "model": MODEL}
    async with http.get("/metrics") as response:
        assert response.content_type == "text/plain"
        assert "mec_gateway_time_to_first_token_seconds_bucket" in await response.text()
    assert counted(app, "mec_gateway_requests_total", route="/health", status="200") == 1
    assert counted(app, "mec_gateway_generated_tokens_total") == 3
    assert counted(app, "mec_gateway_prompt_tokens_total") == 10
    assert counted(app, "mec_gateway_time_to_first_token_seconds_count") == 1
    assert counted(app, "mec_gateway_time_per_token_seconds_count") == 2
    assert counted(app, "mec_gateway_generations_total", outcome="stop") == 1


async def test_port_in_use_is_an_error(app: web.Application, address: str) -> None:
    with pytest.raises(OSError, match="in use"):
        await serve_http(web.Application(), "127.0.0.1", int(address.rpartition(":")[2]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("stream", "stream_options", "stop", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n"),
    *("logit_bias", "logprobs", "tools", "tool_choice", "functions", "response_format", "modalities", "audio", "user"),
]
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"]) | JSON, "content": JSON}),
    max_size=2,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just(MODEL), "messages": MESSAGES},
    optional={name: JSON | st.integers(0, 3) for name in FIELDS},
)


@settings(derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES | JSON)
async def test_no_json_body_breaks_the_server(
    http: aiohttp.ClientSession, generator: ScriptedGenerator, body: Any
) -> None:
    generator.script = [0, END]
    data = json.dumps(body)
    async with http.post("/v1/chat/completions", data=data) as response:
        assert response.status in (200, 400, 404)
        await response.read()


@settings(derandomize=True, max_examples=500)
@given(
    pieces=st.lists(st.text("ab", max_size=3), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
)
def test_stop_strings_cut_where_the_whole_text_would_be_cut(pieces: list[str], stops: list[str]) -> None:
    strings = StopStrings(stops)
    given_out = ""
    for piece in pieces:
        given_out += strings.push(piece)
        if strings.stopped:
            break
    given_out += strings.finish()
    text = "".join(pieces)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert given_out == text
    else:
        assert not any(stop in given_out for stop in stops)
        assert text.startswith(given_out)
        assert any(text[len(given_out) :].startswith(stop) for stop in stops)
