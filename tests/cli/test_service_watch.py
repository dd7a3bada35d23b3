"""`mec watch --services`: each change once, over lost connections and restarts of the platform."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from mec_apps.cli.rest_client import PlatformAddress
from mec_apps.cli.service_filters import ServiceFilters
from mec_apps.cli.service_watch import (
    Remedy,
    change_sets,
    decide_remedy,
    follow,
    watch_request,
    watch_services,
    write_json,
    write_text,
)
from mec_apps.sdk.session import Access, ClientCredentials, PlatformSession
from mec_platform.domain.services import ServiceState
from mec_platform.registry.grpc.writing import record_of
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc
from tests.cli.platforms import host_of, offer, run, running_platform, withdraw
from tests.enablement_api.offers import SERVICE

ALL = ServiceFilters()
NOTHING = Access()


def told(change_set) -> list[tuple[str, str]]:
    """Kind and name of each change."""
    _, changes = change_set
    return [(pb.ChangeKind.Name(each.kind)[12:], each.service.description.name) for each in changes]


def port_of(platform) -> int:
    """Where its next life is to be found."""
    return int(platform.grpc_address.rpartition(":")[2])


@asynccontextmanager
async def following(platform, wanted=ALL, after=None, notes=None, access=NOTHING):
    """The change sets that a watcher of this platform sees."""
    session = PlatformSession(platform.rest_uri, 10, access)
    channel = open_channel(platform.grpc_address)
    stub = registry_pb2_grpc.ServiceRegistryStub(channel)
    collected = [] if notes is None else notes
    try:
        async with aclosing(follow(stub, session, wanted, after, collected.append)) as sets, asyncio.timeout(60):
            yield sets
    finally:
        await channel.close()
        await session.close()


async def test_what_is_there_is_listed_and_then_changes_come(tmp_path):
    async with running_platform(tmp_path) as platform:
        first = await offer(platform, name="a")
        async with following(platform) as sets:
            listed = await anext(sets)
            assert told(listed) == [("LISTED", "a")]
            assert listed[0] == host_of(platform).registry.state.revision
            await offer(platform, name="b")
            assert told(await anext(sets)) == [("ADDED", "b")]
            await withdraw(platform, first)
            assert told(await anext(sets)) == [("REMOVED", "a")]


async def test_filters_are_the_platforms(tmp_path):
    async with running_platform(tmp_path) as platform:
        await offer(platform, name="a")
        await offer(platform, name="b", state=ServiceState.INACTIVE)
        async with following(platform, ServiceFilters(states=("INACTIVE",), models=("smollm2",))) as sets:
            assert told(await anext(sets)) == [("LISTED", "b")]
        async with following(platform, ServiceFilters(names=("b", "c"))) as sets:
            assert told(await anext(sets)) == [("LISTED", "b")]
            await offer(platform, name="a")
            await offer(platform, name="c")
            assert told(await anext(sets)) == [("ADDED", "c")]


async def test_goes_on_after_a_restart_where_it_was(tmp_path):
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        async with running_platform(tmp_path) as first:
            await offer(first, name="a")
            sets = await stack.enter_async_context(following(first, notes=notes))
            revision, _ = await anext(sets)
        async with running_platform(tmp_path, grpc_port=port_of(first)) as second:
            await offer(second, name="while it was away")
            assert told(await anext(sets)) == [("ADDED", "while it was away")]
    assert f"go on after revision {revision}" in notes[0]


async def test_lists_again_where_what_it_missed_is_no_longer_kept(tmp_path):
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        async with running_platform(tmp_path) as first:
            await offer(first, name="a")
            sets = await stack.enter_async_context(following(first, notes=notes))
            await anext(sets)
        async with running_platform(tmp_path) as unseen:
            await offer(unseen, name="b")
            await host_of(unseen).registry.compact()
        async with running_platform(tmp_path, grpc_port=port_of(first)):
            assert told(await anext(sets)) == [("LISTED", "a"), ("LISTED", "b")]
    assert "listing again" in notes[-1]


async def test_begins_after_a_revision_that_it_is_given(tmp_path):
    async with running_platform(tmp_path) as platform:
        await offer(platform, name="a")
        revision = host_of(platform).registry.state.revision
        await offer(platform, name="b")
        async with following(platform, after=revision) as sets:
            assert told(await anext(sets)) == [("ADDED", "b")]


async def test_a_revision_that_the_platform_has_not_is_an_error(tmp_path):
    async with running_platform(tmp_path) as platform:
        refused = await run(
            "watch", "--services", "--after", "999", "--platform-grpc", platform.grpc_address,
            "--platform", platform.rest_uri,
        )  # fmt: skip
    assert refused.exit_code == 1
    assert isinstance(refused.exception, grpc.aio.AioRpcError)
    assert "has not come to 999" in (refused.exception.details() or "")


async def test_lines_of_json_are_printed_as_changes_come(tmp_path, capsys):
    async with running_platform(tmp_path) as platform:
        await offer(platform, name="a")
        address = PlatformAddress(platform.rest_uri, Access())
        watching = asyncio.ensure_future(watch_services(platform.grpc_address, address, ALL, None, as_json=True))
        printed = ""
        async with asyncio.timeout(60):
            while "\n" not in printed:
                await asyncio.sleep(0)
                printed += capsys.readouterr().out
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        line = json.loads(printed)
        assert line["revision"] == host_of(platform).registry.state.revision
        assert (line["kind"], line["service"]["description"]["name"]) == ("LISTED", "a")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--name", "a"], "--services"),
        (["--after", "1"], "--services"),
        (["--services", "--all"], "--all"),
    ],
)
async def test_options_that_do_not_go_together_are_refused(arguments, word):
    refused = await run("watch", *arguments)
    assert refused.exit_code == 2
    assert word in refused.output


async def test_parts_of_a_change_set_come_together():
    change = pb.ServiceChange(kind=pb.CHANGE_KIND_ADDED)

    async def replies():
        yield pb.WatchReply(changes=[change], more=True)
        yield pb.WatchReply(changes=[change, change], revision=7)
        yield pb.WatchReply(revision=9)

    assert [(revision, len(changes)) async for revision, changes in change_sets(replies())] == [(7, 3), (9, 0)]


Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "heard", "resumed", "remedy"),
    [
        (Code.UNAVAILABLE, False, False, Remedy.RESUME),
        (Code.CANCELLED, True, False, Remedy.RESUME),
        (Code.OUT_OF_RANGE, False, True, Remedy.LIST_AGAIN),
        (Code.OUT_OF_RANGE, True, False, Remedy.LIST_AGAIN),
        (Code.OUT_OF_RANGE, False, False, Remedy.GIVE_UP),
        (Code.UNAUTHENTICATED, True, True, Remedy.NEW_TOKEN),
        (Code.UNAUTHENTICATED, False, True, Remedy.GIVE_UP),
        (Code.PERMISSION_DENIED, True, True, Remedy.GIVE_UP),
    ],
)
def test_what_is_done_when_a_watch_ends(code, heard, resumed, remedy):
    assert decide_remedy(code, heard=heard, resumed=resumed) is remedy


def test_asks_for_a_list_or_for_what_came_after():
    assert watch_request(ALL, None) == pb.WatchRequest(list_first=True)
    wanted = ServiceFilters(("n",), ("c",), ("m",), ("ACTIVE",))
    assert watch_request(wanted, 0) == pb.WatchRequest(
        after_revision=0, names=["n"], category_ids=["c"], models=["m"], states=[pb.SERVICE_STATE_ACTIVE]
    )


def test_a_line_for_people_has_all_that_is_there():
    change = pb.ServiceChange(kind=pb.CHANGE_KIND_STATE_CHANGED, service=record_of(SERVICE))
    assert re.split(" {2,}", write_text(12, change).strip()) == [
        "12",
        "STATE_CHANGED",
        "service-1",
        "faces v1",
        "ACTIVE",
        "smollm2 [0, 12)",
        "https://faces.example.com:9000/faces/v1 http://192.0.2.10/",
    ]
    bare = pb.ServiceChange(
        kind=pb.CHANGE_KIND_REMOVED, service=record_of(replace(SERVICE, capabilities=None, version=""))
    )
    assert "faces  ACTIVE  https://" in write_text(12, bare)
    assert json.loads(write_json(12, bare))["kind"] == "REMOVED"


async def test_a_watch_carries_a_token_where_the_platform_asks_for_one(tmp_path):
    async with running_platform(tmp_path, authenticate=True) as platform:
        await offer(platform, name="a")
        access = Access(credentials=ClientCredentials.read(platform.operator_file))
        async with following(platform, access=access) as sets:
            assert told(await anext(sets)) == [("LISTED", "a")]


async def test_a_watch_without_a_token_is_refused_there(tmp_path):
    async with running_platform(tmp_path, authenticate=True) as platform:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with following(platform) as sets:
                await anext(sets)
    assert refused.value.code() is Code.UNAUTHENTICATED


def test_a_name_cannot_write_lines_of_its_own():
    named = replace(SERVICE, name="\x1b[2Jfaces\n      99  REMOVED")
    line = write_text(12, pb.ServiceChange(kind=pb.CHANGE_KIND_ADDED, service=record_of(named)))
    assert line.isprintable()
    assert "faces" in line
