"""Protobuf's wire format, as far as answers are put together from pieces that were written before.

Messages that follow each other read as one, so a field may be written alone and put behind others. Making a message out of
pieces that are written already would read them only to write them again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

_VARINT, _EIGHT_BYTES, _DELIMITED = 0, 1, 2
_DOUBLE = struct.Struct("<Bd")
LARGEST_NUMBER = 15
"""Of a field whose key is one byte."""


def nested(number: int, content: bytes) -> bytes:
    """A field that holds a message, or a text, of this content."""
    return b"%c%b%b" % (_key(number, _DELIMITED), _varint(len(content)), content)


def unsigned(number: int, value: int) -> bytes:
    """A field of an unsigned integer, or an enum."""
    return b"%c%b" % (_key(number, _VARINT), _varint(value))


def double(number: int) -> Callable[[float], bytes]:
    """What writes a field that is a double."""
    return partial(_DOUBLE.pack, _key(number, _EIGHT_BYTES))


def _key(number: int, kind: int) -> int:
    assert 0 < number <= LARGEST_NUMBER
    return number << 3 | kind


def _varint(value: int) -> bytes:
    if value < 0x80:
        return b"%c" % value
    if value < 0x4000:
        return b"%c%c" % (value & 0x7F | 0x80, value >> 7)
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
