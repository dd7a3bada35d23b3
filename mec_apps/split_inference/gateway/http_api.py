"""The OpenAI-compatible HTTP API: POST /v1/chat/completions, GET /v1/models, plus /health and /metrics.

Its clients are the official OpenAI ones; behind it are a `Generator` and a `ChatTokenizer`. It parses, calls and
serialises, and holds no state about sessions. A client that goes away cancels its handler, and that closes the
generator, so `serve_http` must be the one to serve it: aiohttp cancels handlers only where it is told to.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mec_apps.split_inference.gateway.answer import AnswerPiece, stream_answer
from mec_apps.split_inference.gateway.chat import ChatTemplateError, ChatTokenizer, find_pictures
from mec_apps.split_inference.gateway.gateway_metrics import GatewayMetrics, GenerationWatch
from mec_apps.split_inference.gateway.openai_wire import (
    SSE_DONE,
    ApiError,
    CompletionFormat,
    CompletionRequest,
    Usage,
    model_object,
    parse_completion_request,
    sse_event,
)
from mec_apps.split_inference.gateway.vision import MAX_PICTURES, PictureError, Vision
from mec_apps.split_inference.generation import (
    ContextExceeded,
    EmbeddedRows,
    GenerationError,
    GenerationFailed,
    Generator,
    NoPlan,
    NotAdmitted,
    Overloaded,
)

# Some hundred thousand words: more than any context holds, and little enough to read at once.
MAX_BODY_BYTES: Final = 4 * 2**20

# Where the registry behind /metrics can be found, to add gauges to it.
REGISTRY_KEY: Final = web.AppKey("registry", CollectorRegistry)

# What proxies write down for a client that went away before its answer; no client ever sees it.
_CLIENT_CLOSED_REQUEST: Final = 499

# What is left once the answers are ended are short requests.
_CONNECTION_GRACE_S: Final = 1.0

_log = logging.getLogger(__name__)


def make_http_app(
    generator: Generator,
    tokenizer: ChatTokenizer,
    model_id: str,
    created: int,
    *,
    registry: CollectorRegistry | None = None,
    vision: Vision | None = None,
    random_bits: Callable[[int], int] = secrets.randbits,
    clock_s: Callable[[], float] = time.monotonic,
    unix_time_s: Callable[[], float] = time.time,
    max_body_bytes: int = MAX_BODY_BYTES,
    shutdown_grace_s: float = 5.0,
) -> web.Application:
    """The API for one model, known to clients as `model_id` and made at `created` (Unix seconds).

    `random_bits(n)` gives n random bits, for answer ids and the seeds of requests that bring none. `registry` is the
    one to count in; without it there is a new one, under `REGISTRY_KEY` of the application. When the application shuts
    down, answers under way get `shutdown_grace_s` to end, and as long again to leave the nodes once they are cancelled.
    """
    metrics = GatewayMetrics(CollectorRegistry() if registry is None else registry, clock_s)
    api = _Api(generator, tokenizer, model_object(model_id, created), metrics, random_bits, unix_time_s, vision)
    answers = _AnswersUnderWay(shutdown_grace_s)
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_count_requests(metrics), _answer_errors])
    app[REGISTRY_KEY] = metrics.registry
    app.on_shutdown.append(answers.end)
    app.router.add_post("/v1/chat/completions", answers.follow(api.complete_chat))
    app.router.add_get("/v1/models", api.list_models)
    app.router.add_get("/v1/models/{model:.+}", api.show_model)
    app.router.add_get("/health", api.show_health)
    app.router.add_get("/metrics", api.show_metrics)
    return app


async def serve_http(app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    """Serves `app` with handlers that are cancelled when their client goes away; `await runner.cleanup()` ends it.

    With a `tls` context over TLS alone.
    With port 0 the system chooses one; `runner.addresses` tells. A port in use is an OSError.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CONNECTION_GRACE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


class _Api:
    """The handlers."""

    def __init__(
        self,
        generator: Generator,
        tokenizer: ChatTokenizer,
        model: dict[str, Any],
        metrics: GatewayMetrics,
        random_bits: Callable[[int], int],
        unix_time_s: Callable[[], float],
        vision: Vision | None,
    ) -> None:
        self._vision = vision
        self._generator = generator
        self._tokenizer = tokenizer
        self._model = model
        self._metrics = metrics
        self._random_bits = random_bits
        self._unix_time_s = unix_time_s

    async def complete_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        arrived_s = self._metrics.clock_s()
        completion = parse_completion_request(await _read_body(request))
        self._check_model(completion.model)
        # A long prompt takes the tokenizer a while, and other answers must go on meanwhile.
        rows = 0 if self._vision is None else self._vision.rows
        prompt = await asyncio.to_thread(self._tokenizer.encode_chat, completion.messages, rows)
        max_tokens = _choose_max_tokens(completion, len(prompt), self._generator.context_length)
        wire = CompletionFormat(
            id=f"chatcmpl-{self._random_bits(96):024x}",
            created=int(self._unix_time_s()),
            model=completion.model,
            include_usage=completion.include_usage,
        )
        sampling = completion.sampling(self._random_bits(64))
        embedded = await self._embed(completion.pictures, prompt)
        send = _send_stream if completion.stream else _send_whole
        async with (
            aclosing(self._generator.generate(prompt, max_tokens, sampling, embedded)) as tokens,
            aclosing(stream_answer(tokens, self._tokenizer, completion.stop, max_tokens)) as pieces,
        ):
            with self._metrics.watch_generation(arrived_s, len(prompt)) as watch:
                return await send(request, wire, pieces, watch, len(prompt))

    async def _embed(self, pictures: Sequence[str], prompt: Sequence[int]) -> list[EmbeddedRows]:
        """Rows for every picture, where the prompt keeps room for them."""
        if not pictures:
            return []
        if self._vision is None:
            message = "this gateway has no encoder for pictures; start it with --encoder"
            raise ApiError(400, message, param="messages", code="unsupported_parameter")
        if len(pictures) > MAX_PICTURES:
            raise ApiError(400, f"at most {MAX_PICTURES} pictures are taken, not {len(pictures)}", param="messages")
        places = find_pictures(prompt, self._vision.rows)
        rows = await asyncio.gather(*(self._vision.encode(url) for url in pictures))
        return [EmbeddedRows(place, values) for place, values in zip(places, rows, strict=True)]

    async def list_models(self, _: web.Request) -> web.Response:
        """GET /v1/models."""
        return _json({"object": "list", "data": [self._model]})

    async def show_model(self, request: web.Request) -> web.Response:
        """GET /v1/models/{model}; names may hold slashes."""
        self._check_model(request.match_info["model"])
        return _json(self._model)

    async def show_health(self, _: web.Request) -> web.Response:
        """GET /health: the gateway answers. Whether a plan is committed shows in the answers themselves."""
        return _json({"status": "ok", "model": self._model["id"]})

    async def show_metrics(self, _: web.Request) -> web.Response:
        """GET /metrics, in Prometheus' text format."""
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _check_model(self, name: str) -> None:
        if name != self._model["id"]:
            message = f"the model {name!r} does not exist here; this gateway serves {self._model['id']!r}"
            raise ApiError(404, message, param="model", code="model_not_found")


class _AnswersUnderWay:
    """Ends answers in an orderly way before aiohttp takes their connections.

    aiohttp cancels a handler twice then, and the second time would hit a generator that is busy leaving the nodes.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[Any]] = set()

    def follow(self, handler: Handler) -> Handler:
        """The same handler, known here while it runs."""

        async def followed(request: web.Request) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await handler(request)

        return followed

    async def end(self, app: web.Application) -> None:
        """Waits for the answers, then cancels what is left and waits again."""
        if not self._tasks:
            return
        _done, late = await asyncio.wait(set(self._tasks), timeout=self._grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self._grace_s)


async def _send_whole(
    _: web.Request,
    wire: CompletionFormat,
    pieces: AsyncGenerator[AnswerPiece, None],
    watch: GenerationWatch,
    prompt_tokens: int,
) -> web.Response:
    """Waits for the end of the answer and sends it in one document."""
    texts = []
    async for piece in pieces:
        watch.note(piece)
        texts.append(piece.text)
    usage = Usage(prompt_tokens, piece.tokens)
    return _json(wire.answer("".join(texts), piece.finish_reason, usage, piece.epoch))


async def _send_stream(
    request: web.Request,
    wire: CompletionFormat,
    pieces: AsyncGenerator[AnswerPiece, None],
    watch: GenerationWatch,
    prompt_tokens: int,
) -> web.StreamResponse:
    """Sends each piece of text as it comes.

    The first piece is awaited before anything is sent, so that a generation that cannot start has an HTTP status.
    """
    piece = await anext(pieces)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    await response.write(wire.first_chunk(piece.epoch))
    while True:
        watch.note(piece)
        if piece.text:
            await response.write(wire.text_chunk(piece.text, piece.epoch))
        if piece.finish_reason is not None:
            break
        try:
            piece = await anext(pieces)
        except Exception as error:  # noqa: BLE001 - the status is sent, so an event is the only place left to say it
            watch.note_failure()
            await response.write(sse_event(_describe_failure(error).body()))
            await response.write_eof()
            return response
    end = wire.last_chunk(piece.finish_reason, piece.epoch)
    if wire.include_usage:
        end += wire.usage_chunk(Usage(prompt_tokens, piece.tokens), piece.epoch)
    await response.write(end + SSE_DONE)
    await response.write_eof()
    return response


def _choose_max_tokens(completion: CompletionRequest, prompt_tokens: int, context_length: int) -> int:
    """What was asked for, or what the prompt leaves of the context; raises ApiError where they do not fit."""
    room = context_length - prompt_tokens
    code = "context_length_exceeded"
    if room < 1:
        message = f"the messages take {prompt_tokens} tokens; the model's context of {context_length} leaves no answer"
        raise ApiError(400, message, param="messages", code=code)
    if completion.max_tokens is None:
        return room
    if completion.max_tokens > room:
        message = (
            f"the messages take {prompt_tokens} tokens and the answer was given {completion.max_tokens}, "
            f"but the model's context holds {context_length} together"
        )
        raise ApiError(400, message, param=completion.max_tokens_param, code=code)
    return completion.max_tokens


async def _read_body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.RequestPayloadError as error:
        raise ApiError(400, f"the request body cannot be read: {error}") from error


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(document)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def _describe_failure(error: Exception) -> ApiError:
    """The one table from errors to what a client is told; one that is in no row is a bug, logged and answered 500."""
    text = str(error)
    match error:
        case ApiError():
            return error
        case ChatTemplateError():
            return ApiError(400, text, param="messages", code="chat_template_error")
        case PictureError():
            return ApiError(400, text, param="messages", code="invalid_image")
        case ContextExceeded():
            return ApiError(400, text, param="messages", code="context_length_exceeded")
        case NoPlan():
            return ApiError(503, text, kind="server_error", code="no_plan", headers={"Retry-After": "5"})
        case NotAdmitted():
            return ApiError(429, text, kind="rate_limit_error", code="not_admitted", headers={"Retry-After": "5"})
        case Overloaded():
            return ApiError(429, text, kind="rate_limit_error", code="overloaded", headers={"Retry-After": "1"})
        case GenerationFailed():
            return ApiError(502, text, kind="server_error", code="generation_failed")
        case GenerationError():
            return ApiError(500, text, kind="server_error", code="generation_error")
        case _:
            _log.error("a request failed in a way nobody foresaw", exc_info=error)
            return ApiError(500, "internal error; the gateway's log has the details", kind="server_error")


def _describe_http_error(request: web.Request, error: web.HTTPException) -> ApiError:
    """What aiohttp itself refuses: unknown paths, wrong methods, bodies past the bound."""
    match error:
        case web.HTTPNotFound():
            return ApiError(404, f"unknown URL: {request.method} {request.path}", code="unknown_url")
        case web.HTTPMethodNotAllowed():
            message = f"{request.path} does not take {request.method}"
            return ApiError(405, message, code="method_not_allowed", headers={"Allow": error.headers["Allow"]})
        case web.HTTPRequestEntityTooLarge():
            return ApiError(413, error.text or error.reason, code="request_too_large")
        case _:
            return ApiError(error.status, error.text or error.reason)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        failure = _describe_http_error(request, error)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - `_describe_failure` logs what it does not know
        failure = _describe_failure(error)
    return _json(failure.body(), failure.status, failure.headers)


def _count_requests(metrics: GatewayMetrics) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = _CLIENT_CLOSED_REQUEST
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            resource = request.match_info.route.resource
            metrics.requests.labels("unmatched" if resource is None else resource.canonical, str(status)).inc()

    return count
