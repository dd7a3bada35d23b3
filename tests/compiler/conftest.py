"""A tiny llama-like GGUF file with random weights, in every tensor kind that is supported, and its compiled forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from compiler.build import CompiledModel, compile_model

HIDDEN, HEADS, KV_HEADS, FFN, VOCAB, BLOCKS, CONTEXT = 96, 3, 1, 160, 288, 4, 512


def write_tiny_model(
    path: Path,
    *,
    architecture: str = "llama",
    hidden: int = HIDDEN,
    heads: int = HEADS,
    without: str | None = None,
    facts: dict[str, object] | None = None,
    kind: GGMLQuantizationType | None = None,
    extra: dict[str, np.ndarray] | None = None,
    raw: dict[str, tuple[np.ndarray, GGMLQuantizationType]] | None = None,
) -> Path:
    """A tiny model, changed: `kind` is what all matrices of the blocks are; `facts` and `extra` tensors are added.

    `raw` replaces tensors by bytes of a kind that `gguf` cannot write, uint8 [rows, bytes of a row].
    """
    head_dim = hidden // heads
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(heads)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    letters = [chr(256 + i) for i in range(VOCAB - 3)]
    writer.add_token_list(["<|im_start|>", "<|im_end|>", *letters, letters[0] + letters[1]])
    writer.add_token_types([3, 3] + [1] * (len(letters) + 1))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)

    for key, fact in (facts or {}).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(fact)]
        add(key, fact)

    kinds = GGMLQuantizationType
    shapes = {
        "attn_q": (hidden, hidden, kinds.Q4_1),
        "attn_k": (KV_HEADS * head_dim, hidden, kinds.Q4_0),
        "attn_v": (KV_HEADS * head_dim, hidden, kinds.Q8_0),
        "attn_output": (hidden, hidden, kinds.F16),
        "ffn_gate": (FFN, hidden, kinds.Q4_1),
        "ffn_up": (FFN, hidden, kinds.F32),
        "ffn_down": (hidden, FFN, kinds.Q8_0),
    }
    random = np.random.default_rng(7)
    tensors: dict[str, tuple[np.ndarray, GGMLQuantizationType]] = {
        "token_embd.weight": (random.normal(size=(VOCAB, hidden)), kinds.Q8_0),
        "output_norm.weight": (1 + 0.1 * random.normal(size=hidden), kinds.F32),
        "output.weight": (random.normal(size=(VOCAB, hidden)), kinds.Q8_0),
    }
    for block in range(BLOCKS):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{block}.{norm}.weight"] = (1 + 0.1 * random.normal(size=hidden), kinds.F32)
        for name, (rows, columns, own_kind) in shapes.items():
            weight = random.normal(size=(rows, columns)) / columns**0.5
            tensors[f"blk.{block}.{name}.weight"] = (weight, own_kind if kind is None else kind)
    tensors |= {name: (value, kinds.F32) for name, value in (extra or {}).items()}
    for name, (value, stored) in tensors.items():
        if name == without or name in (raw or {}):
            continue
        data = value.astype(np.float32)
        if stored != kinds.F32 and hidden % 32 == 0:
            writer.add_tensor(name, quants.quantize(data, stored), raw_dtype=stored)
        else:
            writer.add_tensor(name, data)
    for name, (content, stored) in (raw or {}).items():
        writer.add_tensor(name, content, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, whole."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def compile_tiny(tiny_model_file: Path) -> Callable[..., CompiledModel]:
    """compile_tiny(quantisation, target) in the user's cache (small, and found again by the next run)."""

    def compile_it(quantisation: str = "int4", target: str | None = None) -> CompiledModel:
        return compile_model(str(tiny_model_file), quantisation, target)

    return compile_it
