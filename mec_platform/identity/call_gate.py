"""The gate in front of every method of a server that speaks mutual TLS: who calls is in the certificate, `access` decides.

TLS has checked who signed the certificate. That happens once for a connection, which may last; a certificate that has
expired meanwhile opens no further call.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc
import grpc.aio
from cryptography import x509

from mec_platform.identity.access import decide_refusal, rule_of
from mec_platform.identity.authority import grants_of, hosts_of, identities_of
from mec_platform.identity.names import Grant, Identity, Role

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom the certificate of a connection stands for, at which hosts, until when (Unix time), and what it was granted."""

    identities: frozenset[Identity]
    hosts: tuple[str, ...]
    until_unix_s: float
    grants: frozenset[Grant] = frozenset()

    def name_as(self, role: Role) -> str | None:
        """The caller's name in a role; None where it has none."""
        return next((each.name for each in self.identities if each.role is role), None)


def caller_of(context: Any) -> Caller | None:
    """Who makes a call; None over a connection in the clear, where anybody may have any name."""
    for shown in context.auth_context().get("x509_pem_cert", ()):
        return _read_caller(shown)
    return None


class CallGate(grpc.aio.ServerInterceptor):
    """For servers with `GrpcIdentity.server_credentials`. A call without a certificate is refused too."""

    def __init__(self, unix_time_s: Callable[[], float] = time.time) -> None:
        self._unix_time_s = unix_time_s
        self._guarded: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Called by gRPC for each call."""
        method: str = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # gRPC answers UNIMPLEMENTED
            guarded = self._guarded[method] = self._guard(method, handler)
        return guarded

    async def _each_admitted(self, method: str, requests: Any, context: Any) -> AsyncIterator[Any]:
        """The requests of a call that may last longer than the certificate that opened it."""
        async for request in requests:
            await self._admit(method, request, context)
            yield request

    async def _admit(self, method: str, request: Any, context: Any) -> None:
        caller = caller_of(context)
        if caller is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a certificate is needed; see mec certs issue")
            raise AssertionError("unreachable: abort raises")
        if caller.until_unix_s < self._unix_time_s():
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the certificate of this connection has expired")
        rule = rule_of(method)
        said = str(getattr(request, rule.own_name)) if rule is not None and rule.own_name else ""
        refusal = decide_refusal(method, caller.identities, said, caller.grants)
        if refusal is not None:
            _log.warning("refused: %s", refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)

    def _guard(self, method: str, handler: Any) -> Any:
        """The handler, behind the gate."""
        behaviour, make = _parts(handler)
        rule = rule_of(method)
        if rule is not None and rule.own_name and handler.request_streaming:

            async def speaking(requests: Any, context: Any) -> AsyncIterator[Any]:
                async for answer in behaviour(self._each_admitted(method, requests, context), context):
                    yield answer

            return make(speaking, handler.request_deserializer, handler.response_serializer)
        if inspect.isasyncgenfunction(behaviour):

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                await self._admit(method, request, context)
                async for answer in behaviour(request, context):
                    yield answer

            return make(stream, handler.request_deserializer, handler.response_serializer)

        async def call(request: Any, context: Any) -> Any:
            await self._admit(method, request, context)
            return await behaviour(request, context)

        return make(call, handler.request_deserializer, handler.response_serializer)


def _parts(handler: Any) -> tuple[Any, Any]:
    """What a method handler calls, and what makes another one of its kind."""
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler


@lru_cache(maxsize=4096)
def _read_caller(pem: bytes) -> Caller:
    certificate = x509.load_pem_x509_certificate(pem)
    until_unix_s = certificate.not_valid_after_utc.timestamp()
    return Caller(identities_of(certificate), tuple(hosts_of(certificate)), until_unix_s, grants_of(certificate))
