"""Clients of a soak: each visits the gateway over and over, reads, cancels or vanishes, and judges what it was told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from random import Random

import aiohttp
import grpc.aio

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.rpc.v1 import inference_pb2
from tests.integration.soak.visits import (
    QUESTIONS,
    Manner,
    Question,
    Reference,
    Visit,
    check_text,
    check_tokens,
    draw_visit,
)

ANSWER_DEADLINE_S = 120.0
"""Far above what an answer takes on a busy machine with everything that may go wrong in it: a hang."""


def generate_request(question: Question) -> inference_pb2.GenerateRequest:
    """A question for the gateway's gRPC service."""
    message = inference_pb2.ChatMessage(role="user", content=question.text)
    return inference_pb2.GenerateRequest(
        messages=[message], max_tokens=question.max_tokens, temperature=question.temperature, seed=question.seed
    )


class Clients:
    """So many clients at once. `violations` are what they were told and must not have been; `ended` counts visits."""

    def __init__(self, cluster: LocalCluster, count: int, seed: int) -> None:
        self._cluster = cluster
        self._randoms = [Random(f"{seed} client {number}") for number in range(count)]
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._references: Sequence[Reference] = ()
        self.violations: list[str] = []
        self.ended: Counter[str] = Counter()

    async def learn(self) -> None:
        """Reads every answer once, undisturbed."""
        self._references = [await self._read(question) for question in QUESTIONS]

    def begin(self) -> None:
        """From now on they visit."""
        self._closing = False
        self._tasks = [asyncio.ensure_future(self._visit_again(random)) for random in self._randoms]

    async def end(self) -> None:
        """Ends with the visits under way; each of them has its deadline."""
        self._closing = True
        await asyncio.gather(*self._tasks)

    async def drop(self) -> None:
        """Ends at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _visit_again(self, random: Random) -> None:
        while not self._closing:
            visit = draw_visit(random)
            await asyncio.sleep(visit.think_s)
            try:
                async with asyncio.timeout(ANSWER_DEADLINE_S):
                    wrong = await self._visit(visit)
            except TimeoutError:
                wrong = f"no end within {ANSWER_DEADLINE_S:g} s"
            except grpc.aio.AioRpcError as error:
                wrong = f"{error.code()}: {error.details()}"
            except aiohttp.ClientError as error:
                wrong = f"{type(error).__name__}: {error}"
            self.ended[visit.manner.name.lower()] += 1
            if wrong is not None:
                self.violations.append(f"{visit}: {wrong}")

    async def _visit(self, visit: Visit) -> str | None:
        question, reference = QUESTIONS[visit.question], self._references[visit.question]
        if visit.manner is Manner.VANISHES:
            return check_text(await self._vanish(question, visit.after_tokens), reference)
        tokens: list[int] = []
        call = self._cluster.inference.Generate(generate_request(question))
        async for event in call:
            tokens.append(event.token)
            if len(tokens) == visit.after_tokens:
                if visit.manner is Manner.CANCELS:
                    call.cancel()
                    return check_tokens(tokens, reference, ended=False)
                if visit.manner is Manner.LINGERS:
                    await asyncio.sleep(visit.linger_s)
        return check_tokens(tokens, reference, ended=True)

    async def _read(self, question: Question) -> Reference:
        tokens, text = [], ""
        async for event in self._cluster.inference.Generate(generate_request(question)):
            tokens.append(event.token)
            text += event.text
        return Reference(tuple(tokens), text)

    async def _vanish(self, question: Question, after_pieces: int) -> str:
        """Streams over the OpenAI API and breaks the connection, as the kernel does for a client that is killed."""
        text = ""
        body = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": question.text}],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
            "stream": True,
        }
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client,
            client.post(f"{self._cluster.openai_url}/chat/completions", json=body) as answer,
        ):
            answer.raise_for_status()
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                piece = json.loads(line.removeprefix(b"data: "))
                if "error" in piece:
                    raise aiohttp.ClientError(piece["error"])
                text += "".join(choice["delta"].get("content") or "" for choice in piece["choices"])
                after_pieces -= 1
                if after_pieces == 0 and answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()
                    break
        return text
