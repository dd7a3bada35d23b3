"""News of the radio network while the log is out of reach: told later, in order, and counted where they are too many."""

from __future__ import annotations

import asyncio

import pytest

from mec_platform.enablement_api.radio_information.feed import MOST_PENDING
from mec_platform.radio.reports import UeReport
from mec_platform.registry.errors import LogUnavailable
from tests.enablement_api.radio.wishes import wish
from tests.radio.reporting import UE, A, B


@pytest.fixture
def broken_log(host, monkeypatch) -> list[int]:
    """Every notification that is to be made durable fails while the list says so: its one value counts down."""
    failures = [0]
    tell = host.client_subscriptions.tell

    async def fail_first(*arguments):
        if failures[0]:
            failures[0] -= 1
            raise LogUnavailable("the disk is full")
        await tell(*arguments)

    monkeypatch.setattr(host.client_subscriptions, "tell", fail_first)
    monkeypatch.setattr(host.registry.clock, "sleep", lambda seconds: asyncio.sleep(0))
    return failures


async def test_what_the_log_does_not_take_is_told_later_in_its_order(network, subscribe, receiver, broken_log):
    await subscribe(wish("CellChange"))
    broken_log[0] = 5
    for cell in (A, B, A, B):
        network.take(UeReport(UE, cell), "a test")
    told = [(await receiver.next()).message["trgEcgi"][0]["cellId"] for _ in range(3)]
    assert told == [B.cell_id, A.cell_id, B.cell_id]
    assert broken_log == [0]


async def test_of_too_many_news_the_oldest_are_lost_and_counted(client, network, subscribe, receiver, broken_log):
    await subscribe(wish("CellChange"))
    beyond = 3
    network.take(UeReport(UE, A), "a test")
    for number in range(MOST_PENDING + beyond):
        network.take(UeReport(UE, A if number % 2 else B), "a test")
    first = (await receiver.next()).message
    assert first["trgEcgi"][0]["cellId"] == A.cell_id, "the fourth: three came before it"
    assert f"mec_radio_lost_total {beyond:.1f}" in await (await client.get("/metrics")).text()
