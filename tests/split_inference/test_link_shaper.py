"""Emulated links: which one applies to a peer, and that messages are paid for in order."""

from __future__ import annotations

import asyncio

import pytest

from mec_apps.split_inference import link_shaper
from mec_apps.split_inference.link_shaper import EmulatedLink, LinkShaper, LinkShapers


class Clock:
    """Stands in for `time` and for sleeping: who sleeps moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(link_shaper, "time", clock)
    monkeypatch.setattr(link_shaper, "asyncio", clock)
    return clock


async def test_a_link_that_is_not_emulated_never_waits(clock: Clock) -> None:
    await LinkShaper().wait_turn(10**9)
    assert clock.slept == []


async def test_a_message_waits_for_its_bytes_and_the_delay(clock: Clock) -> None:
    await LinkShaper(EmulatedLink(bytes_per_s=1000, delay_s=0.5)).wait_turn(250)
    assert clock.slept == pytest.approx([0.75])


async def test_messages_share_the_rate_one_behind_the_other(clock: Clock) -> None:
    shaper = LinkShaper(EmulatedLink(bytes_per_s=1000))
    for _ in range(4):
        await shaper.wait_turn(100)
    assert clock.now_s == pytest.approx(100.4)


async def test_idle_time_saves_nothing_up(clock: Clock) -> None:
    shaper = LinkShaper(EmulatedLink(bytes_per_s=1000))
    await shaper.wait_turn(100)
    clock.now_s += 60
    started = clock.now_s
    await shaper.wait_turn(500)
    assert clock.now_s - started == pytest.approx(0.5)


async def test_a_rate_of_zero_is_unlimited_and_only_delays(clock: Clock) -> None:
    await LinkShaper(EmulatedLink(bytes_per_s=0, delay_s=0.02)).wait_turn(10**9)
    assert clock.slept == pytest.approx([0.02])


async def test_writers_that_wait_together_are_let_go_in_order() -> None:
    shaper = LinkShaper(EmulatedLink(bytes_per_s=1e6))
    let_go: list[int] = []

    async def write(number: int) -> None:
        await shaper.wait_turn(2000)
        let_go.append(number)

    await asyncio.gather(*(write(number) for number in range(5)))
    assert let_go == [0, 1, 2, 3, 4]


def test_a_peer_without_a_link_of_its_own_gets_the_link_of_all_others() -> None:
    shapers = LinkShapers()
    shapers.emulate({"*": EmulatedLink(10), "a": EmulatedLink(20)})
    assert shapers.to("a").link == EmulatedLink(20)
    assert shapers.to("b").link == EmulatedLink(10)


def test_a_change_reaches_shapers_that_are_in_use() -> None:
    shapers = LinkShapers()
    to_a = shapers.to("a")
    assert to_a.link is None
    shapers.emulate({"a": EmulatedLink(20, 0.1)})
    assert to_a.link == EmulatedLink(20, 0.1)
    assert shapers.to("a") is to_a


def test_an_unlimited_link_lifts_the_emulation_and_leaves_the_others() -> None:
    shapers = LinkShapers()
    shapers.emulate({"*": EmulatedLink(10), "a": EmulatedLink(20)})
    shapers.emulate({"a": EmulatedLink()})
    assert shapers.to("a").link == EmulatedLink(10)
    shapers.emulate({"*": EmulatedLink()})
    assert shapers.to("a").link is None
    assert shapers.to("b").link is None
