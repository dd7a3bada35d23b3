"""A host of several replicas among its peers: the one that leads follows them, and the next one goes on where it was."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from mec_platform.peer_access import GrpcPeerAccess
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.federation.federation import Federation
from tests.federation.hosts import SETTINGS, Host
from tests.registry.marks import needs_etcd
from tests.registry.replicas import Replica, eventually, replica

pytestmark = needs_etcd


async def test_of_replicas_the_leader_follows_and_the_next_one_goes_on_where_it_was(
    tmp_path: Path, etcd_settings: EtcdSettings
):
    async with (
        AsyncExitStack() as stack,
        replica(etcd_settings, "one") as one,
        replica(etcd_settings, "two") as two,
    ):
        peer = await start_peer(stack, tmp_path, one.host.services.locality.mec_host)
        federations = [await follow(stack, each, peer) for each in (one, two)]
        app_id = await peer.app()
        first = (await peer.offer(app_id)).service_id
        await eventually(lambda: copies(one) == copies(two) == {first})
        assert [follows(each) for each in federations] == [True, False]
        await one.leadership.stop()
        await eventually(lambda: [follows(each) for each in federations] == [False, True])
        second = (await peer.offer(app_id)).service_id
        await eventually(lambda: copies(one) == copies(two) == {first, second})
        await stack.aclose()


async def start_peer(stack: AsyncExitStack, folder: Path, follower: str) -> Host:
    peer = Host("peer", folder / "peer.sqlite")
    peer.peers = [Host(follower, ":memory:")]  # Known by name; its replicas are others.
    await peer.wire.start()
    stack.push_async_callback(peer.wire.stop)
    await peer.start()
    stack.push_async_callback(peer.stop)
    return peer


async def follow(stack: AsyncExitStack, at: Replica, peer: Host) -> Federation:
    federation = Federation(at.host, {peer.name: GrpcPeerAccess(peer.wire.address)}, SETTINGS, Random(0))
    await federation.start()
    stack.push_async_callback(federation.stop)
    return federation


def follows(federation: Federation) -> bool:
    (status,) = federation.statuses
    return status.connected


def copies(at: Replica) -> set[str]:
    return {each.service_id for each in at.host.registry.state.services.values() if each.origin == "peer"}
