"""Watch over gRPC: resumed over restarts, bounded for the slow, filtered, bookmarked."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.change_feed import ChangeFeed
from mec_platform.registry.grpc import writing
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.registry.grpc_serving import described, read_refusal, serving
from tests.registry.histories import Recorder, Seen, complaints
from tests.registry.services import GREETING, make_app, running_host, until

KINDS = {pb.ChangeKind.Value(f"CHANGE_KIND_{each.name}"): each for each in ChangeType}


@asynccontextmanager
async def watching(stub, **request):
    call = stub.Watch(pb.WatchRequest(**request))
    try:
        yield call
    finally:
        call.cancel()


async def read_until(call, revision):
    """All replies up to the one that tells of this revision."""
    replies = []
    while not replies or replies[-1].revision < revision:
        reply = await call.read()
        assert reply is not grpc.aio.EOF
        replies.append(reply)
    return replies


async def exhaust(call):
    while await call.read() is not grpc.aio.EOF:
        pass


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await exhaust(call)
    return read_refusal(error.value)


def seen_in(replies):
    found, pending = [], []
    for reply in replies:
        pending += reply.changes
        if not reply.more:
            found += [
                Seen(reply.revision, KINDS[each.kind], each.service.service_id, each.service.description.version)
                for each in pending
            ]
            pending = []
    return found


async def test_a_watcher_sees_changes_with_their_services(clock):
    async with running_host(clock) as host, serving(host) as stub, watching(stub) as call:
        assert (await call.read()) == pb.WatchReply(revision=0)
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=described()))
        change = pb.ServiceChange(kind=pb.CHANGE_KIND_ADDED, service=reply.service)
        assert await call.read() == pb.WatchReply(revision=2, changes=[change])


async def test_watchers_that_resume_over_restarts_see_everything_once_and_in_order(clock, tmp_path):
    recorder, seen, came_to = Recorder(), [], 0
    for _ in range(3):
        async with running_host(clock, tmp_path / "log") as host, serving(host) as stub:
            host.registry.add_listener(recorder.note)
            app_id = await make_app(host)
            async with watching(stub, after_revision=came_to) as call:
                services = await asyncio.gather(
                    *(host.services.register_service(app_id, replace(GREETING, version=str(each))) for each in range(5))
                )
                await host.services.remove_service(app_id, services[0].service_id)
                replies = await read_until(call, host.registry.state.revision)
                seen += seen_in(replies)
                came_to = replies[-1].revision
            # What happens while nobody watches:
            await host.services.register_service(app_id, GREETING)
            await host.applications.remove(app_id)
    async with running_host(clock, tmp_path / "log") as host, serving(host) as stub:
        async with watching(stub, after_revision=came_to) as call:
            seen += seen_in(await read_until(call, host.registry.state.revision))
        assert complaints(recorder.happened, seen, 0, host.registry.state.revision) == []
        assert len(seen) == 3 * (5 + 1 + 1 + 5)


async def test_list_and_watch_are_of_one_revision(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        listed = [await host.services.register_service(app_id, GREETING) for _ in range(3)]
        async with watching(stub, list_first=True) as call:
            (reply,) = await read_until(call, 4)
            assert [each.service.service_id for each in reply.changes] == [each.service_id for each in listed]
            assert {each.kind for each in reply.changes} == {pb.CHANGE_KIND_LISTED}
            await host.services.remove_service(app_id, listed[0].service_id)
            (reply,) = await read_until(call, 5)
            assert [each.kind for each in reply.changes] == [pb.CHANGE_KIND_REMOVED]


async def test_long_lists_and_large_changes_come_in_pieces_of_one_revision(clock, monkeypatch):
    monkeypatch.setattr(writing, "LARGEST_MESSAGE_BYTES", 1000)
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        services = [await host.services.register_service(app_id, GREETING) for _ in range(20)]
        async with watching(stub, list_first=True) as call:
            revision = host.registry.state.revision
            listed = await read_until(call, revision)
            await host.applications.remove(app_id)
            removed = await read_until(call, revision + 1)
    for replies in (listed, removed):
        assert len(replies) > 2
        assert [(each.more, each.revision == 0) for each in replies[:-1]] == [(True, True)] * (len(replies) - 1)
        assert not replies[-1].more
        ids = [each.service.service_id for reply in replies for each in reply.changes]
        assert ids == [each.service_id for each in services]


async def test_an_empty_list_is_told_too(clock):
    async with running_host(clock) as host, serving(host) as stub, watching(stub, list_first=True) as call:
        assert await call.read() == pb.WatchReply(revision=0)


@pytest.mark.parametrize(
    "wanted",
    [
        {"names": ["other"]},
        {"category_ids": ["other"]},
        {"app_instance_ids": ["other"]},
        {"states": [pb.SERVICE_STATE_INACTIVE]},
        {"models": ["llama"]},
    ],
)
async def test_what_a_filter_does_not_want_is_passed_over_and_the_revision_told_by_a_bookmark(
    clock, wanted, monkeypatch
):
    monkeypatch.setattr("mec_platform.registry.grpc.reading.DEFAULT_BOOKMARK_S", 0.01)
    async with running_host(clock) as host, serving(host) as stub, watching(stub, **wanted) as call:
        await call.read()
        await host.services.register_service(await make_app(host), GREETING)
        replies = await read_until(call, 2)
        assert [each for reply in replies for each in reply.changes] == []


async def test_a_service_leaves_a_filtered_watch_when_it_matches_no_more(clock):
    async with running_host(clock) as host, serving(host) as stub, watching(stub, models=["smollm2"]) as call:
        await call.read()
        app_id = await make_app(host)
        service = await host.services.register_service(app_id, GREETING)
        other = replace(GREETING, capabilities=Capabilities(model="llama"))
        await host.services.update_service(app_id, service.service_id, other)
        replies = await read_until(call, 3)
        assert [each.kind for each in seen_in(replies)] == [ChangeType.ADDED, ChangeType.REMOVED]


async def test_a_revision_that_is_gone_ends_the_watch_with_the_revision_to_list_at(clock, tmp_path):
    async with running_host(clock, tmp_path / "log") as host:
        app_id = await make_app(host)
        await host.services.register_service(app_id, GREETING)
        await host.registry.compact()
    async with running_host(clock, tmp_path / "log") as host, serving(host) as stub:
        async with watching(stub, after_revision=1) as call:
            code, reason, details = await refused(call)
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "CHANGES_COMPACTED")
        assert details["ErrorInfo"].metadata["revision"] == "2"


async def test_a_revision_of_the_future_is_refused(clock):
    async with running_host(clock) as host, serving(host) as stub, watching(stub, after_revision=7) as call:
        code, reason, details = await refused(call)
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_AHEAD")
        assert details["ErrorInfo"].metadata["revision"] == "0"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"list_first": True, "after_revision": 0}, "list_first"),
        ({"bookmark_interval_s": 0}, "bookmark_interval_s"),
        ({"bookmark_interval_s": 301}, "bookmark_interval_s"),
        ({"names": ["x"] * 1001}, "names"),
        ({"states": [0]}, "states"),
    ],
)
async def test_a_watch_that_cannot_be_is_refused(clock, request_, field):
    async with running_host(clock) as host, serving(host) as stub, watching(stub, **request_) as call:
        code, _, details = await refused(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == field


async def test_a_client_that_does_not_read_is_dropped_and_others_see_all(clock):
    async with running_host(clock) as host:
        host.changes = ChangeFeed(host.registry, capacity=10)
        host.changes._begin_anew(0)
        large = replace(GREETING, capabilities=Capabilities(labels={str(each): "x" * 250 for each in range(30)}))
        async with serving(host) as stub, watching(stub) as quick, watching(stub) as slow:
            await asyncio.gather(quick.read(), slow.read())
            app_id = await make_app(host)
            seen = 0
            # Until what lies between the server and the slow client is full, and then ten more.
            while host.changes.largest_lag < 11:
                await host.services.register_service(app_id, large)
                await quick.read()
                seen += 1
            assert seen == len(host.registry.state.services)
            code, reason, _ = await refused(slow)
            assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "CHANGES_COMPACTED")


async def test_a_watcher_that_goes_leaves_nothing_behind(clock):
    async with running_host(clock) as host, serving(host) as stub:
        async with watching(stub) as call:
            await call.read()
            assert host.changes.watchers == 1
        await until(lambda: host.changes.watchers == 0)
