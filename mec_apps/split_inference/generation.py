"""What a generation is, to everything that asks for one: the request, its tokens, and the ways it can fail.

`sessions` implements `Generator`; the OpenAI API and the gRPC service call it.

    GenerationError
    +-- ContextExceeded     the prompt and the answer do not fit the model's context
    +-- NoPlan              no committed plan yet, or too few edge nodes are left to hold the model
    +-- Overloaded          session limit or KV pages exhausted
    |   +-- NotAdmitted     the platform limits sessions for now
    +-- GenerationFailed    a stage refused the work, or nothing came back in time
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class GenerationError(Exception):
    """A generation that could not start or could not go on; the message says why and what to do."""


class ContextExceeded(GenerationError):
    """The prompt and the answer do not fit the context."""


class NoPlan(GenerationError):
    """There is no plan to run on."""


class Overloaded(GenerationError):
    """No room for another session."""


class NotAdmitted(Overloaded):
    """The platform has gateways turn new sessions away; those that run go on."""


class GenerationFailed(GenerationError):
    """A stage refused the work or did not answer in time."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Temperature 0 is greedy. Draws depend on `seed` and the position alone, so a replayed token is drawn again alike."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token, the position it takes in the sequence, and the epoch of the plan that made it.

    `round_trip_s` is the time from the frame's leaving to the token's arrival, `compute_s` what the stages spent of it.
    """

    token: int
    position: int
    epoch: int
    round_trip_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EmbeddedRows:
    """float32 rows [n, hidden] that take the place of the prompt's tokens from `position` on."""

    position: int
    values: npt.NDArray[np.float32]


class Generator(Protocol):
    """Turns prompts into tokens."""

    @property
    def context_length(self) -> int:
        """Positions that a prompt and its answer may take together."""

    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingSettings,
        rows: Sequence[EmbeddedRows] = (),
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Yields at most `max_tokens` tokens, an end-of-text token included; the caller stops by closing the generator.

        Where `rows` stand, the prompt's tokens are not looked at.

        Closing it (or cancelling the task that iterates) ends the session on every node.
        """
