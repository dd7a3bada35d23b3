"""What GPU machine code a library carries, read from its bytes: no CUDA tool is needed.

A fatbin is a header and entries, each with a cubin (an ELF file) or PTX for one compute capability. NVIDIA does not
document the format; these fields have stood where they are through CUDA 9 to 13, and `read_fatbins` refuses what differs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from compiler.errors import BuildError

_MAGIC = bytes.fromhex("50ed55ba")
_HEADER = struct.Struct("<4sHHQ")  # magic, version, bytes of this header, bytes of all entries
_ENTRY = struct.Struct("<HHIQQIIQ")  # kind, version, bytes of this header, bytes of content, ..., sm at byte 28
_SM_OFFSET = 28
_CUBIN = 2
_ELF = b"\x7fELF\x02\x01"
_KERNEL_SECTION = ".text."


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code for one compute capability (90 for 9.0), and the names of its kernels."""

    sm: int
    kernels: tuple[str, ...]


def read_fatbins(library: bytes) -> list[list[Cubin]]:
    """The machine code of every fatbin in a library, PTX left out.

    Raises:
        BuildError: a fatbin that cannot be read.
    """
    fatbins = []
    start = library.find(_MAGIC)
    while start >= 0:
        _, version, header_bytes, content_bytes = _HEADER.unpack_from(library, start)
        if version == 1 and header_bytes == _HEADER.size:
            first = start + header_bytes
            fatbins.append(_read_entries(library[first : first + content_bytes]))
        start = library.find(_MAGIC, start + 1)
    return fatbins


def _read_entries(content: bytes) -> list[Cubin]:
    cubins = []
    offset = 0
    while offset + _ENTRY.size <= len(content):
        kind, _, header_bytes, entry_bytes = _ENTRY.unpack_from(content, offset)[:4]
        if header_bytes < _ENTRY.size or offset + header_bytes + entry_bytes > len(content):
            raise BuildError("a fatbin of an unknown format; use another release of CUDA")
        if kind == _CUBIN:
            (sm,) = struct.unpack_from("<I", content, offset + _SM_OFFSET)
            cubins.append(Cubin(sm, _kernels(content[offset + header_bytes : offset + header_bytes + entry_bytes])))
        offset += header_bytes + entry_bytes
    return cubins


def _kernels(cubin: bytes) -> tuple[str, ...]:
    """Names of the sections that hold a kernel's code."""
    if not cubin.startswith(_ELF):
        raise BuildError("a cubin is compressed; use another release of CUDA")
    (sections,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    (names_offset,) = struct.unpack_from("<Q", cubin, sections + names * size + 24)
    found = []
    for index in range(count):
        (name,) = struct.unpack_from("<I", cubin, sections + index * size)
        text = cubin[names_offset + name : cubin.index(b"\0", names_offset + name)].decode()
        if text.startswith(_KERNEL_SECTION):
            found.append(text.removeprefix(_KERNEL_SECTION))
    return tuple(sorted(found))


def check_fatbin(library: bytes, sm: int, kernels: list[str]) -> None:
    """Raises BuildError where a library does not carry exactly one fatbin, for `sm`, with exactly these kernels.

    TVM embeds source code, without a word, where it finds no way to machine code.
    """
    found = read_fatbins(library)
    if found != [[Cubin(sm, tuple(sorted(kernels)))]]:
        held = ", ".join(f"sm_{cubin.sm}: {len(cubin.kernels)} kernels" for each in found for cubin in each) or "none"
        raise BuildError(f"the library should carry {len(kernels)} kernels for sm_{sm}, it carries {held}")
