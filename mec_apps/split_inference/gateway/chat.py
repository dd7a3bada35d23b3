"""Conversations to token ids and token ids back to text.

`http_api` and the gRPC service call it before and after a generation; it knows no network and no model beyond its
tokenizer. Whatever a user writes stays text: a control token such as `<|im_end|>` can come from the chat template only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from mec_platform.domain.errors import MendableError

# What a decoder writes for bytes that are not (or not yet) a character.
_REPLACEMENT = "\ufffd"

# A character takes at most four bytes, hence tokens, and only decoders that spell bytes out look at more than one
# character at a time. Sixteen undecided tokens are bytes that will never become text.
_MAX_UNDECIDED_TOKENS = 16

# Private-use characters around the number of a protected piece of text.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PROTECTED = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class ChatTemplateError(MendableError, ValueError):
    """The chat template is broken, or refuses this conversation (its own words are in the message)."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    content: str


class ChatTokenizer:
    """The tokenizer and chat template of one model.

    `stop_tokens` end an answer; `bos_token` and `eos_token` are what a template may ask for by those names.
    """

    def __init__(
        self,
        path: Path,
        chat_template: str,
        stop_tokens: Collection[int],
        bos_token: str = "",
        eos_token: str = "",
    ) -> None:
        """Reads `path`, a tokenizer.json, and compiles the template; a broken one is a ChatTemplateError."""
        self.stop_tokens = frozenset(stop_tokens)
        self._tokenizer = _load_tokenizer(path)
        self._text_tokenizer = _load_tokenizer(path)
        self._text_tokenizer.encode_special_tokens = True
        self._template = _compile_template(chat_template)
        self._names = {"bos_token": bos_token, "eos_token": eos_token}
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token for token, entry in added.items() if entry.special)
        literals = [entry.content for entry in added.values() if entry.special] + [_OPEN, _CLOSE]
        # Longest first: where one control token begins another, the longer one is what the tokenizer would see.
        self._control = re.compile("|".join(re.escape(text) for text in sorted(literals, key=len, reverse=True)))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; nothing in it becomes a control token."""
        ids: list[int] = self._text_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation, up to where the model's answer begins.

        Control tokens that a message spells out are swapped for markers while the template runs, so that the template
        still sees (and may trim or test) the rest of the text, and are encoded as the plain text they are.
        """
        protected: list[str] = []

        def protect(text: str) -> str:
            def mark(match: re.Match[str]) -> str:
                protected.append(match.group())
                return f"{_OPEN}{len(protected) - 1}{_CLOSE}"

            return self._control.sub(mark, text)

        turns = [{"role": protect(message.role), "content": protect(message.content)} for message in messages]
        ids: list[int] = []
        for index, piece in enumerate(_PROTECTED.split(self._render(turns))):
            if index % 2:
                ids += self.encode(protected[int(piece)])
            else:
                ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def open_text(self) -> TextStream:
        """A fresh stream for the tokens of one answer."""
        return TextStream(self._tokenizer, self._special_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a whole answer at once, control tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=True, raise_exception=_refuse_conversation, **self._names
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ChatTemplateError(f"the model's chat template cannot format these messages: {error}") from error


class TextStream:
    """Turns the tokens of one answer into text as they come, a whole character at a time.

    Only a short tail is decoded again for each token: the ones whose text was last given out, because decoders look at
    the neighbour before a word, and those whose bytes do not yet make a character.
    """

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        """Takes the tokenizer, and the ids that are not part of the text."""
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._tail: list[int] = []
        self._context = 0  # how many of the tail's tokens are there for their neighbours only
        self._given_chars = 0  # how much of the tail's text was given out

    def push(self, token: int) -> str:
        """The text that `token` completes; empty for a control token and inside a character."""
        if token in self._special_ids or self._tokenizer.id_to_token(token) is None:
            return ""
        self._tail.append(token)
        text = self._decode(self._tail)
        whole = text.rstrip(_REPLACEMENT)
        if len(whole) == len(text):
            return self._move_on(text)
        if len(self._tail) - self._context > _MAX_UNDECIDED_TOKENS:
            return self._give_up_bytes(text)
        return self._give(whole)

    def finish(self) -> str:
        """What is left at the end of the answer: replacement characters where it broke off inside a character."""
        rest = self._give(self._decode(self._tail))
        self._tail, self._context, self._given_chars = [], 0, 0
        return rest

    def _give(self, text: str) -> str:
        new = text[self._given_chars :]
        self._given_chars += len(new)
        return new

    def _move_on(self, text: str) -> str:
        new = self._give(text)
        self._tail = self._tail[self._context :]
        self._context = len(self._tail)
        self._given_chars = len(self._decode(self._tail))
        return new

    def _give_up_bytes(self, text: str) -> str:
        """Gives out bytes that are no text, up to the last token boundary that is no character's inside."""
        for cut in range(len(self._tail) - 1, self._context, -1):
            head, rest = self._decode(self._tail[:cut]), self._tail[cut:]
            if head + self._decode(rest) == text:
                new = self._give(head)
                self._tail, self._context, self._given_chars = rest, 0, 0
                return new
        return self.finish()

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def _load_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _compile_template(source: str) -> jinja2.Template:
    """Compiles with the whitespace rules that published chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ChatTemplateError(f"the model's chat template is broken: {error}") from error


def _refuse_conversation(message: str) -> NoReturn:
    """`raise_exception` of a template."""
    raise jinja2.TemplateError(message)
