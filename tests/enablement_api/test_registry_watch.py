"""Server-sent events of the registry: what a browser or `curl -N` sees, on a real server over a real log."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.enablement_api.registry_watch import handlers
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.server import EnablementRunner
from mec_platform.registry.change_feed import ChangeFeed
from mec_platform.registry.effects import HistoryBegins
from tests.registry.histories import Recorder, Seen, complaints
from tests.registry.services import GREETING, make_app, running_host, until

WATCH = "/registry/v1/watch"


@dataclass(frozen=True)
class Event:
    """An event as a browser takes it from the stream; `id` None where the block has none."""

    id: str | None
    kind: str
    data: dict


@asynccontextmanager
async def watching(client, headers=None, **query):
    response = await client.get(WATCH, params=query, headers=headers or {})
    try:
        yield response
    finally:
        response.close()


async def next_event(response):
    """The next block, a heartbeat included; None at the end of the stream."""
    block = await read_block(response)
    if block is None:
        return None
    fields = {}
    for line in block:
        name, _, value = line.partition(":")
        fields.setdefault(name, value.removeprefix(" "))
    return Event(fields.get("id"), fields.get("event", ""), json.loads(fields.get("data", "null")))


async def read_block(response):
    lines = []
    while (line := await response.content.readline()) != b"\n":
        if not line:
            return None
        lines.append(line.decode().rstrip("\n"))
    return lines


async def events_until(response, revision):
    """All events with changes up to this revision."""
    found = []
    while True:
        event = await next_event(response)
        if event.kind == "changes":
            found.append(event)
        if event.id is not None and int(event.id) >= revision:
            return found


def seen_in(events):
    return [
        Seen(
            event.data["revision"],
            ChangeType(change["kind"]),
            change["service"]["serInstanceId"],
            change["service"]["version"],
        )
        for event in events
        for change in event.data["changes"]
    ]


@asynccontextmanager
async def serving(host):
    async with TestClient(TestServer(make_enablement_app(host))) as client:
        yield client


async def test_a_change_is_an_event_with_the_service_as_mp1_answers_it(client, host):
    app_id = await make_app(host)
    async with watching(client) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        assert (await next_event(response)).id == "1"
        service = await host.services.register_service(app_id, GREETING)
        event = await next_event(response)
        over_mp1 = await (await client.get(f"/mec_service_mgmt/v1/services/{service.service_id}")).json()
    assert (event.id, event.kind) == ("2", "changes")
    assert event.data == {
        "revision": 2,
        "more": False,
        "changes": [
            {
                "kind": "ADDED",
                "service": over_mp1,
                "capabilities": {
                    "model": "smollm2",
                    "layers": {"start": 0, "stop": 12},
                    "trustLevel": 1,
                    "labels": {"rack": "a"},
                },
            }
        ],
    }


async def test_a_client_that_resumes_over_restarts_sees_everything_once_and_in_order(clock, tmp_path):
    recorder, seen, last_id = Recorder(), [], "0"
    for _ in range(3):
        async with running_host(clock, tmp_path / "log") as host, serving(host) as client:
            host.registry.add_listener(recorder.note)
            app_id = await make_app(host)
            async with watching(client, {"Last-Event-ID": last_id}, list_first="true") as response:
                services = await asyncio.gather(
                    *(host.services.register_service(app_id, replace(GREETING, version=str(each))) for each in range(5))
                )
                await host.services.remove_service(app_id, services[0].service_id)
                events = await events_until(response, host.registry.state.revision)
                seen += seen_in(events)
                last_id = events[-1].id
            await host.applications.remove(app_id)
    async with running_host(clock, tmp_path / "log") as host, serving(host) as client:
        async with watching(client, {"Last-Event-ID": last_id}) as response:
            seen += seen_in(await events_until(response, host.registry.state.revision))
        assert complaints(recorder.happened, seen, 0, host.registry.state.revision) == []
        assert len(seen) == 3 * (5 + 1 + 4)


async def test_a_list_comes_first_and_is_of_the_revision_that_is_watched_from(client, host):
    app_id = await make_app(host)
    services = [await host.services.register_service(app_id, GREETING) for _ in range(3)]
    async with watching(client, list_first="true") as response:
        event = await next_event(response)
        assert event.id == "4"
        assert [each["kind"] for each in event.data["changes"]] == ["LISTED"] * 3
        assert [each["service"]["serInstanceId"] for each in event.data["changes"]] == [
            each.service_id for each in services
        ]
        await host.services.remove_service(app_id, services[0].service_id)
        assert (await next_event(response)).data["changes"][0]["kind"] == "REMOVED"


async def test_long_lists_come_in_pieces_and_the_id_with_the_last_one(client, host, monkeypatch):
    monkeypatch.setattr("mec_platform.enablement_api.registry_watch.messages.LARGEST_EVENT_BYTES", 2000)
    app_id = await make_app(host)
    for _ in range(5):
        await host.services.register_service(app_id, GREETING)
    async with watching(client, list_first="true") as response:
        events = await events_until(response, 6)
    assert len(events) > 2
    assert [(each.id, each.data["more"]) for each in events[:-1]] == [(None, True)] * (len(events) - 1)
    assert (events[-1].id, events[-1].data["more"]) == ("6", False)


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"ser_name": "greeting"}, True),
        ({"ser_name": "other"}, False),
        ({"ser_category_id": "other"}, False),
        ({"app_instance_id": "other"}, False),
        ({"state": "ACTIVE"}, True),
        ({"state": "INACTIVE"}, False),
        ({"model": "smollm2"}, True),
        ({"model": "llama"}, False),
    ],
)
async def test_filters_are_query_parameters_and_heartbeats_move_on_over_the_rest(
    client, host, monkeypatch, query, matches
):
    monkeypatch.setattr(handlers, "HEARTBEAT_S", 0.01)
    app_id = await make_app(host)
    async with watching(client, **query) as response:
        await next_event(response)
        await host.services.register_service(app_id, GREETING)
        events = await events_until(response, 2)
        assert bool(events) is matches


@pytest.mark.parametrize(("headers", "current"), [({"Last-Event-ID": "1"}, 2), ({"Last-Event-ID": "77"}, 2)])
async def test_a_revision_that_is_gone_or_yet_to_come_is_an_event_that_has_the_client_list_again(
    clock, tmp_path, headers, current
):
    async with running_host(clock, tmp_path / "log") as host:
        await host.services.register_service(await make_app(host), GREETING)
        await host.registry.compact()
    async with (
        running_host(clock, tmp_path / "log") as host,
        serving(host) as client,
        watching(client, headers) as response,
    ):
        event = await next_event(response)
        assert (event.id, event.kind, event.data) == ("", "compacted", {"revision": current})
        assert await next_event(response) is None


async def test_a_client_that_does_not_read_is_dropped_with_an_event(clock):
    async with running_host(clock) as host:
        host.changes = ChangeFeed(host.registry, capacity=10)
        host.changes._begin_anew(0)
        large = replace(GREETING, capabilities=Capabilities(labels={str(each): "x" * 250 for each in range(30)}))
        async with serving(host) as client, watching(client) as response:
            app_id = await make_app(host)
            while host.changes.largest_lag < 11:
                await host.services.register_service(app_id, large)
                await asyncio.sleep(0)
            event = await next_event(response)
            while event.kind != "compacted":
                event = await next_event(response)
            assert await next_event(response) is None
            assert host.changes.watchers == 0


async def test_a_client_that_goes_leaves_nothing_behind(client, host, monkeypatch):
    monkeypatch.setattr(handlers, "HEARTBEAT_S", 0.01)
    async with watching(client) as response:
        await next_event(response)
        assert host.changes.watchers == 1
    await until(lambda: host.changes.watchers == 0)


@asynccontextmanager
async def platform_serving(host):
    """As the platform serves: handlers are not cancelled when their client goes, as the test server has it."""
    runner = EnablementRunner(make_enablement_app(host), shutdown_timeout=3600)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner, "http://{}:{}{}".format(*runner.addresses[0][:2], WATCH)
    finally:
        await runner.cleanup()


async def test_a_client_that_goes_is_noticed_at_a_heartbeat(host, monkeypatch):
    monkeypatch.setattr(handlers, "HEARTBEAT_S", 0.01)
    async with platform_serving(host) as (_, uri):
        async with ClientSession() as session, session.get(uri) as response:
            await next_event(response)
            assert host.changes.watchers == 1
        await until(lambda: host.changes.watchers == 0)


async def test_watches_end_with_the_application_and_do_not_hold_it_up(host):
    async with platform_serving(host) as (runner, uri), ClientSession() as session, session.get(uri) as response:
        await next_event(response)
        await runner.cleanup()
        assert host.changes.watchers == 0


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({"after_revision": "-1"}, {}),
        ({"after_revision": "x"}, {}),
        ({"after_revision": "0", "list_first": "true"}, {}),
        ({"state": "SLEEPING"}, {}),
        ({"pigeon": "1"}, {}),
        ({}, {"Last-Event-ID": "x"}),
        ({}, {"Last-Event-ID": "9" * 30}),
    ],
)
async def test_what_cannot_be_watched_is_a_bad_request(client, query, headers):
    async with watching(client, headers, **query) as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")


async def test_head_says_what_get_would_be(client):
    response = await client.head(WATCH)
    assert (response.status, response.content_type) == (200, "text/event-stream")


async def test_a_watch_counts_as_a_request_and_not_as_a_slow_one(client, host):
    async with watching(client) as response:
        await next_event(response)
        samples = await (await client.get("/metrics")).text()
        assert "mec_registry_watchers 1.0" in samples
        host.changes._note(HistoryBegins(host.registry.state.revision))
        while await next_event(response) is not None:
            pass
    samples = await (await client.get("/metrics")).text()
    assert f'mec_http_requests_total{{method="GET",route="{WATCH}",status="200"}} 1.0' in samples
    assert f'mec_http_request_seconds_count{{method="GET",route="{WATCH}"}} 0.0' in samples


async def test_a_watch_ends_when_its_token_does(clock, monkeypatch):
    # Imported here: the fixtures of the other folder are not wanted.
    from mec_platform.domain.credentials import Scope
    from mec_platform.enablement_api.security.protection import Protection
    from mec_platform.enablement_api.security.settings import SecuritySettings
    from tests.security.conftest import ISSUER

    monkeypatch.setattr(handlers, "HEARTBEAT_S", 0.01)
    async with running_host(clock, quotas=Quotas(watches_per_client=1)) as host:
        protection = Protection(host.registry, host.credentials, SecuritySettings(authenticate=True, issuer=ISSUER))
        async with TestClient(TestServer(make_enablement_app(host, protection=protection))) as client:
            async with watching(client) as response:
                assert response.status == 401
            made, secret = await host.credentials.create([Scope.SERVICE_MANAGEMENT])
            form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": secret}
            token = (await (await client.post("/oauth2/token", data=form)).json())["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            async with watching(client, headers) as response:
                assert (await next_event(response)).id is not None
                async with watching(client, headers) as second:
                    assert second.status == 403
                    assert "1 watches" in (await second.json())["detail"]
                clock.now_s += 3601
                while await next_event(response) is not None:
                    pass
