"""The gate in front of gRPC `ServiceRegistry`: the same tokens, scopes, certificates and limits as `authentication` has for HTTP.

It implements `registry.grpc.calls.Gate`. A call counts as one request against its client's rate, however many messages it
carries: those are held up by how fast they can be answered.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from urllib.parse import unquote

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.security.bearer import NoToken, read_grant
from mec_platform.enablement_api.security.peer_certificates import PeerCertificate, read_certificate
from mec_platform.enablement_api.security.rate_limit import RateLimiter
from mec_platform.enablement_api.security.tokens import Grant, InvalidToken, TokenCache
from mec_platform.registry.actor import ANONYMOUS, current_actor
from mec_platform.registry.grpc.calls import Caller
from mec_platform.registry.grpc.refusals import NotAuthenticated, NotPermitted, RateExceeded
from mec_platform.registry.registry import Registry
from mec_platform.rpc.endpoints import Context


class GrpcGate:
    """Decides about each call of a service that asks for `scope`. Without `tokens` everybody may do everything, as often as
    `limiter` says."""

    def __init__(
        self,
        registry: Registry,
        tokens: TokenCache | None,
        limiter: RateLimiter | None,
        scope: Scope = Scope.SERVICE_MANAGEMENT,
    ) -> None:
        self._scope = scope
        self._registry = registry
        self._tokens = tokens
        self._limiter = limiter

    def admit(self, context: Context) -> Caller:
        """Who makes this call; the actor of what it changes is noted.

        Raises:
            NotAuthenticated: the call carries no token that counts.
            NotPermitted: the token lacks the scope.
            RateExceeded: the client, or an address without a token, calls too often.
        """
        current_actor.set(ANONYMOUS)
        if self._tokens is None:
            self._count(f"address {_address(context)}")
            return Caller()
        try:
            grant = self._read_grant(context, self._tokens)
        except NotAuthenticated:
            self._count(f"address {_address(context)}")
            raise
        current_actor.set(grant.client_id)
        self._count(f"client {grant.client_id}")
        if self._scope not in grant.scopes:
            raise NotPermitted(f"the token lacks the scope {self._scope}")
        return Caller(grant.client_id, Scope.ADMIN in grant.scopes)

    def confirm(self, context: Context) -> None:
        """For calls that last: raises NotAuthenticated where the token has expired, or its client has gone, meanwhile."""
        if self._tokens is not None:
            self._read_grant(context, self._tokens)

    def _read_grant(self, context: Context, tokens: TokenCache) -> Grant:
        lines = [str(value) for name, value in context.invocation_metadata() or () if name == "authorization"]
        now_s = self._registry.clock.unix_ns() / 1e9
        try:
            return read_grant(lines, _certificate(context), tokens, self._registry.state, now_s)
        except (NoToken, InvalidToken) as error:
            raise NotAuthenticated(str(error)) from error

    def _count(self, name: str) -> None:
        if self._limiter is not None:
            wait_s = self._limiter.take(name, self._registry.clock.monotonic_s())
            if wait_s > 0:
                raise RateExceeded(wait_s)


def _certificate(context: Context) -> PeerCertificate | None:
    """The certificate that the client has shown; gRPC has checked who signed it."""
    for shown in context.auth_context().get("x509_pem_cert", ()):
        return _read_pem(shown)
    return None


@lru_cache(maxsize=4096)
def _read_pem(encoded: bytes) -> PeerCertificate:
    return read_certificate(ssl.PEM_cert_to_DER_cert(encoded.decode("ascii").strip()))


def _address(context: Context) -> str:
    """Where a call comes from, without its port: `ipv4:192.0.2.1:5000`, `ipv6:%5B::1%5D:5000`."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0]
