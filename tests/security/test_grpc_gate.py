"""Who may call gRPC ServiceRegistry: the same tokens, owners and rates as over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.security.rate_limit import Rate
from mec_platform.registry.registry import STREAM
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.registry.grpc_serving import described, read_refusal, refusal_of, serving
from tests.registry.services import GREETING
from tests.security.conftest import SERVICES

REQUESTS = {
    "Register": pb.RegisterRequest(app_instance_id="a", description=described()),
    "RegisterBulk": iter([]),
    "Update": pb.UpdateRequest(service_id="s", description=described()),
    "Renew": iter([]),
    "Deregister": pb.DeregisterRequest(service_id="s"),
    "Get": pb.GetRequest(service_id="s"),
    "Discover": pb.DiscoveryQuery(),
    "Watch": pb.WatchRequest(),
}


@asynccontextmanager
async def open_to(platform, *scopes):
    """A stub, and the metadata of a new client."""
    async with serving(platform.host, gate=platform.protection.grpc_gate) as stub:
        yield stub, bearer(await platform.token(*scopes))


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


async def answer(call):
    """Waits for the first answer, or the end, of any kind of call."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        return await call
    return await call.read()


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer nonsense"),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    ],
    ids=["none", "nonsense", "basic", "two"],
)
async def test_no_method_answers_without_a_token_that_counts(platform, method, metadata):
    async with serving(platform.host, gate=platform.protection.grpc_gate) as stub:
        call = getattr(stub, method)(REQUESTS[method], metadata=metadata)
        code, reason, _ = await refusal_of(answer(call))
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED")


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("scope", [Scope.APP_SUPPORT, Scope.ADMIN])
async def test_no_method_answers_a_token_without_the_scope(platform, method, scope):
    async with open_to(platform, scope) as (stub, metadata):
        call = getattr(stub, method)(REQUESTS[method], metadata=metadata)
        code, reason, _ = await refusal_of(answer(call))
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")


async def test_a_token_that_has_expired_or_whose_client_has_gone_counts_no_more(platform):
    async with open_to(platform, Scope.SERVICE_MANAGEMENT) as (stub, metadata):
        await stub.Discover(pb.DiscoveryQuery(), metadata=metadata)
        client_id = next(iter(platform.host.registry.state.clients))
        await platform.host.credentials.remove(client_id)
        code, _, _ = await refusal_of(stub.Discover(pb.DiscoveryQuery(), metadata=metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        metadata = bearer(await platform.token(Scope.SERVICE_MANAGEMENT))
        await stub.Discover(pb.DiscoveryQuery(), metadata=metadata)
        platform.clock.now_s += 3601
        code, _, _ = await refusal_of(stub.Discover(pb.DiscoveryQuery(), metadata=metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_application_changes_its_own_services_and_no_others(platform):
    owner_token = await platform.token()
    app_id = await platform.register(owner_token)
    register = pb.RegisterRequest(app_instance_id=app_id, description=described())
    async with open_to(platform, Scope.SERVICE_MANAGEMENT) as (stub, foreign):
        owner = bearer(owner_token)
        reply = await stub.Register(register, metadata=owner)
        service_id = reply.service.service_id
        for call in (
            stub.Register(register, metadata=foreign),
            stub.Update(pb.UpdateRequest(service_id=service_id, description=described()), metadata=foreign),
            stub.Deregister(pb.DeregisterRequest(service_id=service_id), metadata=foreign),
        ):
            code, reason, _ = await refusal_of(call)
            assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")
        (bulk,) = [each async for each in stub.RegisterBulk(iter([register]), metadata=foreign)]
        assert bulk.refused.reason == "NOT_PERMITTED"
        assert await stub.Get(pb.GetRequest(service_id=service_id), metadata=foreign) == reply.service
        heartbeats = pb.RenewRequest(heartbeats=[pb.ServiceHeartbeat(service_id=service_id)])
        for metadata, unknown in ((foreign, [service_id]), (owner, [])):
            (renewed,) = [each async for each in stub.Renew(iter([heartbeats]), metadata=metadata)]
            assert list(renewed.unknown_ids) == unknown
        admin = bearer(await platform.token(Scope.ADMIN, Scope.SERVICE_MANAGEMENT))
        await stub.Deregister(pb.DeregisterRequest(service_id=service_id), metadata=admin)


async def test_a_renewal_of_anothers_service_does_not_keep_it_alive(platform):
    app_id = await platform.register(await platform.token())
    service = await platform.host.services.register_service(app_id, GREETING)
    async with open_to(platform, Scope.SERVICE_MANAGEMENT) as (stub, foreign):
        platform.clock.now_s += 11
        heartbeats = pb.RenewRequest(heartbeats=[pb.ServiceHeartbeat(service_id=service.service_id)])
        assert [each async for each in stub.Renew(iter([heartbeats]), metadata=foreign)]
        assert await platform.host.services.suspend_overdue() == [service.service_id]


async def test_the_audit_trail_names_the_client(platform):
    client_id, secret = await platform.client()
    token = (await (await platform.ask_for_token(client_id, secret)).json())["access_token"]
    app_id = await platform.register(token)
    async with serving(platform.host, gate=platform.protection.grpc_gate) as stub:
        request = pb.RegisterRequest(app_instance_id=app_id, description=described())
        await stub.Register(request, metadata=bearer(token))
        assert [each async for each in stub.RegisterBulk(iter([request]), metadata=bearer(token))]
    history = await platform.host.log.history(STREAM, limit=2)
    assert [(each.kind, each.actor) for each in history] == [("service.registered", client_id)] * 2


async def test_a_client_has_one_rate_over_http_and_grpc_and_learns_when_to_come_again(secure):
    platform = await secure(rate=Rate(per_s=0.5, burst=3))
    async with open_to(platform, Scope.SERVICE_MANAGEMENT) as (stub, metadata):
        token = metadata[0][1].removeprefix("Bearer ")
        assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 200
        for _ in range(2):
            await stub.Discover(pb.DiscoveryQuery(), metadata=metadata)
        code, reason, details = await refusal_of(stub.Discover(pb.DiscoveryQuery(), metadata=metadata))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_EXCEEDED")
        assert details["RetryInfo"].retry_delay.seconds == 2
        assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 429


async def test_who_brings_no_token_is_limited_by_address(secure):
    platform = await secure(rate=Rate(per_s=0.5, burst=3))
    async with serving(platform.host, gate=platform.protection.grpc_gate) as stub:
        codes = [(await refusal_of(stub.Discover(pb.DiscoveryQuery())))[0] for _ in range(4)]
    assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED]


async def test_streams_end_when_the_token_does(platform, monkeypatch):
    monkeypatch.setattr("mec_platform.registry.grpc.reading.DEFAULT_BOOKMARK_S", 0.01)
    async with open_to(platform, Scope.SERVICE_MANAGEMENT) as (stub, metadata):
        watch = stub.Watch(pb.WatchRequest(), metadata=metadata)
        renew, bulk = stub.Renew(metadata=metadata), stub.RegisterBulk(metadata=metadata)
        await watch.read()
        await renew.write(pb.RenewRequest())
        await renew.read()
        await bulk.write(pb.RegisterRequest())
        assert (await bulk.read()).refused.reason == "INVALID_REQUEST"
        platform.clock.now_s += 3601
        await renew.write(pb.RenewRequest())
        await bulk.write(pb.RegisterRequest())
        for call in (watch, renew, bulk):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await exhaust(call)
            assert read_refusal(error.value)[0] is grpc.StatusCode.UNAUTHENTICATED


async def exhaust(call):
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_where_authentication_is_off_everybody_may_do_everything_and_is_anonymous(secure):
    platform = await secure(authenticate=False)
    app_id = await platform.register("")
    async with serving(platform.host, gate=platform.protection.grpc_gate) as stub:
        await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=described()))
    history = await platform.host.log.history(STREAM, limit=1)
    assert (history[0].kind, history[0].actor) == ("service.registered", "anonymous")
