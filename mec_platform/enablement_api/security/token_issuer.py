"""Issues tokens to clients that have proved who they are, bound to the connection's certificate where it has one."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.security.key_rotation import KeyRotation
from mec_platform.enablement_api.security.peer_certificates import peer_certificate
from mec_platform.enablement_api.security.tokens import Grant, issue_token
from mec_platform.registry.clock import Clock


class ForeignCertificate(Exception):
    """The connection's certificate stands for another client."""


class TokenIssuer:
    """`issuer` is the platform's name for itself in its tokens; they live for `life_s`."""

    def __init__(self, keys: KeyRotation, clock: Clock, *, issuer: str, life_s: int, new_id: Callable[[], str]) -> None:
        self._keys = keys
        self._clock = clock
        self.issuer = issuer
        self._life_s = life_s
        self._new_id = new_id

    async def issue(self, request: web.Request, client_id: str, scopes: frozenset[Scope]) -> tuple[str, int]:
        """A token and the seconds for which it is valid.

        Raises:
            ForeignCertificate: with mutual TLS, only the client that the certificate names gets a token.
            LogUnavailable: the first signing key could not be kept.
        """
        certificate = peer_certificate(request)
        if certificate is not None and client_id not in certificate.client_ids:
            raise ForeignCertificate("the TLS certificate stands for another client")
        now_s = self._clock.unix_ns() // 10**9
        grant = Grant(
            client_id=client_id,
            scopes=scopes,
            issued_unix_s=now_s,
            expires_unix_s=now_s + self._life_s,
            token_id=self._new_id(),
            certificate=certificate.thumbprint if certificate else "",
        )
        return issue_token(await self._keys.current(), self.issuer, grant), self._life_s
