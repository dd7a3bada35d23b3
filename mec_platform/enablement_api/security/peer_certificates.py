"""Whom the other end of a TLS connection has proved to be (mutual TLS, RFC 8705).

The TLS layer has checked the certificate's signature and validity before any of this is asked.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

from mec_platform.identity.authority import identities_of
from mec_platform.identity.names import Role


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """`thumbprint` is the base64url SHA-256 of the certificate (RFC 8705 section 3.1); `client_ids` whom it stands for:
    the common name of its subject and the URIs `urn:mec:client:ID` among its alternative names."""

    thumbprint: str
    client_ids: frozenset[str]


def peer_certificate(request: web.Request) -> PeerCertificate | None:
    """The certificate that the client has shown on this connection; None where none was asked for."""
    tls = request.get_extra_info("ssl_object")
    encoded = tls.getpeercert(binary_form=True) if tls is not None else None
    return None if encoded is None else read_certificate(encoded)


@lru_cache(maxsize=4096)
def read_certificate(encoded: bytes) -> PeerCertificate:
    """What a certificate in DER form says."""
    certificate = x509.load_der_x509_certificate(encoded)
    ids = {str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    ids.update(identity.name for identity in identities_of(certificate) if identity.role is Role.CLIENT)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(encoded).digest()).rstrip(b"=").decode()
    return PeerCertificate(thumbprint, frozenset(ids))
