"""The SDK against a real platform: registering, discovering, staying alive, leaving, and a platform that restarts."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mec_apps.sdk import (
    DiscoveredService,
    MecApplication,
    NotRegistered,
    PlatformUnreachable,
    RequestRefused,
    UnexpectedAnswer,
)
from mec_platform.domain.applications import AppState
from mec_platform.domain.services import SerializerType, ServiceQuery, ServiceState, TransportType

EVERYTHING = ServiceQuery()


async def test_an_application_is_registered_and_ready_while_it_runs(platform):
    async with MecApplication(platform.url, name="greeter") as app:
        registered = platform.host.applications.get(app.app_instance_id)
        assert (registered.name, registered.state) == ("greeter", AppState.READY)
        await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        assert len(platform.host.services.services(EVERYTHING)) == 1
    assert len(platform.host.registry.state.apps) == 0
    assert platform.host.services.services(EVERYTHING) == []


async def test_one_application_discovers_what_another_offers(platform):
    async with (
        MecApplication(platform.url, name="greeter") as greeter,
        MecApplication(platform.url, name="guest") as guest,
    ):
        offered = await greeter.offer_service(
            "greeting",
            "http://127.0.0.1:9000/",
            version="1.2",
            category="examples",
            serializer=SerializerType.PROTOBUF3,
            transport_type=TransportType.RPC,
            protocol="gRPC",
        )
        await greeter.offer_service("farewell", "http://127.0.0.1:9001/", version="1.0", category="odd & ends/1")
        assert await guest.discover(name="greeting") == [
            DiscoveredService(
                service_id=offered.service_id,
                name="greeting",
                version="1.2",
                state=ServiceState.ACTIVE,
                category_id="examples",
                serializer=SerializerType.PROTOBUF3,
                transport_type=TransportType.RPC,
                uris=("http://127.0.0.1:9000/",),
                is_local=True,
            )
        ]
        assert [service.name for service in await guest.discover(category="odd & ends/1")] == ["farewell"]
        assert await guest.discover(name="greeting", category="odd & ends/1") == []
        assert len(await guest.discover()) == 2


async def test_suspended_services_are_discovered_only_on_request(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app:
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        platform.host.services._leases.extend_all(-3600)
        assert await platform.host.services.suspend_overdue() == [service.service_id]
        assert await app.discover(name="greeting") == []
        (found,) = await app.discover(name="greeting", active_only=False)
        assert found.state is ServiceState.SUSPENDED
        await pace.beat()
        assert len(await app.discover(name="greeting")) == 1


async def test_heartbeats_go_twice_in_the_platforms_interval(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app:
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0", liveness_s=0)
        await pace.beat()
        assert service.liveness_interval_s == 30
        assert pace.asked_s == [15, 15]


async def test_without_liveness_no_heartbeats_are_sent(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app:
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0", liveness_s=None)
        assert service.liveness_interval_s is None
    assert pace.asked_s == []


async def test_a_platform_that_forgot_everything_is_told_again(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app:
        offered = [
            await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0"),
            await app.offer_service("farewell", "http://127.0.0.1:9001/", version="1.0"),
            await app.offer_service("silence", "http://127.0.0.1:9002/", version="1.0", liveness_s=None),
        ]
        before = [service.service_id for service in offered]
        await platform.stop()
        await platform.start()
        assert platform.host.services.services(EVERYTHING) == []
        await pace.beat(services=2)
        assert sorted(s.name for s in platform.host.services.services(EVERYTHING)) == [
            "farewell",
            "greeting",
            "silence",
        ]
        assert {s.service_id for s in platform.host.services.services(EVERYTHING)} == {s.service_id for s in offered}
        assert not set(before) & {service.service_id for service in offered}
        assert len(platform.host.registry.state.apps) == 1
        assert platform.host.applications.get(app.app_instance_id).state is AppState.READY


async def test_a_platform_that_remembers_is_not_told_again(durable_platform, pace):
    async with MecApplication(durable_platform.url, name="greeter", sleep=pace.sleep) as app:
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        before = service.service_id
        await durable_platform.stop()
        await durable_platform.start()
        await pace.beat()
        assert service.service_id == before
        assert [s.service_id for s in durable_platform.host.services.services(EVERYTHING)] == [before]


async def test_heartbeats_outlast_a_platform_that_is_down(durable_platform, pace, caplog):
    async with MecApplication(durable_platform.url, name="greeter", sleep=pace.sleep) as app:
        await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        await durable_platform.stop()
        with caplog.at_level(logging.INFO, logger="mec_apps.sdk"):
            await pace.beat()
            await pace.beat()
            await durable_platform.start()
            await pace.beat()
    heartbeats = [record.getMessage() for record in caplog.records if "heartbeat" in record.getMessage()]
    assert ["failed" in heartbeats[0], "again" in heartbeats[1], len(heartbeats)] == [True, True, 2]


async def test_a_single_forgotten_service_is_offered_again(platform, pace):
    async with MecApplication(platform.url, name="greeter", sleep=pace.sleep) as app:
        service = await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        app_id = app.app_instance_id
        await platform.host.services.remove_service(app_id, service.service_id)
        await pace.beat()
        assert app.app_instance_id == app_id
        assert platform.host.services.service(service.service_id, app_id).name == "greeting"


async def test_leaving_works_without_the_platform(durable_platform, caplog):
    async with MecApplication(durable_platform.url, name="greeter"):
        await durable_platform.stop()
    assert "leaves without telling the platform" in caplog.text
    await durable_platform.start()


async def test_an_absent_platform_is_named_with_a_way_out(platform):
    await platform.stop()
    with pytest.raises(PlatformUnreachable, match=platform.url) as error:
        await MecApplication(platform.url, name="greeter").__aenter__()
    assert "mec serve" in str(error.value)
    await platform.start()


async def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="platform_url must look like"):
        await MecApplication("localhost", name="greeter").__aenter__()


async def test_a_server_that_is_no_platform_is_told_apart():
    async def prose(request: web.Request) -> web.Response:
        return web.Response(text="welcome to something else")

    server = web.Application()
    server.router.add_post("/{any:.*}", prose)
    async with TestServer(server) as other:
        with pytest.raises(UnexpectedAnswer, match="platform_url"):
            await MecApplication(str(other.make_url("/")), name="greeter").__aenter__()


async def test_a_refusal_carries_the_platforms_words(platform):
    async with MecApplication(platform.url, name="greeter") as app:
        with pytest.raises(RequestRefused, match="serName") as refused:
            await app.offer_service("", "http://127.0.0.1:9000/", version="1.0")
        assert refused.value.status == 400
        await platform.host.applications.remove(app.app_instance_id)
        with pytest.raises(NotRegistered):
            await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
