"""A feed: watchers see the latest item, then every new one, and never hold up who publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from mec_platform.control_plane.feed import HISTORY, Feed


async def next_of(watcher: AsyncIterator[int]) -> int:
    return await asyncio.wait_for(anext(watcher), 5)


def watch(feed: Feed[int]) -> Any:
    """The watcher with its `aclose`, which the interface does not promise."""
    return aclosing(cast(Any, feed.watch()))


def test_a_new_feed_has_no_latest_item() -> None:
    assert Feed[int]().latest is None


async def test_a_watcher_begins_with_the_latest_item_only() -> None:
    feed: Feed[int] = Feed()
    feed.publish(1)
    feed.publish(2)
    assert feed.latest == 2
    async with watch(feed) as watcher:
        assert await next_of(watcher) == 2
        feed.publish(3)
        feed.publish(4)
        assert [await next_of(watcher), await next_of(watcher)] == [3, 4]


async def test_a_watcher_of_an_empty_feed_waits_for_the_first_item() -> None:
    feed: Feed[int] = Feed()
    async with watch(feed) as watcher:
        first = asyncio.ensure_future(next_of(watcher))
        await asyncio.sleep(0)
        assert not first.done()
        feed.publish(7)
        assert await first == 7


async def test_every_watcher_sees_every_item() -> None:
    feed: Feed[int] = Feed()
    feed.publish(0)
    async with watch(feed) as one, watch(feed) as other:
        assert [await next_of(one), await next_of(other)] == [0, 0]
        for item in (1, 2, 3):
            feed.publish(item)
        assert [await next_of(one) for _ in range(3)] == [1, 2, 3]
        assert [await next_of(other) for _ in range(3)] == [1, 2, 3]


async def test_a_watcher_that_falls_behind_misses_the_oldest_items_and_nothing_else() -> None:
    feed: Feed[int] = Feed()
    feed.publish(-1)
    async with watch(feed) as watcher:
        assert await next_of(watcher) == -1
        for item in range(HISTORY + 5):
            feed.publish(item)
        assert [await next_of(watcher) for _ in range(HISTORY)] == list(range(5, HISTORY + 5))


async def test_a_watcher_that_left_gets_nothing_more() -> None:
    feed: Feed[int] = Feed()
    feed.publish(1)
    async with watch(feed) as watcher:
        await next_of(watcher)
    feed.publish(2)
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)


async def test_a_cancelled_watcher_does_not_disturb_the_others() -> None:
    feed: Feed[int] = Feed()
    feed.publish(0)
    async with watch(feed) as one, watch(feed) as other:
        await next_of(one)
        await next_of(other)
        waiting = asyncio.ensure_future(anext(one))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        feed.publish(1)
        assert await next_of(other) == 1
