"""Rebuilds the tokenizer that a GGUF file describes, so that nodes parse no model format.

Two kinds (`tokenizer.ggml.model`): "gpt2" is byte-level BPE, whose `pre` names how text is cut before merging; "llama"
is SentencePiece BPE, whose scores stand for the merges. What is not in `_CUTS` is refused: a text cut another way than
in training still gives tokens, only worse ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from compiler.errors import ModelFileError
from compiler.models.tokenizer import END_TOKENS, ModelTokenizer, complete_tokenizer
from compiler.models.tokenizer_facts import TokenizerFacts

_PLAIN, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_SPACE = "▁"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a family cuts text into words, within which BPE merges.

    `pattern` None is GPT-2's, built into the byte-level step. `whole_words` looks a word up before merging it.
    """

    pattern: str | None
    digits_apart: bool = False
    whole_words: bool = False
    add_bos: bool = False
    composed: bool = False


# The patterns are those of the families' published tokenizer.json files.
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2 = _Cut(None)
_LLAMA3 = _Cut(rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}", whole_words=True, add_bos=True)
_CUTS = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "smollm": _Cut(None, digits_apart=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _Cut(rf"{_WORD}|\p{{N}}|{_REST}", composed=True),
    "deepseek-r1-qwen": _Cut(rf"{_WORD}|\p{{N}}|{_REST}"),
    "tekken": _Cut(rf"{_CASED_WORD}|\p{{N}}|{_CASED_REST}", whole_words=True, add_bos=True),
}


def tokenizer_from_gguf(facts: TokenizerFacts) -> ModelTokenizer:
    """The tokenizer that `facts` describe.

    Raises:
        ModelFileError: a kind of tokenizer that cannot be rebuilt, or a vocabulary that is incomplete.
    """
    if facts.model == "llama":
        return _sentencepiece(facts)
    if facts.model == "gpt2" and facts.pre in _CUTS:
        return _byte_level(facts, _CUTS[facts.pre])
    if facts.model == "gpt2" and not facts.pre:
        raise ModelFileError(
            f"'{facts.source}' does not say how its tokenizer cuts text (tokenizer.ggml.pre); use a newer GGUF file"
        )
    kind = f"{facts.model}/{facts.pre}" if facts.model == "gpt2" else facts.model
    raise ModelFileError(
        f"'{facts.source}': its tokenizer '{kind}' is not supported; supported are 'llama', "
        f"and 'gpt2' with {', '.join(_CUTS)}"
    )


def _byte_level(facts: TokenizerFacts, cut: _Cut) -> ModelTokenizer:
    vocabulary = _vocabulary(facts)
    special = _special_ids(facts)
    merges = _stated_merges(facts, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut.whole_words))
    if cut.composed:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[pre_tokenizers.PreTokenizer] = []
    if cut.digits_apart:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if cut.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(cut.pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return _complete(tokenizer, facts, special, facts.bos_id, facts.eos_id, cut.add_bos)


def _sentencepiece(facts: TokenizerFacts) -> ModelTokenizer:
    """BPE over characters without cutting, spaces written as ▁, unknown characters as bytes.

    As in llama.cpp, text after a control or user-defined token gets a space in front like text at the beginning.
    """
    vocabulary = _vocabulary(facts)
    missing = next((name for name in _BYTES if name not in vocabulary), None)
    if missing:
        raise ModelFileError(f"'{facts.source}': its vocabulary lacks the byte token {missing}; download it again")
    bos_id = 1 if facts.bos_id is None else facts.bos_id
    eos_id = 2 if facts.eos_id is None else facts.eos_id
    special = _special_ids(facts)
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges_by_score(facts, vocabulary, special), byte_fallback=True))
    prefix = facts.add_space_prefix is not False
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return _complete(tokenizer, facts, special, bos_id, eos_id, True)


def _complete(
    tokenizer: Tokenizer,
    facts: TokenizerFacts,
    special: frozenset[int],
    bos_id: int | None,
    eos_id: int | None,
    add_bos: bool,
) -> ModelTokenizer:
    """Adds the tokens that are found in text as they stand, and what the file says beyond the vocabulary."""
    tokenizer.add_tokens(
        [
            AddedToken(token, special=index in special, normalized=False)
            for index, (token, kind) in enumerate(zip(facts.tokens, facts.kinds, strict=True))
            if index in special or kind == _USER_DEFINED
        ]
    )
    ends = [token for token in (eos_id, facts.eom_id) if token is not None]
    return complete_tokenizer(
        tokenizer,
        bos_id=bos_id,
        end_ids=tuple(ends),
        eot_id=facts.eot_id,
        add_bos=add_bos if facts.add_bos is None else facts.add_bos,
        chat_template=facts.chat_template,
    )


def _vocabulary(facts: TokenizerFacts) -> dict[str, int]:
    """Every token's id; checked to be complete and unambiguous."""
    count = len(facts.tokens)
    if len(facts.kinds) != count:
        raise ModelFileError(
            f"'{facts.source}' has {count} tokens but {len(facts.kinds)} token types; download it again"
        )
    vocabulary = {token: index for index, token in enumerate(facts.tokens)}
    if len(vocabulary) != count:
        twice = next(token for index, token in enumerate(facts.tokens) if vocabulary[token] != index)
        raise ModelFileError(f"'{facts.source}' has the token {twice!r} twice in its vocabulary; download it again")
    named = {"BOS": facts.bos_id, "EOS": facts.eos_id, "EOT": facts.eot_id, "EOM": facts.eom_id}
    for name, token_id in named.items():
        if token_id is not None and not 0 <= token_id < count:
            raise ModelFileError(f"'{facts.source}': its {name} token {token_id} is not one of {count} tokens")
    return vocabulary


def _special_ids(facts: TokenizerFacts) -> frozenset[int]:
    """Control tokens: those marked so, and those whose name says so, which some files forget to mark."""
    return frozenset(
        index
        for index, (token, kind) in enumerate(zip(facts.tokens, facts.kinds, strict=True))
        if kind in (_UNKNOWN, _CONTROL) or token in END_TOKENS
    )


def _stated_merges(facts: TokenizerFacts, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    if not facts.merges:
        raise ModelFileError(f"'{facts.source}' holds no merges (tokenizer.ggml.merges); use a complete GGUF file")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in facts.merges)]
    for left, right in merges:
        if not {left, right, left + right} <= vocabulary.keys():
            raise ModelFileError(
                f"'{facts.source}': its tokenizer merges '{left}' and '{right}' but lacks a part of it; download it again"
            )
    return merges


def _merges_by_score(
    facts: TokenizerFacts, vocabulary: Mapping[str, int], special: frozenset[int]
) -> list[tuple[str, str]]:
    """Every way to make a plain piece of two others, the pieces of higher score first.

    SentencePiece takes the leftmost of several ways to make the same piece, which a fixed order cannot express; they
    differ in runs of one character, such as "aaaa", at most.
    """
    if len(facts.scores) != len(facts.tokens):
        raise ModelFileError(
            f"'{facts.source}' has {len(facts.tokens)} tokens but {len(facts.scores)} scores; use a complete GGUF file"
        )
    plain = {token for token, index in vocabulary.items() if facts.kinds[index] == _PLAIN and index not in special}
    if len({facts.scores[vocabulary[token]] for token in plain if len(token) > 1}) < 2:
        raise ModelFileError(
            f"'{facts.source}' gives all pieces of its vocabulary one score; use a file converted from a tokenizer.model"
        )
    best_first = sorted(plain, key=lambda token: (-facts.scores[vocabulary[token]], vocabulary[token]))
    return [pair for token in best_first for pair in _halves(token) if plain.issuperset(pair)]


def _halves(token: str) -> Iterator[tuple[str, str]]:
    return ((token[:cut], token[cut:]) for cut in range(1, len(token)))
