"""Who asks during a soak: questions, how clients behave, and what an answer must be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random


@dataclass(frozen=True, slots=True)
class Question:
    """`temperature` 0 is greedy."""

    text: str
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """What an undisturbed edge answers."""

    tokens: tuple[int, ...]
    text: str


_LONG = (
    "Here is a list of things that a gardener did in a year. "
    + " ".join(
        f"In week {week} the gardener planted row {week * 7 % 31} with crop number {week * 5 % 17}."
        for week in range(1, 22)
    )
    + " Say in your own words what happened."
)

QUESTIONS: tuple[Question, ...] = (
    Question("Explain step by step how to plan, plant and care for a vegetable garden through all four seasons.", 150),
    Question("Write a long story about a lighthouse and the people who live near it.", 60, temperature=0.8, seed=11),
    Question("What is an edge node?", 25),
    Question(_LONG, 100),
    Question(_LONG, 40, temperature=1.0, seed=5),
)
"""Short and long prompts, short and long answers, greedy and sampled with a seed."""


class Manner(Enum):
    """How a client behaves."""

    READS = "reads to the end"
    LINGERS = "stops reading for a while, then reads to the end"
    CANCELS = "cancels its call"
    VANISHES = "its connection breaks"


@dataclass(frozen=True, slots=True)
class Visit:
    """A question asked after `think_s`; after so many tokens the client cancels, vanishes, or lingers for `linger_s`."""

    question: int
    manner: Manner
    after_tokens: int
    linger_s: float
    think_s: float


def draw_visit(random: Random) -> Visit:
    """The next visit of a client."""
    question = random.randrange(len(QUESTIONS))
    return Visit(
        question,
        random.choices(tuple(Manner), weights=(6, 1, 2, 2))[0],
        after_tokens=random.randrange(1, QUESTIONS[question].max_tokens),
        linger_s=round(random.uniform(0.2, 2.0), 2),
        think_s=round(random.uniform(0.0, 2.0), 2),
    )


def check_tokens(tokens: Sequence[int], reference: Reference, *, ended: bool) -> str | None:
    """What is wrong with the tokens of an answer, or with the first ones of it where it has not ended."""
    expected = reference.tokens if ended else reference.tokens[: len(tokens)]
    if tuple(tokens) == expected:
        return None
    shorter = min(len(tokens), len(expected))
    at = next((at for at in range(shorter) if tokens[at] != expected[at]), shorter)
    return (
        f"{len(tokens)} tokens, {'all' if ended else 'the first'} of {len(reference.tokens)}; token {at} is "
        f"{tokens[at] if at < len(tokens) else 'missing'}, not {expected[at] if at < len(expected) else 'any'}"
    )


def check_text(text: str, reference: Reference) -> str | None:
    """What is wrong with the beginning of an answer's text."""
    if reference.text.startswith(text):
        return None
    same = next(at for at in range(len(text)) if text[at] != reference.text[at : at + 1])
    return f"from character {same} on the text is {text[same : same + 40]!r}, not {reference.text[same : same + 40]!r}"
