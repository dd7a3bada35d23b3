"""Which entries go: the least recently used, until the rest fits, and never one in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from mec_platform.content_store.entries import StoredEntry
from mec_platform.content_store.eviction import LimitError, choose_evictions, limit_from_environment, parse_limit


def entry(key: str, size: int, used_s: float, *, in_use: bool = False) -> StoredEntry:
    return StoredEntry("models", key, Path(key), size, used_s, in_use)


def chosen(entries: list[StoredEntry], limit: int | None) -> str:
    return "".join(each.key for each in choose_evictions(entries, limit))


HELD = [entry("a", 40, 3.0), entry("b", 40, 1.0), entry("c", 40, 2.0)]


@pytest.mark.parametrize(
    ("limit", "keys"), [(120, ""), (119, "b"), (80, "b"), (79, "bc"), (39, "bca"), (0, "bca"), (None, "")]
)
def test_the_least_recently_used_go_until_the_rest_fits(limit: int | None, keys: str) -> None:
    assert chosen(HELD, limit) == keys


def test_what_is_in_use_stays_and_the_next_goes_instead() -> None:
    assert chosen([entry("a", 40, 1.0, in_use=True), entry("b", 40, 2.0)], 50) == "b"
    assert chosen([entry("a", 40, 1.0, in_use=True)], 10) == ""


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("20GB", 20 * 10**9),
        ("500 MiB", 500 << 20),
        ("1.5t", 1_500_000_000_000),
        ("0", 0),
        ("1e9", 10**9),
        ("None", None),
    ],
)
def test_a_limit_is_a_size(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["much", "-5GB", "5 apples", "1.2.3GB", "1e999"])
def test_what_is_no_size_is_shown_one(text: str) -> None:
    with pytest.raises(LimitError, match="write a size, as in 20GB or 500MiB, or none"):
        parse_limit(text)


def test_the_limit_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEC_CACHE_LIMIT", raising=False)
    assert limit_from_environment() == 20 * 10**9
    monkeypatch.setenv("MEC_CACHE_LIMIT", "1GB")
    assert limit_from_environment() == 10**9
