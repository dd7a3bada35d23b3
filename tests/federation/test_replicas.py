"""A host of several replicas among its peers: the one that leads follows them, and the next one goes on where it was."""

from __future__ import annotations

from pathlib import Path
from random import Random

from mec_platform.peer_access import GrpcPeerAccess
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.federation.federation import Federation
from tests.federation.hosts import SETTINGS, Host
from tests.registry.etcd_cluster import needs_etcd
from tests.registry.replicas import Replica, eventually, replica

pytestmark = needs_etcd


async def test_of_replicas_the_leader_follows_and_the_next_one_goes_on_where_it_was(
    tmp_path: Path, etcd_settings: EtcdSettings
):
    peer = Host("peer", tmp_path / "peer.sqlite")
    async with replica(etcd_settings, "one") as one, replica(etcd_settings, "two") as two:
        own = one.host.services.locality.mec_host
        peer.peers = [Host(own, ":memory:")]  # Known by name; it is the replicas that follow.
        await peer.wire.start()
        await peer.start()
        federations = [
            Federation(each.host, {"peer": GrpcPeerAccess(peer.wire.address)}, SETTINGS, Random(0))
            for each in (one, two)
        ]
        for each in federations:
            await each.start()
        app_id = await peer.app()
        first = (await peer.offer(app_id)).service_id
        await eventually(lambda: first in two.host.registry.state.services)
        assert [follows(each) for each in federations] == [True, False]
        await one.leadership.stop()
        await eventually(lambda: two.leadership.is_leader)
        await eventually(lambda: [follows(each) for each in federations] == [False, True])
        second = (await peer.offer(app_id)).service_id
        await eventually(lambda: second in one.host.registry.state.services)
        assert copies(one) == copies(two) == {first, second}
        for each in federations:
            await each.stop()
        await peer.stop()
        await peer.wire.stop()


def follows(federation: Federation) -> bool:
    (status,) = federation.statuses
    return status.connected


def copies(at: Replica) -> set[str]:
    return {each.service_id for each in at.host.registry.state.services.values() if each.origin == "peer"}
