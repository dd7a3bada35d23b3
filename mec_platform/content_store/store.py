"""The one door through which the store on disk changes: entries are built, held, and removed here, and nowhere else.

An entry is built in a folder beside its place and renamed, under a lock per entry, so that readers see whole entries
only and two processes that build the same one do it once. Whoever works with an entry holds it (a shared lock); what is
held is not removed. `.<key>.lock` guards building, `.<key>.use` guards use, and its time says when that last was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mec_platform.content_store.entries import MANIFEST, StoredEntry, bytes_on_disk, default_cache, read_entry
from mec_platform.content_store.eviction import LIMIT_VARIABLE, choose_evictions, limit_from_environment
from mec_platform.content_store.locks import locked
from mec_platform.domain.errors import MendableError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a kind or a key may look like; both become names of folders."""

_RECENT_S = 3600.0  # uses within this are not recorded one by one
_ABANDONED_S = 86400.0  # a fetch that was cut off is continued within this, or its leftovers go
_WORTH_EVICTING_BYTES = 64 << 10  # artefacts take 400 kB; names, profiles and tunings a few kB
_FETCHED = "fetch"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class EntryInUse(MendableError):
    """The entry cannot be removed now: a process works with it."""


class StoreFull(OSError):
    """The disk has no room; nothing half-written is left."""


class ContentStore:
    """The store below `root`; see the module. `limit_bytes` is that of the environment where it is not given."""

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = root or default_cache()
        self.limit_bytes = limit_from_environment() if limit_bytes is None else limit_bytes

    def folder(self, kind: str, key: str) -> Path:
        """Where an entry lies, or would lie.

        Raises:
            ValueError: a kind or a key that is no plain name.
        """
        if NAME.fullmatch(kind) is None or NAME.fullmatch(key) is None:
            raise ValueError(f"no entry can be called {kind}/{key}")
        return self.root / kind / key

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """The manifest of an intact entry, whose use is recorded; None where it is missing or damaged."""
        manifest = read_entry(self.folder(kind, key))
        if manifest is not None:
            self._record_use(kind, key)
        return manifest

    def ensure(self, kind: str, key: str, build: Callable[[Path], None]) -> bool:
        """Makes sure that an entry is there and intact; `build` fills an empty folder with it, manifest included.

        Returns:
            Whether anything was built.

        Raises:
            StoreFull: no room on the disk. And what `build` raises; nothing is left of what it wrote.
        """
        if self.find(kind, key) is not None:
            return False
        with self.building(kind, key) as fresh:
            if fresh is None:
                return False  # another process was faster
            build(fresh)
        return True

    def replace(self, kind: str, key: str, build: Callable[[Path], None]) -> None:
        """Puts what `build` makes in an entry's place, whatever was there. For entries that no process holds."""
        with self.building(kind, key, anew=True) as fresh:
            if fresh is not None:
                build(fresh)

    @contextlib.contextmanager
    def building(self, kind: str, key: str, *, resumed: bool = False, anew: bool = False) -> Iterator[Path | None]:
        """A folder to build an entry in, which becomes the entry at the end; None where the entry is there (and not `anew`).

        Waits for another process that builds it. Where `resumed`, what was written before an interruption is still in the
        folder, and stays in it after another one.

        Raises:
            StoreFull: no room on the disk.
        """
        folder = self.folder(kind, key)
        with locked(self._beside(folder, "lock")):
            if not anew and read_entry(folder) is not None:
                self._record_use(kind, key)
                yield None
                return
            kept = self._beside(folder, _FETCHED) if resumed else None
            self._remove_leftovers(folder, kept)
            fresh = _fresh_folder(folder) if kept is None else kept
            fresh.mkdir(exist_ok=True)
            try:
                yield fresh
                _write_through(fresh)
                self._publish(fresh, folder)
            except OSError as error:
                if error.errno in _NO_ROOM and not isinstance(error, StoreFull):
                    shutil.rmtree(fresh, ignore_errors=True)
                    raise StoreFull(error.errno, self._no_room(error)) from error
                raise
            finally:
                if kept is None:
                    shutil.rmtree(fresh, ignore_errors=True)
        with self.hold(kind, key):
            self.evict()

    @contextlib.contextmanager
    def hold(self, kind: str, key: str) -> Iterator[Path]:
        """The folder of an entry, which is not removed meanwhile. Whether it is there is the caller's to see."""
        folder = self.folder(kind, key)
        use = self._beside(folder, "use")
        if not use.exists() and not os.access(folder.parent, os.W_OK):
            yield folder  # a store that this process cannot write: it evicts nothing there either
            return
        with locked(use, shared=True):
            self._record_use(kind, key)
            yield folder

    @contextlib.contextmanager
    def hold_folder(self, folder: Path) -> Iterator[None]:
        """Holds the entry that lies in `folder`; a folder outside the store needs no holding."""
        path = folder.resolve()
        if path.parent.parent != self.root.resolve() or not path.is_dir():
            yield
            return
        with self.hold(path.parent.name, path.name):
            yield

    def entries(self, kind: str | None = None) -> list[StoredEntry]:
        """What lies in the store, damaged entries included; of one kind, or all."""
        found = []
        for manifest in sorted(self.root.glob(f"{kind or '*'}/*/{MANIFEST}")):
            folder = manifest.parent
            if NAME.fullmatch(folder.name) and NAME.fullmatch(folder.parent.name):
                found.append(self._stored(folder))
        return found

    def remove(self, kind: str, key: str) -> None:
        """Removes an entry.

        Raises:
            EntryInUse: a process works with it, or builds it.
        """
        if not self._try_remove(self.folder(kind, key)):
            raise EntryInUse(f"{kind}/{key} is in use; stop the nodes and gateways that run it, and try again")

    def evict(self) -> list[StoredEntry]:
        """Removes leftovers of processes that were killed, then the least recently used entries above the limit."""
        for folder in self.root.glob("*/.*.*"):
            self._remove_if_left_over(folder)
        if self.limit_bytes is None:
            return []
        return [
            entry for entry in choose_evictions(self._evictable(), self.limit_bytes) if self._try_remove(entry.folder)
        ]

    def _evictable(self) -> list[StoredEntry]:
        """Small entries stay: removing one makes no room, and some hold what users said or what took long to measure."""
        return [entry for entry in self.entries() if entry.bytes_on_disk >= _WORTH_EVICTING_BYTES]

    def _stored(self, folder: Path) -> StoredEntry:
        use, is_free = self._beside(folder, "use"), True
        used_s = (use if use.exists() else folder).stat().st_mtime
        if use.exists():
            with locked(use, wait=False) as is_free:
                pass
        return StoredEntry(folder.parent.name, folder.name, folder, bytes_on_disk(folder), used_s, not is_free)

    def _publish(self, fresh: Path, folder: Path) -> None:
        """Puts a built entry in its place; what was there, damaged, goes."""
        if folder.exists():
            self._set_aside(folder)
        fresh.rename(folder)
        self._remove_leftovers(folder, None)
        self._beside(folder, "use").touch()

    def _set_aside(self, folder: Path) -> None:
        """Renamed first, so that no reader sees half of it; needs no room. Call with the entry's lock held."""
        aside = self._beside(folder, "removed")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)

    def _try_remove(self, folder: Path) -> bool:
        """False where the entry is in use or being built."""
        lock, use = self._beside(folder, "lock"), self._beside(folder, "use")
        with locked(lock, wait=False) as may_change, locked(use, wait=False) as is_free:
            if not (may_change and is_free):
                return False
            if folder.exists():
                self._set_aside(folder)
            self._remove_leftovers(folder, None)
            for path in folder.parent.glob(f".{folder.name}.*"):
                path.unlink()
            return True

    def _remove_if_left_over(self, path: Path) -> None:
        """Of a builder that is gone; one that lives holds the lock."""
        if not path.is_dir():
            return
        folder = path.with_name(path.name[1:].partition(".")[0])
        is_fetch = path == self._beside(folder, _FETCHED)
        if is_fetch and time.time() - path.stat().st_mtime < _ABANDONED_S:
            return
        with locked(self._beside(folder, "lock"), wait=False) as may_change:
            if may_change:
                self._remove_leftovers(folder, None)

    def _remove_leftovers(self, folder: Path, kept: Path | None) -> None:
        """What builders of an entry have left beside it. Call with the entry's lock held."""
        for path in folder.parent.glob(f".{folder.name}.*"):
            if path.is_dir() and path != kept:
                shutil.rmtree(path, ignore_errors=True)

    def _record_use(self, kind: str, key: str) -> None:
        """To the hour, so that reading does not write. A store that cannot be written keeps no record."""
        use = self._beside(self.folder(kind, key), "use")
        with contextlib.suppress(OSError):
            if not use.exists() or time.time() - use.stat().st_mtime > _RECENT_S:
                use.touch()

    def _no_room(self, error: OSError) -> str:
        reason = error.strerror or "disk full"
        if "MEC_CACHE" in reason:
            return reason
        return (
            f"no room in {self.root} ({reason}); free some space, lower {LIMIT_VARIABLE}, or set MEC_CACHE to a folder "
            "on another disk"
        )

    @staticmethod
    def _beside(folder: Path, what: str) -> Path:
        return folder.parent / f".{folder.name}.{what}"


def _fresh_folder(folder: Path) -> Path:
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    fresh.chmod(0o755)
    return fresh


def _write_through(folder: Path) -> None:
    """Has the disk hold the files before their folder gets its name: a crash leaves a whole entry or none."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
