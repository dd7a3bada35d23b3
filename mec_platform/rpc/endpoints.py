"""How every process of the product opens gRPC channels and servers: options, health checking, reflection, port errors."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mec_platform.domain.errors import MendableError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""What a servicer's methods get beside the request."""

MAX_MESSAGE_BYTES = 32 << 20
"""Bound of one message: a KV chunk or a frame of many rows."""

_SIZES = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
# A peer that vanished without closing its connection is noticed within time + timeout.
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
RECONNECT_MS = 2_000
"""A node that restarts is reached again soon; gRPC would wait up to two minutes."""

_CHANNEL_OPTIONS = [*_SIZES, *_KEEPALIVE, ("grpc.initial_reconnect_backoff_ms", 100)]
_SERVER_OPTIONS = [
    *_SIZES,
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    # Two processes on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
]


class AddressError(MendableError):
    """An address that cannot be listened on; the message says what to do."""


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None, *, reconnect_ms: int = RECONNECT_MS
) -> grpc.aio.Channel:
    """A channel to `host:port`, with `credentials` over TLS. It tries to connect every `reconnect_ms` at least.

    Where `reconnect_ms` is less than the default, an attempt takes no longer either: behind a network that swallows packets
    one would wait for twenty seconds, and for as long after it is whole again.
    """
    options = [*_CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", reconnect_ms)]
    if reconnect_ms < RECONNECT_MS:
        options.append(("grpc.min_reconnect_backoff_ms", reconnect_ms))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


class Channels:
    """Channels to many addresses, each opened once and kept: a call in a pause must not pay for a connection."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def to(self, address: str) -> grpc.aio.Channel:
        """The channel to `host:port`."""
        if address not in self._channels:
            self._channels[address] = open_channel(address)
        return self._channels[address]

    async def close(self) -> None:
        """Closes every channel; calls under way fail."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str, allow_remote: bool) -> None:
    """Refuses to listen beyond this machine unless that was asked for: gRPC asks for no credentials.

    Raises:
        AddressError: `host` is not a loopback address and `allow_remote` is False.
    """
    if not allow_remote and not is_loopback(host):
        raise AddressError(
            f"{host} can be reached from other machines and these APIs ask for no credentials; "
            "listen on 127.0.0.1, or say --allow-remote if the network is trusted"
        )


def make_server(largest_request_bytes: int = MAX_MESSAGE_BYTES) -> grpc.aio.Server:
    """A server with the product's options, not started."""
    # Of an option that is named twice the last one counts.
    return grpc.aio.server(options=[*_SERVER_OPTIONS, ("grpc.max_receive_message_length", largest_request_bytes)])


async def start_server(
    server: grpc.aio.Server,
    host: str,
    port: int,
    service_names: Sequence[str],
    credentials: grpc.ServerCredentials | None = None,
) -> str:
    """Adds health checking and reflection for the (fully qualified) services, starts, and returns `host:port`.

    Port 0 takes a free one. With `credentials` only TLS is spoken.

    Raises:
        AddressError: the port is taken or the host is not an address of this machine.
    """
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for name in ("", *service_names):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        if credentials is None:
            bound = server.add_insecure_port(f"{host}:{port}")
        else:
            bound = server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise AddressError(f"cannot listen on {host}:{port}: the port is taken or the address is not of this machine")
    await server.start()
    return f"{host}:{bound}"
