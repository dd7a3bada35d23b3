"""Reading entries: what does not match its manifest counts as missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mec_platform.content_store.entries import bytes_on_disk, default_cache, read_entry, write_manifest


def test_an_entry_is_read_with_its_files_checked(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"library")
    write_manifest(tmp_path, {"kind": "artefact"})
    assert (read_entry(tmp_path) or {})["kind"] == "artefact"
    (tmp_path / "lib.so").write_bytes(b"LIBRARY")
    assert read_entry(tmp_path) is None


def test_holes_take_no_room(tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"some")
    assert bytes_on_disk(tmp_path) < 1 << 20


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MEC_CACHE", raising=False)
    assert default_cache() == tmp_path / "mec"
    monkeypatch.setenv("MEC_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"
