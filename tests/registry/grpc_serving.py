"""`ServiceRegistry` on a real server, and what a client reads of a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mec_platform.registry.grpc.service import SERVICE_NAME, add_service_registry
from mec_platform.registry.host import HostRegistry
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc

DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.QuotaFailure,
)


@asynccontextmanager
async def serving(host: HostRegistry, **options: Any) -> AsyncIterator[Any]:
    """A stub of a server of this host's registry."""
    server = make_server()
    add_service_registry(server, host, **options)
    address = await start_server(server, "127.0.0.1", 0, [SERVICE_NAME])
    channel = open_channel(address)
    try:
        yield registry_pb2_grpc.ServiceRegistryStub(channel)
    finally:
        await channel.close()
        await server.stop(None)


def described(name: str = "greeting", **more: Any) -> pb.ServiceDescription:
    """What a service needs to say at least."""
    uris = pb.ServiceEndpoint.Texts(values=["http://127.0.0.1:9000/"])
    transport = pb.ServiceTransport(id="grpc", endpoint=pb.ServiceEndpoint(uris=uris))
    return pb.ServiceDescription(name=name, version="1.0", transport=transport, **more)


async def refusal_of(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Status code, reason and the details by their names, of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return read_refusal(refused.value)


def read_refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """As `refusal_of`, of an error that was caught."""
    status = rpc_status.from_call(_AsCall(error))
    assert status is not None, f"no details: {error}"
    details: dict[str, Any] = {}
    for packed in status.details:
        for kind in DETAILS:
            if packed.Is(kind.DESCRIPTOR):
                details[kind.DESCRIPTOR.name] = message = kind()
                packed.Unpack(message)
    assert details["ErrorInfo"].domain == "mec_platform"
    return error.code(), details["ErrorInfo"].reason, details


class _AsCall:
    """An error of grpc.aio, as `rpc_status` wants calls."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def code(self) -> grpc.StatusCode:
        return self._error.code()

    def details(self) -> str:
        return self._error.details() or ""

    def trailing_metadata(self) -> Any:
        return [(each[0], each[1]) for each in self._error.trailing_metadata()]
