"""What the demo knows while it runs; the scenario writes it, the view draws it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from mec_platform.rpc.v1 import control_plane_pb2, inference_pb2

RATE_WINDOW_S = 1.0


@dataclass(slots=True)
class Board:
    """One answer in the making and the world around it. Times are seconds since the demo began."""

    question: str
    started: float = field(default_factory=time.perf_counter)
    headline: str = "starting"
    answer: list[tuple[str, int]] = field(default_factory=list)  # (text, epoch), runs of one epoch
    tokens: list[int] = field(default_factory=list)
    snapshot: control_plane_pb2.Snapshot | None = None
    events: list[tuple[float, str, str]] = field(default_factory=list)  # (at, kind, text)
    reconfigurations: list[control_plane_pb2.Reconfiguration] = field(default_factory=list)
    happened_at: int = 0  # tokens when the last event was over
    kept: int = 0  # decisions in a row to keep the plan
    arrivals: deque[float] = field(default_factory=deque)
    awaited: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        """Seconds since the demo began."""
        return time.perf_counter() - self.started

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the last second."""
        now = self.now_s
        while self.arrivals and now - self.arrivals[0] > RATE_WINDOW_S:
            self.arrivals.popleft()
        return len(self.arrivals) / RATE_WINDOW_S

    async def reach(self, count: int) -> None:
        """Returns when the answer has that many tokens."""
        reached = asyncio.Event()
        self.awaited.append((count, reached))
        if len(self.tokens) < count:
            await reached.wait()

    def note(self, kind: str, text: str) -> None:
        """Adds a line to the story; kinds: step, decision, done, trouble."""
        self.events.append((self.now_s, kind, text))

    def add_token(self, event: inference_pb2.GenerateEvent) -> None:
        """Takes one token of the answer."""
        self.tokens.append(event.token)
        self.arrivals.append(self.now_s)
        for count, reached in self.awaited:
            if len(self.tokens) >= count:
                reached.set()
        if self.answer and self.answer[-1][1] == event.epoch:
            self.answer[-1] = (self.answer[-1][0] + event.text, event.epoch)
        else:
            self.answer.append((event.text, event.epoch))
