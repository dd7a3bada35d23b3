"""Where fetched bytes go: a file of an entry that is being built, or a part of a package's weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.weights import WeightPart


class FileSink:
    """A file that goes on where an earlier fetch stopped."""

    def __init__(self, path: Path, size: int, sha256: str) -> None:
        self.name = path.name
        self.size = size
        self._path = path
        self._sha256 = sha256
        path.touch()
        self.position = path.stat().st_size
        if self.position > size:
            self.reset()

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        with self._path.open("ab") as file:
            file.write(data)
        self.position += len(data)

    def accept(self) -> bool:
        """Whether the file has the size and hash that it should have."""
        with self._path.open("rb") as file:
            return self.position == self.size and hashlib.file_digest(file, "sha256").hexdigest() == self._sha256

    def reset(self) -> None:
        """Empties the file."""
        self._path.write_bytes(b"")
        self.position = 0


class PartSink:
    """A part of weights; use it while `weights.filling()`."""

    def __init__(self, weights: PartialWeights, part: WeightPart) -> None:
        self.name = part.name
        self.size = part.size
        self.position = 0
        self._weights = weights
        self._part = part

    def write(self, data: bytes) -> None:
        """Puts bytes in their place."""
        self._weights.write(self._part, self.position, data)
        self.position += len(data)

    def accept(self) -> bool:
        """Records the part as whole where its bytes are right."""
        return self._weights.finish(self._part)

    def reset(self) -> None:
        """Begins anew; what was written is written over."""
        self.position = 0
