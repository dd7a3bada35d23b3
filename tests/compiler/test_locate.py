"""A model is known by the hash of its files; large ones that have not changed are not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.errors import ModelFileError
from compiler.models import locate
from compiler.models.locate import hash_model
from tests.compiler.test_hugging_face import write_folder

YEAR_2001_NS = 10**18


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed. Every file counts as large."""
    names: list[str] = []
    real = hashlib.file_digest

    def digest(file: object, kind: str) -> object:
        names.append(Path(file.name).name)  # type: ignore[attr-defined]
        return real(file, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", digest)
    monkeypatch.setattr(locate, "_WORTH_KEEPING_BYTES", 1)
    return names


def write_old(path: Path, content: bytes, time_ns: int = YEAR_2001_NS) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(time_ns, time_ns))
    return path


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    file, cache = write_old(tmp_path / "m.gguf", b"weights"), tmp_path / "cache"
    first = hash_model(file, cache)
    assert first == [("", hashlib.sha256(b"weights").hexdigest())]
    assert hash_model(file, cache) == first
    assert reads == ["m.gguf"]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: write_old(file, b"WEIGHTS"),  # same size, same time
        lambda file: write_old(file, b"weights and more"),
        lambda file: write_old(file, b"WEIGHTS", YEAR_2001_NS + 1),
        lambda file: write_old(file.with_name("new"), b"WEIGHTS").replace(file),
    ],
)
def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[str], change: Callable[[Path], object]) -> None:
    file, cache = write_old(tmp_path / "m.gguf", b"weights"), tmp_path / "cache"
    hash_model(file, cache)
    change(file)
    assert hash_model(file, cache) == [("", hashlib.sha256(file.read_bytes()).hexdigest())]


def test_a_file_that_has_just_changed_is_not_trusted(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    hash_model(file, tmp_path)
    hash_model(file, tmp_path)
    assert reads == ["m.gguf", "m.gguf"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1}', b'{"a": ["x", "not hexadecimal"]}', b'{"a": [["x"], "00"]}'],
)
def test_a_damaged_memory_is_forgotten(tmp_path: Path, reads: list[str], damage: bytes) -> None:
    file, cache = write_old(tmp_path / "m.gguf", b"weights"), tmp_path / "cache"
    first = hash_model(file, cache)
    (cache / "file_hashes.json").write_bytes(damage)
    assert [hash_model(file, cache) for _ in range(2)] == [first, first]
    assert len(reads) == 2


def test_a_memory_that_cannot_be_written_costs_time_only(tmp_path: Path, reads: list[str]) -> None:
    file, cache = write_old(tmp_path / "m.gguf", b"weights"), tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    assert hash_model(file, cache) == hash_model(file, cache)


def test_files_that_are_gone_are_forgotten(tmp_path: Path, reads: list[str]) -> None:
    first, second = (write_old(tmp_path / f"{name}.gguf", b"weights") for name in "ab")
    hash_model(first, tmp_path)
    first.unlink()
    hash_model(second, tmp_path)
    assert list(json.loads((tmp_path / "file_hashes.json").read_text())) == [str(second.resolve())]


def test_everything_in_a_folder_that_matters_counts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "README.md").write_text("not a part of the model")
    names = [name for name, _ in hash_model(folder, tmp_path)]
    assert sorted(names) == ["config.json", "model.safetensors", "tokenizer.json"]
    before = hash_model(folder, tmp_path)
    for name in ("chat_template.jinja", "generation_config.json"):
        (folder / name).write_text("{}")
        after = hash_model(folder, tmp_path)
        assert after != before
        before = after


def test_a_folder_without_weights_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"has no config\.json"):
        hash_model(tmp_path, tmp_path)
