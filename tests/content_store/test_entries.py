"""Entries of the store: what is whole is found, what is damaged is built again, at once and by one builder."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mec_platform.content_store.entries import default_cache, ensure_entry, read_entry, write_manifest


def build_entry(folder: Path) -> None:
    (folder / "lib.so").write_bytes(b"library")
    write_manifest(folder, {"kind": "artefact"})


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts" / "key"
    assert ensure_entry(folder, build_entry)
    assert not ensure_entry(folder, build_entry)
    assert (read_entry(folder) or {})["kind"] == "artefact"


@pytest.mark.parametrize("damage", ["lib.so", "manifest.json"])
@pytest.mark.parametrize("content", [None, b"", b"LIBRARY", b"{}"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str, content: bytes | None) -> None:
    folder = tmp_path / "artefacts" / "key"
    ensure_entry(folder, build_entry)
    if content is None:
        (folder / damage).unlink()
    else:
        (folder / damage).write_bytes(content)
    assert ensure_entry(folder, build_entry)
    assert (folder / "lib.so").read_bytes() == b"library"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "lib.so").write_bytes(b"half")
        raise RuntimeError("no")

    folder = tmp_path / "artefacts" / "key"
    with pytest.raises(RuntimeError):
        ensure_entry(folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == [".key.lock"]


def test_builders_at_the_same_time_build_once(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts" / "key"
    builds: list[Path] = []

    def build(fresh: Path) -> None:
        builds.append(fresh)
        build_entry(fresh)

    builders = [threading.Thread(target=ensure_entry, args=(folder, build)) for _ in range(8)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(builds) == 1


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MEC_CACHE", raising=False)
    assert default_cache() == tmp_path / "mec"
    monkeypatch.setenv("MEC_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"
