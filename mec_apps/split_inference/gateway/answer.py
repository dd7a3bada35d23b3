"""Follows one generation as text: stop tokens, stop strings, the reason it ended.

Between `generation` (tokens) and the APIs (wire formats). It keeps no clock and no network of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mec_apps.split_inference.gateway.chat import ChatTokenizer
from mec_apps.split_inference.generation import GeneratedToken, GenerationFailed

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """What one token added: maybe no text (inside a character, or held back), and on the last piece why it ended."""

    text: str
    tokens: int  # so far, this one included
    epoch: int
    finish_reason: FinishReason | None = None


class StopStrings:
    """Cuts text before the first of some strings, holding back what may still turn into one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Takes the strings, none of them empty; none at all lets everything through."""
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text so far that is certain not to belong to a stop string."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._undecided())

    def finish(self) -> str:
        """The rest, at the end of an answer that met no stop string."""
        return "" if self.stopped else self._release(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text


async def stream_answer(
    tokens: AsyncIterator[GeneratedToken], tokenizer: ChatTokenizer, stops: Sequence[str], max_tokens: int
) -> AsyncGenerator[AnswerPiece, None]:
    """Yields a piece for every token and ends with the one that has a finish reason. The caller closes `tokens`.

    A generation that ends by itself before a stop token has used up its room: its reason is "length". One that ends
    before its first token is a GenerationFailed.
    """
    text, strings = tokenizer.open_text(), StopStrings(stops)
    count, epoch, rest = 0, 0, ""
    async for generated in tokens:
        count, epoch = count + 1, generated.epoch
        is_stop_token = generated.token in tokenizer.stop_tokens
        new = strings.push(text.finish() if is_stop_token else text.push(generated.token))
        if is_stop_token or strings.stopped:
            yield AnswerPiece(new + strings.finish(), count, epoch, "stop")
            return
        if count >= max_tokens:
            rest = new
            break
        yield AnswerPiece(new, count, epoch)
    if count == 0:
        raise GenerationFailed("the generation ended before its first token; try again")
    rest += strings.push(text.finish())
    rest += strings.finish()
    yield AnswerPiece(rest, count, epoch, "stop" if strings.stopped else "length")
