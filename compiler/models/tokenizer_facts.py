"""What a GGUF file states of its tokenizer, read as it stands; `tokenizer_gguf` judges and rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.errors import ModelFileError

_NO_TOKEN = 0xFFFFFFFF


@dataclass(frozen=True)
class TokenizerFacts:
    """The vocabulary and flags of one file; None, or nothing, where the file does not say.

    `kinds` are GGUF token types, one a token: 1 plain, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 a byte. `scores`
    are those of SentencePiece, `merges` pairs of byte-level BPE, "left right". `source` names the file in messages.
    """

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    bos_id: int | None = None
    eos_id: int | None = None
    eot_id: int | None = None
    eom_id: int | None = None
    add_bos: bool | None = None
    add_space_prefix: bool | None = None
    chat_template: str = ""
    source: str = "the model file"


def read_tokenizer_facts(stated: Mapping[str, Any], source: str) -> TokenizerFacts:
    """Reads the `tokenizer.` keys among a file's facts: numbers, strings, and lists of these. `source` is its path.

    Raises:
        ModelFileError: no tokenizer, or a fact of another kind than it should be.
    """

    def read(key: str, kind: type[Any]) -> Any:
        value = stated.get(f"tokenizer.{key}")
        if value is not None and not isinstance(value, kind):
            raise ModelFileError(f"'{source}': its tokenizer.{key} is of an unknown kind; download it again")
        return value

    def read_list(key: str, kind: type[Any] | tuple[type[Any], ...]) -> list[Any] | None:
        values: list[Any] | None = read(f"ggml.{key}", list)
        if values is not None and not all(isinstance(value, kind) for value in values):
            raise ModelFileError(f"'{source}': its tokenizer.ggml.{key} is of an unknown kind; download it again")
        return values

    def read_token(name: str) -> int | None:
        token: int | None = read(f"ggml.{name}_token_id", int)
        return None if token is None or token < 0 or token == _NO_TOKEN else token

    model, tokens = read("ggml.model", str), read_list("tokens", str)
    if not model or not tokens:
        raise ModelFileError(f"'{source}' holds no tokenizer; use a complete GGUF file")
    return TokenizerFacts(
        model=model,
        pre=read("ggml.pre", str) or "",
        tokens=[token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)],
        kinds=read_list("token_type", int) or [1] * len(tokens),
        merges=read_list("merges", str) or [],
        scores=read_list("scores", (int, float)) or [],
        bos_id=read_token("bos"),
        eos_id=read_token("eos"),
        eot_id=read_token("eot"),
        eom_id=read_token("eom"),
        add_bos=read("ggml.add_bos_token", bool),
        add_space_prefix=read("ggml.add_space_prefix", bool),
        chat_template=read("chat_template", str) or "",
        source=source,
    )
