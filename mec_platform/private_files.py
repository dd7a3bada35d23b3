"""Files that hold secrets: they are their owner's alone from the first moment on, and never overwritten by accident."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mec_platform.domain.errors import MendableError


class PrivateFileError(MendableError):
    """A file that must not be written to, or that others may read; the message names it and says what to do."""


def write_private(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Writes a file of mode 0600; whoever reads meanwhile sees all of it or none.

    Raises:
        PrivateFileError: it exists and is not to be replaced, or cannot be written.
    """
    if path.exists() and not replace:
        raise PrivateFileError(f"{path} exists already and is not overwritten; name another file, or remove it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PrivateFileError(f"cannot write {path}: {error.strerror}; name another place") from error


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner may read.

    Raises:
        PrivateFileError: it cannot be read, or others can read it too.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise PrivateFileError(f"others can read {path}, which holds a secret; run: chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise PrivateFileError(f"cannot read {path}: {error.strerror}") from error
