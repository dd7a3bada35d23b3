"""Writes a model package: what a node needs of one model besides the artefact, in a form it can map and slice.

weights.bin holds every tensor of the blocks stacked `[blocks, ...]`, one tensor after the other, so that a layer range
is a slice of each; then the embedding, the head, and the rotary table. Offsets are multiples of a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compiler.models.gguf_file import GgufModel
from compiler.models.groups import stack_rows
from compiler.models.spec import ModelSpec
from compiler.models.tokenizer import build_tokenizer, special_tokens
from compiler.packing import LAYOUT_VERSION, pack_floats, pack_groups
from compiler.quantisation import INTEGER_BITS, Quantisation, Storage, interface_key
from compiler.store import write_manifest
from mec_platform.domain.model_shape import ModelShape

ALIGNMENT = 4096
WEIGHTS = "weights.bin"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"

Progress = Callable[[str, int, int], None]

# Packed matrix: the file's tensors that it stacks, and the field of `Quantisation` that says how it is stored.
_BLOCK_MATRICES = {
    "qkv": (("attn_q", "attn_k", "attn_v"), "qkv"),
    "output": (("attn_output",), "output"),
    "gate": (("ffn_gate",), "gate_up"),
    "up": (("ffn_up",), "gate_up"),
    "down": (("ffn_down",), "down"),
}


def _pack(model: GgufModel, names: tuple[str, ...], stored: Storage) -> tuple[np.ndarray, np.ndarray]:
    bits = INTEGER_BITS.get(stored)
    if bits is None:
        whole = np.concatenate([model.values(name) for name in names])
        return pack_floats(whole, stored), np.zeros(1, np.float16)
    return pack_groups(stack_rows([model.groups(name, bits) for name in names]), bits)


def _block_tensors(model: GgufModel, block: int, quantisation: Quantisation) -> dict[str, np.ndarray]:
    tensors = {
        "blocks.attention_norm": model.values(f"blk.{block}.attn_norm.weight"),
        "blocks.ffn_norm": model.values(f"blk.{block}.ffn_norm.weight"),
    }
    for name, (parts, field) in _BLOCK_MATRICES.items():
        stored = getattr(quantisation, field)
        q, s = _pack(model, tuple(f"blk.{block}.{part}.weight" for part in parts), stored)
        tensors |= {f"blocks.{name}.q": q, f"blocks.{name}.s": s}
    return tensors


def _text_tensors(model: GgufModel, stored: Storage) -> Iterator[tuple[str, np.ndarray]]:
    yield "head.norm", model.values("output_norm.weight")
    names = {"embed": "token_embd.weight"}
    if not model.spec.tied_embedding:
        names["head"] = "output.weight"
    for name, source in names.items():
        q, s = _pack(model, (source,), stored)
        yield f"{name}.q", q
        yield f"{name}.s", s


def rotary_table(spec: ModelSpec) -> np.ndarray:
    """Cosines, then sines, of every position: float32 [context, head_dim]. Packed: all nodes use the same bits."""
    rates = spec.rope_base ** (np.arange(spec.head_dim // 2) * -2.0 / spec.head_dim)
    angles = np.arange(spec.context)[:, None] * rates
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class _Table:
    """The tensor table, and the file it describes."""

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, Any]] = []
        self._path = path
        self._end = 0

    def add(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Room for one tensor, mapped for writing."""
        size = int(np.prod(shape)) * dtype.itemsize
        entry = {"name": name, "dtype": dtype.name, "shape": list(shape), "offset": self._end, "bytes": size}
        self.entries.append(entry)
        with self._path.open("ab") as file:
            file.truncate(-(-(self._end + size) // ALIGNMENT) * ALIGNMENT)
        mapped = np.memmap(self._path, dtype, "r+", self._end, shape)
        self._end = -(-(self._end + size) // ALIGNMENT) * ALIGNMENT
        return mapped

    def bytes_of(self, prefix: str) -> int:
        """Bytes of all tensors whose name starts with `prefix`."""
        return sum(entry["bytes"] for entry in self.entries if entry["name"].startswith(prefix))


def write_model_package(folder: Path, model: GgufModel, quantisation: Quantisation, progress: Progress) -> None:
    """Fills `folder` with weights.bin, tokenizer.json, the chat template and the manifest."""
    spec = model.spec
    table = _Table(folder / WEIGHTS)
    steps = spec.blocks + 2
    stacked: dict[str, np.ndarray] = {}
    digests = []
    for block in range(spec.blocks):
        progress("packing weights", block, steps)
        digest = hashlib.sha256()
        for name, value in _block_tensors(model, block, quantisation).items():
            if block == 0:
                stacked[name] = table.add(name, value.dtype, (spec.blocks, *value.shape))
            stacked[name][block] = value
            digest.update(np.ascontiguousarray(value).tobytes())
        digests.append(digest.hexdigest())
    progress("packing weights", spec.blocks, steps)
    for name, value in _text_tensors(model, quantisation.text):
        table.add(name, value.dtype, (1, *value.shape))[0] = value
    table.add("rope", np.dtype(np.float32), (spec.context, spec.head_dim))[:] = rotary_table(spec)
    progress("building the tokenizer", spec.blocks + 1, steps)
    facts = model.tokenizer()
    build_tokenizer(facts).save(str(folder / TOKENIZER))
    (folder / CHAT_TEMPLATE).write_text(spec.chat_template)
    embed_bytes = table.bytes_of("embed.")
    shape = ModelShape(
        name=spec.name,
        blocks=spec.blocks,
        hidden_bytes_per_row=spec.dims.hidden * 4,
        block_bytes=table.bytes_of("blocks.") // spec.blocks,
        embed_bytes=embed_bytes,
        head_bytes=table.bytes_of("head.") + (embed_bytes if spec.tied_embedding else 0),
        kv_bytes_per_token_per_block=2 * spec.kv_heads * spec.dims.head_dim * 2,
    )
    write_manifest(
        folder,
        {
            "kind": "model-package",
            "layout": LAYOUT_VERSION,
            "quantisation": quantisation.name,
            "interface": interface_key(spec.dims, quantisation),
            "spec": asdict(spec),
            "dims": spec.dims.as_dict(),
            "shape": asdict(shape),
            "special_tokens": special_tokens(facts),
            "block_sha256": digests,
            "tensors": table.entries,
        },
    )
    progress("building the tokenizer", steps, steps)
