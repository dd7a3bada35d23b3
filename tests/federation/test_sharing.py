"""What a host tells which of its peers, how it is written, and whom it tells nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    HostPort,
    JsonText,
    OAuth2GrantType,
    OAuth2Info,
    RegistrationKey,
    SerializerType,
    ServiceInfo,
    ServiceQuery,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.registry.clock import SystemClock
from mec_platform.registry.federation import messages
from mec_platform.registry.federation.messages import read_service, write_listing, write_service
from mec_platform.registry.federation.reconciliation import content_hash, shared_view
from mec_platform.registry.federation.sharing import SERVICE_NAME, Sharing
from mec_platform.registry.grpc.reading import InvalidRequest
from mec_platform.registry.grpc.refusals import NotPermitted
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import federation_pb2 as pb
from mec_platform.rpc.v1 import federation_pb2_grpc
from tests.federation.hosts import SHARED, Host, eventually, federation, in_step
from tests.registry.grpc_serving import refusal_of
from tests.registry.services import running_host

PLACES = {
    "a": Locality(mec_host="a", nfvi_pop="pop 1", zone="zone 1", zone_group="group", mec_system="system"),
    "b": Locality(mec_host="b", nfvi_pop="pop 2", zone="zone 1", zone_group="group", mec_system="system"),
    "c": Locality(mec_host="c", nfvi_pop="pop 3", zone="zone 2", zone_group="group", mec_system="other system"),
}
LOCAL = {
    LocalityType.NFVI_NODE: "",
    LocalityType.MEC_HOST: "",
    LocalityType.NFVI_POP: "",
    LocalityType.ZONE: "b",
    LocalityType.ZONE_GROUP: "bc",
    LocalityType.MEC_SYSTEM: "b",
}
"""By scope, the hosts to which a service of host a is local."""


async def test_a_service_is_told_where_it_may_be_consumed_and_is_local_within_its_scope(tmp_path):
    async with federation(tmp_path, "a", "b", "c", places=PLACES) as hosts:
        a, *others = hosts
        app_id = await a.app()
        offered = {
            (scope, only): await a.offer(app_id, scope_of_locality=scope, consumed_local_only=only)
            for scope, only in product(LocalityType, (True, False))
        }
        await eventually(lambda: in_step(hosts) and all(len(each.services) >= 6 for each in others), *hosts)
        for (scope, only), service in offered.items():
            for other in others:
                is_local = other.name in LOCAL[scope]
                found = other.services.get(service.service_id)
                assert (found is not None) == (is_local or not only), (scope, only, other.name)
                if found is not None:
                    query = ServiceQuery(service_ids=frozenset({service.service_id}), is_local=is_local)
                    assert other.host.services.services(query) == [found]


async def test_a_service_that_is_kept_to_its_scope_later_goes_and_comes_back(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        app_id = await a.app()
        service = await a.offer(app_id)
        await eventually(lambda: in_step(hosts) and len(b.services) == 1, *hosts)
        for only, count in ((True, 0), (False, 1)):
            described = replace(SHARED, consumed_local_only=only)
            await a.host.services.update_service(app_id, service.service_id, described)
            await eventually(lambda count=count: in_step(hosts) and len(b.services) == count, *hosts)
        assert b.link(a).counts.mismatches == 0


async def test_a_host_that_has_moved_is_told_what_may_be_known_at_its_new_place(tmp_path):
    async with federation(tmp_path, "a", "b", places=PLACES) as hosts:
        a, b = hosts
        await a.offer(await a.app(), scope_of_locality=LocalityType.ZONE, consumed_local_only=True)
        await eventually(lambda: in_step(hosts) and len(b.services) == 1, *hosts)
        b.place = replace(b.place, zone="zone 2")
        await b.restart()
        await eventually(lambda: len(b.services) == 0, *hosts)
        assert b.link(a).counts.mismatches == 1


# Who is told nothing


@asynccontextmanager
async def federation_of_one():
    async with running_host(SystemClock()) as host:
        yield Sharing(host, ["b", "c"])


def place_of(name: str) -> pb.HostPlace:
    return pb.HostPlace(mec_host=name)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.FollowRequest(place=place_of("stranger"), registry_id="r"), grpc.StatusCode.PERMISSION_DENIED),
        (pb.FollowRequest(place=place_of("b")), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.FollowRequest(registry_id="r"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.FollowRequest(place=place_of("x" * 300), registry_id="r"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            pb.FollowRequest(place=place_of("b"), registry_id="r", digest_interval_ms=0),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
    ids=["stranger", "no registry", "no name", "long name", "no interval"],
)
async def test_who_is_no_peer_or_asks_for_nonsense_is_refused(tmp_path, request_, code):
    async with federation(tmp_path, "a", "b") as (a, _), open_channel(a.wire.address) as channel:
        call = federation_pb2_grpc.FederationStub(channel).Follow(request_)
        assert (await refusal_of(call.read()))[0] is code


@pytest.mark.parametrize(("client_id", "is_let_in"), [("b", True), ("c", False), ("", True)])
async def test_a_peer_cannot_follow_with_the_credentials_of_another(client_id, is_let_in):
    follow = messages.Follow(PLACES["b"], "of b", None, 10)
    async with federation_of_one() as sharing:
        if is_let_in:
            with sharing.admit(follow, client_id):
                assert list(sharing.followers) == ["b"]
            assert list(sharing.followers) == []
        else:
            with pytest.raises(NotPermitted, match="cannot be host 'b'"), sharing.admit(follow, client_id):
                pass


async def test_a_host_that_runs_on_a_copy_of_anothers_state_is_told_so(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        await a.stop()
        await b.stop()
        b.state = tmp_path / "copy.sqlite"
        b.state.write_bytes((tmp_path / "a.sqlite").read_bytes())
        await a.start()
        await b.start()
        await eventually(lambda: "each host needs a state of its own" in b.link(a).error, *hosts)
        assert a.link(b).services == b.link(a).services == 0


async def test_a_peer_under_another_name_is_not_followed(tmp_path):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        await a.offer(await a.app())
        await eventually(lambda: in_step(hosts), *hosts)
        await b.stop()
        b.peers = [impostor := Host("c", ":memory:")]
        impostor.wire = a.wire
        await b.start()
        await eventually(lambda: b.federation.statuses[0].error == "it calls itself 'a'; name it so in --peer", *hosts)
        assert dict(b.services) == {}


async def test_the_service_is_named_in_full():
    assert pb.DESCRIPTOR.services_by_name["Federation"].full_name == SERVICE_NAME


# How it is written

TEXTS = st.text(max_size=300)
JSON = st.sampled_from([JsonText("{}"), JsonText('{"a":[1,null,{"b":"c"}]}')])
ENDPOINTS = st.one_of(
    st.builds(EndPoint, uris=st.lists(TEXTS, max_size=3).map(tuple)),
    st.builds(EndPoint, fqdn=st.lists(TEXTS, max_size=100).map(tuple)),
    st.builds(EndPoint, addresses=st.lists(st.builds(HostPort, TEXTS, st.integers(0, 65535)), max_size=3).map(tuple)),
    st.builds(EndPoint, alternative=JSON),
)
TRANSPORTS = st.builds(
    TransportInfo,
    id=TEXTS,
    name=TEXTS,
    type=st.sampled_from(TransportType),
    protocol=TEXTS,
    version=TEXTS,
    endpoint=ENDPOINTS,
    oauth2=st.none()
    | st.builds(OAuth2Info, st.lists(st.sampled_from(OAuth2GrantType), min_size=1, unique=True).map(tuple), TEXTS),
    description=st.none() | TEXTS,
    implementation_info=st.none() | JSON,
)
SHORT = st.text(max_size=20)
CAPABILITIES = st.builds(
    Capabilities,
    model=SHORT,
    layers=st.none() | st.builds(LayerRange, st.integers(0, 3), st.integers(4, 9)),
    quantisation=SHORT,
    hardware_target=SHORT,
    trust_level=st.integers(0, 5),
    labels=st.dictionaries(SHORT, SHORT, max_size=4),
)
SERVICES = st.builds(
    ServiceInfo,
    service_id=TEXTS,
    app_instance_id=TEXTS,
    name=TEXTS,
    version=TEXTS,
    state=st.sampled_from(ServiceState),
    transport=TRANSPORTS,
    serializer=st.sampled_from(SerializerType),
    category=st.none() | st.builds(CategoryRef, TEXTS, TEXTS, TEXTS, TEXTS),
    scope_of_locality=st.sampled_from(LocalityType),
    consumed_local_only=st.booleans(),
    liveness_interval_s=st.none() | st.integers(1, 60),
    capabilities=st.none() | CAPABILITIES,
    evict_after_intervals=st.none() | st.integers(0, 5),
    locality=st.builds(Locality, mec_host=TEXTS, zone=TEXTS, nfvi_node=TEXTS),
    registration=st.none() | st.builds(RegistrationKey, TEXTS, TEXTS),
)


@settings(max_examples=200, derandomize=True)
@given(SERVICES)
def test_a_service_arrives_as_it_was_sent_and_has_the_same_hash(service: ServiceInfo):
    sent = pb.SharedService.FromString(write_service(service).SerializeToString())
    received = read_service(sent, "b")
    assert received == replace(shared_view(service), origin="b")
    assert content_hash(received) == content_hash(service)


def test_what_this_version_cannot_know_is_refused_by_name():
    message = write_service(shared_service())
    message.service.description.state = 77
    message.service.description.transport.type = 78
    with pytest.raises(InvalidRequest, match=r"description.transport.type: has no value 78.*description.state"):
        read_service(message, "b")


async def test_a_service_that_cannot_be_read_is_refused_and_the_others_are_not(tmp_path, monkeypatch):
    async with federation(tmp_path, "a", "b") as hosts:
        a, b = hosts
        known = messages.record_of

        def of_a_newer_version(service: ServiceInfo):
            record = known(service)
            if service.name == "new":
                record.description.state = 77
            return record

        monkeypatch.setattr(messages, "record_of", of_a_newer_version)
        app_id = await a.app()
        new = await a.offer(app_id, name="new")
        old = await a.offer(app_id)
        await eventually(lambda: old.service_id in b.services, *hosts)
        (refused,) = b.link(a).refused
        assert refused.service_id == new.service_id
        assert "has no value 77" in refused.reason
        contacts = b.link(a).last_contact_unix_ns
        await eventually(lambda: b.link(a).last_contact_unix_ns > contacts + 200_000_000, *hosts)
        assert b.link(a).counts.mismatches == 0


def test_a_long_list_comes_in_pieces_of_one_revision(monkeypatch):
    monkeypatch.setattr(messages, "LARGEST_MESSAGE_BYTES", 1000)
    services = [replace(shared_service(), service_id=str(each)) for each in range(60)]
    pieces = [pb.FollowReply.FromString(each).changes for each in write_listing(services, 7)]
    assert len(pieces) > 3
    assert {each.is_listing for each in pieces} == {True}
    assert [(each.revision, each.more) for each in pieces] == [(0, True)] * (len(pieces) - 1) + [(7, False)]
    assert [each.service.service_id for piece in pieces for each in piece.put] == [each.service_id for each in services]
    (empty,) = write_listing([], 7)
    assert pb.FollowReply.FromString(empty).changes == pb.SharedChanges(revision=7, is_listing=True)


def shared_service() -> ServiceInfo:
    return ServiceInfo(
        name="greeting",
        version="1",
        state=ServiceState.ACTIVE,
        transport=SHARED.transport,
        serializer=SerializerType.JSON,
        service_id="s",
        app_instance_id="app",
        locality=Locality(mec_host="b"),
    )
