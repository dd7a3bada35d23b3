"""How much the store may hold, and which entries go when it holds more: a pure decision over what lies there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from mec_platform.content_store.entries import StoredEntry
from mec_platform.domain.errors import MendableError

LIMIT_VARIABLE = "MEC_CACHE_LIMIT"
DEFAULT_LIMIT = "20GB"
"""Room for several models of a few gigabytes; far above the default model's 100 MB for every target."""

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class LimitError(MendableError):
    """MEC_CACHE_LIMIT is not a size; the message shows one."""


def limit_from_environment() -> int | None:
    """Bytes that $MEC_CACHE_LIMIT permits; None for no limit.

    Raises:
        LimitError: it is not a size.
    """
    return parse_limit(os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT)


def parse_limit(text: str) -> int | None:
    """Bytes of a size as "20GB", "500 MiB" or "1e9"; None for "none".

    Raises:
        LimitError: `text` is neither.
    """
    if text.strip().lower() == "none":
        return None
    matched = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?I?)B?\s*", text, re.IGNORECASE)
    try:
        if matched is None:
            raise ValueError(text)
        return int(float(matched[1]) * _UNITS[matched[2].upper()])
    except (ValueError, KeyError, OverflowError):
        raise LimitError(f"{LIMIT_VARIABLE}={text}: write a size, as in 20GB or 500MiB, or none") from None


def choose_evictions(entries: Iterable[StoredEntry], limit_bytes: int | None) -> list[StoredEntry]:
    """The least recently used entries, until the rest fits `limit_bytes`. What is in use stays, whatever it takes."""
    if limit_bytes is None:
        return []
    held = sorted(entries, key=lambda entry: (entry.used_s, entry.kind, entry.key))
    excess = sum(entry.bytes_on_disk for entry in held) - limit_bytes
    chosen = []
    for entry in held:
        if excess <= 0:
            break
        if not entry.is_in_use:
            chosen.append(entry)
            excess -= entry.bytes_on_disk
    return chosen
