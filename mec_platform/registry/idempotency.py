"""When two registrations say the same: pure. The digest is kept for as long as a service, so it must outlive versions."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from mec_platform.domain.services import ServiceDescription

LONGEST_KEY = 128
"""Characters: a UUID with something before and behind it."""


def is_key(text: str) -> bool:
    """Whether a text may be an idempotency key: it can be printed, and is neither empty nor long."""
    return 0 < len(text) <= LONGEST_KEY and text.isprintable()


def digest_of(description: ServiceDescription) -> str:
    """Equal for equal descriptions, and unequal for others. What is absent is left out, so a later version's new
    attributes leave the digests of earlier registrations as they are."""
    said = msgspec.json.encode(_without_absent(msgspec.to_builtins(description)), order="sorted")
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def _without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_absent(each) for name, each in value.items() if each is not None and each not in ("", {})
        }
    if isinstance(value, list):
        return [_without_absent(each) for each in value]
    return value
