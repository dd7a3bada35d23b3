"""How every process of the product opens gRPC channels and servers: options, health checking, reflection, port errors."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.identity.call_gate import CallGate
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.identity.names import server_name

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
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    reconnect_ms: int = RECONNECT_MS,
    expected_name: str = "",
) -> grpc.aio.Channel:
    """A channel to `host:port`, with `credentials` over TLS. It tries to connect every `reconnect_ms` at least.

    Where `reconnect_ms` is less than the default, an attempt takes no longer either: behind a network that swallows packets
    one would wait for twenty seconds, and for as long after it is whole again. The certificate at the other end must be for
    `expected_name`, or for the host of the address where that is empty.
    """
    options: list[tuple[str, Any]] = [*_CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", reconnect_ms)]
    if reconnect_ms < RECONNECT_MS:
        options.append(("grpc.min_reconnect_backoff_ms", reconnect_ms))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    if expected_name:
        options.append(("grpc.ssl_target_name_override", expected_name))
    return grpc.aio.secure_channel(address, credentials, options=options)


def open_member_channel(address: str, identity: GrpcIdentity | None, member: str = "") -> grpc.aio.Channel:
    """A channel to a member, or where `member` is empty to the platform: with an `identity` over mutual TLS, and then what
    answers at the address must have that name."""
    if identity is None:
        return open_channel(address)
    return open_channel(address, identity.channel_credentials(), expected_name=server_name(member))


class Channels:
    """Channels to many addresses, each opened once and kept: a call in a pause must not pay for a connection.

    With an `identity` they speak mutual TLS. When it is renewed, calls go over new channels; the old ones stay for the calls
    that they carry until the next renewal but one.
    """

    def __init__(self, identity: GrpcIdentity | None = None) -> None:
        self._identity = identity
        self._version = self._now()
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}
        self._retired: list[tuple[int, grpc.aio.Channel]] = []
        self._tasks = BackgroundTasks()

    def to(self, address: str, member: str = "") -> grpc.aio.Channel:
        """The channel to the member, or where `member` is empty to the platform, at `host:port`."""
        if self._version != self._now():
            self._retire()
        key = (address, member)
        if key not in self._channels:
            self._channels[key] = open_member_channel(address, self._identity, member)
        return self._channels[key]

    async def close(self) -> None:
        """Closes every channel; calls under way fail."""
        await self._tasks.stop()
        channels = [*self._channels.values(), *(channel for _, channel in self._retired)]
        self._channels.clear()
        self._retired.clear()
        for channel in channels:
            await channel.close()

    def _now(self) -> int:
        return 0 if self._identity is None else self._identity.version

    def _retire(self) -> None:
        for version, channel in self._retired:
            if version < self._version:
                self._tasks.start("close channel", channel.close())
        kept = [each for each in self._retired if each[0] == self._version]
        self._retired = [*kept, *((self._now(), channel) for channel in self._channels.values())]
        self._channels.clear()
        self._version = self._now()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_identity(host: str, *, allow_remote: bool, has_identity: bool, how: str) -> None:
    """Refuses to listen beyond this machine without an identity: in the clear anybody who reaches the port can give orders.

    `allow_remote` is for a network that an operator says is trusted: one where something else proves who is who, as
    WireGuard or a service mesh does.

    Raises:
        AddressError: other machines reach `host`, and neither is there; `how` says how to get an identity.
    """
    if not allow_remote and not has_identity and not is_loopback(host):
        raise AddressError(
            f"{host} can be reached from other machines, and without certificates anybody there could pass for the platform "
            f"or a node: {how}; or listen on 127.0.0.1, or say --allow-remote where the network itself proves who is who"
        )


def make_server(
    largest_request_bytes: int = MAX_MESSAGE_BYTES, identity: GrpcIdentity | None = None
) -> grpc.aio.Server:
    """A server with the product's options, not started. With an `identity` every call passes the gate of
    `identity.call_gate`; `start_server` is then given its credentials."""
    # Of an option that is named twice the last one counts.
    return grpc.aio.server(
        interceptors=() if identity is None else (CallGate(),),
        options=[*_SERVER_OPTIONS, ("grpc.max_receive_message_length", largest_request_bytes)],
    )


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
