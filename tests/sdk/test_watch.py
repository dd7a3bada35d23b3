"""An application behind a firewall watches services and is told of its own end, over WebSockets to a real platform."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from mec_apps.sdk import MecApplication
from mec_platform.domain.applications import AppState, OperationAction
from mec_platform.domain.subscriptions import ChangeType


async def offer(app: MecApplication, name: str, category: str | None = None):
    return await app.offer_service(name, "http://127.0.0.1:9000/", version="1.0", category=category, liveness_s=None)


async def test_changes_come_in_order_from_the_moment_the_watch_begins(platform):
    async with (
        MecApplication(platform.url, name="greeter") as greeter,
        MecApplication(platform.url, name="guest") as guest,
    ):
        before = await offer(greeter, "greeting")
        async with guest.watch(name="greeting") as changes:
            await offer(greeter, "something else")
            service = await offer(greeter, "greeting")
            for each in (before, service):
                await platform.host.services.remove_service(greeter.app_instance_id, each.service_id)
            seen = [await anext(changes) for _ in range(3)]
    assert [(each.change, each.service_id) for each in seen] == [
        (ChangeType.ADDED, service.service_id),
        (ChangeType.REMOVED, before.service_id),
        (ChangeType.REMOVED, service.service_id),
    ]
    assert {each.name for each in seen} == {"greeting"}


async def test_details_of_a_service_can_change_and_whoever_watches_it_is_told(platform):
    async with (
        MecApplication(platform.url, name="greeter") as greeter,
        MecApplication(platform.url, name="guest") as guest,
        aiohttp.ClientSession(platform.url) as client,
    ):
        service = await offer(greeter, "greeting")
        async with guest.watch(name="greeting") as changes:
            for epoch in (7, 8):
                await greeter.describe_service(service, {"planEpoch": epoch})
                seen = await anext(changes)
                assert (seen.change, seen.service_id) == (ChangeType.ATTRIBUTES_CHANGED, service.service_id)
                async with client.get(f"/mec_service_mgmt/v1/services/{service.service_id}") as answer:
                    record = await answer.json()
                assert record["transportInfo"]["implSpecificInfo"] == {"planEpoch": epoch}
                assert record["transportInfo"]["endpoint"] == {"uris": ["http://127.0.0.1:9000/"]}
        await platform.host.services.remove_service(greeter.app_instance_id, service.service_id)
        await greeter.describe_service(service, {"planEpoch": 9})  # no error: a heartbeat would register it again


async def test_a_category_is_watched_by_its_id(platform):
    async with MecApplication(platform.url, name="greeter") as app, app.watch(category="odd & ends/1") as changes:
        await offer(app, "a", category="other")
        await offer(app, "b", category="odd & ends/1")
        assert (await anext(changes)).name == "b"


async def test_a_name_and_a_category_exclude_each_other(platform):
    async with MecApplication(platform.url, name="greeter") as app:
        with pytest.raises(ValueError, match="exclude each other"):
            app.watch(name="a", category="b")


async def test_a_watch_ends_with_its_block_and_leaves_no_subscription(platform):
    async with MecApplication(platform.url, name="greeter") as app:
        async with app.watch() as changes:
            assert len(platform.host.registry.state.subscriptions) == 1
        assert len(platform.host.registry.state.subscriptions) == 0
        assert [each async for each in changes] == []


async def test_a_loop_ends_with_the_application(platform):
    async with asyncio.TaskGroup() as group, MecApplication(platform.url, name="greeter") as app:
        changes = app.watch()
        await changes.__aenter__()

        async def collect() -> list[str]:
            return [each.name async for each in changes]

        loop = group.create_task(collect())
        await offer(app, "a")
        async with app.watch(name="b") as others:
            await offer(app, "b")
            await anext(others)
    assert loop.result() == ["a", "b"]


async def test_a_watch_goes_on_after_a_restart_of_the_platform(durable_platform, pace):
    async with (
        MecApplication(durable_platform.url, name="greeter", sleep=pace.sleep) as app,
        app.watch() as changes,
    ):
        await offer(app, "before")
        assert (await anext(changes)).name == "before"
        await durable_platform.stop()
        await durable_platform.start()
        await offer(app, "while nobody was connected")
        await pace.wake()
        assert (await anext(changes)).name == "while nobody was connected"


async def test_a_platform_that_forgot_everything_is_subscribed_to_again(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app, app.watch() as changes:
        await offer(app, "before")
        await anext(changes)
        await platform.stop()
        await platform.start()
        await pace.wake()
        await platform.until_answered("POST", "/subscriptions")
        await offer(app, "after")
        assert (await anext(changes)).name == "after"
        assert platform.host.applications.get(app.app_instance_id).state is AppState.READY


async def test_the_application_is_asked_to_end_and_says_when_it_is_ready_for_it(platform):
    asked: list[tuple[OperationAction, int]] = []

    async def end(action: OperationAction, within_s: int) -> None:
        asked.append((action, within_s))

    async with MecApplication(platform.url, name="greeter") as app:
        await app.on_termination(end)
        await platform.host.applications.request_end(app.app_instance_id, OperationAction.STOPPING, 30)
        await platform.until_answered("POST", f"{app.app_instance_id}/confirm_termination")
        await app.until_ended()
    assert asked == [(OperationAction.STOPPING, 30)]
