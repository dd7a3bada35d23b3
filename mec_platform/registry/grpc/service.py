"""The methods of gRPC `ServiceRegistry`: each reads, makes one call to the registry, and writes.

`calls` is around all of them; `watching` has Watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TypeAlias

import grpc
import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.applications import find_app
from mec_platform.registry.discovery.discover import discover, discover_chain
from mec_platform.registry.errors import EventLogError, RegistryError
from mec_platform.registry.grpc import reading
from mec_platform.registry.grpc.calls import Caller, Calls, Gate, NoteCall, OpenGate, ignore_call
from mec_platform.registry.grpc.discovering import read_chain, read_discovery, told, write_chain, write_ranking
from mec_platform.registry.grpc.refusals import NotAuthenticated, NotPermitted, code_of, message_of
from mec_platform.registry.grpc.watching import Watching
from mec_platform.registry.grpc.writing import RecordWriter, bulk_reply
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registering import RegistrationUnderWay
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import registry_pb2 as pb

SERVICE_NAME = "mec_platform.rpc.v1.ServiceRegistry"

MOST_IN_FLIGHT = 512
"""Registrations of one stream that are under way: twice what the log takes at one stroke, so that it never waits."""

_REFUSALS = (reading.InvalidRequest, NotPermitted, RegistryError, EventLogError)
"""What keeps one registration of many out, and not the others."""

_UnderWay: TypeAlias = "RegistrationUnderWay | Exception"

_DEREGISTERED = pb.DeregisterReply().SerializeToString()


def add_service_registry(
    server: grpc.aio.Server, host: HostRegistry, gate: Gate | None = None, note: NoteCall = ignore_call
) -> None:
    """Puts the service on a server that is not started. Without `gate` everybody may do everything."""
    gate = gate or OpenGate()
    calls, writer = Calls(gate, note, lambda: host.registry.is_stale), RecordWriter()
    methods, watching = ServiceRegistryMethods(host, gate, writer), Watching(host, gate, writer)
    handlers = {
        "Register": calls.unary("Register", methods.register, pb.RegisterRequest.FromString),
        "RegisterBulk": calls.stream(
            "RegisterBulk", methods.register_bulk, pb.RegisterRequest.FromString, of_requests=True
        ),
        "Update": calls.unary("Update", methods.update, pb.UpdateRequest.FromString),
        "Renew": calls.stream("Renew", methods.renew, pb.RenewRequest.FromString, of_requests=True),
        "Deregister": calls.unary("Deregister", methods.deregister, pb.DeregisterRequest.FromString),
        "Get": calls.unary("Get", methods.get, pb.GetRequest.FromString),
        "Discover": calls.unary("Discover", methods.discover, pb.DiscoveryQuery.FromString),
        "Chain": calls.unary("Chain", methods.chain, pb.ChainQuery.FromString),
        "Watch": calls.stream("Watch", watching.watch, pb.WatchRequest.FromString, of_requests=False),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


class ServiceRegistryMethods:
    """All methods but Watch, over one host's registry."""

    def __init__(self, host: HostRegistry, gate: Gate, writer: RecordWriter) -> None:
        self._services = host.services
        self._clock = host.registry.clock
        self._gate = gate
        self._writer = writer

    async def register(self, request: pb.RegisterRequest, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest, and what `ServiceRegistry.register_service` raises."""
        return self._registered(await self._begin(request, caller).service())

    def _begin(self, request: pb.RegisterRequest, caller: Caller) -> RegistrationUnderWay:
        app_instance_id, description, key = reading.read_registration(request, self._services.transport)
        self._check_owner(app_instance_id, caller)
        return self._services.begin_registration(app_instance_id, description, key)

    def _registered(self, service: ServiceInfo) -> bytes:
        # A service that is gone again by now was registered at some revision before this one.
        state = self._services.state
        return self._writer.registered(service, state.order.get(service.service_id, state.revision))

    async def register_bulk(
        self, requests: AsyncIterable[pb.RegisterRequest], context: Context, caller: Caller
    ) -> None:
        """Answers in order. All that is under way waits for the log together. Raises NotAuthenticated."""
        under_way: asyncio.Queue[_UnderWay | None] = asyncio.Queue(MOST_IN_FLIGHT)
        try:
            async with BackgroundTasks() as tasks:
                taking = tasks.start("bulk registrations", self._take(requests, context, caller, under_way))
                while (registration := await under_way.get()) is not None:
                    await context.write(await self._outcome(registration))
                refusal = await taking
        finally:
            while not under_way.empty():
                left = under_way.get_nowait()
                if isinstance(left, RegistrationUnderWay):
                    left.cancel()
        if refusal is not None:
            raise refusal

    async def _take(
        self,
        requests: AsyncIterable[pb.RegisterRequest],
        context: Context,
        caller: Caller,
        under_way: asyncio.Queue[_UnderWay | None],
    ) -> NotAuthenticated | None:
        """Begins registrations as they come; returns why no more are taken, where the client was not done."""
        refusal = None
        async for request in requests:
            try:
                self._gate.confirm(context)
            except NotAuthenticated as error:
                refusal = error
                break
            try:
                await under_way.put(self._begin(request, caller))
            except _REFUSALS as error:
                await under_way.put(error)
        await under_way.put(None)
        return refusal

    async def _outcome(self, registration: _UnderWay) -> bytes:
        """A `RegisterBulkReply`."""
        try:
            if isinstance(registration, RegistrationUnderWay):
                return bulk_reply(self._registered(await registration.service()))
            raise registration
        except _REFUSALS as error:
            code, reason = code_of(error)
            refusal = pb.RegistrationRefusal(code=code.value[0], reason=reason, message=message_of(error))
            return pb.RegisterBulkReply(refused=refusal).SerializeToString()

    async def update(self, request: pb.UpdateRequest, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest, and what `ServiceRegistry.update_service` raises."""
        service_id, description = reading.read_update(request, self._services.transport)
        app_instance_id = self._owned(service_id, caller).app_instance_id
        service = await self._services.update_service(app_instance_id, service_id, description)
        return self._writer.record(service)

    async def renew(self, requests: AsyncIterable[pb.RenewRequest], context: Context, caller: Caller) -> None:
        """Answers each message when what it brought back is durable. Raises InvalidRequest or LogUnavailable."""
        async for request in requests:
            self._gate.confirm(context)
            await context.write((await self._renew(request, caller)).SerializeToString())

    async def _renew(self, request: pb.RenewRequest, caller: Caller) -> pb.RenewReply:
        now_ns = self._clock.unix_ns()
        heartbeats = reading.read_heartbeats(request, now_ns)
        mine = [each for each in heartbeats if self._is_owned(each[0], caller)]
        renewal = await self._services.renew(service_id for service_id, _ in mine)
        table = self._services.kpis
        ignored = [
            service_id
            for service_id, kpis in mine
            if kpis is not None and not table.update(service_id, kpis, now_ns) and service_id not in renewal.unknown
        ]
        unknown = list(renewal.unknown)
        if len(mine) < len(heartbeats):
            known = {service_id for service_id, _ in mine}
            unknown += [service_id for service_id, _ in heartbeats if service_id not in known]
        return pb.RenewReply(
            shortest_interval_s=renewal.shortest_interval_s or 0, unknown_ids=unknown, ignored_kpis=ignored
        )

    async def deregister(self, request: pb.DeregisterRequest, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest, UnknownService, NotPermitted or LogUnavailable."""
        service = self._owned(reading.read_id("service_id", request.service_id), caller)
        await self._services.remove_service(service.app_instance_id, service.service_id)
        return _DEREGISTERED

    async def get(self, request: pb.GetRequest, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest or UnknownService."""
        service = self._services.service(reading.read_id("service_id", request.service_id))
        return self._writer.record(service, self._services.kpis.get(service.service_id))

    async def discover(self, request: pb.DiscoveryQuery, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest."""
        query = read_discovery(request, self._services.locality)
        state = self._services.state
        with told("condition"):
            ranking = discover(state, self._services.kpis.newest, query, self._clock.unix_ns())
        return write_ranking(ranking, state.revision, self._writer.record)

    async def chain(self, request: pb.ChainQuery, context: Context, caller: Caller) -> bytes:
        """Raises InvalidRequest."""
        query = read_chain(request, self._services.locality)
        with told("query"):
            answer = discover_chain(self._services.state, self._services.kpis.newest, query, self._clock.unix_ns())
        return write_chain(answer).SerializeToString()

    # Whose a service is

    def _owned(self, service_id: str, caller: Caller) -> ServiceInfo:
        service = self._services.service(service_id)
        if service.origin:
            raise NotPermitted(f"service {service_id!r} is one of MEC host {service.origin!r}; change it there")
        self._check_owner(service.app_instance_id, caller)
        return service

    def _check_owner(self, app_instance_id: str, caller: Caller) -> None:
        if caller.owns_all:
            return
        if find_app(self._services.state, app_instance_id).owner != caller.client_id:
            raise NotPermitted(f"application instance {app_instance_id!r} belongs to another client")

    def _is_owned(self, service_id: str, caller: Caller) -> bool:
        """Whether a heartbeat counts; of another's service a client learns no more than of one that is unknown."""
        state = self._services.state
        service = state.services.get(service_id)
        if service is None or service.origin:
            return False
        return caller.owns_all or state.apps[service.app_instance_id].owner == caller.client_id
