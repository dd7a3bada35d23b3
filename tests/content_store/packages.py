"""A small model package with weights of random bytes, laid out as real ones are: enough for stores, which read no weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mec_platform.content_store.entries import write_manifest
from mec_platform.content_store.store import ContentStore

BLOCKS = 6
BLOCK_BYTES = (300_000, 5_000)  # of each of two tensors
EMBED_BYTES, HEAD_BYTES, ROPE_BYTES = 2_500_000, 1_000, 40_000


def write_package(folder: Path, interface: str = "abc") -> None:
    """Fills a folder."""
    tensors: list[dict[str, Any]] = []
    whole = bytearray()

    def add(name: str, size: int) -> bytes:
        whole.extend(bytes(-len(whole) % 4096))
        data = os.urandom(size)
        tensors.append({"name": name, "offset": len(whole), "bytes": size})
        whole.extend(data)
        return data

    stacked = [add(f"blocks.{name}", size * BLOCKS) for name, size in zip("qs", BLOCK_BYTES, strict=True)]
    digests = []
    for block in range(BLOCKS):
        shares = [data[block * size : (block + 1) * size] for data, size in zip(stacked, BLOCK_BYTES, strict=True)]
        digests.append(hashlib.sha256(b"".join(shares)).hexdigest())
    sizes = {"head": ("head.norm", HEAD_BYTES), "embed": ("embed.q", EMBED_BYTES), "rope": ("rope", ROPE_BYTES)}
    parts = {part: hashlib.sha256(add(*tensor)).hexdigest() for part, tensor in sizes.items()}
    (folder / "weights.bin").write_bytes(whole)
    (folder / "tokenizer.json").write_text("{}")
    facts = {"kind": "model-package", "interface": interface, "quantisation": "int4", "shape": {"name": "small"}}
    write_manifest(folder, facts | {"block_sha256": digests, "part_sha256": parts, "tensors": tensors})


def add_package(store: ContentStore, key: str = "p1") -> dict[str, Any]:
    """A package in a store; its manifest."""
    store.ensure("models", key, write_package)
    manifest: dict[str, Any] = json.loads((store.folder("models", key) / "manifest.json").read_text())
    return manifest


def add_artefact(store: ContentStore, key: str = "a1", size: int = 3_000_000, **facts: Any) -> dict[str, Any]:
    """An artefact with a library of random bytes; its manifest."""

    def write(folder: Path) -> None:
        (folder / "lib.so").write_bytes(os.urandom(size))
        write_manifest(folder, {"kind": "artefact", "interface": "abc", "quantisation": "int4", **facts})

    store.ensure("artefacts", key, write)
    manifest: dict[str, Any] = json.loads((store.folder("artefacts", key) / "manifest.json").read_text())
    return manifest
