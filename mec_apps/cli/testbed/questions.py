"""Questions that are a given number of tokens long, so that a testbed can ask what a trace of requests says."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

from mec_apps.split_inference.gateway.chat import ChatMessage, ChatTokenizer
from mec_apps.split_inference.model_package import ModelPackage

QUESTION = "Explain step by step how to plan, plant and care for a vegetable garden through all four seasons."
_NOTES = """
the beds lie in the sun and the soil is dark after rain so that roots grow deep while the wind from the sea is cold in
spring and the old wall keeps the heat of the day for the plants that stand near it at night
"""


class Questions:
    """Of one compiled model. Longer ones give notes about a garden first; the question itself is always the same."""

    def __init__(self, package: Path) -> None:
        """Raises PackageError or ChatTemplateError where the folder holds no usable package."""
        opened = ModelPackage.open(package)
        spec = opened.spec
        names = {token: name for name, token in opened.special_tokens.items()}
        self._tokenizer = ChatTokenizer(
            opened.tokenizer_path,
            opened.chat_template,
            spec.stop_ids,
            bos_token="" if spec.bos_id is None else names.get(spec.bos_id, ""),
            eos_token="" if spec.eos_id is None else names.get(spec.eos_id, ""),
        )
        self._known: dict[int, tuple[str, int]] = {}

    def of(self, prompt_tokens: int) -> tuple[str, int]:
        """A question of about so many tokens, the model's template included, and how many it really has.

        The bare question is the shortest; where words do not add up exactly it is a token or two shorter.
        """
        if prompt_tokens not in self._known:
            self._known[prompt_tokens] = self._longest_within(prompt_tokens)
        return self._known[prompt_tokens]

    def _longest_within(self, prompt_tokens: int) -> tuple[str, int]:
        low, high = 0, max(prompt_tokens, 1)  # a word is a token at least
        while low < high:
            middle = (low + high + 1) // 2
            if self._count(_with_notes(middle)) <= prompt_tokens:
                low = middle
            else:
                high = middle - 1
        text = _with_notes(low)
        return text, self._count(text)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode_chat([ChatMessage("user", text)]))


def _with_notes(words: int) -> str:
    if words == 0:
        return QUESTION
    return f"My notes: {' '.join(islice(cycle(_NOTES.split()), words))}. {QUESTION}"
