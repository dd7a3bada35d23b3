"""What could be left of a conversation, as bytes, and a search for it in everything that processes have written."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mec_apps.split_inference.frames import FrameKind
from tests.integration.wiretap import Wiretap

WINDOW = 32
"""Bytes of activations or KV that nothing else has by accident."""

TOKENS_IN_A_ROW = 6
MOST_OF_A_KIND = 100
_WRITABLE = os.O_WRONLY | os.O_RDWR


def token_traces(tokens: Sequence[int]) -> Iterator[bytes]:
    """Some tokens in a row as programs write them: integers of four or eight bytes, protobuf's, and in figures."""
    for start in range(0, len(tokens) - TOKENS_IN_A_ROW + 1, TOKENS_IN_A_ROW):
        some = tokens[start : start + TOKENS_IN_A_ROW]
        for form in ("<i", ">i", "<q", ">q"):
            yield b"".join(struct.pack(form, token) for token in some)
        yield b"".join(map(_varint, some))
        for between in (", ", ",", " ", "\n"):
            yield between.join(map(str, some)).encode()


def text_traces(text: str) -> Iterator[bytes]:
    """A text as it is, and as JSON and UTF-16 have it."""
    for part in (text, text.encode("unicode_escape").decode()):
        yield part.encode()
        yield part.encode("utf-16-le")


def message_traces(taps: Iterable[Wiretap]) -> Iterator[bytes]:
    """Pieces of the rows, and of the KV, that nodes were sent."""
    for tap in taps:
        rows = [frame.payload for frame in tap.frames() if frame.kind is FrameKind.HIDDEN]
        chunks = [part for chunk in tap.kv_chunks() for part in (chunk.keys, chunk.values)]
        for kind in (rows, chunks):
            for content in kind[:: max(1, len(kind) // MOST_OF_A_KIND)]:
                middle = content[len(content) // 2 :][:WINDOW]
                if len(set(middle)) > WINDOW // 4:  # not what other memory has as well
                    yield middle


def written_files(pids: Iterable[int], folders: Iterable[Path]) -> dict[str, bytes]:
    """The content of all that the processes have open for writing, and of every file in the folders, by what it is."""
    found: dict[str, bytes] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry)
            flags = int(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8)
            # A file that has been deleted is still there; what is no file (sockets, pipes) has no content.
            if flags & _WRITABLE and entry.is_file():
                found[f"{target} of process {pid}"] = entry.read_bytes()
    for folder in folders:
        found |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found


def core_limit(pid: int) -> str:
    """The largest core dump that a process may ask the kernel for."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[5]


def found_in(files: dict[str, bytes], traces: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """Where which traces are."""
    return [(name, trace) for trace in dict.fromkeys(traces) for name, content in files.items() if trace in content]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
