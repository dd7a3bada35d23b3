"""Discovery over gRPC, on a real server, gives what Mp1 gives."""

from __future__ import annotations

import grpc.aio
import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.registry.grpc.service import add_service_registry
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.rpc.v1 import registry_pb2, registry_pb2_grpc


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (registry_pb2.DiscoverRequest(), ["greeting", "farewell"]),
        (registry_pb2.DiscoverRequest(names=["greeting", "other"]), ["greeting"]),
        (registry_pb2.DiscoverRequest(states=["INACTIVE"]), ["farewell"]),
        (registry_pb2.DiscoverRequest(states=["NO SUCH STATE"]), []),
        (registry_pb2.DiscoverRequest(names=["greeting"], states=["INACTIVE"]), []),
    ],
)
async def test_discovers_what_every_attribute_matches(clock, request_, found):
    log = await SqliteEventLog.open(":memory:")
    host = HostRegistry(Registry(log, clock=clock), locality=Locality(mec_host="host-1"))
    await host.start()
    app = await host.applications.register(AppDescription(name="greeter"))
    for name, state in (("greeting", ServiceState.ACTIVE), ("farewell", ServiceState.INACTIVE)):
        transport = TransportInfo(
            id="rest",
            name="REST",
            type=TransportType.REST_HTTP,
            protocol="HTTP",
            version="1.1",
            endpoint=EndPoint(uris=(f"http://127.0.0.1/{name}",)),
        )
        description = ServiceDescription(
            name=name, version="1.0", state=state, transport=transport, serializer=SerializerType.JSON
        )
        await host.services.register_service(app.app_instance_id, description)
    server = grpc.aio.server()
    add_service_registry(server, host)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = await registry_pb2_grpc.ServiceRegistryStub(channel).Discover(request_)
    await server.stop(None)
    await host.stop()
    await log.close()
    assert [service.name for service in reply.services] == found
    assert all(list(service.uris) == [f"http://127.0.0.1/{service.name}"] for service in reply.services)
    assert reply.revision == 3
