"""Hosts that share services over real gRPC: copies, partitions, compaction, restarts, lost states, and what subscribers hear."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import grpc
import pytest

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.services import ServiceQuery, ServiceState
from mec_platform.domain.subscriptions import ChangeType, Delivery, Subscription, Topic
from mec_platform.registry import events
from mec_platform.registry.errors import UnknownAppInstance, UnknownService
from mec_platform.registry.federation import peer_link, reconciliation
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.federation.hosts import SETTINGS, SHARED, eventually, federation, in_step
from tests.registry.grpc_serving import described, refusal_of, serving


async def test_services_of_each_host_are_found_at_the_others_and_go_with_their_owner(tmp_path):
    async with federation(tmp_path, "a", "b", "c") as hosts:
        a, b, c = hosts
        app_id = await a.app()
        service = await a.offer(app_id)
        await b.offer(await b.app(), name="other")
        await eventually(lambda: in_step(hosts) and len(c.services) == 2, *hosts)
        assert b.services[service.service_id].origin == "a"
        assert [each.name for each in c.federation.statuses] == ["a", "b"]
        await a.host.services.update_service(app_id, service.service_id, replace(SHARED, version="2"))
        await eventually(lambda: b.services[service.service_id].version == "2", *hosts)
        await a.host.applications.remove(app_id)
        await eventually(lambda: in_step(hosts) and len(c.services) == 1, *hosts)
        # Nobody passes on what is another's.
        assert all(host.link(other).counts.refusals == 0 for host in hosts for other in host.peers)


async def test_what_happens_while_hosts_are_apart_is_made_up_for_by_changes_alone(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        apps = await a.app(), await b.app()
        before = [await a.offer(apps[0]), await b.offer(apps[1])]
        await eventually(lambda: in_step(hosts), *hosts)
        for host in hosts:
            host.wire.cut()
        await eventually(lambda: not a.link(b).connected and not b.link(a).connected, *hosts)
        await a.host.services.remove_service(apps[0], before[0].service_id)
        for app_id, host in zip(apps, hosts, strict=True):
            await asyncio.gather(*(host.offer(app_id, version=str(each)) for each in range(50)))
        assert before[0].service_id in b.services, "what a peer has is known while it is away"
        for host in hosts:
            host.wire.heal()
        await eventually(lambda: in_step(hosts) and len(a.services) == 101, *hosts)
        assert before[0].service_id not in b.services
        for one, other in ((a, b), (b, a)):
            status = one.link(other)
            assert (dict(status.counts.listings), status.counts.mismatches) == ({"listed": 1}, 0)
            assert status.counts.connections == 2
            assert status.follows
            assert status.error == ""


async def test_hosts_that_were_apart_for_longer_than_changes_are_kept_compare_their_lists(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        gone, stays = await a.offer(app_id), await a.offer(app_id)
        await eventually(lambda: len(b.services) == 2, *hosts)
        a.wire.cut()
        await eventually(lambda: not b.link(a).connected, *hosts)
        await a.host.services.remove_service(app_id, gone.service_id)
        await a.host.registry.compact()
        # Only behind a restart is the ring as short as the log.
        await a.restart()
        a.wire.heal()
        await eventually(lambda: in_step(hosts), *hosts)
        assert set(b.services) == {stays.service_id}
        assert dict(b.link(a).counts.listings) == {"listed": 1, "compacted": 1}


@pytest.mark.parametrize("who", ["a", "b"])
async def test_after_a_restart_of_either_side_the_other_is_followed_from_where_it_was(tmp_path, who):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        await a.offer(app_id)
        await eventually(lambda: in_step(hosts), *hosts)
        identity = a.host.registry.state.registry_id
        await (a if who == "a" else b).restart()
        await a.offer(app_id)
        await eventually(lambda: in_step(hosts) and len(b.services) == 2, *hosts)
        assert a.host.registry.state.registry_id == identity
        assert b.link(a).counts.listings.total() == (1 if who == "a" else 0)
        assert b.link(a).counts.mismatches == 0


async def test_of_a_host_that_lost_its_state_the_old_services_go(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        await a.offer(await a.app())
        await eventually(lambda: in_step(hosts), *hosts)
        await a.stop()
        a.state = tmp_path / "another.sqlite"
        await a.start()
        new = await a.offer(await a.app())
        await eventually(lambda: in_step(hosts), *hosts)
        assert set(b.services) == {new.service_id}
        assert b.link(a).counts.listings["other_registry"] == 1


async def test_a_host_that_was_put_back_to_an_earlier_state_is_listed(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        kept = await a.offer(app_id)
        await a.stop()
        backup = (tmp_path / "a.sqlite").read_bytes()
        await a.start()
        for _ in range(5):
            await a.offer(app_id)
        await eventually(lambda: in_step(hosts) and len(b.services) == 6, *hosts)
        await a.stop()
        for companion in tmp_path.glob("a.sqlite-*"):
            companion.unlink()
        (tmp_path / "a.sqlite").write_bytes(backup)
        await a.start()
        await eventually(lambda: in_step(hosts), *hosts)
        assert set(b.services) == {kept.service_id}
        assert b.link(a).counts.listings["ahead"] == 1


async def test_a_list_comes_in_steps_and_one_that_was_interrupted_is_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_link, "steps_of", lambda whole, cursor: reconciliation.steps_of(whole, cursor, 3))
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        a.wire.cut()
        app_id = await a.app()
        await asyncio.gather(*(a.offer(app_id) for _ in range(10)))
        # As a listing leaves it that was interrupted behind its first step:
        first = [replace(each, origin="a") for each in a.shares(b).values()][:3]
        half = events.PeerServicesChanged("a", PeerCursor(a.host.registry.state.registry_id, None), tuple(first))
        await b.host.registry.commit(lambda state: half)
        await b.restart()
        a.wire.heal()
        await eventually(lambda: in_step(hosts), *hosts)
        records = await b.host.log.history("registry", limit=1000)
        assert [each.kind for each in records].count("peer.services_changed") == 1 + 3
        # The link of `a` to `b` comes up at the same time, and is an event of its own.
        await eventually(lambda: b.host.registry.state.peers["a"].revision == a.host.registry.state.revision, *hosts)


async def test_copies_that_have_come_apart_are_found_by_their_digest_and_set_right(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        service, other = await a.offer(app_id), await a.offer(app_id)
        await eventually(lambda: in_step(hosts), *hosts)
        cursor = b.host.registry.state.peers["a"]
        wrong = (replace(b.services[service.service_id], version="wrong"),)
        tampered = events.PeerServicesChanged("a", cursor, wrong, (other.service_id,))
        await b.host.registry.commit(lambda state: tampered)
        assert not in_step(hosts)
        await eventually(lambda: in_step(hosts), *hosts)
        assert b.link(a).counts.mismatches == 1
        assert dict(b.link(a).counts.listings) == {"listed": 2}


async def test_a_subscriber_hears_of_each_remote_change_once_over_restarts_and_partitions(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        subscriber = await b.app()
        subscription = await b.host.subscriptions.subscribe(
            Subscription(
                subscription_id="",
                app_instance_id=subscriber,
                topic=Topic.SERVICE_AVAILABILITY,
                delivery=Delivery(callback_uri="http://127.0.0.1:9/"),
            )
        )
        app_id = await a.app()
        service = await a.offer(app_id)
        await eventually(lambda: in_step(hosts), *hosts)
        await b.restart()
        a.wire.cut()
        await eventually(lambda: not b.link(a).connected, *hosts)
        await a.host.services.update_service(app_id, service.service_id, replace(SHARED, version="2"))
        await a.host.services.update_service(
            app_id, service.service_id, replace(SHARED, version="2", state=ServiceState.INACTIVE)
        )
        a.wire.heal()
        await eventually(lambda: in_step(hosts), *hosts)
        await a.restart()
        await a.host.services.remove_service(app_id, service.service_id)
        await eventually(lambda: in_step(hosts) and b.link(a).connected, *hosts)
        heard = [
            (each.change, each.state)
            for notification in b.host.subscriptions.waiting(subscription.subscription_id)
            for each in notification.services
        ]
        assert heard == [
            (ChangeType.ADDED, ServiceState.ACTIVE),
            (ChangeType.ATTRIBUTES_CHANGED, ServiceState.ACTIVE),
            (ChangeType.STATE_CHANGED, ServiceState.INACTIVE),
            (ChangeType.REMOVED, ServiceState.INACTIVE),
        ]


async def test_services_of_a_silent_peer_are_suspended_and_as_their_owner_says_once_it_is_back(tmp_path):
    settings = replace(SETTINGS, suspend_after_s=0.2)
    async with federation(tmp_path, "a", "b", settings=settings) as hosts:
        a, b = hosts
        app_id = await a.app()
        active = await a.offer(app_id)
        inactive = await a.offer(app_id, state=ServiceState.INACTIVE)
        gone = await a.offer(app_id)
        await eventually(lambda: in_step(hosts), *hosts)
        a.wire.cut()
        await eventually(lambda: b.link(a).suspended, *hosts)
        assert b.services[active.service_id].state is ServiceState.SUSPENDED
        assert b.services[inactive.service_id].state is ServiceState.INACTIVE
        await a.host.services.remove_service(app_id, gone.service_id)
        # It is suspended still after a restart, and nothing of it is lost.
        await b.restart()
        assert b.services[gone.service_id].state is ServiceState.SUSPENDED
        a.wire.heal()
        await eventually(lambda: in_step(hosts), *hosts)
        assert not b.link(a).suspended
        assert b.link(a).counts.mismatches == 0
        assert b.services[active.service_id].state is ServiceState.ACTIVE


async def test_the_ids_of_this_host_and_of_other_peers_are_not_touched(tmp_path):
    def numbered():
        numbers = count()
        return lambda: f"id {next(numbers)}"

    async with federation(tmp_path, "a", "b", "c") as hosts:
        a, b, c = hosts
        for host in (a, b):
            await host.stop()
            host._options = {"new_id": numbered()}
            host.state = tmp_path / f"{host.name} again.sqlite"
        for host in (a, b):
            await host.start(registry_id=f"registry of {host.name}")
        app_ids = [await a.app(), await b.app()]
        of_a = await a.offer(app_ids[0], name="of a")
        of_b = await b.offer(app_ids[1], name="of b")
        assert (of_a.service_id, of_a.app_instance_id) == (of_b.service_id, of_b.app_instance_id)
        await eventually(lambda: all(one.link(other).refused for one, other in ((a, b), (b, a))), *hosts)
        assert [a.services[of_a.service_id], b.services[of_b.service_id]] == [of_a, of_b]
        await eventually(lambda: len(c.services) == 1 and (c.link(a).refused or c.link(b).refused), *hosts)
        first = c.services[of_a.service_id].origin
        (refused,) = c.link(b if first == "a" else a).refused
        assert (refused.service_id, refused.reason) == (of_a.service_id, f"the id is one of {first}")
        assert all(host.link(other).counts.mismatches == 0 for host in hosts for other in host.peers)
        # When the id is free, the other one gets it.
        await a.host.services.remove_service(app_ids[0], of_a.service_id)
        await eventually(lambda: a.services.get(of_b.service_id, of_a).name == "of b", *hosts)
        await eventually(lambda: c.services.get(of_b.service_id, of_a).name == "of b", *hosts)
        assert a.services[of_b.service_id].origin == "b"
        # An application of this host with the same id has nothing to do with it.
        assert a.host.services.services(ServiceQuery(), app_ids[0]) == []
        with pytest.raises(UnknownService):
            await a.host.services.remove_service(app_ids[0], of_b.service_id)


async def test_services_of_other_hosts_cannot_be_changed_here(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        service = await a.offer(app_id)
        await eventually(lambda: in_step(hosts), *hosts)
        with pytest.raises(UnknownAppInstance):
            await b.host.services.update_service(app_id, service.service_id, SHARED)
        with pytest.raises(UnknownAppInstance):
            await b.host.services.heartbeat(app_id, service.service_id)
        assert (await b.host.services.renew([service.service_id])).unknown == (service.service_id,)
        async with serving(b.host) as stub:
            for call in (
                stub.Update(pb.UpdateRequest(service_id=service.service_id, description=described())),
                stub.Deregister(pb.DeregisterRequest(service_id=service.service_id)),
            ):
                code, reason, _ = await refusal_of(call)
                assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")
            heartbeat = pb.ServiceHeartbeat(service_id=service.service_id, kpis=pb.ServiceKpis(load=0.5))
            (renewed,) = [each async for each in stub.Renew(iter([pb.RenewRequest(heartbeats=[heartbeat])]))]
            assert list(renewed.unknown_ids) == [service.service_id]
            assert b.host.services.kpis.get(service.service_id) is None
            (found,) = (await stub.Discover(pb.DiscoveryQuery())).candidates
            assert (found.service.service_id, found.service.origin) == (service.service_id, "a")
        assert in_step(hosts)


async def test_kpis_are_passed_on_in_memory_with_the_time_of_their_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr("mec_platform.registry.federation.sharing.KPI_INTERVAL_S", 0.02)
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        service, hidden = await a.offer(app_id), await a.offer(app_id, consumed_local_only=True)
        await eventually(lambda: in_step(hosts), *hosts)
        revision = b.host.registry.state.revision
        now_ns = a.host.registry.clock.unix_ns()
        for number in range(2):
            kpis = Kpis(measured_unix_ns=now_ns + number, load=0.25 * number, radio_quality_db=-3.0)
            for service_id in (service.service_id, hidden.service_id):
                assert a.host.services.kpis.update(service_id, kpis, now_ns)
            await eventually(lambda kpis=kpis: b.host.services.kpis.get(service.service_id) == kpis, *hosts)
        assert len(b.host.services.kpis) == 1
        assert b.host.registry.state.revision == revision
        # They go with their service, and come again after a restart.
        await b.restart()
        await eventually(lambda: b.host.services.kpis.get(service.service_id) == kpis, *hosts)
        await a.host.services.remove_service(app_id, service.service_id)
        await eventually(lambda: len(b.host.services.kpis) == 0, *hosts)


async def test_a_host_that_is_a_peer_no_more_leaves_nothing_behind(tmp_path):
    async with federation(tmp_path, "a", "b", "c") as hosts:
        a, b, c = hosts
        await a.offer(await a.app())
        of_c = await c.offer(await c.app())
        await eventually(lambda: in_step(hosts), *hosts)
        await b.stop()
        b.peers = [c]
        await b.start()
        assert set(b.services) == {of_c.service_id}
        assert set(b.host.registry.state.peers) == {"c"}
        await eventually(lambda: "is no peer of 'b'" in a.link(b).error, *hosts)


async def test_a_cursor_is_written_now_and_then_where_nothing_that_is_shared_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_link, "CURSOR_STEP", 20)
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        for _ in range(50):
            await a.app()
        at = a.host.registry.state.revision
        await eventually(lambda: b.host.registry.state.peers["a"].revision > at - 20, *hosts)
        await eventually(lambda: b.link(a).revision >= at, *hosts)
        kinds = [each.kind for each in await b.host.log.history("registry")]
        assert kinds.count("peer.services_changed") <= 4


async def test_hosts_that_nobody_uses_write_nothing_about_each_other(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        await eventually(lambda: all(host.host.registry.state.peers for host in hosts), *hosts)
        revisions = [host.host.registry.state.revision for host in hosts]
        contacts = a.link(b).last_contact_unix_ns
        await eventually(lambda: a.link(b).last_contact_unix_ns > contacts + 300_000_000, *hosts)
        assert [host.host.registry.state.revision for host in hosts] == revisions
