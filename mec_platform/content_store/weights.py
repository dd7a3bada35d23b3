"""The weights of a model package in parts: each block, the embedding, the head, the rotary table.

A part lies in weights.bin as one extent per tensor (blocks are stacked tensor by tensor); read one after the other, in
the order of the manifest, its extents are the bytes that its SHA-256 is of. That is also the order in which parts travel.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS = "weights.bin"
EMBED, HEAD, ROPE = "embed", "head", "rope"
_BLOCKS = "blocks"
_READ_BYTES = 1 << 20


class ManifestError(ValueError):
    """A manifest that does not describe weights; it may have come over the network."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes in weights.bin."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class WeightPart:
    """One part: its name ("block.7", "embed", "head", "rope"), its hash, and where its bytes lie."""

    name: str
    sha256: str
    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Bytes of all extents."""
        return sum(extent.size for extent in self.extents)

    def extents_from(self, start: int) -> Iterator[Extent]:
        """What of the extents lies beyond the first `start` bytes of the part."""
        for extent in self.extents:
            if start < extent.size:
                yield Extent(extent.offset + start, extent.size - start)
            start = max(0, start - extent.size)


def block_part(block: int) -> str:
    """Name of a block's part."""
    return f"block.{block}"


def weight_parts(manifest: dict[str, Any]) -> dict[str, WeightPart]:
    """The parts of a package by name, in the order of blocks, then the rest.

    Raises:
        ManifestError: the manifest does not say what they are, or they do not fit weights.bin.
    """
    try:
        extents = _extents(manifest)
        hashes = {block_part(block): str(sha256) for block, sha256 in enumerate(manifest["block_sha256"])}
        hashes |= {str(name): str(sha256) for name, sha256 in manifest.get("part_sha256", {}).items()}
        without = ", ".join(sorted(extents.keys() - hashes.keys()))
        if without:
            raise ManifestError(f"no hash of {without}")
        return {name: WeightPart(name, sha256, tuple(extents[name])) for name, sha256 in hashes.items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise ManifestError(f"the package's manifest is damaged or from another release ({error})") from error


def _extents(manifest: dict[str, Any]) -> dict[str, list[Extent]]:
    """Extents by part: of tensors "blocks.NAME" every block has an equal share, "blocks.7.NAME" belongs to block 7."""
    whole, blocks = int(manifest["files"][WEIGHTS]["bytes"]), len(manifest["block_sha256"])
    extents: dict[str, list[Extent]] = {}
    for tensor in manifest["tensors"]:
        words, offset, size = str(tensor["name"]).split("."), int(tensor["offset"]), int(tensor["bytes"])
        if offset < 0 or size < 0 or offset + size > whole:
            raise ManifestError(f"tensor {tensor['name']} does not lie within {WEIGHTS}")
        if words[0] != _BLOCKS:
            extents.setdefault(words[0], []).append(Extent(offset, size))
        elif words[1].isdigit():
            extents.setdefault(block_part(int(words[1])), []).append(Extent(offset, size))
        else:
            share = size // blocks
            for block in range(blocks):
                extents.setdefault(block_part(block), []).append(Extent(offset + block * share, share))
    return extents


def parts_of_stage(start: int, stop: int, *, is_first: bool, is_last: bool, tied_embedding: bool) -> tuple[str, ...]:
    """Names of the parts that a stage over blocks `[start, stop)` reads; a tied head reads the embedding's matrix."""
    names = [ROPE, *(block_part(block) for block in range(start, stop))]
    if is_first or (is_last and tied_embedding):
        names.append(EMBED)
    if is_last:
        names.append(HEAD)
    return tuple(names)


def hash_part(path: Path, part: WeightPart) -> str:
    """SHA-256 of a part as it lies in a file."""
    digest = hashlib.sha256()
    file = os.open(path, os.O_RDONLY)
    try:
        for extent in part.extents:
            for chunk in read_extent(file, extent, _READ_BYTES):
                digest.update(chunk)
    finally:
        os.close(file)
    return digest.hexdigest()


def read_extent(file: int, extent: Extent, chunk_bytes: int) -> Iterator[bytes]:
    """The bytes of an extent, some at a time. Raises OSError where the file ends before."""
    position, stop = extent.offset, extent.offset + extent.size
    while position < stop:
        chunk = os.pread(file, min(chunk_bytes, stop - position), position)
        if not chunk:
            raise OSError(f"{WEIGHTS} ends at byte {position}")
        yield chunk
        position += len(chunk)
