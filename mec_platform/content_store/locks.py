"""Locks between processes, as files beside what they guard; a process that dies lets go of its own.

A lock's file may be deleted by whoever holds it exclusively, so a taker checks that the file it has locked is still the
one of that name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of `path`; gives False, and holds nothing, where another holds it and `wait` is False."""
    file = _acquire(path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    try:
        yield file is not None
    finally:
        if file is not None:
            os.close(file)


def _acquire(path: Path, mode: int) -> int | None:
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, mode)
            if _is_file_of(file, path):
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open(path: Path) -> int:
    """An existing file needs no permission to write: a store that can only be read can be locked too."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_file_of(file: int, path: Path) -> bool:
    try:
        named, opened = os.stat(path), os.fstat(file)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
