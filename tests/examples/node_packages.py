"""The packages of a Node.js example, installed once into the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from mec_platform.content_store.entries import default_cache

MANIFESTS = ("package.json", "package-lock.json")


def install(example: Path) -> Path:
    """A folder with the packages that an example's lock file names, whose hashes npm checks.

    Raises CalledProcessError where npm cannot install them.
    """
    digest = hashlib.sha256(b"".join((example / each).read_bytes() for each in MANIFESTS)).hexdigest()
    folder = default_cache() / "node" / f"{example.name}-{digest[:16]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    for each in MANIFESTS:
        shutil.copy(example / each, partial)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=partial, check=True, capture_output=True
    )
    try:
        partial.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(partial)
    return folder
