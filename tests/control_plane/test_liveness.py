"""Hung, gone or there: what is asked of a process, and what its silence and its refusal prove."""

from __future__ import annotations

import socket

import pytest

from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.liveness import ANSWER_S, LONGEST_ANSWER_S, Pulses, find_refusal
from tests.control_plane.scripted_members import Member


async def test_a_process_that_takes_connections_and_answers_nothing_hangs(silent_address: str) -> None:
    channels = Channels()
    failure = await Pulses(channels).find_silence(silent_address, "a")
    await channels.close()
    assert failure == Failure(FailureKind.NOT_ANSWERING, "2 questions in 0.8 s")
    assert await find_refusal(silent_address) is None


async def test_a_process_that_answers_is_there_however_long_its_work_takes() -> None:
    member = Member("a", [])
    member.hang.add("LoadStage")
    await member.start()
    channels = Channels()
    assert await Pulses(channels).find_silence(member.address, "a") is None
    await channels.close()
    assert await find_refusal(member.address) is None
    await member.server.stop(grace=None)


async def test_a_process_whose_answers_take_long_gets_more_time() -> None:
    """As on a machine that is overloaded: what took 0.3 s may take 0.9 s, and what took longer gets the longest."""
    channels = Channels()
    pulses = Pulses(channels)
    assert pulses.patience_s("a:1") == ANSWER_S
    for took_s, patience_s in ((0.01, ANSWER_S), (0.3, 0.9), (0.1, 0.9), (5.0, LONGEST_ANSWER_S)):
        pulses._took_s["a:1"].append(took_s)
        assert pulses.patience_s("a:1") == pytest.approx(patience_s)
    assert pulses.patience_s("b:1") == ANSWER_S
    await channels.close()


async def test_a_host_that_refuses_connections_says_that_the_process_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    failure = await find_refusal(address)
    assert failure == Failure(FailureKind.GONE, f"{address} refuses connections")


async def test_an_address_that_is_none_proves_nothing() -> None:
    assert await find_refusal("") is None
    assert await find_refusal("nowhere.invalid:1") is None
