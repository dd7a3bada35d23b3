"""The files of a Hugging Face folder: which of them make up the model. Imports nothing slow: every start asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compiler.errors import ModelFileError

CONFIG = "config.json"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TEXT_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def model_files(folder: Path) -> list[Path]:
    """Every file that decides what a package of the model holds.

    Raises:
        ModelFileError: config.json or a file of tensors is missing.
    """
    read_json(folder / CONFIG)
    optional = [folder / name for name in (_INDEX, *_TEXT_FILES) if (folder / name).is_file()]
    return [folder / CONFIG, *optional, *safetensors_files(folder)]


def safetensors_files(folder: Path) -> list[Path]:
    """The files that hold the tensors, in the order of their names.

    Raises:
        ModelFileError: there are none, or the index names files that are missing or outside the folder.
    """
    if not (folder / _INDEX).is_file():
        if not (folder / _SINGLE).is_file():
            raise ModelFileError(f"'{folder}' holds neither {_SINGLE} nor {_INDEX}; download the safetensors files")
        return [folder / _SINGLE]
    shards = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelFileError(f"'{folder / _INDEX}' maps no tensors to files; download it again")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise ModelFileError(f"'{folder / _INDEX}' names {name!r}, no file of the folder; download it again")
        if not (folder / name).is_file():
            raise ModelFileError(f"'{folder}' lacks {name}, which its index names; download it")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises ModelFileError where it is missing or holds none."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(f"'{path.parent}' has no {path.name}; download it") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"'{path}' is not readable JSON ({reason}); download it again") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"'{path}' holds no JSON object; download it again")
    return document
