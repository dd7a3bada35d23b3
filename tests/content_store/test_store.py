"""The store's door: entries are built once, kept while used, removed when they must, and never left half-written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mec_platform.content_store.entries import write_manifest
from mec_platform.content_store.store import ContentStore, EntryInUse

KIB = 1 << 10


def fill(folder: Path, size: int = 64 * KIB) -> None:
    (folder / "lib.so").write_bytes(os.urandom(size))
    write_manifest(folder, {"kind": "artefact"})


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path, 1 << 30)


def age(store: ContentStore, key: str, hours: int) -> None:
    """Makes an entry's last use lie in the past."""
    then = time.time() - hours * 3600
    os.utime(store.root / "artefacts" / f".{key}.use", (then, then))


def names(store: ContentStore) -> list[str]:
    """What lies beside the entries, entries included; lock files left out."""
    return sorted(path.name for path in (store.root / "artefacts").iterdir() if path.is_dir())


@contextlib.contextmanager
def process(store: ContentStore, body: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `body` with `store`, up to where it says "ready" and waits for its input to end."""
    code = f"""
import sys
from pathlib import Path
from mec_platform.content_store.store import ContentStore
store = ContentStore(Path({str(store.root)!r}), 1 << 30)
def wait():
    print("ready", flush=True)
    sys.stdin.read()
{body}
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running


def test_an_entry_is_built_once(store: ContentStore) -> None:
    assert store.ensure("artefacts", "a", fill)
    assert not store.ensure("artefacts", "a", fill)
    assert (store.find("artefacts", "a") or {})["kind"] == "artefact"


@pytest.mark.parametrize("damage", ["lib.so", "manifest.json"])
@pytest.mark.parametrize("content", [None, b"", b"LIBRARY", b"{}"])
def test_a_damaged_entry_is_built_again(store: ContentStore, damage: str, content: bytes | None) -> None:
    store.ensure("artefacts", "a", fill)
    path = store.folder("artefacts", "a") / damage
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert store.find("artefacts", "a") is None
    assert store.ensure("artefacts", "a", fill)
    assert store.find("artefacts", "a") is not None
    assert names(store) == ["a"]


def test_a_failed_build_leaves_nothing(store: ContentStore) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.ensure("artefacts", "a", fail)
    assert names(store) == []


def test_builders_at_the_same_time_build_once(store: ContentStore) -> None:
    builds: list[Path] = []

    def build(fresh: Path) -> None:
        builds.append(fresh)
        fill(fresh)

    builders = [threading.Thread(target=store.ensure, args=("artefacts", "a", build)) for _ in range(8)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(builds) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", ".a", "a.b", "x" * 65])
def test_names_that_are_no_plain_names_are_refused(store: ContentStore, name: str) -> None:
    with pytest.raises(ValueError, match="no entry can be called"):
        store.folder("models", name)
    with pytest.raises(ValueError, match="no entry can be called"):
        store.folder(name, "a")


def test_the_least_recently_used_entries_make_room(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, 250 * KIB)  # room for three
    for hours, key in ((3, "a"), (5, "b"), (4, "c")):
        store.ensure("artefacts", key, fill)
        age(store, key, hours)
    store.find("artefacts", "b")
    store.ensure("artefacts", "d", fill)
    assert names(store) == ["a", "b", "d"]
    assert not (tmp_path / "artefacts" / ".c.use").exists()


def test_the_entry_that_was_just_built_stays_even_above_the_limit(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, 0)
    store.ensure("artefacts", "a", fill)
    store.ensure("artefacts", "b", fill)
    assert names(store) == ["b"]


def test_small_entries_stay(store: ContentStore) -> None:
    """Names and profiles: removing them would make no room."""
    store.ensure("names", "n", lambda folder: fill(folder, 100))
    assert ContentStore(store.root, 0).evict() == []
    store.remove("names", "n")
    assert store.entries() == []


def test_reading_within_the_hour_writes_nothing(store: ContentStore) -> None:
    store.ensure("artefacts", "a", fill)
    stamp = store.root / "artefacts" / ".a.use"
    before = stamp.stat().st_mtime_ns
    store.find("artefacts", "a")
    assert stamp.stat().st_mtime_ns == before
    age(store, "a", 2)
    store.find("artefacts", "a")
    assert stamp.stat().st_mtime_ns >= before


def test_what_another_process_uses_is_not_removed(store: ContentStore) -> None:
    store.ensure("artefacts", "a", fill)
    with process(store, 'with store.hold("artefacts", "a"): wait()') as user:
        assert [entry.is_in_use for entry in store.entries()] == [True]
        assert ContentStore(store.root, 0).evict() == []
        with pytest.raises(EntryInUse, match="artefacts/a is in use"):
            store.remove("artefacts", "a")
        user.kill()
        user.wait()
    assert [entry.key for entry in ContentStore(store.root, 0).evict()] == ["a"]
    assert list((store.root / "artefacts").iterdir()) == []


def test_what_another_process_builds_is_waited_for_and_not_removed(store: ContentStore) -> None:
    body = """
def build(folder):
    wait()
    (folder / "lib.so").write_text("theirs")
    from mec_platform.content_store.entries import write_manifest
    write_manifest(folder, {"kind": "artefact"})
store.ensure("artefacts", "a", build)
"""
    built: list[bool] = []
    with process(store, body) as builder:
        assert ContentStore(store.root, 0).evict() == []
        waiting = threading.Thread(target=lambda: built.append(store.ensure("artefacts", "a", fill)))
        waiting.start()
        assert builder.stdin is not None
        builder.stdin.close()
        waiting.join()
    assert built == [False]
    assert (store.folder("artefacts", "a") / "lib.so").read_text() == "theirs"


@pytest.mark.parametrize("finish", ["evict", "build"])
def test_leftovers_of_a_killed_builder_are_removed(store: ContentStore, finish: str) -> None:
    body = """
def build(folder):
    (folder / "lib.so").write_text("half")
    wait()
store.ensure("artefacts", "a", build)
"""
    with process(store, body) as builder:
        builder.kill()
        builder.wait()
    assert len(names(store)) == 1
    if finish == "evict":
        store.evict()
        assert names(store) == []
    else:
        store.ensure("artefacts", "a", fill)
        assert names(store) == ["a"]


def test_a_fetch_goes_on_where_it_was_cut_off_and_its_leftovers_go_after_a_day(store: ContentStore) -> None:
    found: list[list[str]] = []

    def fetch_half() -> Path:
        with store.building("artefacts", "a", resumed=True) as fresh:
            assert fresh is not None
            found.append([path.name for path in fresh.iterdir()])
            (fresh / "lib.so").write_bytes(b"first half")
            raise ConnectionError(fresh)

    for _ in range(2):
        with pytest.raises(ConnectionError) as cut:
            fetch_half()
        store.evict()
    assert found == [[], ["lib.so"]]
    then = time.time() - 2 * 86400
    os.utime(cut.value.args[0], (then, then))
    store.evict()
    assert names(store) == []


def test_a_full_disk_leaves_nothing_and_says_what_to_do(store: ContentStore) -> None:
    """A limit on file sizes stands for the disk."""
    body = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({4 * KIB}, {4 * KIB}))
def build(folder):
    (folder / "lib.so").write_bytes(bytes({64 * KIB}))
try:
    store.ensure("artefacts", "a", build)
except OSError as error:
    print("ready")
    print(type(error).__name__, error)
"""
    with process(store, body) as full:
        assert full.stdout is not None
        said = full.stdout.read()
    assert said.startswith("StoreFull")
    assert "no room in" in said
    assert "MEC_CACHE_LIMIT" in said
    assert names(store) == []


def test_a_folder_outside_the_store_needs_no_holding(store: ContentStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with store.hold_folder(elsewhere):
        assert list(tmp_path.iterdir()) == [elsewhere]
    store.ensure("artefacts", "a", fill)
    with store.hold_folder(store.folder("artefacts", "a")), pytest.raises(EntryInUse):
        store.remove("artefacts", "a")
    store.remove("artefacts", "a")
    assert store.entries() == []


def test_an_entry_can_be_replaced_and_stays_where_its_successor_fails(store: ContentStore) -> None:
    def write(text: str) -> None:
        def build(folder: Path) -> None:
            (folder / "lib.so").write_text(text)
            if text == "broken":
                raise ValueError(text)
            write_manifest(folder, {"kind": "artefact"})

        store.replace("artefacts", "key", build)

    write("old")
    with pytest.raises(ValueError, match="broken"):
        write("broken")
    assert (store.folder("artefacts", "key") / "lib.so").read_text() == "old"
    write("new")
    assert (store.folder("artefacts", "key") / "lib.so").read_text() == "new"
    assert names(store) == ["key"]
