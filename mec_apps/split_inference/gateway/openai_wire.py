"""The OpenAI chat completions wire format: what a request may say, and the shapes of answers, chunks and errors.

`http_api` serves it; the official clients are its counterpart. No network, no clock and no tokenizer in here. A field
that nobody knows is ignored, as OpenAI does, but one that would change the answer and cannot be honoured is refused.

    ApiError    any refusal, with its HTTP status and the members of OpenAI's error object
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from mec_apps.split_inference.gateway.chat import ChatMessage
from mec_apps.split_inference.generation import SamplingSettings

MAX_STOP_STRINGS: Final = 4
# Looking for a stop string costs its length squared for each token, so it is bounded.
MAX_STOP_CHARS: Final = 256

_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

# The end of msgspec's messages: where in the document the wrong value is.
_ERROR_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING_FIELD: Final = re.compile(r"missing required field `([^`]*)`")


class ApiError(Exception):
    """A refusal as the client sees it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Takes the HTTP status and extra headers, and what OpenAI's error object holds (`kind` is its `type`)."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self._members = {"message": message, "type": kind, "param": param, "code": code}

    def body(self) -> dict[str, Any]:
        """The JSON document of the refusal."""
        return {"error": self._members}


class _ImageUrl(msgspec.Struct):
    url: str


class _ContentPart(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_ContentPart] | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    audio: Any = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str


_TokenLimit = Annotated[int, msgspec.Meta(ge=1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class _Body(msgspec.Struct):
    """The fields that are read; `null` means absent everywhere, as in OpenAI's own schema."""

    model: str
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: _TokenLimit | None = None
    max_completion_tokens: _TokenLimit | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: _ResponseFormat | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None


_DECODER: Final = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request. `max_tokens` None means what the context leaves; `seed` None means any.

    `pictures` are data URLs in the order of their places in the messages.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    pictures: tuple[str, ...]
    stream: bool
    include_usage: bool
    stop: tuple[str, ...]
    max_tokens: int | None
    max_tokens_param: str
    temperature: float
    top_p: float
    seed: int | None

    def sampling(self, random_seed: int) -> SamplingSettings:
        """The settings to draw with. Nothing but the likeliest token is left at `top_p` 0, which is to say greedy."""
        seed = random_seed if self.seed is None else self.seed % 2**64
        if self.top_p == 0:
            return SamplingSettings(temperature=0.0, seed=seed)
        return SamplingSettings(temperature=self.temperature, top_p=self.top_p, seed=seed)


def parse_completion_request(body: bytes) -> CompletionRequest:
    """Reads and checks a request body; raises ApiError with status 400."""
    raw = _decode(body)
    _check_supported(raw)
    limit_param = "max_tokens" if raw.max_completion_tokens is None else "max_completion_tokens"
    return CompletionRequest(
        model=raw.model,
        pictures=tuple(_read_pictures(raw.messages)),
        messages=tuple(_read_message(message, f"messages[{index}]") for index, message in enumerate(raw.messages)),
        stream=bool(raw.stream),
        include_usage=bool(raw.stream_options and raw.stream_options.include_usage),
        stop=_read_stop(raw.stop),
        max_tokens=raw.max_tokens if raw.max_completion_tokens is None else raw.max_completion_tokens,
        max_tokens_param=limit_param,
        temperature=1.0 if raw.temperature is None else raw.temperature,
        top_p=1.0 if raw.top_p is None else raw.top_p,
        seed=raw.seed,
    )


def _decode(body: bytes) -> _Body:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        path, missing = _ERROR_PATH.search(text), _MISSING_FIELD.search(text)
        names = [match.group(1) for match in (path, missing) if match]
        raise ApiError(400, _ERROR_PATH.sub("", text), param=".".join(names) or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ApiError(400, "the request body is nested too deeply") from error


def _check_supported(raw: _Body) -> None:
    """Refuses what would change the answer and cannot be honoured; neutral values of the same fields are fine."""
    if raw.n not in (None, 1):
        raise ApiError(400, "only one answer per request is supported: leave `n` out or set it to 1", param="n")
    if raw.stream_options is not None and not raw.stream:
        raise ApiError(400, "`stream_options` is allowed only when `stream` is true", param="stream_options")
    asked_for = {
        "presence_penalty": bool(raw.presence_penalty),
        "frequency_penalty": bool(raw.frequency_penalty),
        "logit_bias": bool(raw.logit_bias),
        "logprobs": bool(raw.logprobs),
        "top_logprobs": bool(raw.top_logprobs),
        "tools": bool(raw.tools),
        "tool_choice": raw.tool_choice not in (None, "none", "auto"),
        "functions": bool(raw.functions),
        "function_call": raw.function_call not in (None, "none", "auto"),
        "response_format": raw.response_format is not None and raw.response_format.type != "text",
        "modalities": raw.modalities is not None and raw.modalities != ["text"],
        "audio": raw.audio is not None,
        "web_search_options": raw.web_search_options is not None,
    }
    for name, asked in asked_for.items():
        if asked:
            raise _unsupported(f"`{name}` is not supported by this server", name)


def _unsupported(message: str, param: str) -> ApiError:
    return ApiError(400, message, param=param, code="unsupported_parameter")


def _read_message(message: _Message, where: str) -> ChatMessage:
    role = _ROLES.get(message.role)
    if role is None:
        raise _unsupported(f"role must be one of {', '.join(_ROLES)}; other roles are not supported", f"{where}.role")
    for name in ("tool_calls", "function_call", "audio"):
        if getattr(message, name):
            raise _unsupported(f"`{name}` in messages is not supported", f"{where}.{name}")
    if message.content is None:
        if role == "assistant":
            return ChatMessage(role, "")
        raise ApiError(400, f"a {message.role} message needs content", param=f"{where}.content")
    if isinstance(message.content, str):
        return ChatMessage(role, message.content)
    return _join_parts(role, message.content, f"{where}.content")


def _join_parts(role: str, parts: list[_ContentPart], where: str) -> ChatMessage:
    """One text, and where in it pictures stand."""
    text, places = "", []
    for part, piece in zip(parts, _read_parts(parts, where), strict=True):
        if part.type == "image_url":
            places.append(len(text))
        text += piece
    return ChatMessage(role, text, tuple(places))


def _read_pictures(messages: list[_Message]) -> Iterator[str]:
    for message in messages:
        for part in message.content if isinstance(message.content, list) else ():
            if part.image_url is not None:
                yield part.image_url.url


def _read_parts(parts: list[_ContentPart], where: str) -> list[str]:
    texts = []
    for index, part in enumerate(parts):
        if part.type == "image_url":
            if part.image_url is None:
                raise ApiError(400, "an image_url part needs `image_url`", param=f"{where}[{index}].image_url")
            texts.append("")
            continue
        if part.type != "text":
            raise _unsupported("content parts must be of type text or image_url", f"{where}[{index}].type")
        if part.image_url is not None:
            raise ApiError(400, "a text part has no `image_url`", param=f"{where}[{index}].image_url")
        if part.text is None:
            raise ApiError(400, "a text part needs `text`", param=f"{where}[{index}].text")
        texts.append(part.text)
    return texts


def _read_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    texts = [stop] if isinstance(stop, str) else stop
    if len(texts) > MAX_STOP_STRINGS:
        raise ApiError(400, f"`stop` takes at most {MAX_STOP_STRINGS} strings", param="stop")
    if not all(0 < len(text) <= MAX_STOP_CHARS for text in texts):
        raise ApiError(400, f"each stop string must be 1 to {MAX_STOP_CHARS} characters long", param="stop")
    return tuple(texts)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer; the token that ended it counts."""

    prompt_tokens: int
    completion_tokens: int

    def as_wire(self) -> dict[str, int]:
        """OpenAI's usage object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class CompletionFormat:
    """Writes the documents of one answer, which share an id, a time and a model.

    `system_fingerprint` names the epoch of the split plan that computed: the back end's configuration, as OpenAI
    describes the field, and the way a client sees that its answer moved between nodes.
    """

    id: str
    created: int
    model: str
    include_usage: bool = field(default=False, kw_only=True)

    def answer(self, text: str, finish_reason: str | None, usage: Usage, epoch: int) -> dict[str, Any]:
        """The whole answer at once."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion", epoch), "choices": [choice], "usage": usage.as_wire()}

    def first_chunk(self, epoch: int) -> bytes:
        """Says who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None, epoch)

    def text_chunk(self, text: str, epoch: int) -> bytes:
        """More text."""
        return self._chunk({"content": text}, None, epoch)

    def last_chunk(self, finish_reason: str, epoch: int) -> bytes:
        """Why the answer ended."""
        return self._chunk({}, finish_reason, epoch)

    def usage_chunk(self, usage: Usage, epoch: int) -> bytes:
        """Token counts, after everything else."""
        return sse_event({**self._head("chat.completion.chunk", epoch), "choices": [], "usage": usage.as_wire()})

    def _chunk(self, delta: dict[str, str], finish_reason: str | None, epoch: int) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        document = {**self._head("chat.completion.chunk", epoch), "choices": [choice]}
        if self.include_usage:
            document["usage"] = None
        return sse_event(document)

    def _head(self, kind: str, epoch: int) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"plan-epoch-{epoch}",
        }


SSE_DONE: Final = b"data: [DONE]\n\n"


def sse_event(document: dict[str, Any]) -> bytes:
    """One server-sent event; JSON has no line breaks, so one `data` line holds it."""
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def model_object(model_id: str, created: int) -> dict[str, Any]:
    """OpenAI's model object; `created` in Unix seconds."""
    return {"id": model_id, "object": "model", "created": created, "owned_by": "mec-platform"}
