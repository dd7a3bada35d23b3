"""Conversations to token ids and token ids back to text.

`http_api` and the gRPC service call it before and after a generation; it knows no network and no model beyond its
tokenizer. Whatever a user writes stays text: a control token such as `<|im_end|>` can come from the chat template only.
Templates, and the sandbox that they run in, are `chat_template`'s.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

from mec_apps.split_inference.gateway.chat_template import ChatTemplate, ChatTemplateError

__all__ = ["ChatMessage", "ChatTemplateError", "ChatTokenizer", "TextStream"]

# What a decoder writes for bytes that are not (or not yet) a character.
_REPLACEMENT = "\ufffd"

# A character takes at most four bytes, hence tokens, and only decoders that spell bytes out look at more than one
# character at a time. Sixteen undecided tokens are bytes that will never become text.
_MAX_UNDECIDED_TOKENS = 16

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

# Private-use characters around the number of a protected piece of text.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PROTECTED = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


PICTURE_ROW = -1
"""Stands in a prompt for a row of a picture; no token has this id."""


def find_pictures(prompt: Sequence[int], rows: int) -> list[int]:
    """Positions at which the pictures of a prompt begin, each of so many rows."""
    places = [position for position, token in enumerate(prompt) if token == PICTURE_ROW]
    return places[::rows] if rows else []


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    content: str
    pictures: tuple[int, ...] = ()
    """Offsets in `content` in front of which a picture stands, in order."""


class ChatTokenizer:
    """The tokenizer and chat template of one model.

    `stop_tokens` end an answer: those given, and the control token that the template puts behind an answer.
    """

    def __init__(
        self,
        path: Path,
        chat_template: str,
        stop_tokens: Collection[int],
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Reads `path`, a tokenizer.json, and compiles the template; a broken one is a ChatTemplateError.

        `bos_token` and `eos_token` are what a template may ask for by those names; `now` is the date it may write.
        """
        self._template = ChatTemplate(chat_template, bos_token, eos_token, now)
        self._tokenizer = _load_tokenizer(path.read_text(encoding="utf-8"))
        added = self._tokenizer.get_added_tokens_decoder()
        special = {entry.content: token for token, entry in added.items() if entry.special and entry.content}
        self._special_ids = frozenset(special.values())
        # Longest first: where one control token begins another, the longer one is what the tokenizer would see.
        literals = sorted([*special, _OPEN, _CLOSE], key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(text) for text in literals))
        # What the text tokenizer calls the control tokens, and where pictures stand: names that no user can guess.
        secret = secrets.token_hex(16)
        self._picture = f"{_OPEN}{secret}-picture{_CLOSE}"
        self._secret_names = {text: f"{_OPEN}{secret}-{token}{_CLOSE}" for text, token in special.items()}
        self._text_tokenizer = _load_tokenizer(_rename_tokens(path.read_text(encoding="utf-8"), self._secret_names))
        # What a sequence begins with whether the template writes it or not: BOS, or nothing.
        self._start: list[int] = self._tokenizer.encode("").ids
        self.stop_tokens = frozenset(stop_tokens)
        end_of_turn = self._find_end_of_turn()
        if end_of_turn in special:
            self.stop_tokens |= {special[end_of_turn]}

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; nothing in it becomes a control token."""
        ids: list[int] = self._text_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_chat(self, messages: Sequence[ChatMessage], picture_rows: int = 0) -> list[int]:
        """Token ids of a conversation, up to where the model's answer begins.

        Control tokens that a message spells out are swapped for markers while the template runs, so that the template
        still sees (and may trim or test) the rest of the text. Those that the template writes then get their secret
        names, the markers become text again, and the whole is encoded at once, as in training. BOS comes once.
        A picture divides the text, as a control token would, and takes `picture_rows` positions of PICTURE_ROW.
        """
        protected: list[str] = []

        def protect(text: str) -> str:
            protected.append(text)
            return f"{_OPEN}{len(protected) - 1}{_CLOSE}"

        def protect_control(text: str) -> str:
            return self._control.sub(lambda found: protect(found.group()), text)

        def name(match: re.Match[str]) -> str:
            return self._secret_names.get(match.group(), match.group())

        def with_pictures(message: ChatMessage) -> str:
            bounds = [0, *message.pictures, len(message.content)]
            texts = [protect_control(message.content[start:stop]) for start, stop in pairwise(bounds)]
            return self._picture.join(texts)

        # Templates build control tokens of roles ("<|" + role + "|>"), so a role that they do not know stays apart.
        turns = [
            {
                "role": message.role if message.role in _ROLES else protect(message.role),
                "content": with_pictures(message),
            }
            for message in messages
        ]
        pieces = _PROTECTED.split(self._template.render(turns))
        whole = "".join(
            protected[int(piece)] if index % 2 else self._control.sub(name, piece) for index, piece in enumerate(pieces)
        )
        ids: list[int] = []
        for index, part in enumerate(whole.split(self._picture)):
            ids += [*([PICTURE_ROW] * picture_rows if index else ()), *self.encode(part)]
        return ids if ids[: len(self._start)] == self._start else self._start + ids

    def open_text(self) -> TextStream:
        """A fresh stream for the tokens of one answer."""
        return TextStream(self._tokenizer, self._special_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a whole answer at once, control tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _find_end_of_turn(self) -> str:
        """The control token behind an answer; empty where the template writes none."""
        answer = f"{_OPEN}{_CLOSE}"
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        try:
            rendered = self._template.render(turns, add_generation_prompt=False)
        except ChatTemplateError:
            return ""  # The template wants another conversation; what the model names as its stop tokens has to do.
        behind = rendered.rpartition(answer)[2] if answer in rendered else ""
        found = self._control.search(behind)
        return found.group() if found else ""


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


def _load_tokenizer(document: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(document)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _rename_tokens(document: str, names: Mapping[str, str]) -> str:
    """A tokenizer.json with other texts for some added tokens; text that spelled out an old one no longer makes it."""
    parts = json.loads(document)
    for entry in parts["added_tokens"]:
        entry["content"] = names.get(entry["content"], entry["content"])
    model = parts["model"]
    model["vocab"] = {names.get(text, text): token for text, token in model["vocab"].items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint([*pair, "".join(pair)])]
    parts["post_processor"] = None
    return json.dumps(parts)
