"""Tokenizers rebuilt from a GGUF file's facts, or read from a folder, against those they came from."""

from __future__ import annotations

import dataclasses
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from compiler.errors import ModelFileError
from compiler.models.locate import find_model_file
from compiler.models.tokenizer import ModelTokenizer
from compiler.models.tokenizer_facts import TokenizerFacts, read_tokenizer_facts
from compiler.models.tokenizer_folder import tokenizer_from_folder
from compiler.models.tokenizer_gguf import tokenizer_from_gguf

PLAIN, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

PROSE = """The edge isn't far: it's 20 ms away, and 1234567 tokens went through it by 07:45 on 2024-05-31.
    def cut(layers):\n\t\treturn [layers[:12], layers[12:]]  # we'll see\r\n\r\n
Größe, naïve Übung; Ελληνικά; русский текст; 漢字とかな、混じり文。 한국어 문장. हिन्दी में लिखा. العربية
IT'S HTTPServer and camelCase; don't, DON'T, they've, They'LL  ...   spaces   many\n\n\nend 😀👍🏽 🧑‍🚀 aaaa aaaaaaa hahaha
"""

WORDS = st.sampled_from(
    ["it's ", "IT'S", " the", "aaaaaaa", "1234567", "  ", "\n", "\r\n", " \n ", "\t", "\x00", "!?\n\n", "/"]
)
UNICODE = st.sampled_from(["é", "e\u0301", "Ünder", "HTTPServer", "٣", "½", "漢字", "😀", "🧑‍🚀", "\u3000", "▁"])
LITERALS = st.sampled_from(["<0x41>", "[INST]", "<s>", "</s>", "<unk>", "<think>", "<|im_end|>", "<|begin|>"])
TEXTS = st.one_of(
    st.text(),
    st.lists(WORDS | UNICODE | LITERALS, max_size=12).map("".join),
    st.text(alphabet="a \nB1'/é", max_size=30),
)
MANY = settings(derandomize=True, max_examples=300)

# The patterns in full, as the families' own tokenizer.json files state them.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>"]


def train_byte_level(pattern: str | None, whole_words: bool) -> Tokenizer:
    """A small byte-level BPE tokenizer, its control tokens at the end as in Llama 3."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = (
        byte_level
        if pattern is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROSE] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def state_facts(tokenizer: Tokenizer, pre: str, **changes: Any) -> TokenizerFacts:
    """What a GGUF file would state of a byte-level tokenizer."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    kinds = [CONTROL if token in SPECIAL else USER_DEFINED if token == "<think>" else PLAIN for token in tokens]
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    facts = TokenizerFacts("gpt2", pre, tokens, kinds, merges, bos_id=vocabulary["<|begin|>"], source="m.gguf")
    return dataclasses.replace(facts, **changes)


def encode_plainly(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of text that a user wrote."""
    tokenizer.encode_special_tokens = True
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return ids


@pytest.fixture(scope="module")
def smollm() -> ModelTokenizer:
    """The default model's own tokenizer."""
    gguf = pytest.importorskip("gguf")
    try:
        path = find_model_file("smollm2")
    except ModelFileError:
        pytest.skip("the package with the default model is not installed")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    return tokenizer_from_gguf(read_tokenizer_facts(fields, str(path)))


@pytest.fixture(scope="module", params=["gpt-2", "llama-bpe", "tekken"])
def byte_level(request: pytest.FixtureRequest) -> tuple[Tokenizer, ModelTokenizer]:
    """A trained tokenizer, and the same one rebuilt."""
    pattern, whole_words = {"gpt-2": (None, False), "llama-bpe": (LLAMA3, True), "tekken": (TEKKEN, True)}[
        request.param
    ]
    trained = train_byte_level(pattern, whole_words)
    return trained, tokenizer_from_gguf(state_facts(trained, request.param))


@MANY
@given(text=TEXTS)
@example(PROSE)
@example("<|im_start|>user\nHi<think> 12345<|im_end|>\n")
def test_rebuilt_byte_level_tokenizer_gives_the_same_tokens(
    byte_level: tuple[Tokenizer, ModelTokenizer], text: str
) -> None:
    trained, rebuilt = byte_level
    assert rebuilt.tokenizer.encode(text, add_special_tokens=False).ids == trained.encode(text).ids


@MANY
@given(text=TEXTS)
@example("<|im_end|>")
def test_byte_level_text_comes_back_and_is_never_a_control_token(
    byte_level: tuple[Tokenizer, ModelTokenizer], text: str
) -> None:
    rebuilt = byte_level[1]
    ids = encode_plainly(rebuilt.tokenizer, text)
    assert rebuilt.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert set(rebuilt.special_tokens.values()).isdisjoint(ids)


@pytest.fixture(scope="module")
def qwen() -> tuple[Tokenizer, ModelTokenizer]:
    """transformers' Qwen2 tokenizer over a small vocabulary, and ours from the same facts."""
    transformers = pytest.importorskip("transformers")
    facts = state_facts(train_byte_level(LLAMA3.replace("{1,3}", ""), False), "qwen2")
    merges = [tuple(merge.split(" ")) for merge in facts.merges]
    vocabulary = {token: index for index, token in enumerate(facts.tokens)}
    reference = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    reference.add_tokens(
        [AddedToken(text, special=text in SPECIAL, normalized=False) for text in [*SPECIAL, "<think>"]]
    )
    return reference, tokenizer_from_gguf(facts)


@MANY
@given(text=TEXTS)
@example(PROSE)
def test_qwen_tokenizer_agrees_with_transformers(qwen: tuple[Tokenizer, ModelTokenizer], text: str) -> None:
    reference, rebuilt = qwen
    assert rebuilt.tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text).ids
    plain = encode_plainly(rebuilt.tokenizer, text)
    assert rebuilt.tokenizer.decode(plain, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_default_model_s_tokenizer(smollm: ModelTokenizer) -> None:
    assert (smollm.size, smollm.bos_id, smollm.eos_id, smollm.eot_id, smollm.add_bos) == (49152, 1, 2, 2, False)
    assert smollm.stop_ids == (0, 2)
    assert list(smollm.special_tokens)[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert "<|im_start|>" in smollm.chat_template
    ids = smollm.tokenizer.encode("<|im_start|>Layer 12").ids
    assert [smollm.tokenizer.id_to_token(token) for token in ids] == ["<|im_start|>", "Layer", "Ġ", "1", "2"]


# Its vocabulary lacks 21 bytes: of six control characters, of planes without characters, and those not in UTF-8.
@MANY
@given(text=st.text(st.characters(max_codepoint=0x3FFFF, exclude_characters="\x04\x06\x13\x14\x16\x1d")))
def test_default_model_s_tokenizer_returns_the_text(smollm: ModelTokenizer, text: str) -> None:
    assert smollm.tokenizer.decode(encode_plainly(smollm.tokenizer, text), skip_special_tokens=False) == text


@pytest.fixture(scope="module", params=[True, False], ids=["space in front", "no space in front"])
def sentencepiece(request: pytest.FixtureRequest) -> tuple[Any, ModelTokenizer]:
    """A SentencePiece model, trained with the options of Llama 2, and ours from its pieces, scores and types."""
    library = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE.splitlines() * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        add_dummy_prefix=request.param,
        control_symbols=["[INST]"],
        user_defined_symbols=["<tool>"],
        minloglevel=3,
    )
    reference = library.SentencePieceProcessor(model_proto=model.getvalue())
    every = range(reference.get_piece_size())
    facts = TokenizerFacts(
        model="llama",
        pre="default",
        tokens=[reference.id_to_piece(token) for token in every],
        kinds=[
            UNKNOWN
            if reference.is_unknown(token)
            else CONTROL
            if reference.is_control(token)
            else BYTE
            if reference.is_byte(token)
            else USER_DEFINED
            if reference.id_to_piece(token) == "<tool>"
            else PLAIN
            for token in every
        ],
        scores=[reference.get_score(token) for token in every],
        add_space_prefix=request.param,
    )
    return reference, tokenizer_from_gguf(facts)


@MANY
@given(text=TEXTS)
@example(PROSE)
@example("  a  ")
@example("\n")
@example("")
@example("<s>[INST] a </s>")
def test_sentencepiece_tokenizer_agrees_with_the_library(sentencepiece: tuple[Any, ModelTokenizer], text: str) -> None:
    reference, rebuilt = sentencepiece
    ids = encode_plainly(rebuilt.tokenizer, text)
    assert ids == reference.encode(text)
    decoded = rebuilt.tokenizer.decode(ids, skip_special_tokens=False)
    assert decoded == reference.decode(ids) == text.replace("▁", " ")


def test_user_defined_token_is_found_in_text(sentencepiece: tuple[Any, ModelTokenizer]) -> None:
    reference, rebuilt = sentencepiece
    assert reference.piece_to_id("<tool>") in rebuilt.tokenizer.encode("a<tool>b").ids
    assert "<tool>" not in rebuilt.special_tokens


def test_sentencepiece_model_begins_with_bos(sentencepiece: tuple[Any, ModelTokenizer]) -> None:
    rebuilt = sentencepiece[1]
    assert (rebuilt.bos_id, rebuilt.eos_id, rebuilt.add_bos, rebuilt.stop_ids) == (1, 2, True, (2,))
    assert rebuilt.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3}
    assert rebuilt.tokenizer.encode("").ids == [1]


LETTERS = ["a", "b", "ab"]


def tiny_facts(**changes: Any) -> TokenizerFacts:
    """Facts of the smallest byte-level vocabulary that has everything."""
    tokens = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", *LETTERS]
    facts = TokenizerFacts(
        "gpt2", "llama-bpe", tokens, [3, 3, 3, 1, 1, 1], ["a b"], bos_id=0, eos_id=1, source="m.gguf"
    )
    return dataclasses.replace(facts, **changes)


def test_every_end_token_stops() -> None:
    assert tokenizer_from_gguf(tiny_facts()).stop_ids == (1, 2)
    assert tokenizer_from_gguf(tiny_facts()).eot_id == 2
    assert tokenizer_from_gguf(tiny_facts(eot_id=0)).stop_ids == (0, 1, 2)


def test_end_token_that_the_file_calls_plain_is_a_control_token() -> None:
    rebuilt = tokenizer_from_gguf(tiny_facts(kinds=[1] * 6))
    assert list(rebuilt.special_tokens.values()) == [0, 1, 2]
    assert tokenizer_from_gguf(tiny_facts(bos_id=5)).special_tokens["ab"] == 5


def test_the_file_says_whether_bos_is_written() -> None:
    assert tokenizer_from_gguf(tiny_facts()).tokenizer.encode("ab").ids == [0, 5]
    assert tokenizer_from_gguf(tiny_facts(add_bos=False)).tokenizer.encode("ab").ids == [5]
    assert not tokenizer_from_gguf(tiny_facts(bos_id=None, add_bos=True)).add_bos


def test_saved_tokenizer_is_the_same_one(tmp_path: Path) -> None:
    rebuilt = tokenizer_from_gguf(tiny_facts())
    rebuilt.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("ab<|eot_id|>a").ids == [0, 5, 2, 3]


SENTENCEPIECE = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS],
    "kinds": [2, 3, 3, *[6] * 256, 1, 1, 1],
    "scores": [0.0] * 262,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre": "falcon"}, "tokenizer 'gpt2/falcon' is not supported"),
        ({"model": "bert"}, "tokenizer 'bert' is not supported; supported are 'llama', and 'gpt2' with default, gpt-2"),
        ({"pre": ""}, "does not say how its tokenizer cuts text"),
        ({"merges": []}, "holds no merges"),
        ({"merges": ["a c"]}, "merges 'a' and 'c' but lacks a part of it"),
        ({"kinds": [1]}, "has 6 tokens but 1 token types"),
        ({"tokens": ["a"] * 6}, "has the token 'a' twice"),
        ({"eos_id": 6}, "its EOS token 6 is not one of 6 tokens"),
        ({**SENTENCEPIECE, "scores": []}, "has 262 tokens but 0 scores"),
        (SENTENCEPIECE, "gives all pieces of its vocabulary one score"),
        ({"model": "llama"}, "lacks the byte token <0x00>"),
    ],
)
def test_vocabulary_that_is_no_tokenizer_is_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        tokenizer_from_gguf(tiny_facts(**changes))
    assert words in str(caught.value)
    assert str(caught.value).startswith("'m.gguf'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "holds no tokenizer"),
        ({"tokenizer.ggml.model": "gpt2"}, "holds no tokenizer"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [1]}, "tokenizer.ggml.tokens is of an unknown kind"),
        ({"tokenizer.ggml.model": 7}, "tokenizer.ggml.model is of an unknown kind"),
    ],
)
def test_file_without_a_tokenizer_is_refused(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_tokenizer_facts(stated, "m.gguf")


def test_reads_what_a_file_states() -> None:
    stated = {"model": "gpt2", "pre": "qwen2", "tokens": ["a", ""], "eos_token_id": 1, "padding_token_id": 0}
    keys = {f"tokenizer.ggml.{key}": value for key, value in stated.items()}
    facts = read_tokenizer_facts(keys | {"tokenizer.ggml.bos_token_id": 0xFFFFFFFF}, "m.gguf")
    assert facts == TokenizerFacts("gpt2", "qwen2", ["a", "[EMPTY_1]"], [1, 1], eos_id=1, source="m.gguf")


def write_folder(folder: Path, **files: Any) -> Path:
    """A model folder: the tiny tokenizer, and `files` by their names without .json."""
    tokenizer_from_gguf(tiny_facts()).tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_folder_of_a_llama_3_model(tmp_path: Path) -> None:
    read = tokenizer_from_folder(
        write_folder(
            tmp_path,
            tokenizer_config={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": "{{ 1 }}"},
            generation_config={"eos_token_id": [1, 2]},
        )
    )
    assert (read.bos_id, read.eos_id, read.stop_ids, read.add_bos) == (0, 2, (1, 2), True)
    assert read.chat_template == "{{ 1 }}"
    assert read.tokenizer.encode("ab").ids == [0, 5]


def test_folder_of_a_qwen_model_has_no_bos(tmp_path: Path) -> None:
    read = tokenizer_from_folder(
        write_folder(
            tmp_path,
            tokenizer_config={"bos_token": None, "eos_token": {"content": "<|eot_id|>"}, "add_bos_token": False},
            config={"bos_token_id": 1, "eos_token_id": 1},
        )
    )
    assert (read.bos_id, read.eos_id, read.stop_ids, read.add_bos) == (None, 2, (1, 2), False)
    assert read.tokenizer.encode("ab").ids == [5]


def test_folder_with_the_tokenizer_alone(tmp_path: Path) -> None:
    read = tokenizer_from_folder(write_folder(tmp_path))
    assert (read.bos_id, read.eos_id, read.eot_id, read.stop_ids, read.chat_template) == (None, None, 2, (1, 2), "")


def test_end_token_that_the_folder_does_not_mark_is_a_control_token(tmp_path: Path) -> None:
    read = tokenizer_from_folder(write_folder(tmp_path, tokenizer_config={"eos_token": "ab"}))
    assert read.special_tokens["ab"] == read.eos_id == 5


def test_special_tokens_map_is_asked_next(tmp_path: Path) -> None:
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    read = tokenizer_from_folder(write_folder(tmp_path, special_tokens_map=names, tokenizer_config={}))
    assert (read.bos_id, read.eos_id, read.add_bos) == (0, 1, True)


def test_chat_template_in_its_own_file_comes_first(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tokenizer_config={"chat_template": "other"})
    (folder / "chat_template.jinja").write_text("own\n")
    assert tokenizer_from_folder(folder).chat_template == "own\n"


def test_default_of_several_chat_templates(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    folder = write_folder(tmp_path, tokenizer_config={"chat_template": named})
    assert tokenizer_from_folder(folder).chat_template == "plain"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer_config": {"eos_token": "</s>"}}, "names the special token '</s>', which its tokenizer.json lacks"),
        ({"generation_config": {"eos_token_id": 99}}, "names the special token 99"),
        ({"tokenizer_config": [1]}, "holds no JSON object"),
        ({"tokenizer": {"model": {"type": "Unigram"}}}, "is a Unigram tokenizer; only BPE"),
        ({"tokenizer": {"model": {"type": "BPE"}}}, "is not a readable tokenizer"),
        ({"tokenizer": {"model": 1}}, "is not a readable tokenizer"),
    ],
)
def test_damaged_folder_is_refused_in_one_line(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        tokenizer_from_folder(write_folder(tmp_path, **files))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"has no tokenizer\.json"):
        tokenizer_from_folder(tmp_path)
