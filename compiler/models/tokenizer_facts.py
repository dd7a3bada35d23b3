"""What a GGUF file states of its tokenizer, read as it stands; `tokenizer_gguf` judges and rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.errors import ModelFileError


@dataclass(frozen=True)
class TokenizerFacts:
    """The vocabulary and flags of one file; None where the file says nothing.

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


def read_tokenizer_facts(fields: Mapping[str, Any], source: str) -> TokenizerFacts:
    """Reads the key-value fields of an opened GGUF file; takes a second or two for a large vocabulary.

    Raises:
        ModelFileError: the file holds no tokenizer at all.
    """

    def read(key: str, default: Any = None) -> Any:
        found = fields.get(f"tokenizer.{key}")
        return default if found is None else found.contents()

    if read("ggml.model") is None or "tokenizer.ggml.tokens" not in fields:
        raise ModelFileError(f"'{source}' holds no tokenizer; use a complete GGUF file")
    tokens = list(read("ggml.tokens"))
    return TokenizerFacts(
        model=str(read("ggml.model")),
        pre=str(read("ggml.pre", "default")),
        tokens=tokens,
        kinds=[int(kind) for kind in read("ggml.token_type", [1] * len(tokens))],
        merges=list(read("ggml.merges", [])),
        scores=[float(score) for score in read("ggml.scores", [])],
        bos_id=read("ggml.bos_token_id"),
        eos_id=read("ggml.eos_token_id"),
        eot_id=read("ggml.eot_token_id"),
        eom_id=read("ggml.eom_token_id"),
        add_bos=read("ggml.add_bos_token"),
        add_space_prefix=read("ggml.add_space_prefix"),
        chat_template=str(read("chat_template", "")),
        source=source,
    )
