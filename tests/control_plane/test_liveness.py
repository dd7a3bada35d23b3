"""Hung, gone or there: what is asked of a process, and what its silence and its refusal prove."""

from __future__ import annotations

import socket

from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.liveness import find_refusal, find_silence
from tests.control_plane.scripted_members import Member


async def test_a_process_that_takes_connections_and_answers_nothing_hangs(silent_address: str) -> None:
    async with open_channel(silent_address) as channel:
        failure = await find_silence(channel)
    assert failure == Failure(FailureKind.NOT_ANSWERING, "2 questions in 0.8 s")
    assert await find_refusal(silent_address) is None


async def test_a_process_that_answers_is_there_however_long_its_work_takes() -> None:
    member = Member("a", [])
    member.hang.add("LoadStage")
    await member.start()
    async with open_channel(member.address) as channel:
        assert await find_silence(channel) is None
    assert await find_refusal(member.address) is None
    await member.server.stop(grace=None)


async def test_a_host_that_refuses_connections_says_that_the_process_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    failure = await find_refusal(address)
    assert failure == Failure(FailureKind.GONE, f"{address} refuses connections")


async def test_an_address_that_is_none_proves_nothing() -> None:
    assert await find_refusal("") is None
    assert await find_refusal("nowhere.invalid:1") is None
