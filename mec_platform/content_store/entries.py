"""The content-addressed store on disk. Standard library only: finding something must stay cheap.

An entry is a folder `<kind>/<key>` with a manifest.json that lists its other files with sizes and SHA-256. It is built
in a folder beside it and renamed, under a lock per entry, so that readers see whole entries only and two processes that
build the same one do it once. What does not match its manifest is built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
# Larger files are checked by size alone when an entry is looked up: hashing weights would cost more than mapping them.
_HASH_LIMIT_BYTES = 16 << 20


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
    """The manifest of an intact entry; None where the entry is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, facts in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != facts["bytes"]:
                return None
            if facts["bytes"] <= _HASH_LIMIT_BYTES and file_facts(path)["sha256"] != facts["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def ensure_entry(folder: Path, build: Callable[[Path], None]) -> bool:
    """Makes sure that `folder` is an intact entry; `build` fills an empty folder with it, manifest included.

    Returns:
        Whether anything was built.
    """
    if read_entry(folder) is not None:
        return False
    with _locked(folder):
        if read_entry(folder) is not None:
            return False  # another process was faster
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fresh.chmod(0o755)
            build(fresh)
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
