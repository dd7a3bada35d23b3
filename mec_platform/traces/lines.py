"""How all traces are read: line by line, with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mec_platform.domain.errors import MendableError

LARGEST_TRACE_BYTES = 256 << 20

T = TypeVar("T")


class TraceError(MendableError):
    """A trace file cannot be used; the message names the file, and the line where one is to blame."""


def read_lines(path: Path, parse: Callable[[str], T | None]) -> Iterator[T]:
    """What `parse` makes of each line; lines of which it makes None are left out, such as headers and empty ones.

    Raises:
        TraceError: the file cannot be read or is too large, or `parse` raised ValueError or IndexError for a line.
    """
    try:
        if path.stat().st_size > LARGEST_TRACE_BYTES:
            raise TraceError(
                f"{path}: more than {LARGEST_TRACE_BYTES >> 20} MiB; cut the trace to the part that matters"
            )
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    parsed = parse(line)
                except (ValueError, IndexError) as error:
                    raise TraceError(f"{path}, line {number}: {error}") from error
                if parsed is not None:
                    yield parsed
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {error}") from error
