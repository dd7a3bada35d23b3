"""What a testbed is asked for: answers without pause on some streams, or requests that come when a trace says; and what came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc.aio

from mec_apps.cli.testbed.questions import Questions
from mec_platform.background import BackgroundTasks
from mec_platform.rpc.v1 import inference_pb2, inference_pb2_grpc
from mec_platform.simulation.requests import Request

_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Streams:
    """`count` answers at any time: as soon as one has ended the next one is asked for."""

    count: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests at their own times; beyond `most` at a time they wait, in the order in which they came."""

    requests: Sequence[Request]
    most: int


Demand = Streams | Arrivals


@dataclass(slots=True)
class Asked:
    """One request and what came of it; times are seconds since the run began, `came_s` those of its tokens.

    `prompt_tokens` is what the question really has, `wanted_tokens` the most that its answer may have: a model may end
    earlier. `failure` says why an answer broke off.
    """

    at_s: float
    prompt_tokens: int
    wanted_tokens: int
    came_s: list[float] = field(default_factory=list)
    done_s: float | None = None
    failure: str = ""


class Asker:
    """Asks one gateway; `asked` grows with every request. `began` is the run's beginning, of `time.perf_counter`."""

    def __init__(self, inference: inference_pb2_grpc.InferenceAsyncStub, questions: Questions, began: float) -> None:
        self._inference = inference
        self._questions = questions
        self._began = began
        self.asked: list[Asked] = []
        self._answering: list[asyncio.Task[None]] = []
        self._closed = False

    async def ask(self, prompt_tokens: int, answer_tokens: int, at_s: float | None = None) -> Asked:
        """One question and its answer, to whatever end; `at_s` is when it came, if it had to wait since then."""
        text, tokens = self._questions.of(prompt_tokens)
        asked = Asked(self._now_s() if at_s is None else at_s, tokens, answer_tokens)
        self.asked.append(asked)
        messages = [inference_pb2.ChatMessage(role="user", content=text)]
        try:
            async for _ in self._inference.Generate(
                inference_pb2.GenerateRequest(messages=messages, max_tokens=answer_tokens)
            ):
                asked.came_s.append(self._now_s())
            asked.done_s = self._now_s()
        except grpc.aio.AioRpcError as error:
            asked.failure = error.details() or error.code().name
        return asked

    async def serve(self, demand: Demand, tasks: BackgroundTasks) -> None:
        """Asks what the demand says until it is cancelled or nothing more comes; answers go on in `tasks`."""
        match demand:
            case Streams():
                for number in range(demand.count):
                    self._answering.append(tasks.start(f"stream {number}", self._stream(demand)))
            case Arrivals():
                places = asyncio.Semaphore(demand.most)
                for request in demand.requests:
                    await asyncio.sleep(max(request.at_s - self._now_s(), 0.0))
                    self._answering.append(tasks.start(f"request {request.number}", self._in_turn(request, places)))

    async def drain(self, most_s: float) -> None:
        """Asks nothing more, and waits for the answers that are under way, so long at most."""
        self._closed = True
        if self._answering:
            await asyncio.wait(self._answering, timeout=most_s)

    async def _stream(self, demand: Streams) -> None:
        while not self._closed:
            asked = await self.ask(demand.prompt_tokens, demand.answer_tokens)
            if asked.failure:
                await asyncio.sleep(_RETRY_S)

    async def _in_turn(self, request: Request, places: asyncio.Semaphore) -> None:
        async with places:
            await self.ask(request.prompt_tokens, request.answer_tokens, request.at_s)

    def _now_s(self) -> float:
        return time.perf_counter() - self._began
