"""A model package that holds some of its weights: a sparse weights.bin with every part at its place, filled part by part.

Which parts are whole stands in parts.json, written after the bytes have reached the disk: after a crash a part is whole
or is fetched again. Processes that share a store fill a package in turns (`filling`), so that no byte of a whole part is
written again under a process that computes with it. Counterpart: whoever fetches parts, and the store's gRPC service.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mec_platform.content_store.locks import locked
from mec_platform.content_store.weights import WEIGHTS, WeightPart, hash_part, weight_parts

PARTS = "parts.json"


def create_partial_weights(folder: Path, manifest: dict[str, Any]) -> None:
    """Makes a weights.bin of the whole size without any bytes. Raises ManifestError where the manifest makes no sense."""
    weight_parts(manifest)
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(int(manifest["files"][WEIGHTS]["bytes"]))


class PartialWeights:
    """The weights of one partial package; `parts` are all that it could hold."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._folder = folder
        self.parts = weight_parts(manifest)

    def whole_parts(self) -> frozenset[str]:
        """Names of the parts that are here and intact, as the record says now."""
        try:
            names = json.loads((self._folder / PARTS).read_text())
        except (OSError, ValueError):
            return frozenset()
        return frozenset(name for name in names if name in self.parts) if isinstance(names, list) else frozenset()

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Holds the right to write parts; waits for another process that has it."""
        with locked(self._folder.parent / f".{self._folder.name}.fill"):
            yield

    def write(self, part: WeightPart, position: int, data: bytes) -> None:
        """Writes bytes of a part that begin `position` bytes into it. Call while `filling`.

        Raises:
            OSError: no room on the disk. ValueError: more bytes than the part has.
        """
        view = memoryview(data)
        file = os.open(self._folder / WEIGHTS, os.O_WRONLY)
        try:
            for extent in part.extents_from(position):
                if not view:
                    return
                share = view[: extent.size]
                if os.pwrite(file, share, extent.offset) < len(share):
                    raise OSError(errno.ENOSPC, f"no room for {part.name} in {self._folder}")
                view = view[len(share) :]
        finally:
            os.close(file)
        if view:
            raise ValueError(f"{part.name} has {part.size} bytes, not {len(view)} more")

    def finish(self, part: WeightPart) -> bool:
        """Records a part as whole where its bytes on the disk have its hash; False where not. Call while `filling`."""
        if hash_part(self._folder / WEIGHTS, part) != part.sha256:
            return False
        _sync(self._folder / WEIGHTS)
        fresh = self._folder / f"{PARTS}.fresh"
        fresh.write_text(json.dumps(sorted(self.whole_parts() | {part.name})))
        _sync(fresh)
        fresh.replace(self._folder / PARTS)
        return True


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        os.fdatasync(file)
    finally:
        os.close(file)
