"""A torch module as the compiler takes it: exported, with the points where it may be cut and what its input means.

`load_program` reads the file that `torch.export.save` writes; `compiler.torch_modules.cuts` cuts what it returns. torch
is imported here and in `cuts` only. A .pt2 file holds a graph as JSON and weights as plain bytes; it can also hold
pickles, which run code when they are read, so a file with any is refused before torch sees it.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compiler.errors import ModelFileError

FACTS = "mec.json"
"""Extra file of a .pt2 archive: {"cut_points": [...], "input": {...}, "note": "..."}, every part of it optional."""

_PLAIN = (
    "data/weights/",
    "data/constants/",
    "data/sample_inputs/",
    "models/",
    "extra/",
    "archive_",
    "byteorder",
    ".data/",
    ".format_version",
    ".storage_alignment",
)
"""What an archive may hold: beginnings of its members' names."""

_ADVICE = "only plain tensors are read: export the module again, without custom objects, with this release of torch"


@dataclass(frozen=True)
class TorchProgram:
    """One exported module: one float32 tensor in, one out, every shape fixed.

    `cut_points` are module paths, none for the default (see `cuts.partition`). `input` says what the tensor means, such as
    `{"kind": "image", "height": 96, "width": 96, "mean": [...], "std": [...]}`, and `note` what users must be told;
    both travel to the package as they are.
    """

    name: str
    exported: torch.export.ExportedProgram
    cut_points: tuple[str, ...] = ()
    input: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def export_program(
    module: torch.nn.Module,
    example: torch.Tensor,
    name: str,
    *,
    cut_points: Sequence[str] = (),
    input: dict[str, Any] | None = None,
    note: str = "",
) -> TorchProgram:
    """Exports a module in inference mode for inputs of exactly `example`'s shape.

    Raises:
        ModelFileError: it has no fixed graph, for instance because it branches on its data.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own insides
            exported = torch.export.export(module.eval(), (example,), strict=False)
    except (RuntimeError, TypeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(
            f"'{name}' cannot be exported ({reason}); its shapes and branches must not depend on its data"
        ) from error
    return TorchProgram(name, exported, tuple(cut_points), dict(input or {}), note)


def save_program(program: TorchProgram, path: Path) -> None:
    """Writes a .pt2 file that `load_program`, and torch itself, can read."""
    facts = {"cut_points": list(program.cut_points), "input": program.input, "note": program.note}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program.exported, path, extra_files={FACTS: json.dumps(facts)})


def load_program(path: Path, name: str) -> TorchProgram:
    """Reads a .pt2 file.

    Raises:
        ModelFileError: it is damaged, not of torch.export.save, or holds pickles.
    """
    _refuse_pickles(path)
    extra: dict[str, Any] = {FACTS: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.load(path, extra_files=extra)
        facts = json.loads(extra[FACTS] or "{}")
        cut_points = tuple(str(point) for point in facts.get("cut_points", ()))
        return TorchProgram(name, exported, cut_points, dict(facts.get("input", {})), str(facts.get("note", "")))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, zipfile.BadZipFile) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(f"'{path}' cannot be read ({reason}); write it again with torch.export.save") from error


def _refuse_pickles(path: Path) -> None:
    """torch.export.load runs code that an archive brings: pickled payloads, and libraries compiled ahead of time.

    Example inputs are always pickled; they are read once here by the reader that makes nothing but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise ModelFileError(f"'{path}' has two members of one name; {_ADVICE}")
            for name in names:
                _check_member(path, archive, name, name.partition("/")[2])
    except ModelFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"'{path}' is no file of torch.export.save ({error})") from error


def _check_member(path: Path, archive: zipfile.ZipFile, member: str, name: str) -> None:
    if not name.startswith(_PLAIN):
        raise ModelFileError(f"'{path}' holds more than a graph and its tensors ({name}); {_ADVICE}")
    if name.startswith("data/sample_inputs/"):
        try:
            torch.load(io.BytesIO(archive.read(member)), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise ModelFileError(f"'{path}' has example inputs that are no tensors; {_ADVICE}") from error
    elif name.startswith("data/") and name.endswith(".pt"):
        raise ModelFileError(f"'{path}' holds pickled weights ({name}); {_ADVICE}")
    elif name.startswith("data/") and name.endswith(".json"):
        for what, payload in json.loads(archive.read(member))["config"].items():
            if payload["use_pickle"] or not payload["tensor_meta"]:
                raise ModelFileError(f"'{path}' holds pickled data for {what}; {_ADVICE}")
