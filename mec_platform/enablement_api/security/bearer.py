"""What a request proves, by its token and its TLS certificate, whether it came over HTTP or gRPC. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mec_platform.enablement_api.security.peer_certificates import PeerCertificate
from mec_platform.enablement_api.security.tokens import Credentials, Grant, InvalidToken, TokenCache


class NoToken(Exception):
    """The request brings no Bearer token; the message says what to do."""


def read_grant(
    lines: Sequence[str],
    certificate: PeerCertificate | None,
    tokens: TokenCache,
    state: Credentials,
    now_unix_s: float,
) -> Grant:
    """What the token in the Authorization lines (header or metadata) grants now, over a connection with that certificate.

    Raises:
        NoToken: there is not exactly one Bearer token.
        InvalidToken: it proves nothing, or belongs to another certificate.
    """
    if not lines:
        raise NoToken("a token is needed: get one at /oauth2/token and send it as a Bearer token")
    scheme, _, token = lines[0].partition(" ")
    if len(lines) > 1 or scheme.lower() != "bearer":
        raise NoToken("the Authorization header must hold one Bearer token")
    grant = tokens.verify(token.strip(), state, now_unix_s)
    _check_certificate(certificate, grant)
    return grant


def _check_certificate(certificate: PeerCertificate | None, grant: Grant) -> None:
    """Raises InvalidToken where the token is another's than the certificate's, or bound to another one (RFC 8705)."""
    if certificate is None:
        if grant.certificate:
            raise InvalidToken("the token is bound to a TLS certificate that this connection lacks")
        return
    if grant.client_id not in certificate.client_ids:
        raise InvalidToken("the token belongs to another client than the TLS certificate")
    if grant.certificate and grant.certificate != certificate.thumbprint:
        raise InvalidToken("the token is bound to another TLS certificate; ask for a new one")
