"""What an entry of the store is, and how one is read. Standard library only: finding something must stay cheap.

An entry is a folder `<kind>/<key>` with a manifest.json that lists its other files with sizes and SHA-256. What does not
match its manifest counts as missing. This module changes nothing; `store.ContentStore` does.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
MODELS, PARTIAL_MODELS, ARTEFACTS, NAMES = "models", "partial_models", "artefacts", "names"
"""Kinds: whole model packages, packages that hold some of their weights, compiled artefacts, names given by users."""

# Larger files are checked by size alone when an entry is looked up: hashing weights would cost more than mapping them.
_HASH_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry as it lies on the disk. `used_s` is when it was last used, to the hour, in seconds since 1970."""

    kind: str
    key: str
    folder: Path
    bytes_on_disk: int
    used_s: float
    is_in_use: bool


def default_cache() -> Path:
    """$MEC_CACHE, else the `mec` folder in the user's cache."""
    explicit = os.environ.get("MEC_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mec"


def content_key(*parts: Any) -> str:
    """Key of an entry: a hash over everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def file_facts(path: Path) -> dict[str, int | str]:
    """Size and SHA-256 of a file, as a manifest records them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Adds the facts of every file in `folder` to `manifest` and writes it."""
    files = {path.name: file_facts(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1))


def read_entry(folder: Path) -> dict[str, Any] | None:
    """The manifest of an intact entry; None where the entry is missing or damaged.

    Of a partial package the weights are checked by size: which of their parts are whole stands beside them.
    """
    size_only = "weights.bin" if folder.parent.name == PARTIAL_MODELS else ""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, facts in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != facts["bytes"]:
                return None
            if name == size_only:
                continue
            if facts["bytes"] <= _HASH_LIMIT_BYTES and file_facts(path)["sha256"] != facts["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """An entry's manifest as it stands, its files unchecked; None where it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def bytes_on_disk(folder: Path) -> int:
    """What the files of a folder take; holes of sparse files count nothing, and what vanishes meanwhile neither."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(parent) / name).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
