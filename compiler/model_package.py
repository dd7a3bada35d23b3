"""Writes a model package: what a node needs of one model besides the artefact, in a form it can map and slice.

weights.bin holds every tensor of the blocks stacked `[blocks, ...]`, one tensor after the other, so that a layer range
is a slice of each; then the embedding, the head, and the rotary table. Offsets are multiples of a page.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import ModelFileError
from compiler.models.groups import stack_rows
from compiler.models.model_file import ModelFile
from compiler.models.padding import padded_groups, padded_values, padded_vector
from compiler.models.rotary import rotary_table
from compiler.models.spec import ModelSpec
from compiler.models.tensors import PACKED_MATRICES, in_block
from compiler.models.tokenizer import ModelTokenizer
from compiler.packing import LAYOUT_VERSION, pack_floats, pack_groups
from compiler.quantisation import INTEGER_BITS, Quantisation, Storage, interface_key
from mec_platform.content_store.entries import write_manifest
from mec_platform.domain.model_shape import ModelShape

ALIGNMENT = 4096
WEIGHTS = "weights.bin"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"

Progress = Callable[[str, int, int], None]

# Rows of the embedding and the head, and positions of the rotary table, that are in memory at a time.
_CHUNK_ROWS = 8192


def _pack(model: ModelFile, names: list[str], stored: Storage, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """q and s of matrices stacked one below the other, or of `rows` (whole strips of 32) of a single one."""
    bits = INTEGER_BITS.get(stored)
    if bits is None:
        whole = np.concatenate([padded_values(model, name, rows) for name in names])
        return {"q": pack_floats(whole, stored), "s": np.zeros(1, np.float16)}
    q, s = pack_groups(stack_rows([padded_groups(model, name, bits, rows) for name in names]), bits)
    return {"q": q, "s": s}


def _block_tensors(model: ModelFile, block: int, quantisation: Quantisation) -> dict[str, np.ndarray]:
    """Everything that a package holds of one block, by its name there."""

    def vector(part: str) -> np.ndarray:
        return padded_vector(model, in_block(block, part))

    tensors = {name: vector(name) for name in ("attention_norm", "ffn_norm")}
    if model.spec.qkv_bias:
        tensors["qkv.bias"] = np.concatenate([vector(f"{part}_bias") for part in ("query", "key", "value")])
    if model.spec.qk_norm:
        tensors |= {name: vector(name) for name in ("query_norm", "key_norm")}
    for name, (parts, field) in PACKED_MATRICES.items():
        packed = _pack(model, [in_block(block, part) for part in parts], getattr(quantisation, field))
        tensors |= {f"{name}.{part}": value for part, value in packed.items()}
    return {f"blocks.{name}": value for name, value in tensors.items()}


def _write_text_matrix(table: WeightTable, model: ModelFile, name: str, source: str, stored: Storage) -> None:
    """The embedding or the head, some rows at a time: with a large vocabulary it is larger than many blocks."""
    vocab = model.spec.dims.vocab
    arrays: dict[str, np.ndarray] = {}
    for start in range(0, vocab, _CHUNK_ROWS):
        for part, value in _pack(model, [source], stored, slice(start, start + _CHUNK_ROWS)).items():
            strips = vocab // 32 if value.ndim > 1 else 1
            if start == 0:
                arrays[part] = table.add(f"{name}.{part}", value.dtype, (1, strips, *value.shape[1:]))
            first = start // 32 if value.ndim > 1 else 0
            arrays[part][0, first : first + len(value)] = value


def _write_rotary_table(table: WeightTable, spec: ModelSpec) -> None:
    """float32 [context, head_dim]. Packed: all nodes use the same bits."""
    rows = table.add("rope", np.dtype(np.float32), (spec.context, spec.dims.head_dim))
    for start in range(0, spec.context, _CHUNK_ROWS):
        stop = min(spec.context, start + _CHUNK_ROWS)
        rows[start:stop] = rotary_table(spec.rotary, spec.dims.head_dim, start, stop)


class WeightTable:
    """The tensor table, and the file it describes."""

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, Any]] = []
        self._path = path
        self._end = 0

    def add(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Room for one tensor, mapped for writing. Raises OSError where the disk has none."""
        size = int(np.prod(shape)) * dtype.itemsize
        entry = {"name": name, "dtype": dtype.name, "shape": list(shape), "offset": self._end, "bytes": size}
        self.entries.append(entry)
        stop = -(-(self._end + size) // ALIGNMENT) * ALIGNMENT
        with self._path.open("ab") as file:
            # Room on the disk, not only in the file: writing to a map that the disk has no room for kills the process.
            try:
                os.posix_fallocate(file.fileno(), self._end, stop - self._end)
            except OSError as error:
                advice = "free some space, or set MEC_CACHE to a folder on another disk"
                raise OSError(
                    error.errno, f"no room for {size / 1e6:.1f} MB of weights ({error.strerror}); {advice}"
                ) from error
        mapped = np.memmap(self._path, dtype, "r+", self._end, shape)
        self._end = stop
        return mapped

    def hash_part(self, part: str) -> str:
        """SHA-256 over the tensors of a part ("embed", "head", "rope"), one after the other."""
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            for entry in self.entries:
                if entry["name"].partition(".")[0] == part:
                    file.seek(entry["offset"])
                    left = entry["bytes"]
                    while left:
                        read = file.read(min(left, 1 << 20))
                        digest.update(read)
                        left -= len(read)
        return digest.hexdigest()

    def bytes_of(self, prefix: str) -> int:
        """Bytes of all tensors whose name starts with `prefix`."""
        return sum(entry["bytes"] for entry in self.entries if entry["name"].startswith(prefix))


def write_model_package(folder: Path, model: ModelFile, quantisation: Quantisation, progress: Progress) -> None:
    """Fills `folder` with weights.bin, tokenizer.json, the chat template and the manifest.

    Raises:
        ModelFileError: the tokenizer cannot be rebuilt or has more tokens than the model, or weights are not finite.
    """
    spec = model.spec
    progress("building the tokenizer", 0, 1)
    text = _read_tokenizer(model)
    (folder / TOKENIZER).write_text(text.tokenizer.to_str(pretty=True), encoding="utf-8")
    (folder / CHAT_TEMPLATE).write_text(text.chat_template, encoding="utf-8")
    progress("building the tokenizer", 1, 1)
    table = WeightTable(folder / WEIGHTS)
    steps = spec.blocks + 1
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
    final_norm = padded_vector(model, "final_norm")
    table.add("head.norm", final_norm.dtype, (1, *final_norm.shape))[0] = final_norm
    for name, source in {"embed": "embedding", **({} if spec.tied_embedding else {"head": "head"})}.items():
        _write_text_matrix(table, model, name, source, quantisation.text)
    _write_rotary_table(table, spec)
    write_manifest(
        folder,
        {
            "kind": "model-package",
            "layout": LAYOUT_VERSION,
            "quantisation": quantisation.name,
            "interface": interface_key(spec.dims, quantisation),
            "spec": _spec_facts(spec, text),
            "dims": spec.dims.as_dict(),
            "shape": asdict(_model_shape(spec, table)),
            "special_tokens": text.special_tokens,
            "block_sha256": digests,
            "part_sha256": {part: table.hash_part(part) for part in ("embed", "head", "rope")},
            "tensors": table.entries,
        },
    )
    progress("packing weights", steps, steps)


def _read_tokenizer(model: ModelFile) -> ModelTokenizer:
    text = model.read_tokenizer()
    if text.size > model.spec.vocab:
        raise ModelFileError(
            f"'{model.path}': its tokenizer has {text.size} tokens, its embedding {model.spec.vocab}; download it again"
        )
    return text


def _spec_facts(spec: ModelSpec, text: ModelTokenizer) -> dict[str, Any]:
    """What a node may ask of the model; the rotary embedding is in the weights."""
    facts = {name: value for name, value in asdict(spec).items() if name != "rotary"}
    ids = ("bos_id", "eos_id", "eot_id", "stop_ids", "add_bos", "chat_template")
    return facts | {name: getattr(text, name) for name in ids}


def _model_shape(spec: ModelSpec, table: WeightTable) -> ModelShape:
    embed_bytes = table.bytes_of("embed.")
    return ModelShape(
        name=spec.name,
        blocks=spec.blocks,
        hidden_bytes_per_row=spec.dims.hidden * 4,
        block_bytes=table.bytes_of("blocks.") // spec.blocks,
        embed_bytes=embed_bytes,
        head_bytes=table.bytes_of("head.") + (embed_bytes if spec.tied_embedding else 0),
        kv_bytes_per_token_per_block=2 * spec.kv_heads * spec.dims.head_dim * 2,
    )
