"""The link to a peer that does not speak as it should: it harms itself only."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc

from mec_platform.domain.locality import Locality
from mec_platform.registry.federation import sharing
from mec_platform.registry.federation.messages import write_place, write_service
from mec_platform.rpc.endpoints import make_server, start_server
from mec_platform.rpc.v1 import federation_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2
from tests.federation.hosts import Host, eventually
from tests.federation.test_reconciliation import service_of


@asynccontextmanager
async def host_and_impostor(*scripts: list[pb.FollowReply]):
    """Host a, whose peer b says what stands in the scripts, one a connection, and then nothing."""
    host, impostor = Host("a", ":memory:"), Host("b", ":memory:")
    host.peers = [impostor]
    waiting = iter(scripts)

    async def follow(request: pb.FollowRequest, context) -> None:
        script = next(waiting, None)
        if script is None:
            await asyncio.Event().wait()
        for reply in script:
            await context.write(reply.SerializeToString())

    handler = grpc.unary_stream_rpc_method_handler(follow, request_deserializer=pb.FollowRequest.FromString)
    server = make_server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(sharing.SERVICE_NAME, {"Follow": handler}),))
    for each in (host, impostor):
        await each.wire.start()
    impostor.wire.target = await start_server(server, "127.0.0.1", 0, [sharing.SERVICE_NAME])
    await host.start()
    try:
        yield host, host.federation.statuses[0].counts
    finally:
        await host.stop()
        await server.stop(None)
        for each in (host, impostor):
            await each.wire.stop()


def begin(start: int = pb.FOLLOW_START_LISTED) -> pb.FollowReply:
    place = write_place(Locality(mec_host="b"))
    return pb.FollowReply(begin=pb.FollowBegin(registry_id="r", place=place, start=start))


def listing(*ids: str, revision: int = 5, **more: object) -> pb.FollowReply:
    put = [write_service(service_of("b", each)) for each in ids]
    return pb.FollowReply(changes=pb.SharedChanges(revision=revision, is_listing=True, put=put, **more))


def changes(*ids: str, revision: int, removed: tuple[str, ...] = ()) -> pb.FollowReply:
    put = [write_service(service_of("b", each)) for each in ids]
    return pb.FollowReply(changes=pb.SharedChanges(revision=revision, put=put, removed_ids=removed))


async def test_whoever_does_not_begin_with_begin_is_called_again():
    async with host_and_impostor([changes("1", revision=1)], [begin(), listing("2")]) as (host, _):
        await eventually(lambda: "2" in host.services)
        assert "1" not in host.services


async def test_what_a_newer_version_may_say_is_passed_over():
    unknown = pb.FollowReply.FromString(b"\xfa\x01\x01x")
    assert unknown.WhichOneof("content") is None
    async with host_and_impostor([begin(77), unknown, listing("1")]) as (host, counts):
        await eventually(lambda: "1" in host.services)
        assert counts.listings["unknown"] == 1


async def test_a_peer_touches_nothing_of_this_host():
    async with host_and_impostor([]) as (host, _):
        own = await host.offer(await host.app())
        other = Locality(mec_host="a")
        lie = write_service(service_of("b", "lie"))
        lie.locality.CopyFrom(write_place(other))
        kpis = registry_pb2.ServiceKpis(load=0.5, measured_unix_ns=1)
        script = [
            begin(),
            listing(own.service_id, "1"),
            pb.FollowReply(changes=pb.SharedChanges(revision=6, put=[lie], removed_ids=[own.service_id])),
            pb.FollowReply(
                kpis=pb.SharedKpis(
                    services=[
                        registry_pb2.ServiceHeartbeat(service_id=each, kpis=kpis) for each in (own.service_id, "1", "?")
                    ]
                )
            ),
            changes("2", revision=7),
        ]
        link = host.federation._links[0]
        await link._take(script)
        assert set(host.services) == {own.service_id, "1", "2"}
        assert host.services[own.service_id] == own
        kpis_known = dict(host.host.services.kpis.items())
        assert list(kpis_known) == ["1"]
        # Of the other one, it has said that it is gone.
        assert set(link._refused) == {"lie"}
        assert link.counts.refusals == 2


async def test_a_change_in_pieces_is_one_event():
    pieces = [changes("1", revision=0), changes("2", revision=0, removed=("0",)), changes(revision=9)]
    for piece in pieces[:-1]:
        piece.changes.more = True
    async with host_and_impostor([begin(), listing("0"), *pieces]) as (host, _):
        await eventually(lambda: set(host.services) == {"1", "2"})
        kinds = [each.kind for each in await host.host.log.history("registry")]
        assert kinds.count("peer.services_changed") == 2
        assert host.host.registry.state.peers["b"].revision == 9


async def test_a_list_that_does_not_help_is_asked_for_less_and_less_often():
    wrong = pb.FollowReply(digest=pb.SharedDigest(revision=5, digest=b"never"))
    async with host_and_impostor(*([begin(), listing("1"), wrong, wrong] for _ in range(50))) as (host, counts):
        link = host.federation._links[0]
        await eventually(lambda: link._relist_wait_s > 2 * host.settings.digest_s)
        assert counts.mismatches >= 3
        assert set(host.services) == {"1"}
