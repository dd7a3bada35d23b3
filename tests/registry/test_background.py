"""The owner of background tasks."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mec_platform.background import BackgroundTasks


async def test_stopping_cancels_and_awaits_every_task():
    ended = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with BackgroundTasks() as tasks:
        tasks.start("one", work("one"))
        tasks.start("two", work("two"))
        await asyncio.sleep(0)
        assert tasks.names == ("one", "two")
    assert sorted(ended) == ["one", "two"]
    assert tasks.names == ()


async def test_a_failure_is_logged_by_name_and_leaves_the_others_running(caplog: pytest.LogCaptureFixture):
    async def fail() -> None:
        raise ValueError("broken")

    async with BackgroundTasks() as tasks:
        tasks.start("steady", asyncio.Event().wait())
        with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="broken"):
            await tasks.start("hasty", fail())
        await asyncio.sleep(0)
        assert "background task hasty failed" in caplog.text
        assert tasks.names == ("steady",)


async def test_one_task_can_be_ended_alone():
    async with BackgroundTasks() as tasks:
        task = tasks.start("one", asyncio.Event().wait())
        await tasks.cancel(task)
        assert task.cancelled()


async def test_nothing_starts_after_the_stop():
    tasks = BackgroundTasks()
    await tasks.stop()
    with pytest.raises(RuntimeError, match="late"):
        tasks.start("late", asyncio.Event().wait())
