"""Rebuilds the tokenizer that a GGUF file describes as a `tokenizers` file, so that nodes parse no model format."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from compiler.errors import ModelFileError
from compiler.models.tokenizer_facts import TokenizerFacts

_CONTROL = 3


def build_tokenizer(facts: TokenizerFacts) -> Tokenizer:
    """Byte-level BPE with digits one by one; control tokens become special tokens.

    Raises:
        ModelFileError: merges and vocabulary do not fit together.
    """
    vocabulary = {token: index for index, token in enumerate(facts.tokens)}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in facts.merges)]
    for left, right in merges:
        if not {left, right, left + right} <= vocabulary.keys():
            raise ModelFileError(
                f"the model file's tokenizer merges '{left}' and '{right}' but lacks a part of it; download it again"
            )
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens(facts)])
    return tokenizer


def special_tokens(facts: TokenizerFacts) -> dict[str, int]:
    """Control tokens and their ids."""
    return {
        token: index
        for index, (token, kind) in enumerate(zip(facts.tokens, facts.kinds, strict=True))
        if kind == _CONTROL
    }
