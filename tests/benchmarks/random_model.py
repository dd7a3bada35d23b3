"""Model files with random weights in the shape of a published model: speed does not depend on what weights say.

A file is written once, in GGUF, so that llama.cpp measures the same one. Blocks are Q4_0; the embedding, which is the
head as well, is Q8_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from mec_platform.content_store.entries import content_key, write_manifest
from mec_platform.content_store.store import ContentStore

_GROUP = 32
_BYTES = {GGMLQuantizationType.Q4_0: 18, GGMLQuantizationType.Q8_0: 34}  # of a group: a float16 scale, then integers
_SPREAD = {GGMLQuantizationType.Q4_0: 4.6, GGMLQuantizationType.Q8_0: 74.0}  # standard deviation of these integers


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a llama-like model with a tied head."""

    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_base: float


SHAPES = {"llama-3.2-1b": Shape(16, 2048, 32, 8, 64, 8192, 128256, 4096, 500000.0)}


def ensure_random_model(name: str) -> Path:
    """The file of a row of SHAPES, in the cache."""
    shape = SHAPES[name]
    store, kind, key = ContentStore(), "random_models", content_key(name, repr(shape))

    def build(fresh: Path) -> None:
        write_random_model(fresh / f"{name}.gguf", shape)
        write_manifest(fresh, {"kind": "random-model"})

    store.ensure(kind, key, build)
    return store.folder(kind, key) / f"{name}.gguf"


def write_random_model(path: Path, shape: Shape) -> None:
    """Weights as large as trained ones at the start of training; every block has the same."""
    q4, q8, f32 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32
    random = np.random.default_rng(0)
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrices = {
        "attn_q": (attention, shape.hidden),
        "attn_k": (kv, shape.hidden),
        "attn_v": (kv, shape.hidden),
        "attn_output": (shape.hidden, attention),
        "ffn_gate": (shape.ffn, shape.hidden),
        "ffn_up": (shape.ffn, shape.hidden),
        "ffn_down": (shape.hidden, shape.ffn),
    }
    block = {name: (_random_matrix(random, *size, q4), q4) for name, size in matrices.items()}
    norm = np.ones(shape.hidden, np.float32)
    block |= {"attn_norm": (norm, f32), "ffn_norm": (norm, f32)}
    tensors = {f"blk.{i}.{name}.weight": tensor for i in range(shape.blocks) for name, tensor in block.items()}
    tensors["token_embd.weight"] = (_random_matrix(random, shape.vocab, shape.hidden, q8), q8)
    tensors["output_norm.weight"] = (norm, f32)
    writer = _writer(path, shape)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _random_matrix(random: np.random.Generator, rows: int, columns: int, kind: GGMLQuantizationType) -> np.ndarray:
    """Raw rows of groups: uniform integers, one scale that makes products of normalised rows about 1."""
    groups = random.integers(0, 256, (rows, columns // _GROUP, _BYTES[kind]), np.uint8)
    groups[..., :2] = np.frombuffer(np.float16(1 / (_SPREAD[kind] * columns**0.5)).tobytes(), np.uint8)
    return groups.reshape(rows, -1)


def _writer(path: Path, shape: Shape) -> GGUFWriter:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(shape.blocks)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that byte-level BPE spells as themselves
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    first_words = ["<|im_start|>", "<|im_end|>", *letters, letters[0] + letters[1]]
    writer.add_token_list([*first_words, *(f"word{i}" for i in range(shape.vocab - len(first_words)))])
    writer.add_token_types([3, 3] + [1] * (shape.vocab - 2))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    return writer
