"""Who has an event log's file open: a lock beside it that all open logs share, and whoever replaces the file has alone.

The kernel lets go of it when its process ends, in whatever way. It says nothing of who writes: SQLite sees to that.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mec_platform.registry.errors import LogUnavailable


@contextmanager
def shared_lock(state: Path) -> Iterator[None]:
    """Held while a log is open. Raises LogUnavailable while the file is being replaced."""
    with _lock(state, fcntl.LOCK_SH, f"{state} is being restored from a backup; start again when that is done"):
        yield


@contextmanager
def exclusive_lock(state: Path) -> Iterator[None]:
    """Held while the file is replaced. Raises LogUnavailable where a log is open."""
    with _lock(state, fcntl.LOCK_EX, f"a platform has {state} open; stop it first"):
        yield


@contextmanager
def _lock(state: Path, mode: int, refusal: str) -> Iterator[None]:
    descriptor = os.open(state.with_name(f"{state.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogUnavailable(refusal) from error
        yield
    finally:
        os.close(descriptor)
