"""Registering, renewing and reading over gRPC, on a real server over a real log."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from mec_platform.domain.applications import OperationAction
from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import ServiceState, TransportInfo, TransportType
from mec_platform.registry.errors import LogUnavailable, RegistryError
from mec_platform.registry.grpc.calls import STALE
from mec_platform.registry.grpc.refusals import code_of
from mec_platform.registry.grpc.service import MOST_IN_FLIGHT
from mec_platform.registry.leases import DEFAULT_INTERVAL_S, DEFAULT_INTERVALS_TO_EVICTION
from mec_platform.registry.registry import LARGEST_GROUP
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import types_pb2
from tests.registry.grpc_serving import described, refusal_of, serving
from tests.registry.services import GREETING, make_app, running_host, until

FULL = described(
    state=pb.SERVICE_STATE_INACTIVE,
    serializer=pb.SERIALIZER_JSON,
    category=pb.ServiceCategory(href="urn:c", id="c", name="c", version="1"),
    scope_of_locality=pb.LOCALITY_SCOPE_ZONE,
    consumed_local_only=False,
    capabilities=pb.ServiceCapabilities(
        model="smollm2",
        layers=types_pb2.LayerRange(start=0, stop=12),
        quantisation="int4",
        hardware_target="native",
        trust_level=2,
        labels={"rack": "a"},
    ),
    lease=pb.ServiceLease(interval_s=20, evict_after_intervals=4),
)
FULL.transport.MergeFrom(
    pb.ServiceTransport(
        name="n",
        type=pb.TRANSPORT_TYPE_RPC_STREAMING,
        protocol="gRPC",
        version="2",
        oauth2=pb.TransportOAuth2(grant_types=["OAUTH2_CLIENT_CREDENTIALS"], token_endpoint="https://t.example/"),
        description="d",
        implementation_info='{"a": 1}',
    )
)


async def test_what_is_registered_is_read_back_whole(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=FULL))
        assert reply.service.description == FULL
        assert reply.revision == host.registry.state.revision
        assert await stub.Get(pb.GetRequest(service_id=reply.service.service_id)) == reply.service
        service = host.services.service(reply.service.service_id)
        assert service.capabilities == Capabilities(
            model="smollm2",
            layers=LayerRange(0, 12),
            quantisation="int4",
            hardware_target="native",
            trust_level=2,
            labels={"rack": "a"},
        )
        assert (service.liveness_interval_s, service.evict_after_intervals) == (20, 4)


async def test_what_is_not_said_is_as_the_proto_file_tells(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=described()))
        service = host.services.service(reply.service.service_id)
        assert (service.state, service.transport.type) == (ServiceState.ACTIVE, TransportType.RPC)
        assert service.consumed_local_only
        assert (service.liveness_interval_s, service.evict_after_intervals) == (
            DEFAULT_INTERVAL_S,
            DEFAULT_INTERVALS_TO_EVICTION,
        )


@pytest.mark.parametrize(
    "endpoint",
    [
        pb.ServiceEndpoint(fqdn=pb.ServiceEndpoint.Texts(values=["a.example"])),
        pb.ServiceEndpoint(
            addresses=pb.ServiceEndpoint.Addresses(values=[pb.ServiceAddress(host="192.0.2.1", port=80)])
        ),
        pb.ServiceEndpoint(alternative='{"pigeon": 7}'),
    ],
)
async def test_every_kind_of_endpoint_is_read_back(clock, endpoint):
    description = described()
    description.transport.endpoint.CopyFrom(endpoint)
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=description))
        assert reply.service.description.transport.endpoint == endpoint


async def test_a_transport_of_the_platform_is_named_and_spelt_out(clock):
    platforms: TransportInfo = replace(GREETING.transport, id="platform")
    async with running_host(clock, transports=[platforms]) as host, serving(host) as stub:
        description = pb.ServiceDescription(name="n", transport_id="platform")
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=description))
        assert reply.service.description.transport.id == "platform"


def without(field: str) -> pb.ServiceDescription:
    description = described()
    description.ClearField(field)
    return description


def with_transport(**more) -> pb.ServiceDescription:
    description = described()
    description.transport.MergeFrom(pb.ServiceTransport(**more))
    return description


@pytest.mark.parametrize(
    ("description", "field"),
    [
        (without("name"), "description.name"),
        (described("n" * 257), "description.name"),
        (without("transport"), "description.transport"),
        (pb.ServiceDescription(name="n", transport_id="pigeon"), "description.transport_id"),
        (
            pb.ServiceDescription(name="n", transport=pb.ServiceTransport(id="t")),
            "description.transport.endpoint",
        ),
        (with_transport(implementation_info="[1]"), "description.transport.implementation_info"),
        (with_transport(implementation_info="{" * 50_000), "description.transport.implementation_info"),
        (
            with_transport(oauth2=pb.TransportOAuth2(grant_types=["OAUTH2_CLIENT_CREDENTIALS"])),
            "description.transport.oauth2.token_endpoint",
        ),
        (
            with_transport(oauth2=pb.TransportOAuth2(grant_types=["PASSWORD"], token_endpoint="x")),
            "description.transport.oauth2.grant_types",
        ),
        (with_transport(type=99), "description.transport.type"),
        (described(state=99), "description.state"),
        (described(category=pb.ServiceCategory(name="c")), "description.category.id"),
        (
            described(capabilities=pb.ServiceCapabilities(layers=types_pb2.LayerRange(start=3, stop=3))),
            "description.capabilities.layers",
        ),
        (described(capabilities=pb.ServiceCapabilities(model="m" * 257)), "description.capabilities"),
        (
            described(capabilities=pb.ServiceCapabilities(labels={str(each): "" for each in range(33)})),
            "description.capabilities",
        ),
    ],
)
async def test_a_description_that_cannot_be_taken_is_refused_with_the_field(clock, description, field):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        request = pb.RegisterRequest(app_instance_id=app_id, description=description)
        code, reason, details = await refusal_of(stub.Register(request))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert field in [each.field for each in details["BadRequest"].field_violations]
        assert len(host.registry.state.services) == 0


async def test_everything_that_is_wrong_is_told_at_once(clock):
    async with running_host(clock) as host, serving(host) as stub:
        request = pb.RegisterRequest(description=without("name"), idempotency_key="a\nb")
        _, _, details = await refusal_of(stub.Register(request))
        fields = {each.field for each in details["BadRequest"].field_violations}
        assert fields == {"app_instance_id", "description.name", "idempotency_key"}


async def test_refusals_of_the_registry_have_a_code_and_a_reason_each(clock):
    async with running_host(clock, quotas=Quotas(services_per_app=1)) as host, serving(host) as stub:
        app_id = await make_app(host)
        request = pb.RegisterRequest(app_instance_id=app_id, description=described(), idempotency_key="k")
        unknown = pb.RegisterRequest(app_instance_id="nobody", description=described())
        assert (await refusal_of(stub.Register(unknown)))[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_APP_INSTANCE")
        await stub.Register(request)
        other = pb.RegisterRequest(app_instance_id=app_id, description=described("other"), idempotency_key="k")
        assert (await refusal_of(stub.Register(other)))[:2] == (
            grpc.StatusCode.ALREADY_EXISTS,
            "REGISTRATION_KEY_USED",
        )
        other.ClearField("idempotency_key")
        code, reason, details = await refusal_of(stub.Register(other))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert "1 services" in details["QuotaFailure"].violations[0].description
        await host.applications.request_end(app_id, OperationAction.STOPPING, 0)
        code, reason, _ = await refusal_of(stub.Register(request))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
        for call in (stub.Get(pb.GetRequest(service_id="x")), stub.Deregister(pb.DeregisterRequest(service_id="x"))):
            assert (await refusal_of(call))[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SERVICE")


def test_no_refusal_of_the_registry_is_without_an_answer():
    def kinds(of):
        return [of, *(each for child in of.__subclasses__() for each in kinds(child))]

    for kind in kinds(RegistryError):
        assert code_of(kind.__new__(kind))[0] is not grpc.StatusCode.INTERNAL, kind


async def test_a_repeated_registration_gives_the_same_service_over_a_restart(clock, tmp_path):
    replies = []
    for number in range(2):
        async with running_host(clock, tmp_path / "log") as host, serving(host) as stub:
            app_id = await make_app(host) if number == 0 else next(iter(host.registry.state.apps))
            request = pb.RegisterRequest(app_instance_id=app_id, description=FULL, idempotency_key="k")
            replies += [await stub.Register(request) for _ in range(2)]
    assert [each == replies[0] for each in replies] == [True] * 4


async def test_an_update_replaces_the_description_and_keeps_the_lease_where_it_says_none(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=FULL))
        service_id = reply.service.service_id
        updated = await stub.Update(pb.UpdateRequest(service_id=service_id, description=described("other")))
        assert updated.description.name == "other"
        assert updated.description.lease == FULL.lease
        assert updated.description.capabilities == pb.ServiceCapabilities()
        assert await stub.Get(pb.GetRequest(service_id=service_id)) == updated


async def test_a_description_over_mp1_keeps_what_mp1_cannot_say(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=FULL))
        over_mp1 = replace(
            GREETING, capabilities=None, liveness_interval_s=None, evict_after_intervals=None, version="9"
        )
        await host.services.update_service(app_id, reply.service.service_id, over_mp1)
        after = await stub.Get(pb.GetRequest(service_id=reply.service.service_id))
        assert (after.description.version, after.description.capabilities) == ("9", FULL.capabilities)
        assert after.description.lease == FULL.lease


async def test_deregistering_removes(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=FULL))
        await stub.Deregister(pb.DeregisterRequest(service_id=reply.service.service_id))
        assert len(host.registry.state.services) == 0


# Many at once

UNDER_WAY = 400
"""So many of the registrations below wait at once: more than one group, and fewer than may."""
assert 2 * LARGEST_GROUP >= MOST_IN_FLIGHT > UNDER_WAY > LARGEST_GROUP


async def test_bulk_registrations_are_answered_in_order_and_share_appends(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        appends = []
        append = host.log.append

        async def counted(stream, records, expected_revision=None):
            if not appends:
                # While the first one is written, nearly as many come in as may be under way.
                await until(lambda: len(records) + len(host.registry._changes) >= UNDER_WAY)
            appends.append(len(records))
            return await append(stream, records, expected_revision)

        host.log.append = counted

        async def requests():
            for number in range(600):
                description = described(f"s{number}") if number % 100 != 50 else pb.ServiceDescription()
                yield pb.RegisterRequest(app_instance_id=app_id, description=description)

        replies = [each async for each in stub.RegisterBulk(requests())]
        names = [each.registered.service.description.name for each in replies]
        assert names == [f"s{number}" if number % 100 != 50 else "" for number in range(600)]
        refused = replies[50].refused
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_REQUEST")
        assert sum(appends) == 594
        assert sum(appends[:3]) >= UNDER_WAY


async def renewing(stub, *messages):
    call = stub.Renew()
    replies = []
    for message in messages:
        await call.write(message)
        replies.append(await call.read())
    await call.done_writing()
    return replies


def heartbeats(*ids, kpis=None):
    return pb.RenewRequest(heartbeats=[pb.ServiceHeartbeat(service_id=each, kpis=kpis) for each in ids])


async def test_a_renewal_answers_with_the_interval_and_with_who_must_register_again(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        ids = []
        for interval_s in (20, 10):
            description = described(lease=pb.ServiceLease(interval_s=interval_s))
            reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=description))
            ids.append(reply.service.service_id)
        revision = host.registry.state.revision
        replies = await renewing(stub, heartbeats(*ids, "gone"), heartbeats(ids[0]), heartbeats())
        assert [(each.shortest_interval_s, list(each.unknown_ids)) for each in replies] == [
            (10, ["gone"]),
            (20, []),
            (0, []),
        ]
        assert host.registry.state.revision == revision
        clock.now_s += 11
        assert await host.services.suspend_overdue() == [ids[1]]
        await renewing(stub, heartbeats(*ids))
        assert host.services.service(ids[1]).state is ServiceState.ACTIVE


async def test_kpis_come_with_renewals_and_are_read_with_the_record(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        reply = await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=described()))
        service_id = reply.service.service_id
        now_ns = clock.unix_ns()
        kpis = pb.ServiceKpis(load=0.25, free_memory_bytes=1 << 40, radio_quality_db=-3.5)
        old = pb.ServiceKpis(load=0.5, measured_unix_ns=now_ns - 1)
        first, second = await renewing(stub, heartbeats(service_id, kpis=kpis), heartbeats(service_id, kpis=old))
        assert (list(first.ignored_kpis), list(second.ignored_kpis)) == ([], [service_id])
        record = await stub.Get(pb.GetRequest(service_id=service_id))
        kpis.measured_unix_ns = now_ns
        assert record.kpis == kpis
        newer = pb.ServiceKpis(load=0.75, measured_unix_ns=now_ns + 1)
        await renewing(stub, heartbeats(service_id, kpis=newer))
        assert (await stub.Get(pb.GetRequest(service_id=service_id))).kpis == newer


@pytest.mark.parametrize("kpis", [pb.ServiceKpis(load=1.5), pb.ServiceKpis(rtt_ms=float("nan"))])
async def test_kpis_that_mean_nothing_are_refused(clock, kpis):
    async with running_host(clock) as host, serving(host) as stub:
        code, _, details = await refusal_of(renewing(stub, heartbeats("a", kpis=kpis)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "heartbeats[0].kpis"


async def test_a_refusal_fits_into_trailers_however_much_is_wrong(clock):
    async with running_host(clock) as host, serving(host) as stub:
        for call in (
            renewing(stub, heartbeats(*["x" * 300] * 10_000)),
            stub.Get(pb.GetRequest(service_id="x" * 100_000)),
            stub.Register(pb.RegisterRequest(description=pb.ServiceDescription(transport_id="\u00e9" * 100_000))),
        ):
            code, _, details = await refusal_of(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert 0 < len(details["BadRequest"].field_violations) <= 8


async def test_a_message_with_too_many_heartbeats_is_refused(clock):
    async with running_host(clock) as host, serving(host) as stub:
        code, _, _ = await refusal_of(renewing(stub, heartbeats(*(str(each) for each in range(10_001)))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


# What can go wrong


async def test_a_log_that_cannot_be_written_is_unavailable_and_says_when_to_try_again(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)

        async def fail(stream, records, expected_revision=None):
            raise LogUnavailable("the disk is full")

        host.log.append = fail
        request = pb.RegisterRequest(app_instance_id=app_id, description=described())
        code, reason, details = await refusal_of(stub.Register(request))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
        assert details["RetryInfo"].retry_delay.seconds == 5
        (reply,) = [each async for each in stub.RegisterBulk(iter([request]))]
        assert reply.refused.reason == "LOG_UNAVAILABLE"


async def test_a_defect_is_told_to_the_log_and_not_to_the_client(clock, caplog):
    async with running_host(clock) as host, serving(host) as stub:

        def fail(service_id):
            raise KeyError("a secret")

        host.services.kpis.get = fail
        service = await host.services.register_service(await make_app(host), GREETING)
        code, reason, _ = await refusal_of(stub.Get(pb.GetRequest(service_id=service.service_id)))
        assert (code, reason) == (grpc.StatusCode.INTERNAL, "FAILED")
        assert "a secret" in caplog.text


async def test_nothing_is_registered_for_a_client_that_went_while_its_call_waited(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        append, go_on, appending = host.log.append, asyncio.Event(), asyncio.Event()

        async def slow(stream, records, expected_revision=None):
            appending.set()
            await go_on.wait()
            return await append(stream, records, expected_revision)

        host.log.append = slow
        requests = [
            pb.RegisterRequest(app_instance_id=app_id, description=described(name)) for name in ("stays", "goes")
        ]
        stays = stub.Register(requests[0])
        await appending.wait()
        goes = stub.Register(requests[1])
        await until(lambda: len(host.registry._changes) > 0)
        goes.cancel()
        await until(lambda: host.registry._changes[0].outcome.done())
        go_on.set()
        await stays
        await make_app(host)
        assert [each.name for each in host.registry.state.services.values()] == ["stays"]


async def test_answers_from_memory_say_so_while_the_store_is_out_of_reach(clock, monkeypatch):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        service = await host.services.register_service(app_id, GREETING)

        async def marks() -> list[bool]:
            get = stub.Get(pb.GetRequest(service_id=service.service_id))
            watch = stub.Watch(pb.WatchRequest(list_first=True))
            await get
            await watch.read()
            metadata = await get.trailing_metadata(), await watch.initial_metadata()
            watch.cancel()
            return [STALE[0] in [tuple(each) for each in found] for found in metadata]

        assert await marks() == [False, False]
        monkeypatch.setattr(type(host.registry), "is_stale", True)
        assert await marks() == [True, True]
